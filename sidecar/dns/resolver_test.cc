#include "sidecar/dns/resolver.h"

#include <gtest/gtest.h>

#include <fstream>
#include <optional>

#include "sidecar/dns/test_peer.h"

namespace weft::dns {
namespace {

class ResolverTest : public testing::Test {
 protected:
  ResolverTest() {
    dir_ = testing::TempDir();
    options_.resolv_conf = dir_ + "/resolv_" + std::to_string(getpid());
    options_.hosts = dir_ + "/hosts_" + std::to_string(getpid());
    std::ofstream(options_.hosts) << "10.9.9.9 Printer printer.local # c\nfd00::9 printer\n";
    options_.attempt_timeout_ns = 5 * base::kSecond;  // a busy machine is no lost answer
  }
  Resolver::Answer Get(Resolver& r, const std::string& name, Resolver::Family f = Resolver::kAuto) {
    std::optional<Resolver::Answer> got;
    r.Resolve(name, f, [&](const Resolver::Answer& a) { got = a; });
    EXPECT_FALSE(got);  // never inside Resolve
    EXPECT_TRUE(RunUntil(loop_, [&] { return got.has_value(); }));
    return *got;
  }
  static std::string First(const Resolver::Answer& a) { return a.addresses.empty() ? "-" : a.addresses[0].ToString(); }

  io::Loop loop_;
  std::string dir_;
  ResolverOptions options_;
};

TEST_F(ResolverTest, LiteralsHostsAndLocalhost) {
  Resolver r(&loop_, options_);
  EXPECT_EQ(First(Get(r, "10.1.2.3")), "10.1.2.3");
  EXPECT_EQ(First(Get(r, "::1")), "::1");
  EXPECT_EQ(First(Get(r, "PRINTER", Resolver::kV4Only)), "10.9.9.9");
  EXPECT_EQ(First(Get(r, "printer")), "fd00::9");
  EXPECT_EQ(Get(r, "printer", Resolver::kAll).addresses.size(), 2u);
  EXPECT_EQ(First(Get(r, "localhost", Resolver::kV4Preferred)), "127.0.0.1");
  auto none = Get(r, "example.org");
  EXPECT_TRUE(none.addresses.empty());
  EXPECT_FALSE(none.not_found);
  std::ofstream(options_.hosts) << "10.9.9.10 example.org\n";
  EXPECT_EQ(First(Get(r, "example.org")), "10.9.9.10");
}

TEST_F(ResolverTest, FamiliesAndTtl) {
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool) {
    std::vector<model::Ip> ips;
    if (q.name == "both.org" || (q.name == "four.org" && q.type == kA)) ips = {MakeIp("1.2.3.4"), MakeIp("fd00::4")};
    return BuildAnswer(q, p, q.name == "none.org" ? Rcode::kNxDomain : Rcode::kNoError, ips, q.type == kA ? 7 : 9, 512, false);
  });
  options_.servers = {up.address};
  Resolver r(&loop_, options_);
  EXPECT_EQ(First(Get(r, "both.org")), "fd00::4");
  EXPECT_EQ(First(Get(r, "both.org", Resolver::kV4Preferred)), "1.2.3.4");
  auto all = Get(r, "both.org", Resolver::kAll);
  EXPECT_EQ(all.addresses.size(), 2u);
  EXPECT_EQ(all.ttl_s, 7u);
  EXPECT_EQ(First(Get(r, "four.org")), "1.2.3.4");
  EXPECT_TRUE(Get(r, "four.org", Resolver::kV6Only).not_found);
  EXPECT_TRUE(Get(r, "none.org").not_found);
  EXPECT_EQ(Get(r, "bad name").error, "not a valid host name");
  EXPECT_EQ(r.pending(), 0u);
}

TEST_F(ResolverTest, SearchDomainsAndNdots) {
  std::vector<std::string> asked;
  FakeServer up(&loop_, [&](const Query& q, std::string_view p, bool) {
    asked.push_back(q.name);
    bool ok = q.name == "api.b.test" || q.name == "www.x.y";
    return BuildAnswer(q, p, ok ? Rcode::kNoError : Rcode::kNxDomain, ok ? std::vector{MakeIp("1.1.1.1")} : std::vector<model::Ip>{},
                       5, 512, false);
  });
  std::ofstream(options_.resolv_conf) << "search a.test B.test.\noptions ndots:2 rotate\n";
  options_.servers = {up.address};
  Resolver r(&loop_, options_);
  EXPECT_EQ(First(Get(r, "api", Resolver::kV4Only)), "1.1.1.1");
  EXPECT_EQ(asked, (std::vector<std::string>{"api.a.test", "api.b.test"}));
  asked.clear();
  EXPECT_EQ(First(Get(r, "www.x.y", Resolver::kV4Only)), "1.1.1.1");
  EXPECT_EQ(asked, (std::vector<std::string>{"www.x.y"}));
  asked.clear();
  EXPECT_TRUE(Get(r, "api.", Resolver::kV4Only).not_found);
  EXPECT_EQ(asked, (std::vector<std::string>{"api"}));
}

TEST_F(ResolverTest, TruncatedAnswersAreAskedAgainOverTcp) {
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool tcp) {
    std::vector<model::Ip> many(200, MakeIp("1.2.3.4"));
    return BuildAnswer(q, p, Rcode::kNoError, many, 5, tcp ? 65535 : 512, false);
  });
  options_.servers = {up.address};
  Resolver r(&loop_, options_);
  EXPECT_EQ(Get(r, "big.org", Resolver::kV4Only).addresses.size(), 200u);
}

TEST_F(ResolverTest, RefusedServerFailsOverAtOnceAndSilenceIsAnError) {
  io::Fd closed(io::BindUdp(io::SockAddr::Loopback(0)));
  auto nobody = *model::Address::FromIp("127.0.0.1", io::LocalAddress(closed.get()).port());
  closed.Reset();
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool) {
    return BuildAnswer(q, p, Rcode::kNoError, {MakeIp("1.2.3.4")}, 5, 512, false);
  });
  options_.servers = {nobody, up.address};
  options_.attempt_timeout_ns = 3600 * base::kSecond;  // only the refusal can move it on
  Resolver r(&loop_, options_);
  EXPECT_EQ(First(Get(r, "example.org", Resolver::kV4Only)), "1.2.3.4");

  FakeServer silent(&loop_, [](const Query&, std::string_view, bool) { return std::string(); });
  options_.servers = {silent.address};
  options_.attempt_timeout_ns = 20 * base::kMs;
  Resolver deaf(&loop_, options_);
  EXPECT_EQ(Get(deaf, "example.org").error, "name servers did not answer");
}

TEST_F(ResolverTest, CancelAndBounds) {
  FakeServer silent(&loop_, [](const Query&, std::string_view, bool) { return std::string(); });
  options_.servers = {silent.address};
  options_.max_pending = 2;
  Resolver r(&loop_, options_);
  int called = 0;
  uint64_t a = r.Resolve("a.org", Resolver::kAuto, [&](const Resolver::Answer&) { ++called; });
  uint64_t b = r.Resolve("b.org", Resolver::kAuto, [&](const Resolver::Answer&) { ++called; });
  EXPECT_EQ(Get(r, "c.org").error, "too many lookups");
  r.Cancel(a), r.Cancel(b), r.Cancel(b);
  EXPECT_EQ(r.pending(), 0u);
  for (int i = 0; i < 5; ++i) loop_.RunOnce(30 * base::kMs);
  EXPECT_EQ(called, 0);
}

}  // namespace
}  // namespace weft::dns
