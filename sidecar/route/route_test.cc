// Domains, route order, matchers, weights, rewrites, redirects.
#include <gtest/gtest.h>

#include "sidecar/base/random.h"
#include "sidecar/route/route_table.h"

namespace weft::route {
namespace {

using http::HeaderMap;
using http::Token;
using model::HeaderMatcher;
using model::RouteMatch;
using model::StringMatcher;

HeaderMap H(const char* path, const char* host = "cart", const char* method = "GET") {
  HeaderMap h;
  h.Add(Token::kMethod, method), h.Add(Token::kScheme, "http"), h.Add(Token::kAuthority, host), h.Add(Token::kPath, path);
  return h;
}

model::Route R(RouteMatch m, const char* cluster) {
  model::Route r;
  r.match = std::move(m), r.forward.cluster = cluster, r.name = cluster;
  return r;
}
RouteMatch Prefix(const char* p) { return {.path = RouteMatch::kPrefix, .value = p}; }

struct RouteTest : ::testing::Test {
  RouteTest() { config.virtual_hosts.push_back({.name = "all", .domains = {"*"}}); }
  void Add(model::Route r, size_t host = 0) { config.virtual_hosts[host].routes.push_back(std::make_shared<model::Route>(std::move(r))); }
  void Compile() {
    auto t = RouteTable::Compile(config);
    ASSERT_TRUE(t) << t.error().ToString();
    table = *t;
  }
  std::string Cluster(const HeaderMap& h, uint64_t random = 0) {
    if (!table) Compile();
    Found f = table->Find(h, random, false);
    return f.route ? std::string(f.cluster) : f.vhost ? "no route" : "no host";
  }
  model::RouteConfig config;
  std::shared_ptr<const RouteTable> table;
};

TEST_F(RouteTest, Domains) {
  config.virtual_hosts.clear();
  auto host = [&](const char* name, std::vector<std::string> domains) {
    config.virtual_hosts.push_back({.name = name, .domains = std::move(domains)});
    Add(R(Prefix("/"), name), config.virtual_hosts.size() - 1);
  };
  host("exact", {"cart", "Cart.Default"});
  host("suffix", {"*.default.mesh"});
  host("longer suffix", {"*.cart.default.mesh", "*-x.default.mesh"});
  host("prefix", {"cart.*"});
  EXPECT_EQ(Cluster(H("/", "CART")), "exact");
  EXPECT_EQ(Cluster(H("/", "cart.default")), "exact");
  EXPECT_EQ(Cluster(H("/", "a.default.mesh")), "suffix");
  EXPECT_EQ(Cluster(H("/", "v1.cart.default.mesh")), "longer suffix");
  EXPECT_EQ(Cluster(H("/", "b-x.default.mesh")), "longer suffix");
  EXPECT_EQ(Cluster(H("/", ".default.mesh")), "no host");
  EXPECT_EQ(Cluster(H("/", "cart.example.com")), "prefix");
  EXPECT_EQ(Cluster(H("/", "cart:80")), "no host");
  config.ignore_port_in_host = true;
  Compile();
  EXPECT_EQ(Cluster(H("/", "cart:80")), "exact");
}

TEST_F(RouteTest, DomainTwiceIsAnError) {
  config.virtual_hosts.push_back({.name = "b", .domains = {"x", "*"}});
  auto t = RouteTable::Compile(config);
  ASSERT_FALSE(t);
  EXPECT_EQ(t.error().ToString(), "virtual_hosts[1].domains[1]: domain \"*\" is there twice");
}

TEST_F(RouteTest, PathKindsFirstMatchWins) {
  Add(R({.path = RouteMatch::kExact, .value = "/a"}, "exact"));
  Add(R({.path = RouteMatch::kRegex, .regex = *model::Regex::Compile("/r/\\d+")}, "regex"));
  Add(R({.path = RouteMatch::kSeparatedPrefix, .value = "/api"}, "separated"));
  Add(R({.path = RouteMatch::kPrefix, .value = "/CASE", .case_sensitive = false}, "case"));
  Add(R(Prefix("/a"), "prefix"));
  Add(R({.path = RouteMatch::kConnect}, "connect"));
  EXPECT_EQ(Cluster(H("/a?x=1")), "exact");
  EXPECT_EQ(Cluster(H("/a/")), "prefix");
  EXPECT_EQ(Cluster(H("/r/12?q")), "regex");
  EXPECT_EQ(Cluster(H("/r/12x")), "no route");
  EXPECT_EQ(Cluster(H("/api")), "separated");
  EXPECT_EQ(Cluster(H("/api/x")), "separated");
  EXPECT_EQ(Cluster(H("/apix")), "prefix");
  EXPECT_EQ(Cluster(H("/cAsE/x")), "case");
  HeaderMap c;
  c.Add(Token::kMethod, "CONNECT"), c.Add(Token::kAuthority, "db:5432");
  EXPECT_EQ(Cluster(c), "connect");
}

TEST_F(RouteTest, HeaderMatchers) {
  auto with = [](HeaderMatcher m, const char* cluster) {
    RouteMatch r = Prefix("/");
    r.headers.push_back(std::move(m));
    return R(std::move(r), cluster);
  };
  auto str = [](const char* name, StringMatcher::Kind k, const char* v, bool invert = false) {
    return HeaderMatcher{.kind = HeaderMatcher::kString, .name = name, .token = http::FindToken(name), .string = {.kind = k, .value = v}, .invert = invert};
  };
  Add(with(str("x-user", StringMatcher::kExact, "amy"), "amy"));
  Add(with({.kind = HeaderMatcher::kRange, .name = "x-n", .range_start = -5, .range_end = 10}, "range"));
  Add(with({.kind = HeaderMatcher::kPresent, .name = "x-gone", .present = false, .invert = true}, "present by double negation"));
  Add(with(str("x-list", StringMatcher::kExact, "b"), "list"));
  Add(with(str("x-inv", StringMatcher::kPrefix, "a", true), "inverted"));
  Add(with(str(":authority", StringMatcher::kSuffix, ".org"), "authority"));
  auto h = [](const char* n, const char* v) { HeaderMap m = H("/"); m.Add(n, v); return m; };
  EXPECT_EQ(Cluster(h("x-user", "amy")), "amy");
  EXPECT_EQ(Cluster(h("x-n", "-5")), "range");
  EXPECT_EQ(Cluster(h("x-n", "10")), "no route");
  EXPECT_EQ(Cluster(h("x-n", "1x")), "no route");
  EXPECT_EQ(Cluster(h("x-gone", "")), "present by double negation");
  HeaderMap l = h("x-list", "a");
  l.Add("x-list", "b");
  EXPECT_EQ(Cluster(l), "list");
  EXPECT_EQ(Cluster(h("x-inv", "b")), "inverted");
  EXPECT_EQ(Cluster(h("x-inv", "a")), "no route");
  EXPECT_EQ(Cluster(H("/", "x.org")), "authority");
  EXPECT_EQ(Cluster(H("/")), "no route");  // a missing header matches nothing, not even inverted
}

TEST_F(RouteTest, QueryAndGrpc) {
  RouteMatch q = Prefix("/");
  q.query.push_back({.name = "v", .present_only = false, .string = {.kind = StringMatcher::kExact, .value = "2"}});
  Add(R(q, "query"));
  RouteMatch g = Prefix("/");
  g.grpc_only = true;
  Add(R(g, "grpc"));
  EXPECT_EQ(Cluster(H("/x?v=2")), "query");
  EXPECT_EQ(Cluster(H("/x?v=3")), "no route");
  HeaderMap h = H("/s/m");
  h.Add(Token::kContentType, "application/grpc+proto");
  EXPECT_EQ(Cluster(h), "grpc");
  h.Set(Token::kContentType, "application/grpc-web");
  EXPECT_EQ(Cluster(h), "no route");
}

TEST_F(RouteTest, WeightedSplitIsExactInTheMean) {
  model::Route r = R(Prefix("/"), "");
  r.forward.weighted.push_back({.cluster = "v1", .weight = 90});
  r.forward.weighted.push_back({.cluster = "v2", .weight = 10});
  r.forward.total_weight = 100;
  Add(r);
  base::Random random(1);
  int v2 = 0;
  for (int i = 0; i < 20000; ++i) v2 += Cluster(H("/"), random.Next()) == "v2";
  EXPECT_NEAR(v2, 2000, 200);
}

TEST_F(RouteTest, ClusterHeader) {
  model::Route r = R(Prefix("/"), "");
  r.forward.cluster_header = "x-to";
  Add(r);
  HeaderMap h = H("/");
  EXPECT_EQ(Cluster(h), "");
  h.Add("x-to", "there");
  EXPECT_EQ(Cluster(h), "there");
}

// The index must give what a scan gives.
TEST_F(RouteTest, IndexAgreesWithScan) {
  base::Random random(7);
  const char* parts[] = {"/a", "/b", "/svc1", "/svc1/x", "/", "/a/b", "/B"};
  for (int i = 0; i < 300; ++i) {
    RouteMatch m;
    m.value = std::string(parts[random.Below(7)]) + (random.Below(2) ? parts[random.Below(7)] : "");
    m.path = static_cast<RouteMatch::Path>(random.Below(4));
    m.case_sensitive = random.Below(8) != 0;
    if (m.path == RouteMatch::kRegex) m.regex = *model::Regex::Compile(m.value + ".?");
    if (random.Below(2)) m.headers.push_back({.kind = HeaderMatcher::kPresent, .name = "x-" + std::to_string(random.Below(20))});
    Add(R(m, ("r" + std::to_string(i)).c_str()));
  }
  Compile();
  int found = 0;
  for (int i = 0; i < 5000; ++i) {
    HeaderMap h = H((std::string(parts[random.Below(7)]) + parts[random.Below(7)] + (random.Below(2) ? "?q" : "")).c_str());
    if (random.Below(2)) h.Add("x-" + std::to_string(random.Below(30)), "1");
    const model::Route* want = nullptr;
    for (const auto& r : config.virtual_hosts[0].routes)
      if (!want && Matches(*r, h, 0)) want = r.get();
    Found f = table->Find(h, 0, false);
    ASSERT_EQ(f.route ? f.route->name : "-", want ? want->name : "-") << h.ToString();
    found += want != nullptr;
  }
  EXPECT_GT(found, 1000);
}

TEST_F(RouteTest, TenThousandRoutesAreFound) {
  for (int i = 0; i < 10000; ++i) Add(R(Prefix(("/svc" + std::to_string(i) + "/").c_str()), ("c" + std::to_string(i)).c_str()));
  Compile();
  EXPECT_EQ(Cluster(H("/svc9999/x")), "c9999");
  EXPECT_EQ(Cluster(H("/svc0/")), "c0");
  EXPECT_EQ(Cluster(H("/svc10000/")), "no route");
}

TEST_F(RouteTest, RequireTls) {
  Add(R(Prefix("/"), "c"));
  config.virtual_hosts[0].require_tls = model::VirtualHost::kAllTls;
  Compile();
  EXPECT_TRUE(table->Find(H("/"), 0, false).tls_required);
  EXPECT_EQ(table->Find(H("/"), 0, true).cluster, "c");
}

TEST_F(RouteTest, Rewrites) {
  model::Route r = R(Prefix("/api/"), "c");
  r.forward.prefix_rewrite = "/";
  r.forward.host_rewrite = "new.host";
  r.forward.append_x_forwarded_host = true;
  Add(r);
  model::Route x = R(Prefix("/re"), "c");
  x.forward.regex_rewrite = {*model::Regex::Compile("^/re/(\\w+)/(\\w+)"), "/\\2/\\1"};
  x.forward.auto_host_rewrite = true;
  Add(x);
  Compile();
  HeaderMap h = H("/api/x?y=/api/");
  RewriteRequest(table->Find(h, 0, false), h);
  EXPECT_EQ(h.Value(Token::kPath), "/x?y=/api/");
  EXPECT_EQ(h.Value(Token::kEnvoyOriginalPath), "/api/x?y=/api/");
  EXPECT_EQ(h.Value(Token::kAuthority), "new.host");
  EXPECT_EQ(h.Value(Token::kXForwardedHost), "cart");
  h = H("/re/a/b/c?q");
  Found f = table->Find(h, 0, false);
  RewriteRequest(f, h);
  EXPECT_EQ(h.Value(Token::kPath), "/b/a/c?q");
  EXPECT_EQ(h.Value(Token::kAuthority), "cart");
  RewriteRequest(f, h, "pod-1");
  EXPECT_EQ(h.Value(Token::kPath), "/b/a/c?q");
  EXPECT_EQ(h.Value(Token::kAuthority), "pod-1");
}

TEST(Redirect, Locations) {
  RouteMatch m = Prefix("/old");
  EXPECT_EQ(RedirectLocation({.scheme = "https"}, m, H("/old/x?q", "h:80"), false), "https://h/old/x?q");
  EXPECT_EQ(RedirectLocation({.scheme = "https"}, m, H("/old/x?q", "h:8080"), false), "https://h:8080/old/x?q");
  EXPECT_EQ(RedirectLocation({.host = "n", .path = "/p"}, m, H("/old?q", "h:8080"), false), "http://n/p?q");
  EXPECT_EQ(RedirectLocation({.path = "/p?z"}, m, H("/old?q"), false), "http://cart/p?z");
  EXPECT_EQ(RedirectLocation({.port = 99, .prefix_rewrite = "/new", .strip_query = true}, m, H("/old/x?q", "[::1]:7"), true), "https://[::1]:99/new/x");
}

TEST_F(RouteTest, PerFilterInnermostWins) {
  auto fault = std::make_shared<model::FaultConfig>();
  config.per_filter.push_back({.name = "fault", .disabled = true});
  model::Route r = R(Prefix("/x"), "c");
  r.per_filter.push_back({.name = "fault", .config = fault});
  Add(r);
  Add(R(Prefix("/"), "c"));
  Compile();
  EXPECT_FALSE(PerFilter(*table, table->Find(H("/x"), 0, false), "fault")->disabled);
  EXPECT_TRUE(PerFilter(*table, table->Find(H("/"), 0, false), "fault")->disabled);
  EXPECT_EQ(PerFilter(*table, table->Find(H("/"), 0, false), "rbac"), nullptr);
}

}  // namespace
}  // namespace weft::route
