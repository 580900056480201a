// What the mesh relies on: chains by what the client says first, identities, changes under load, limits of memory.
#include <thread>

#include "sidecar/base/stats.h"
#include "sidecar/proxy/testing/peers.h"

namespace weft::proxy::testing {
namespace {

model::FilterChain PlainTcp(const std::string& cluster) {
  auto tcp = std::make_shared<model::TcpProxy>();
  tcp->stat_prefix = "plain", tcp->cluster = cluster;
  model::FilterChain c;
  c.name = "plain";
  c.match.transport_protocol = "raw_buffer";
  c.end = std::shared_ptr<const model::TcpProxy>(tcp);
  return c;
}

TEST(Chains, TlsPlainAndSilentClientsAreToldApart) {
  Pki pki;
  TestServer web(Echo());
  TestServer talks_first({.raw = [](const std::string& got) { return got.empty() ? "220 ready\n" : got; }});
  Mesh mesh;
  mesh.AddCluster("app", {web.port()});
  mesh.AddCluster("mail", {talks_first.port()});
  mesh.listener.filters = model::kTlsInspector;
  mesh.chain.match.transport_protocol = "tls";
  mesh.server_tls = pki.Server(kFront);
  mesh.more_chains.emplace_back(PlainTcp("mail"), nullptr);
  mesh.Start();
  TestClient secure(mesh.port(), true, pki.Client(kCart, kFront));
  EXPECT_EQ(secure.Get("/").status, "200");
  TestClient silent(mesh.port());
  EXPECT_EQ(silent.ReadRaw(10), "220 ready\n");
  TestClient plain(mesh.port());
  plain.SendRaw("EHLO\n");
  EXPECT_EQ(plain.ReadRaw(15), "220 ready\nEHLO\n");
}

TEST(Chains, NoChainIsRefusedAndCounted) {
  Pki pki;
  TestServer web(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {web.port()});
  mesh.listener.filters = model::kTlsInspector;
  mesh.chain.match.transport_protocol = "tls";
  mesh.server_tls = pki.Server(kFront);
  mesh.Start();
  TestClient plain(mesh.port());
  plain.SendRaw("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_EQ(plain.ReadRaw(1), "");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.detail, "filter_chain_not_found");
  EXPECT_EQ(rec.transport_failure, "plaintext");
  // Nobody gave it a name, so it made its own.
  EXPECT_NE(rec.trace_id[0] | rec.trace_id[8] | rec.trace_id[15], 0);
  EXPECT_NE(rec.span_id[0] | rec.span_id[3] | rec.span_id[7], 0);
  EXPECT_EQ(web.connections(), 0);
}

TEST(Identity, WithoutCertificateOrWithTheWrongOne) {
  Pki pki, strangers;
  TestServer web(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {web.port()});
  mesh.server_tls = pki.Server(kFront);
  mesh.Start();
  tls::ContextConfig bare;
  bare.trusted_ca_pem = pki.ca.root_pem();
  bare.alpn = {"h2"};
  {
    TestClient c(mesh.port(), true, Must(tls::Context::Client(bare)));
    EXPECT_TRUE(c.Get("/").reset);
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.transport_failure, tls::FailureName(tls::Failure::kNoCertificate));
  }
  {
    tls::ContextConfig foreign = strangers.Base(kCart);
    foreign.trusted_ca_pem = pki.ca.root_pem();
    TestClient c(mesh.port(), true, Must(tls::Context::Client(foreign)));
    EXPECT_TRUE(c.Get("/").reset);
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.transport_failure, tls::FailureName(tls::Failure::kUnknownCa));
  }
  EXPECT_EQ(web.connections(), 0);
}

TEST(Identity, UpstreamThatIsNotWhoItShouldBe) {
  Pki pki;
  ServerOptions o = Echo(true);
  o.tls = pki.Server("spiffe://mesh/ns/default/sa/impostor");
  TestServer app(std::move(o));
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}, pki.Client(kFront, kCart)).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "503");
  Record rec = mesh.NextRecord();
  EXPECT_TRUE(rec.flags.Has(ResponseFlag::kUpstreamConnectionFailure));
  EXPECT_EQ(std::string(rec.attempts[0].outcome), "tls_" + std::string(tls::FailureName(tls::Failure::kSanMismatch)));
  EXPECT_FALSE(rec.upstream_transport_failure.empty());
  EXPECT_NE(rec.attempts[0].local_address.find("127.0.0.1:"), std::string::npos);  // the other end's record is found by it
  EXPECT_EQ(app.requests(), 0);
}

TEST(Identity, ClientCertificateHeaderIsRebuilt) {
  Pki pki;
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.server_tls = pki.Server(kFront);
  mesh.options.sidecar_identity = kFront;
  mesh.hcm.xfcc = model::HttpConnectionManager::kSanitizeSet;
  mesh.hcm.xfcc_uri = true;
  mesh.Start();
  TestClient c(mesh.port(), true, pki.Client(kCart, kFront));
  Reply r = c.Get("/", {{"x-forwarded-client-cert", "URI=spiffe://mesh/ns/default/sa/admin"}});
  std::string xfcc = r.header("seen-x-forwarded-client-cert");
  EXPECT_TRUE(xfcc.starts_with(std::string("By=") + kFront + ";Hash=")) << xfcc;
  EXPECT_TRUE(xfcc.ends_with(std::string(";URI=") + kCart)) << xfcc;
}

TEST(Identity, ConnectionsToAHostResumeEachOthersSessions) {
  Pki pki;
  // Every answer ends its connection, so that each request needs a new one.
  ServerOptions o{.tls = pki.Server(kCart), .handler = [](ServerStream& s) {
    if (!s.complete() || s.responded) return;
    s.Drain();
    s.Respond("200", "hello");
  }};
  TestServer app(o), other(o);
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}, pki.Client(kFront, kCart, {"http/1.1"}));
  mesh.Start();
  TestClient c(mesh.port());
  auto value = [](const char* name) { return base::Stats::Get().Value(std::string("cluster.app.ssl.") + name); };
  const int64_t handshakes = value("handshake"), reused = value("session_reused");
  auto get = [&](int64_t all, int64_t resumed) {
    EXPECT_EQ(c.Get("/").status, "200");
    EXPECT_EQ(mesh.NextRecord().upstream_peer_identity, kCart);
    EXPECT_EQ(value("handshake") - handshakes, all);
    EXPECT_EQ(value("session_reused") - reused, resumed);
  };
  get(1, 0);
  get(2, 1);
  get(3, 2);
  mesh.clusters["app"].tls = pki.Client(kFront, kCart, {"http/1.1"});  // a renewed certificate begins anew
  mesh.Publish();
  get(4, 2);
  mesh.clusters["app"].ports = {other.port()};  // and so does another host
  mesh.Publish();
  get(5, 2);
}

TEST(Changes, TunnelsAndStreamsOutliveRenewalAndEndpointRemoval) {
  Pki pki;
  ServerOptions o{.h2 = true, .tls = pki.Server(kCart), .handler = [](ServerStream& s) {
    if (!s.responded) s.Head("200");
    s.EchoBody();
  }};
  TestServer app(o), other(o);
  Mesh mesh;
  mesh.hcm.upgrades = {"websocket"};
  mesh.AddCluster("app", {app.port()}, pki.Client(kFront, kCart)).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient c(mesh.port(), true);
  auto* tunnel = c.Open("CONNECT", "/chat", {{":protocol", "websocket"}, {"sec-websocket-version", "13"}}, false);
  auto* stream = c.Open("POST", "/svc/m", {{"content-type", "application/grpc"}}, false);
  std::string all;
  auto talk = [&] {
    all += "x";
    c.Send(tunnel, "x", false);
    c.Send(stream, "x", false);
    EXPECT_TRUE(c.Until([&] { return tunnel->body == all && stream->body == all; })) << tunnel->body << " " << stream->body;
  };
  ASSERT_TRUE(c.Until([&] { return tunnel->in.bits & codec::Inbound::kHead; }));
  talk();
  for (int i = 0; i < 20; ++i) {
    if (i % 2) mesh.clusters["app"].tls = pki.Client(kFront, kCart);  // a renewed certificate
    mesh.clusters["app"].ports = {i % 3 ? app.port() : other.port()};
    mesh.Publish();
    TestClient fresh(mesh.port());
    EXPECT_EQ(fresh.Get("/").status, "200");
    talk();
  }
  EXPECT_GT(app.connections(), 2);
  EXPECT_GT(other.connections(), 2);
  c.Send(tunnel, "", true);
  c.Send(stream, "", true);
  EXPECT_FALSE(c.Finish(tunnel).reset);
  EXPECT_FALSE(c.Finish(stream).reset);
}

TEST(Changes, NoRequestFailsWhileHostsComeAndGo) {
  auto make = [](bool h2) { return std::make_unique<TestServer>(Echo(h2)); };
  for (bool h2 : {false, true}) {
    std::vector<std::unique_ptr<TestServer>> apps;
    for (int i = 0; i < 5; ++i) apps.push_back(make(h2));
    auto ports = [&] {
      std::vector<uint16_t> p;
      for (auto& a : apps) p.push_back(a->port());
      return p;
    };
    Mesh mesh;
    mesh.AddCluster("app", ports()).protocol = h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
    mesh.Start(2);
    std::atomic<bool> stop{false};
    std::atomic<int> good{0}, bad{0};
    std::vector<std::thread> clients;
    for (int t = 0; t < 3; ++t) {
      clients.emplace_back([&, t] {
        auto c = std::make_unique<TestClient>(mesh.port(), t == 1);
        while (!stop) {
          Reply r = c->Get("/");
          (r.status == "200" && !r.reset ? good : bad)++;
          if (r.status != "200") std::cerr << "client " << t << " saw '" << r.status << "' reset " << static_cast<int>(r.code) << " " << r.body << "\n";
          if (r.reset) c = std::make_unique<TestClient>(mesh.port(), t == 1);
        }
      });
    }
    auto check = [&] {
      for (const Record& r : mesh.TakeRecords()) {
        if (r.status == 200 && r.flags.empty()) continue;
        ADD_FAILURE() << r.status << " " << r.flags.ToString() << " " << r.detail;
        for (uint32_t i = 0; i < r.attempt_count; ++i) {
          const auto& a = r.attempts[i];
          std::cerr << "  " << a.endpoint << " " << a.outcome << " " << a.detail << " at " << a.start_offset_ns / 1000 << " us\n";
        }
      }
    };
    for (int round = 0; round < 30; ++round) {
      int before = good;
      do std::this_thread::sleep_for(std::chrono::milliseconds(40));
      while (good < before + 60 && bad == 0);
      apps[static_cast<size_t>(round % 5)] = make(h2);  // killed without a word; its successor has another port
      mesh.clusters["app"].ports = ports();
      if (round % 3) mesh.Publish();  // sometimes the news is late
      check();
    }
    stop = true;
    for (auto& c : clients) c.join();
    check();
    EXPECT_EQ(bad, 0);
    EXPECT_GE(good, 1800);
  }
}

TEST(Limits, SlowReaderHoldsLittle) {
  std::atomic<size_t> handed{0};
  TestServer app({.h2 = true, .handler = [&](ServerStream& s) {
    if (!s.responded) s.Head("200");
    while (size_t room = std::min<size_t>(s.Room(), 65536)) {
      if (handed > 64'000'000) break;
      s.Body(std::string(room, 'x'), false);
      handed += room;
    }
  }});
  for (bool down_h2 : {false, true}) {
    handed = 0;
    Mesh mesh;
    mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
    mesh.Start();
    TestClient c(mesh.port(), down_h2);
    auto* call = c.Open("GET", "/", {}, true);
    call->hold = true;
    ASSERT_TRUE(c.Until([&] { return call->in.bits & codec::Inbound::kHead; }));
    // Settled: nothing more is taken although the client has stopped reading.
    size_t last = 0;
    for (int same = 0; same < 20; same = handed == last ? same + 1 : 0) {
      last = handed;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_LT(handed, 12'000'000u) << "kernel buffers included";
    c.Close();
  }
}

TEST(Limits, PendingAndConnections) {
  TestServer app({.handler = [](ServerStream& s) {
    if (s.path() == "/hold") return;
    s.Respond("200", "ok");
  }});
  Mesh mesh;
  auto& cluster = mesh.AddCluster("app", {app.port()});
  cluster.breakers[0].max_connections = 1, cluster.breakers[0].max_pending = 1;
  mesh.Start();
  TestClient held(mesh.port(), true), waits(mesh.port(), true), refused(mesh.port());
  auto* first = held.Open("GET", "/hold", {}, true);
  while (app.requests() < 1) std::this_thread::yield();
  auto* second = waits.Open("GET", "/", {}, true);
  while (mesh.plane->active_requests() < 2) std::this_thread::yield();
  Reply r = refused.Get("/");
  EXPECT_EQ(r.status, "503");
  EXPECT_EQ(r.header("x-envoy-overloaded"), "true");
  EXPECT_EQ(mesh.NextRecord().flags.ToString(), "UO");
  held.Reset(first);  // its connection goes, and the one that waits gets a new one
  EXPECT_EQ(waits.Finish(second).status, "200");
}

TEST(Pools, SecondConnectionWhenStreamsAreExhaustedAndGoaway) {
  std::atomic<int> held{0};
  TestServer app({.h2 = true, .handler = [&](ServerStream& s) {
    if (s.path() == "/hold") { held++; return; }
    s.Respond("200", "ok");
    if (s.path() == "/last") s.Drain();
  }, .max_streams = 1});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient c(mesh.port(), true);
  EXPECT_EQ(c.Get("/").status, "200");
  c.Open("GET", "/hold", {}, true);
  c.Open("GET", "/hold", {}, true);
  ASSERT_TRUE(c.Until([&] { return held == 2; }));
  EXPECT_EQ(app.connections(), 2);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(c.Get("/last").status, "200") << i;
  EXPECT_EQ(app.connections(), 6);
}

TEST(Pools, PeerThatIsGoneWithoutAWordIsFound) {
  // Speaks HTTP/2 as far as its empty SETTINGS, then nothing.
  TestServer gone({.raw = [](const std::string& got) { return got.empty() ? std::string("\0\0\0\4\0\0\0\0\0", 9) : ""; }});
  TestServer app(Echo(true));
  Mesh mesh;
  auto& cluster = mesh.AddCluster("app", {gone.port(), app.port()});
  cluster.protocol = model::Cluster::kHttp2;
  cluster.http2.keepalive_interval_ns = 20 * base::kMs, cluster.http2.keepalive_timeout_ns = 20 * base::kMs;
  mesh.Start();
  TestClient c(mesh.port());
  bool found = false;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(c.Get("/").status, "200");
    Record rec = mesh.NextRecord();
    if (rec.attempt_count == 2) {
      found = true;
      EXPECT_EQ(rec.attempts[0].detail, "keepalive timeout");
    }
  }
  EXPECT_TRUE(found);
}

TEST(Answers, DirectResponseRedirectAndUpgradeRefused) {
  Mesh mesh;
  mesh.route->action = model::Route::kDirectResponse;
  mesh.route->direct = {418, "short and stout"};
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "418");
  EXPECT_EQ(r.body, "short and stout");
  EXPECT_EQ(mesh.NextRecord().detail, "direct_response");
  mesh.route->action = model::Route::kRedirect;
  mesh.route->redirect.path = "/new";
  mesh.route->redirect.status = 308;
  mesh.Publish();
  r = c.Get("/old");
  EXPECT_EQ(r.status, "308");
  EXPECT_EQ(r.header("location"), "http://shop.test/new");
  r = c.Finish(c.Open("HEAD", "/old", {}, true));
  EXPECT_EQ(r.status, "308");
  mesh.route->action = model::Route::kForward;
  mesh.AddCluster("app", {});
  mesh.Publish();
  TestClient h2(mesh.port(), true);
  r = h2.Finish(h2.Open("CONNECT", "/chat", {{":protocol", "websocket"}, {"sec-websocket-version", "13"}}, false));
  EXPECT_NE(r.status, "200");
}

TEST(Answers, MalformedAndEarly) {
  TestServer app({.handler = [](ServerStream& s) { s.Respond("413", "too much"); }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient bad(mesh.port());
  bad.SendRaw("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
  EXPECT_TRUE(bad.ReadRaw(12).starts_with("HTTP/1.1 400"));
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "DPE");
  EXPECT_EQ(rec.status, 400u);
  EXPECT_EQ(app.requests(), 0);
  // An answer before the request is complete is delivered.
  TestClient early(mesh.port(), true);
  auto* call = early.Open("POST", "/", {}, false);
  early.Send(call, "some", false);
  Reply r = early.Finish(call);
  EXPECT_EQ(r.status, "413");
  EXPECT_EQ(r.body, "too much");
  EXPECT_EQ(mesh.NextRecord().status, 413u);
}

TEST(Answers, UpstreamThatDoesNotSpeakHttp) {
  TestServer app({.raw = [](const std::string& got) { return got.empty() ? "" : std::string("+PONG\r\n\r\n"); }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Post("/", "x");
  EXPECT_EQ(r.status, "502");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "UPE") << rec.detail;
  EXPECT_EQ(rec.detail, "upstream_reset_before_response_started{protocol_error}");
}

TEST(Answers, CallerThatLeavesIsCountedOnce) {
  std::atomic<int> held{0};
  TestServer app({.h2 = true, .handler = [&](ServerStream& s) {
    if (s.path() == "/hold") held++;
    else s.Respond("200", "ok");
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient c(mesh.port(), true);
  constexpr int kCalls = 20;
  for (int i = 0; i < kCalls; ++i) {
    auto* call = c.Open("GET", "/hold", {}, true);
    ASSERT_TRUE(c.Until([&] { return held == i + 1; }));
    c.Reset(call);
    EXPECT_EQ(mesh.NextRecord().flags.ToString(), "DR");
    EXPECT_EQ(c.Get("/").status, "200");
    EXPECT_EQ(mesh.NextRecord().status, 200u);
  }
  EXPECT_EQ(app.connections(), 1);
  EXPECT_EQ(mesh.plane->active_requests(), 0u);
}

TEST(Filters, LocalRateLimit) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  auto limit = std::make_shared<model::LocalRateLimitConfig>();
  limit->max_tokens = 2, limit->fill_interval_ns = 3600 * base::kSecond, limit->key = "k";
  limit->enabled = limit->enforced = {100, 100};
  limit->response_headers_to_add = {{"x-limited", "yes"}};
  model::HttpFilter f;
  f.name = "limit", f.config = std::shared_ptr<const model::LocalRateLimitConfig>(limit);
  mesh.hcm.filters.insert(mesh.hcm.filters.begin(), f);
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.Get("/").status, "200");
  EXPECT_EQ(c.Get("/").status, "200");
  mesh.Publish();  // the bucket outlives the snapshot
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "429");
  EXPECT_EQ(r.body, "local_rate_limited");
  EXPECT_EQ(r.header("x-limited"), "yes");
  mesh.NextRecord(), mesh.NextRecord();
  EXPECT_EQ(mesh.NextRecord().flags.ToString(), "RL");
}

TEST(Tcp, PassthroughToItselfIsRefused) {
  Mesh mesh;
  mesh.AddCluster("passthrough", {}).type = model::Cluster::kOriginalDst;
  mesh.tcp = std::make_unique<model::TcpProxy>();
  mesh.tcp->cluster = "passthrough";
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.ReadRaw(1), "");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.detail, "no_original_destination");
  // The worker writes the record before it reaps the connection.
  for (auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5); mesh.plane->active_connections() != 0 && std::chrono::steady_clock::now() < end;)
    std::this_thread::yield();
  EXPECT_EQ(mesh.plane->active_connections(), 0u);
}

TEST(Tcp, NetworkRbacAndTlsBothSides) {
  Pki pki;
  TestServer app({.tls = pki.Server(kCart, {}), .raw = [](const std::string& got) { return got; }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}, pki.Client(kFront, kCart, {}));
  mesh.tcp = std::make_unique<model::TcpProxy>();
  mesh.tcp->cluster = "app";
  mesh.server_tls = pki.Server(kFront, {});
  auto rules = std::make_shared<model::RbacRules>();
  model::RbacPolicy allow;
  allow.name = "Authorization/default/carts/0@3";
  model::RbacNode any, who;
  any.kind = model::RbacNode::kAny;
  who.kind = model::RbacNode::kAuthenticated;
  who.string.kind = model::StringMatcher::kExact, who.string.value = kCart;
  allow.permissions.push_back(any), allow.principals.push_back(who);
  rules->policies.push_back(allow);
  auto rbac = std::make_shared<model::RbacConfig>();
  rbac->rules = rules;
  mesh.chain.network_rbac.push_back(rbac);
  mesh.Start();
  TestClient good(mesh.port(), false, pki.Client(kCart, kFront, {}));
  std::string big(2'000'000, 'y');
  good.SendRaw(big.substr(0, 100'000));
  EXPECT_EQ(good.ReadRaw(100'000), big.substr(0, 100'000));
  good.transport().ShutdownWrite();
  good.SendRaw("");
  EXPECT_EQ(good.ReadRaw(1), "");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.response_bytes, 100'000u);
  EXPECT_EQ(rec.upstream_peer_identity, kCart);
  TestClient denied(mesh.port(), false, pki.Client(kFront, kFront, {}));
  denied.SendRaw("hello");
  EXPECT_EQ(denied.ReadRaw(1), "");
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.detail, "rbac_access_denied_matched_policy[none]");
  EXPECT_EQ(rec.peer_identity, kFront);

  // New rules are for open connections, too.
  TestClient open(mesh.port(), false, pki.Client(kCart, kFront, {}));
  open.SendRaw("hello");
  EXPECT_EQ(open.ReadRaw(5), "hello");
  auto others = std::make_shared<model::RbacRules>(*rules);
  others->policies[0].principals[0].string.value = kFront;
  auto changed = std::make_shared<model::RbacConfig>();
  changed->rules = others;
  mesh.chain.network_rbac = {changed};
  mesh.listener.key = "other rules";
  mesh.Publish();
  EXPECT_EQ(open.ReadRaw(1), "");
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.detail, "rbac_access_denied_matched_policy[none]");
  EXPECT_EQ(rec.request_bytes, 5u);
}

}  // namespace
}  // namespace weft::proxy::testing
