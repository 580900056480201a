// Addresses, string matchers and filter chain matching. Header matchers are tested with the routes.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "sidecar/model/chain_match.h"
#include "sidecar/model/snapshot.h"

namespace weft::model {
namespace {

Cidr C(const char* a, uint32_t bits) { return *Cidr::Make(a, bits); }
Address A(const char* ip, uint16_t port) { return *Address::FromIp(ip, port); }

TEST(Address, ParsesAndPrints) {
  EXPECT_EQ(A("10.0.0.1", 80).ToString(), "10.0.0.1:80");
  EXPECT_EQ(A("::1", 80).ToString(), "[::1]:80");
  EXPECT_EQ(A("255.255.255.255", 65535).ToString(), "255.255.255.255:65535");
  EXPECT_EQ(A("0.0.0.0", 0).ToString(), "0.0.0.0:0");
  EXPECT_EQ(A("2001:db8:1111:2222:3333:4444:5555:6666", 65535).ToString(), "[2001:db8:1111:2222:3333:4444:5555:6666]:65535");
  EXPECT_EQ(Address::Name("db", 5432).ToString(), "db:5432");
  EXPECT_EQ(Address().ToString(), "");
  EXPECT_FALSE(Address::FromIp("10.0.0", 80));
  EXPECT_EQ(Address::FromIp("10.0.0.1", 70000).error().ToString(), "port_value: port 70000 is out of range");
  sockaddr_storage s;
  ASSERT_GT(A("10.0.0.1", 8080).ToSockaddr(&s), 0u);
  EXPECT_EQ(Address::FromSockaddr(s), A("10.0.0.1", 8080));
  ASSERT_GT(A("::ffff:10.0.0.1", 8080).ToSockaddr(&s), 0u);
  EXPECT_EQ(Address::FromSockaddr(s), A("10.0.0.1", 8080));
  ASSERT_GT(Address::Pipe("/run/x").ToSockaddr(&s), 0u);
  EXPECT_EQ(Address::FromSockaddr(s).ToString(), "/run/x");
  EXPECT_EQ(Address::Name("db", 1).ToSockaddr(&s), 0u);
}

TEST(Address, PackedIsTheSameForIp) {
  for (const Address& a : {A("10.0.0.1", 80), A("::1", 8080), Address()}) EXPECT_EQ(IpPort::Of(a).ToAddress(), a);
  EXPECT_EQ(IpPort::Of(Address::Pipe("/run/x")).ToAddress(), Address());
  static_assert(sizeof(IpPort) == 20);
}

TEST(Ip, NothingIsNoAddressAndNothingHidesBehindANul) {
  EXPECT_FALSE(Ip::Parse({}));
  EXPECT_FALSE(Ip::Parse(std::string_view("1.2.3.4\0.5", 10)));
}

TEST(Cidr, Contains) {
  EXPECT_TRUE(C("10.1.2.3", 8).Contains(*Ip::Parse("10.200.0.1")));
  EXPECT_FALSE(C("10.1.2.3", 16).Contains(*Ip::Parse("10.200.0.1")));
  EXPECT_TRUE(C("10.1.2.3", 16).Contains(*Ip::Parse("::ffff:10.1.0.1")));
  EXPECT_FALSE(C("10.0.0.0", 8).Contains(*Ip::Parse("::1")));
  EXPECT_TRUE(C("0.0.0.0", 0).Contains(*Ip::Parse("1.2.3.4")));
  EXPECT_TRUE(C("fd00::", 9).Contains(*Ip::Parse("fd7f::1")));
  EXPECT_EQ(C("10.1.2.3", 20).ToString(), "10.1.0.0/20");
  EXPECT_FALSE(Cidr::Make("10.0.0.0", 33));
}

TEST(StringMatcher, AllKinds) {
  auto m = [](StringMatcher::Kind k, const char* v, bool ic = false) {
    StringMatcher s{.kind = k, .value = v, .ignore_case = ic};
    if (k == StringMatcher::kRegex) s.regex = *Regex::Compile(v);
    return s;
  };
  EXPECT_TRUE(m(StringMatcher::kExact, "a").Match("a"));
  EXPECT_FALSE(m(StringMatcher::kExact, "a").Match("A"));
  EXPECT_TRUE(m(StringMatcher::kExact, "abc", true).Match("aBC"));
  EXPECT_TRUE(m(StringMatcher::kPrefix, "ab", true).Match("ABc"));
  EXPECT_FALSE(m(StringMatcher::kPrefix, "abc").Match("ab"));
  EXPECT_TRUE(m(StringMatcher::kSuffix, "bc").Match("abc"));
  EXPECT_TRUE(m(StringMatcher::kContains, "b", true).Match("aBc"));
  EXPECT_TRUE(m(StringMatcher::kRegex, "a+").Match("aaa"));
  EXPECT_FALSE(m(StringMatcher::kRegex, "a+").Match("aaab"));
  EXPECT_FALSE(StringMatcher{}.Match(""));
  EXPECT_FALSE(Regex::Compile("a("));
  EXPECT_FALSE(Regex::Compile("((a{100}){100}){100}"));
  EXPECT_EQ(Regex::Compile("/v1/(.*)")->ReplaceAll("/v1/x", "/v2/\\1"), "/v2/x");
  EXPECT_FALSE(Regex::Compile("x")->CheckSubstitution("\\3"));
}

TEST(QueryMatcher, Match) {
  QueryMatcher m{.name = "a"};
  EXPECT_TRUE(m.Match("/x?b=1&a=2"));
  EXPECT_FALSE(m.Match("/x?b=a"));
  EXPECT_FALSE(m.Match("/a"));
  m.present_only = false, m.string = {.kind = StringMatcher::kExact, .value = "2"};
  EXPECT_TRUE(m.Match("/x?b=1&a=2"));
  EXPECT_FALSE(m.Match("/x?a=1&a=2"));
}

struct ChainTest : ::testing::Test {
  void Add(const char* name, ChainMatch m) {
    auto c = std::make_shared<FilterChain>();
    c->name = name, c->index = static_cast<uint32_t>(l.chains.size()), c->match = std::move(m);
    l.chains.push_back(c);
  }
  void Build() {
    auto r = ChainIndex::Build(l.chains);
    ASSERT_TRUE(r) << r.error().ToString();
    l.index = *r;
  }
  std::string Find(ConnInfo i) {
    if (i.source.kind == Address::kNone) i.source = A("10.9.9.9", 5000);
    const FilterChain* c = Match(l, i);
    return c ? c->name : "-";
  }
  Listener l;
};

TEST_F(ChainTest, OutboundListenerOfTheMesh) {
  Add("cart", {.destination_port = 80, .prefix_ranges = {C("240.64.0.1", 32)}});
  Add("redis", {.destination_port = 6379, .prefix_ranges = {C("240.64.0.2", 32)}});
  auto d = std::make_shared<FilterChain>();
  d->name = "default";
  l.default_chain = d;
  Build();
  EXPECT_EQ(Find({.destination = A("240.64.0.1", 80)}), "cart");
  EXPECT_EQ(Find({.destination = A("240.64.0.2", 6379)}), "redis");
  EXPECT_EQ(Find({.destination = A("240.64.0.2", 80)}), "default");
  EXPECT_EQ(Find({.destination = A("1.1.1.1", 443)}), "default");
}

TEST_F(ChainTest, InboundTlsAndPlain) {
  Add("tls", {.destination_port = 8000, .transport_protocol = "tls"});
  Add("plain", {.destination_port = 8000, .transport_protocol = "raw_buffer"});
  Add("strict", {.destination_port = 9000, .transport_protocol = "tls"});
  Build();
  EXPECT_EQ(Find({.destination = A("10.0.0.1", 8000), .transport_protocol = "tls"}), "tls");
  EXPECT_EQ(Find({.destination = A("10.0.0.1", 8000)}), "plain");
  EXPECT_EQ(Find({.destination = A("10.0.0.1", 9000)}), "-");
}

TEST_F(ChainTest, PortBeforePrefixWithoutBacktracking) {
  Add("port", {.destination_port = 80, .prefix_ranges = {C("10.0.0.0", 8)}});
  Add("any port", {.prefix_ranges = {C("11.0.0.0", 8)}});
  Build();
  EXPECT_EQ(Find({.destination = A("10.1.1.1", 80)}), "port");
  // Port 80 has chains of its own: none fits, and the ones without a port are not asked.
  EXPECT_EQ(Find({.destination = A("11.1.1.1", 80)}), "-");
  EXPECT_EQ(Find({.destination = A("11.1.1.1", 81)}), "any port");
}

TEST_F(ChainTest, LongestPrefixBothFamilies) {
  Add("8", {.prefix_ranges = {C("10.0.0.0", 8)}});
  Add("24", {.prefix_ranges = {C("10.1.1.0", 24)}});
  Add("v6", {.prefix_ranges = {C("fd00::", 8)}});
  Add("any", {});
  Build();
  EXPECT_EQ(Find({.destination = A("10.1.1.7", 1)}), "24");
  EXPECT_EQ(Find({.destination = A("10.1.2.7", 1)}), "8");
  EXPECT_EQ(Find({.destination = A("fd12::1", 1)}), "v6");
  EXPECT_EQ(Find({.destination = A("12.1.2.7", 1)}), "any");
}

TEST_F(ChainTest, ServerNames) {
  Add("exact", {.server_names = {"a.example.com", "b.example.com"}});
  Add("wild", {.server_names = {"*.example.com"}});
  Add("wide", {.server_names = {"*.com"}});
  Add("none", {});
  Build();
  EXPECT_EQ(Find({.server_name = "b.example.com"}), "exact");
  EXPECT_EQ(Find({.server_name = "c.d.example.com"}), "wild");
  EXPECT_EQ(Find({.server_name = "example.com"}), "wide");
  EXPECT_EQ(Find({.server_name = "x.org"}), "none");
  EXPECT_EQ(Find({}), "none");
}

TEST_F(ChainTest, ApplicationProtocolsAndSource) {
  Add("h2", {.application_protocols = {"h2"}});
  Add("local", {.source_type = ChainMatch::kSameIpOrLoopback});
  Add("net", {.source_prefix_ranges = {C("10.9.0.0", 16)}});
  Add("port", {.source_prefix_ranges = {C("10.9.0.0", 16)}, .source_ports = {77}});
  Build();
  EXPECT_EQ(Find({.application_protocols = {"http/1.1", "h2"}}), "h2");
  EXPECT_EQ(Find({.source = A("127.0.0.1", 1)}), "local");
  EXPECT_EQ(Find({.destination = A("10.9.1.1", 2), .source = A("10.9.1.1", 1)}), "local");
  EXPECT_EQ(Find({}), "net");
  EXPECT_EQ(Find({.source = A("10.9.1.1", 77)}), "port");
  EXPECT_EQ(Find({.source = A("10.8.1.1", 77)}), "-");
}

TEST_F(ChainTest, DuplicateIsAnError) {
  Add("a", {.destination_port = 80});
  Add("b", {.destination_port = 80});
  auto r = ChainIndex::Build(l.chains);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().ToString(), "filter_chains[1]: has the same matching rules as filter_chains[0] \"a\"");
}

TEST(Snapshot, FindsClusters) {
  ConfigSnapshot s;
  EXPECT_EQ(s.FindCluster("a"), nullptr);
  s.cluster_index = std::make_shared<NameMap<uint32_t>>(NameMap<uint32_t>{{"a", 0}});
  s.clusters.push_back(std::make_shared<ClusterEntry>());
  EXPECT_EQ(s.FindCluster(std::string_view("a")), s.clusters[0].get());
}

}  // namespace
}  // namespace weft::model
