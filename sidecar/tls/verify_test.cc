// Reliability table 2d, rows 1 to 8: what a peer may show, judged by both sides of a real handshake.
#include <gtest/gtest.h>

#include "sidecar/tls/engine.h"
#include "sidecar/tls/keys.h"
#include "sidecar/tls/test_ca.h"

namespace weft::tls {
namespace {

constexpr char kWeb[] = "spiffe://mesh/ns/default/sa/web";

class Verify : public testing::Test {
 protected:
  // The verdict of a server on a client that shows this certificate.
  Failure Judge(const TestCert& shown, std::string* detail = nullptr) { return Run(shown, true, detail); }
  Failure Judge(const IssueOptions& o) { return Judge(ca_.Issue(o)); }
  // The verdict of a client on a server.
  Failure JudgeServer(const TestCert& shown) { return Run(shown, false, nullptr); }

  Failure Run(const TestCert& shown, bool peer_is_client, std::string* detail) {
    ContextConfig judge = config_, peer;
    TestCert own = ca_.Issue({.uris = {"spiffe://mesh/ns/default/sa/cart"}});
    judge.certificate_chain_pem = own.chain_pem, judge.private_key_pem = own.key_pem;
    judge.clock = peer.clock = &clock_;
    judge.require_peer_certificate = true;
    peer.certificate_chain_pem = shown.chain_pem, peer.private_key_pem = shown.key_pem;
    auto server = Context::Server(peer_is_client ? judge : peer), client = Context::Client(peer_is_client ? peer : judge);
    EXPECT_TRUE(server) << server.error().ToString();
    EXPECT_TRUE(client) << client.error().ToString();
    Engine c(*client, Engine::kClient), s(*server, Engine::kServer);
    io::Buffer wire, plain;
    for (int i = 0; i < 4; ++i) {
      c.Pump(wire), s.Feed(wire, plain), wire.Clear();
      s.Pump(wire), c.Feed(wire, plain), wire.Clear();
    }
    Engine& e = peer_is_client ? s : c;
    EXPECT_EQ(e.state() == Engine::State::kOpen, e.failure() == Failure::kNone) << e.failure_detail();
    EXPECT_EQ(e.peer() != nullptr, e.failure() == Failure::kNone);
    if (e.failure() != Failure::kNone) {
      EXPECT_FALSE(e.failure_detail().empty());
    }
    if (detail) *detail = e.failure_detail();
    return e.failure();
  }

  base::ManualClock clock_;
  TestCa ca_{"Test root", &clock_};
  ContextConfig config_{.trusted_ca_pem = ca_.root_pem(), .spiffe = true, .trust_domain = "mesh"};
};

TEST_F(Verify, Row1ValidSvid) {
  EXPECT_EQ(Judge({.uris = {kWeb}}), Failure::kNone);
  EXPECT_EQ(JudgeServer(ca_.Issue({.uris = {kWeb}})), Failure::kNone);
}

TEST_F(Verify, Row2Time) {
  std::string detail;
  EXPECT_EQ(Judge(ca_.Issue({.uris = {kWeb}, .not_before_s = -7200, .not_after_s = -1}), &detail), Failure::kExpired);
  EXPECT_EQ(detail, "certificate 0: certificate has expired (spiffe://mesh/ns/default/sa/web)");
  EXPECT_EQ(Judge({.uris = {kWeb}, .not_before_s = 30}), Failure::kNone);  // within the skew
  EXPECT_EQ(Judge({.uris = {kWeb}, .not_before_s = 90}), Failure::kNotYetValid);
}

TEST_F(Verify, Row3TrustDomainsAndRoots) {
  std::string detail;
  EXPECT_EQ(Judge(ca_.Issue({.uris = {"spiffe://other/ns/default/sa/web"}}), &detail), Failure::kUnknownCa);
  EXPECT_EQ(detail, "no roots for trust domain \"other\"");
  TestCa foreign("Foreign root", &clock_);
  EXPECT_EQ(Judge(foreign.Issue({.uris = {kWeb}})), Failure::kUnknownCa);
  TestCa impostor("Test root", &clock_);  // same name, other key
  EXPECT_EQ(Judge(impostor.Issue({.uris = {kWeb}})), Failure::kUnknownCa);
  config_.trusted_ca_pem += foreign.root_pem();  // root rollover: both are in force
  EXPECT_EQ(Judge(foreign.Issue({.uris = {kWeb}})), Failure::kNone);
}

TEST_F(Verify, Row4Names) {
  EXPECT_EQ(Judge(IssueOptions{}), Failure::kBadSvid);
  EXPECT_EQ(Judge({.dns = {"web"}}), Failure::kBadSvid);
  EXPECT_EQ(Judge({.uris = {kWeb, "spiffe://mesh/ns/default/sa/admin"}}), Failure::kBadSvid);
  EXPECT_EQ(Judge({.uris = {kWeb}, .dns = {"web", "web.default"}}), Failure::kNone);
}

TEST_F(Verify, Row5MalformedIds) {
  using std::string_literals::operator""s;
  for (const std::string& id :
       {"spiffe://mesh"s, "spiffe://mesh/"s, "spiffe://mesh/a?b"s, "spiffe://mesh/a#b"s, "spiffe://mesh:1/a"s, "spiffe://u@mesh/a"s,
        "spiffe://Mesh/a"s, "spiffe://mesh/../a"s, "spiffe://mesh/%61"s, "spiffe://mesh/a\0b"s, "https://mesh/a"s,
        "spiffe://mesh/" + std::string(2048, 'a')}) {
    EXPECT_EQ(Judge({.uris = {id}}), Failure::kBadSvid) << id;
  }
}

TEST_F(Verify, Row6CertificateShape) {
  EXPECT_EQ(Judge({.uris = {kWeb}, .ca = true, .key_usage = "critical,digitalSignature"}), Failure::kBadSvid);
  for (const char* usage : {"", "digitalSignature", "critical,digitalSignature,keyCertSign",
                            "critical,digitalSignature,cRLSign"}) {
    EXPECT_NE(Judge({.uris = {kWeb}, .key_usage = usage}), Failure::kNone) << usage;
  }
  const IssueOptions good_ca{.ca = true, .key_usage = "critical,keyCertSign", .common_name = "Intermediate"};
  EXPECT_EQ(Judge(ca_.Intermediate(good_ca).Issue({.uris = {kWeb}})), Failure::kNone);
  IssueOptions bad = good_ca;
  bad.ca = false;
  EXPECT_NE(Judge(ca_.Intermediate(bad).Issue({.uris = {kWeb}})), Failure::kNone);
  bad = good_ca, bad.key_usage = "critical,cRLSign";
  EXPECT_NE(Judge(ca_.Intermediate(bad).Issue({.uris = {kWeb}})), Failure::kNone);
  bad = good_ca, bad.key_usage = "";
  EXPECT_NE(Judge(ca_.Intermediate(bad).Issue({.uris = {kWeb}})), Failure::kNone);
  bad = good_ca, bad.path_length = 0;
  EXPECT_NE(Judge(ca_.Intermediate(bad).Intermediate(good_ca).Issue({.uris = {kWeb}})), Failure::kNone);
  EXPECT_NE(Judge({.uris = {kWeb}, .extra_critical_oid = "1.2.3.4.5"}), Failure::kNone);
  TestCa deep = ca_.Intermediate(good_ca);
  for (int i = 0; i < 5; ++i) {
    IssueOptions next = good_ca;
    next.common_name = "Intermediate " + std::to_string(i);
    deep = deep.Intermediate(next);
  }
  EXPECT_NE(Judge(deep.Issue({.uris = {kWeb}})), Failure::kNone);
}

TEST_F(Verify, Row7ExtendedUsageAndRevocation) {
  EXPECT_EQ(Judge({.uris = {kWeb}, .extended_key_usage = "serverAuth"}), Failure::kBadSvid);
  EXPECT_EQ(Judge({.uris = {kWeb}, .extended_key_usage = "clientAuth"}), Failure::kNone);
  EXPECT_EQ(JudgeServer(ca_.Issue({.uris = {kWeb}, .extended_key_usage = "clientAuth"})), Failure::kBadSvid);
  EXPECT_EQ(Judge({.uris = {kWeb}, .extended_key_usage = ""}), Failure::kNone);
  TestCert bad = ca_.Issue({.uris = {kWeb}}), good = ca_.Issue({.uris = {kWeb}});
  config_.crl_pem = ca_.Crl({bad.chain_pem});
  EXPECT_EQ(Judge(bad), Failure::kRevoked);
  EXPECT_EQ(Judge(good), Failure::kNone);
}

TEST_F(Verify, Row7SelfSigned) {
  TestCa self("Self", &clock_);
  EXPECT_NE(Judge(self.Issue({.uris = {kWeb}})), Failure::kNone);
}

TEST_F(Verify, PinnedRootStandsInForRootsAtFirstContact) {
  auto pin = SpkiSha256Hex(ca_.root_pem());
  ASSERT_TRUE(pin);
  config_.trusted_ca_pem.clear();
  config_.pinned_root_spki_sha256 = *pin;
  TestCert good = ca_.Issue({.uris = {kWeb}});
  EXPECT_EQ(JudgeServer(good), Failure::kUnknownCa);  // the root has to come along
  good.chain_pem += ca_.root_pem();
  EXPECT_EQ(JudgeServer(good), Failure::kNone);
  TestCa other("Other root", &clock_);
  TestCert forged = other.Issue({.uris = {kWeb}});
  forged.chain_pem += ca_.root_pem();
  EXPECT_EQ(JudgeServer(forged), Failure::kUnknownCa);
  TestCert foreign = other.Issue({.uris = {kWeb}});
  foreign.chain_pem += other.root_pem();
  EXPECT_EQ(JudgeServer(foreign), Failure::kUnknownCa);
}

TEST_F(Verify, Row8Strength) {
  EXPECT_NE(Judge({.uris = {kWeb}, .key = IssueOptions::kRsa1024}), Failure::kNone);
  EXPECT_EQ(Judge({.uris = {kWeb}, .key = IssueOptions::kRsa2048}), Failure::kNone);
  EXPECT_NE(Judge({.uris = {kWeb}, .sha1 = true}), Failure::kNone);
}

TEST_F(Verify, NamesAsConfigured) {
  auto expect = [&](SanMatch m, const IssueOptions& o, bool ok) {
    config_.peer_sans = {m};
    EXPECT_EQ(Judge(o), ok ? Failure::kNone : Failure::kSanMismatch) << m.value;
  };
  const IssueOptions web{.uris = {kWeb}, .dns = {"*.shop.test"}};
  expect({SanMatch::kExact, SanMatch::kUri, kWeb}, web, true);
  expect({SanMatch::kExact, SanMatch::kUri, "spiffe://mesh/ns/default/sa/we"}, web, false);
  expect({SanMatch::kPrefix, SanMatch::kUri, "spiffe://mesh/ns/default/"}, web, true);
  expect({SanMatch::kSuffix, SanMatch::kAny, "/sa/web"}, web, true);
  expect({SanMatch::kContains, SanMatch::kUri, "/ns/prod/"}, web, false);
  expect({SanMatch::kRegex, SanMatch::kUri, "spiffe://mesh/ns/[^/]+/sa/web"}, web, true);
  expect({SanMatch::kRegex, SanMatch::kUri, "sa/web"}, web, false);  // the whole name must match
  expect({SanMatch::kExact, SanMatch::kDns, "Web.shop.test"}, web, true);
  expect({SanMatch::kExact, SanMatch::kDns, "a.web.shop.test"}, web, false);
  expect({SanMatch::kExact, SanMatch::kDns, kWeb}, web, false);
  std::string detail;
  config_.peer_sans = {{SanMatch::kExact, SanMatch::kUri, "spiffe://mesh/ns/default/sa/cart"}};
  Judge(ca_.Issue({.uris = {kWeb}}), &detail);
  EXPECT_EQ(detail, "peer is spiffe://mesh/ns/default/sa/web, expected spiffe://mesh/ns/default/sa/cart");
}

TEST_F(Verify, PlainTlsServerByDnsName) {
  config_.spiffe = false;
  config_.peer_sans = {{SanMatch::kExact, SanMatch::kDns, "api.test"}};
  EXPECT_EQ(JudgeServer(ca_.Issue({.dns = {"api.test"}, .key_usage = ""})), Failure::kNone);
  EXPECT_EQ(JudgeServer(ca_.Issue({.dns = {"other.test"}})), Failure::kSanMismatch);
}

}  // namespace
}  // namespace weft::tls
