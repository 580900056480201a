#include "sidecar/tls/engine.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include "sidecar/base/random.h"
#include "sidecar/tls/keys.h"
#include "sidecar/tls/test_ca.h"

namespace weft::tls {
namespace {

constexpr char kCart[] = "spiffe://mesh/ns/default/sa/cart";
constexpr char kWeb[] = "spiffe://mesh/ns/default/sa/web";

struct World {
  base::ManualClock clock;
  TestCa ca{"Test root", &clock};
  ContextConfig client, server;

  World() {
    TestCert web = ca.Issue({.uris = {kWeb}}), cart = ca.Issue({.uris = {kCart}});
    client.certificate_chain_pem = web.chain_pem, client.private_key_pem = web.key_pem;
    server.certificate_chain_pem = cart.chain_pem, server.private_key_pem = cart.key_pem;
    client.trusted_ca_pem = server.trusted_ca_pem = ca.root_pem();
    client.spiffe = server.spiffe = true;
    client.trust_domain = server.trust_domain = "mesh";
    client.clock = server.clock = &clock;
    client.peer_sans = {{SanMatch::kExact, SanMatch::kUri, kCart}};
    server.require_peer_certificate = true;
    client.sni = "outbound.cart";
  }
  void ClientCert(const TestCert& c) { client.certificate_chain_pem = c.chain_pem, client.private_key_pem = c.key_pem; }
};

std::shared_ptr<const Context> ClientContext(const ContextConfig& c) {
  auto r = Context::Client(c);
  EXPECT_TRUE(r) << r.error().ToString();
  return *r;
}
std::shared_ptr<const Context> ServerContext(const ContextConfig& c) {
  auto r = Context::Server(c);
  EXPECT_TRUE(r) << r.error().ToString();
  return *r;
}

// Two engines and the wire between them.
struct Link {
  Link(std::shared_ptr<const Context> c, std::shared_ptr<const Context> s, std::string key = {})
      : client(std::move(c), Engine::kClient, std::move(key)), server(std::move(s), Engine::kServer) {}
  explicit Link(const World& w) : Link(ClientContext(w.client), ServerContext(w.server)) {}

  // Carries bytes until nothing moves; step bytes at a time (0: all at once).
  void Run(size_t step = 0) {
    for (bool moved = true; moved;) {
      moved = Carry(client, server, to_server, server_plain, step);
      moved |= Carry(server, client, to_client, client_plain, step);
    }
  }
  bool Carry(Engine& from, Engine& to, io::Buffer& wire, io::Buffer& plain, size_t step) {
    from.Pump(wire);
    if (wire.empty()) return false;
    while (!wire.empty()) {
      io::Buffer piece;
      piece.Move(wire, step && step < wire.size() ? step : wire.size());
      to.Feed(piece, plain);
      if (!piece.empty()) wire.Clear();  // broken: nobody reads on
      if (!piece.empty()) break;
    }
    return true;
  }
  void Send(Engine& from, io::Buffer& wire, std::string_view text) {
    io::Buffer plain;
    plain.Append(text);
    from.Seal(plain, wire);
    EXPECT_TRUE(plain.empty());
  }

  Engine client, server;
  io::Buffer to_server, to_client, server_plain, client_plain;
};

TEST(Engine, MutualTlsBothWays) {
  World w;
  w.client.alpn = {"h2"}, w.server.alpn = {"h2", "http/1.1"};
  Link l(w);
  EXPECT_EQ(l.client.version(), "");
  l.Run();
  ASSERT_EQ(l.client.state(), Engine::State::kOpen) << l.client.failure_detail();
  ASSERT_EQ(l.server.state(), Engine::State::kOpen) << l.server.failure_detail();
  EXPECT_EQ(l.client.version(), "TLSv1.3");
  EXPECT_EQ(l.server.alpn(), "h2");
  EXPECT_EQ(l.client.alpn(), "h2");
  EXPECT_EQ(l.server.sni(), "outbound.cart");
  EXPECT_FALSE(l.server.cipher().empty());
  ASSERT_TRUE(l.server.peer());
  EXPECT_EQ(l.server.peer()->spiffe_id, kWeb);
  EXPECT_EQ(l.client.peer()->spiffe_id, kCart);
  EXPECT_EQ(l.server.peer_pem(true), w.client.certificate_chain_pem);
  EXPECT_TRUE(w.client.certificate_chain_pem.starts_with(l.server.peer_pem(false)));
  EXPECT_EQ(l.server.peer_pem(false).find("END CERTIFICATE"), l.server.peer_pem(false).rfind("END CERTIFICATE"));
  EXPECT_EQ(l.client.peer()->not_after_unix_s, static_cast<int64_t>(w.clock.UnixNs() / base::kSecond) + 3600);
  l.Send(l.client, l.to_server, "ping");
  l.Send(l.server, l.to_client, "pong");
  l.Run();
  EXPECT_EQ(l.server_plain.ToString(), "ping");
  EXPECT_EQ(l.client_plain.ToString(), "pong");
}

TEST(Engine, Tls12AndOneByteAtATime) {
  World w;
  w.server.parameters.max_version = 0x0303;
  Link l(w);
  l.Run(1);
  ASSERT_EQ(l.server.state(), Engine::State::kOpen) << l.server.failure_detail();
  EXPECT_EQ(l.client.version(), "TLSv1.2");
  l.Send(l.client, l.to_server, "ping");
  l.Run(1);
  EXPECT_EQ(l.server_plain.ToString(), "ping");
}

TEST(Engine, LargeDataInFullRecords) {
  World w;
  Link l(w);
  l.Run();
  l.to_server.Clear();
  base::Random random(1);
  std::string data(3'000'000, 0);
  for (auto& c : data) c = static_cast<char>(random.Next());
  io::Buffer plain;
  for (size_t i = 0; i < data.size();) {  // many small pieces of their own blocks
    io::Buffer small;
    size_t n = std::min<size_t>(data.size() - i, 600 + random.Below(3000));
    small.Append(std::string_view(data).substr(i, n));
    plain.Move(small);
    i += n;
  }
  size_t wire = 0;
  while (!plain.empty()) {
    size_t before = plain.size();
    l.client.Seal(plain, l.to_server, 100'000);
    EXPECT_LE(before - plain.size(), 100'000u + 16384);
    wire += l.to_server.size();
    l.Run();
  }
  EXPECT_TRUE(l.server_plain.ToString() == data);
  EXPECT_LT(wire - data.size(), (data.size() / 16384 + 40) * 22 * 2);
}

TEST(Engine, CloseNotifyAndTruncation) {
  World w;
  Link l(w);
  l.Run();
  l.Send(l.client, l.to_server, "last");
  l.client.Close(l.to_server);
  l.Run();
  EXPECT_EQ(l.server.state(), Engine::State::kPeerClosed);
  EXPECT_FALSE(l.server.truncated());
  EXPECT_EQ(l.server_plain.ToString(), "last");
  io::Buffer plain;
  plain.Append("still writable");
  EXPECT_EQ(l.server.Seal(plain, l.to_client), Engine::State::kPeerClosed);
  EXPECT_TRUE(plain.empty());

  Link cut(w);
  cut.Run();
  EXPECT_EQ(cut.server.FeedEof(), Engine::State::kPeerClosed);
  EXPECT_TRUE(cut.server.truncated());
  Link early(w);
  EXPECT_EQ(early.server.FeedEof(), Engine::State::kFailed);
  EXPECT_EQ(early.server.failure(), Failure::kPeerClosed);
}

TEST(Engine, NothingIsSealedBeforeTheHandshake) {
  World w;
  Link l(w);
  io::Buffer plain, wire;
  plain.Append("secret");
  l.client.Seal(plain, wire);
  EXPECT_EQ(plain.size(), 6u);
  EXPECT_EQ(wire.ToString().find("secret"), std::string::npos);
}

TEST(Engine, ServerRefusalReachesTheClientAsAlert) {
  World w;
  w.client.certificate_chain_pem = w.client.private_key_pem = "";
  Link l(w);
  l.Run();
  EXPECT_EQ(l.server.state(), Engine::State::kFailed);
  EXPECT_EQ(l.server.failure(), Failure::kNoCertificate);
  EXPECT_FALSE(l.server.peer());
  EXPECT_EQ(l.client.state(), Engine::State::kFailed);
  EXPECT_EQ(l.client.failure(), Failure::kAlert);
  EXPECT_EQ(l.client.failure_detail(), "peer sent alert: certificate required");
}

TEST(Engine, OptionalClientCertificateGivesNoIdentity) {
  World w;
  w.client.certificate_chain_pem = w.client.private_key_pem = "";
  w.server.require_peer_certificate = false;
  Link l(w);
  l.Run();
  EXPECT_EQ(l.server.state(), Engine::State::kOpen);
  EXPECT_FALSE(l.server.peer());
}

TEST(Engine, WithoutRootsThePeerHasNoIdentity) {
  World w;
  ContextConfig client, server = w.server;
  server.trusted_ca_pem.clear(), server.spiffe = false;
  client.certificate_chain_pem = w.client.certificate_chain_pem, client.private_key_pem = w.client.private_key_pem;
  Link l(ClientContext(client), ServerContext(server));  // the server insists on a certificate, but can judge none
  l.Run();
  EXPECT_EQ(l.client.state(), Engine::State::kOpen) << l.client.failure_detail();
  EXPECT_EQ(l.server.state(), Engine::State::kOpen) << l.server.failure_detail();
  EXPECT_FALSE(l.client.peer());
  EXPECT_FALSE(l.server.peer());
}

TEST(Engine, PlaintextIsRefused) {
  World w;
  Engine server(ServerContext(w.server), Engine::kServer);
  io::Buffer in, plain;
  in.Append("GET / HTTP/1.1\r\nHost: cart\r\n\r\n");
  EXPECT_EQ(server.Feed(in, plain), Engine::State::kFailed);
  EXPECT_EQ(server.failure(), Failure::kProtocol);
  EXPECT_EQ(server.failure_detail(), "HTTP_REQUEST");
  EXPECT_TRUE(plain.empty());
}

TEST(Engine, AlpnWithoutOverlapGoesOnWithout) {
  World w;
  w.client.alpn = {"spdy"}, w.server.alpn = {"h2"};
  Link l(w);
  l.Run();
  EXPECT_EQ(l.server.state(), Engine::State::kOpen);
  EXPECT_EQ(l.client.alpn(), "");
}

TEST(Engine, ResumesByKeyWithinOneContextOnly) {
  for (uint16_t version : {0x0303, 0x0304}) {
    World w;
    w.server.parameters.max_version = version;
    auto client = ClientContext(w.client), server = ServerContext(w.server);
    auto connect = [&](const std::string& key) {
      Link l(client, server, key);
      l.Run();
      EXPECT_EQ(l.server.state(), Engine::State::kOpen) << l.server.failure_detail();
      l.Send(l.server, l.to_client, "x");  // carries the ticket along
      l.Run();
      EXPECT_EQ(l.client.peer()->spiffe_id, kCart);
      EXPECT_EQ(l.server.peer()->spiffe_id, kWeb);
      return l.server.resumed();
    };
    EXPECT_FALSE(connect(""));
    EXPECT_FALSE(connect("10.0.0.1:80"));
    EXPECT_TRUE(connect("10.0.0.1:80"));
    EXPECT_FALSE(connect("10.0.0.2:80"));
    EXPECT_FALSE(connect(""));
    server = ServerContext(w.server);  // the same configuration again: its tickets are new
    EXPECT_FALSE(connect("10.0.0.1:80"));
  }
}

// Versions, groups and suites: what both know is taken in the server's order, or nothing is.
TEST(Engine, Parameters) {
  struct Case {
    Parameters client, server;
    const char *version, *group, *cipher;  // version "": no connection
  };
  const Parameters any, old{.max_version = 0x0303}, current{.min_version = 0x0304};
  auto groups = [](std::vector<std::string> names, uint16_t most = 0x0304) { return Parameters{.max_version = most, .groups = std::move(names)}; };
  auto suites = [](std::vector<std::string> names) { return Parameters{.max_version = 0x0303, .cipher_suites = std::move(names)}; };
  const char *aes = "TLS_AES_128_GCM_SHA256", *old_aes = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", *chacha = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
  Parameters fips{.fips_202205 = true}, client_order = groups({"P-256", "X25519"});
  client_order.client_order = true;
  const Case cases[] = {
      {any, any, "TLSv1.3", "X25519MLKEM768", aes},
      {old, any, "TLSv1.2", "X25519", old_aes},
      {any, old, "TLSv1.2", "X25519", old_aes},
      {current, old, "", "", ""},
      {old, current, "", "", ""},
      {groups({"X25519"}), any, "TLSv1.3", "X25519", aes},
      {any, groups({"X25519"}), "TLSv1.3", "X25519", aes},
      {any, groups({"P-384"}), "TLSv1.3", "P-384", aes},  // by a second ClientHello
      {groups({"P-256"}), groups({"P-384", "P-256"}), "TLSv1.3", "P-256", aes},
      {groups({"X25519", "P-256"}), groups({"P-256", "X25519"}), "TLSv1.3", "P-256", aes},
      {groups({"X25519", "P-256"}), client_order, "TLSv1.3", "X25519", aes},
      {groups({"P-521"}), any, "", "", ""},
      {groups({"X25519MLKEM768"}, 0x0303), any, "", "", ""},  // of TLS 1.3 only
      {suites({"ECDHE-ECDSA-CHACHA20-POLY1305"}), any, "TLSv1.2", "X25519", chacha},
      {any, suites({"ECDHE-ECDSA-CHACHA20-POLY1305"}), "TLSv1.2", "X25519", chacha},
      {suites({"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"}), any, "TLSv1.2", "X25519", chacha},  // equals: the client's order
      {suites({"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"}), any, "TLSv1.2", "X25519", old_aes},
      {suites({"ECDHE-RSA-AES128-GCM-SHA256"}), any, "", "", ""},  // the certificate has another kind of key
      {suites({"AES128-SHA"}), any, "", "", ""},
      {any, fips, "TLSv1.3", "P-256", aes},
      {suites({"ECDHE-ECDSA-CHACHA20-POLY1305"}), fips, "", "", ""},
      {{.signature_algorithms = {"rsa_pss_rsae_sha256"}}, any, "", "", ""},
      {{.signature_algorithms = {"ecdsa_secp256r1_sha256"}}, any, "TLSv1.3", "X25519MLKEM768", aes},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(&c - cases);
    World w;
    w.client.parameters = c.client, w.server.parameters = c.server;
    Link l(w);
    l.Run();
    EXPECT_EQ(l.client.state() == Engine::State::kOpen && l.server.state() == Engine::State::kOpen, *c.version != 0) << l.client.failure_detail() << l.server.failure_detail();
    if (!*c.version || l.server.state() != Engine::State::kOpen) continue;
    EXPECT_EQ(l.server.version(), c.version);
    EXPECT_EQ(l.server.group(), c.group);
    EXPECT_EQ(l.server.cipher(), c.cipher);
  }
}

TEST(Engine, ResumptionCanBeTurnedOffAtEitherEnd) {
  for (uint16_t version : {0x0303, 0x0304}) {
    for (int off = 0; off < 3; ++off) {
      World w;
      w.server.parameters.max_version = version;
      w.server.tickets = off != 1;
      w.client.max_sessions = off == 2 ? 0 : 1;
      auto client = ClientContext(w.client), server = ServerContext(w.server);
      bool resumed = false;
      for (int i = 0; i < 2; ++i) {
        Link l(client, server, "key");
        l.Run();
        l.Send(l.server, l.to_client, "x");
        l.Run();
        resumed = l.server.resumed();
      }
      EXPECT_EQ(resumed, off == 0) << version << " " << off;
    }
  }
}

TEST(Engine, ResumptionDoesNotOutliveTheCertificates) {
  for (bool server_expires : {false, true}) {
    World w;
    TestCert brief = w.ca.Issue({.uris = {server_expires ? kCart : kWeb}, .not_after_s = 60});
    if (server_expires) {
      w.server.certificate_chain_pem = brief.chain_pem, w.server.private_key_pem = brief.key_pem;
    } else {
      w.ClientCert(brief);
    }
    auto client = ClientContext(w.client), server = ServerContext(w.server);
    for (int round = 0; round < 2; ++round) {
      Link l(client, server, "k");
      l.Run();
      l.Send(l.server, l.to_client, "x");
      l.Run();
      ASSERT_EQ(l.server.resumed(), round == 1);
      ASSERT_EQ(l.client.state(), Engine::State::kOpen);
    }
    w.clock.Advance(120 * base::kSecond);
    Link l(client, server, "k");
    l.Run();
    Engine& judge = server_expires ? l.client : l.server;
    EXPECT_EQ(judge.state(), Engine::State::kFailed);
    EXPECT_EQ(judge.failure(), Failure::kExpired) << judge.failure_detail();
    EXPECT_FALSE(judge.peer());
  }
}

TEST(Engine, DamagedRecordsFail) {
  World w;
  base::Random random(4);
  auto client = ClientContext(w.client), server = ServerContext(w.server);
  for (int round = 0; round < 60; ++round) {
    Link l(client, server);
    if (round % 2) l.Run();
    l.to_server.Clear();
    if (round % 2) {
      l.Send(l.client, l.to_server, std::string(500, 'x'));
    } else {
      l.client.Pump(l.to_server);
    }
    std::string bytes = l.to_server.ToString();
    bytes[random.Below(bytes.size())] ^= static_cast<char>(1 + random.Below(255));
    io::Buffer in, plain;
    in.Append(bytes);
    l.server.Feed(in, plain);
    EXPECT_TRUE(plain.empty());
    if (l.server.state() == Engine::State::kFailed) {
      EXPECT_NE(l.server.failure(), Failure::kNone);
      EXPECT_FALSE(l.server.failure_detail().empty());
    }
    l.Run();  // whatever happened, both sides end in a defined state
  }
}

// The bar for an idle mutual-TLS connection is 12 KiB of user memory; most of it is the engine's.
TEST(Engine, IdleConnectionsAreSmall) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer owns malloc";
#endif
  World w;
  auto client = ClientContext(w.client), server = ServerContext(w.server);
  std::vector<std::unique_ptr<Link>> links;
  auto open = [&] {
    links.push_back(std::make_unique<Link>(client, server));
    Link& l = *links.back();
    l.Run();
    l.Send(l.client, l.to_server, "ping");
    l.Send(l.server, l.to_client, "pong");
    l.Run();
    l.server_plain.Clear(), l.client_plain.Clear();
    ASSERT_EQ(l.server.state(), Engine::State::kOpen);
  };
  for (int i = 0; i < 10; ++i) open();
  size_t before = mallinfo2().uordblks;
  for (int i = 0; i < 200; ++i) open();
  size_t each = (mallinfo2().uordblks - before) / 400;
  RecordProperty("bytes_per_engine", static_cast<int>(each));
  EXPECT_LE(each, 5u * 1024);
  EXPECT_EQ(io::Block::live(), 0u);
}

TEST(Context, ErrorsNameTheField) {
  World w;
  ContextConfig c = w.server;
  c.private_key_pem = w.client.private_key_pem;
  EXPECT_EQ(Context::Server(c).error().ToString(), "private_key: does not belong to the certificate");
  c = w.server, c.certificate_chain_pem = "junk";
  EXPECT_EQ(Context::Server(c).error().ToString(), "certificate_chain: no certificate found");
  c = w.server, c.trusted_ca_pem = "junk";
  EXPECT_EQ(Context::Server(c).error().ToString(), "trusted_ca: no certificate found");
  c = ContextConfig{};
  EXPECT_EQ(Context::Server(c).error().ToString(), "certificate_chain: a server needs a certificate");
  EXPECT_TRUE(Context::Client(c));
  c.parameters.min_version = 0x0301;
  EXPECT_EQ(Context::Client(c).error().where(), "min_version");
  c = w.client, c.peer_sans = {{SanMatch::kRegex, SanMatch::kUri, "("}};
  EXPECT_EQ(Context::Client(c).error().where(), "peer_sans");
  c = ContextConfig{}, c.spiffe = true;
  EXPECT_EQ(Context::Client(c).error().where(), "trusted_ca");
  c = w.client, c.alpn = {std::string(300, 'a')};
  EXPECT_EQ(Context::Client(c).error().where(), "alpn");
}

}  // namespace
}  // namespace weft::tls
