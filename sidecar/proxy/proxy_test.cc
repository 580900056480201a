// The data plane end to end on loopback: every pair of protocols, and what is promised when things fail.
#include <gtest/gtest.h>

#include <chrono>

#include "sidecar/proxy/testing/peers.h"

namespace weft::proxy::testing {
namespace {

class Pairs : public ::testing::TestWithParam<Legs> {};

TEST_P(Pairs, RequestAndResponse) {
  const Legs p = GetParam();
  Through through(p, Echo().handler);
  Mesh& mesh = through.mesh;
  TestClient& c = *through.client;
  for (int i = 0; i < 3; ++i) {
    Reply r = c.Get("/a?b=" + std::to_string(i));
    ASSERT_EQ(r.status, "200") << i;
    EXPECT_EQ(r.header("x-path"), "/a?b=" + std::to_string(i));
    EXPECT_EQ(r.header("server"), "envoy");
    EXPECT_EQ(r.header("seen-x-request-id").size(), 36u);
    EXPECT_EQ(r.header("seen-traceparent").size(), 55u);
    EXPECT_EQ(r.header("seen-x-forwarded-proto"), p.tls ? "https" : "http");
    EXPECT_FALSE(r.header("x-envoy-upstream-service-time").empty());
  }
  std::string big(3'000'000, 'x');
  for (size_t i = 0; i < big.size(); i += 1000) big[i] = static_cast<char>('a' + i % 23);
  Reply r = c.Post("/big", big);
  ASSERT_EQ(r.status, "200");
  EXPECT_TRUE(r.body == big) << r.body.size();
  EXPECT_EQ(through.app.connections(), 1);
  for (int i = 0; i < 3; ++i) {
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.status, 200u);
    EXPECT_EQ(rec.detail, "via_upstream");
    EXPECT_EQ(rec.flags.ToString(), "");
    EXPECT_EQ(rec.cluster, "app");
    EXPECT_EQ(rec.route, "main");
    ASSERT_EQ(rec.attempt_count, 1u);
    EXPECT_STREQ(rec.attempts[0].outcome, "ok");
    EXPECT_EQ(rec.attempts[0].connection_reused, i != 0);
    EXPECT_EQ(rec.peer_identity, p.tls ? kCart : "");
    EXPECT_EQ(rec.upstream_peer_identity, p.tls ? kCart : "");
  }
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.request_bytes, big.size());
  EXPECT_EQ(rec.response_bytes, big.size());
}

TEST(Grpc, TrailersAndStatus) {
  TestServer app({.h2 = true, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "reply", {{"content-type", "application/grpc"}}, {{"grpc-status", "5"}, {"grpc-message", "no"}});
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient c(mesh.port(), true);
  Reply r = c.Post("/pkg.Svc/Method", "message", {{"content-type", "application/grpc"}, {"te", "trailers"}});
  EXPECT_EQ(r.status, "200");
  EXPECT_EQ(r.body, "reply");
  EXPECT_EQ(r.trailers.Value(Token::kGrpcStatus), "5");
  Record rec = mesh.NextRecord();
  EXPECT_TRUE(rec.grpc);
  EXPECT_EQ(rec.grpc_status, 5);
}

class Tunnels : public Pairs {};
TEST_P(Tunnels, WebSocket) {
  Legs p = GetParam();
  TestServer app({.h2 = p.up_h2, .handler = [](ServerStream& s) {
    if (!s.responded) s.Head("200");
    s.EchoBody();
  }});
  Mesh mesh;
  mesh.hcm.upgrades = {"websocket"};
  mesh.AddCluster("app", {app.port()}).protocol = p.up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
  mesh.Start();
  TestClient c(mesh.port(), p.down_h2);
  auto* call = c.Open("CONNECT", "/chat", {{":protocol", "websocket"}, {"sec-websocket-version", "13"}}, false);
  ASSERT_TRUE(call);
  ASSERT_TRUE(c.Until([&] { return call->in.bits & codec::Inbound::kHead; }));
  EXPECT_EQ(call->in.head.Value(Token::kStatus), "200");
  std::string all;
  for (int i = 0; i < 3; ++i) {
    std::string message = "ping" + std::to_string(i);
    c.Send(call, message, false);
    std::string want = all += message;
    ASSERT_TRUE(c.Until([&] { return call->body.size() >= want.size(); }));
    EXPECT_EQ(call->body, want);
    mesh.Publish();  // a push leaves the tunnel alone
  }
  c.Send(call, "", true);
  ASSERT_TRUE(c.Until([&] { return call->in.bits & (codec::Inbound::kEnd | codec::Inbound::kReset); }));
  Record rec = mesh.NextRecord();
  EXPECT_TRUE(rec.websocket);
  EXPECT_EQ(rec.request_bytes, 15u);
  EXPECT_EQ(rec.response_bytes, 15u);
}

std::string Name(const ::testing::TestParamInfo<Legs>& i) {
  return std::string(i.param.down_h2 ? "h2" : "h1") + "_" + (i.param.up_h2 ? "h2" : "h1") + (i.param.tls ? "_tls" : "");
}
INSTANTIATE_TEST_SUITE_P(All, Tunnels,
                         ::testing::Values(Legs{false, false, false}, Legs{false, true, false}, Legs{true, false, false},
                                           Legs{true, true, false}),
                         Name);
INSTANTIATE_TEST_SUITE_P(All, Pairs,
                         ::testing::Values(Legs{false, false, false}, Legs{false, true, false}, Legs{true, false, false},
                                           Legs{true, true, false}, Legs{false, false, true}, Legs{false, true, true},
                                           Legs{true, false, true}, Legs{true, true, true}),
                         Name);

TEST(Failures, NoRouteNoClusterNoHost) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {});
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "503");
  EXPECT_EQ(r.body, "no healthy upstream");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "UH");
  EXPECT_EQ(rec.detail, "no_healthy_upstream");
  mesh.route->forward.cluster = "missing";
  mesh.Publish();
  r = c.Get("/");
  EXPECT_EQ(r.status, "503");
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "NC");
  EXPECT_EQ(rec.detail, "cluster_not_found");
  mesh.route->match.value = "/only";
  mesh.Publish();
  r = c.Get("/");
  EXPECT_EQ(r.status, "404");
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "NR");
  EXPECT_EQ(rec.detail, "route_not_found");
}

TEST(Failures, ConnectionRefusedGoesToAnotherHost) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {ClosedPort(), app.port()});
  mesh.Start();
  TestClient c(mesh.port());
  bool retried = false;
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(c.Post("/", "order").status, "200");
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.status, 200u);
    if (rec.attempt_count == 2) {
      retried = true;
      EXPECT_STREQ(rec.attempts[0].outcome, "connect_refused");
      EXPECT_STREQ(rec.attempts[1].outcome, "ok");
      EXPECT_EQ(rec.retries, 1u);
    }
  }
  EXPECT_TRUE(retried);
}

TEST(Failures, ConnectionRefusedEverywhere) {
  Mesh mesh;
  mesh.AddCluster("app", {ClosedPort()});
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "503");
  EXPECT_EQ(r.body,
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "URX,UF");
  EXPECT_EQ(rec.detail, "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}");
  EXPECT_STREQ(rec.attempts[0].outcome, "connect_refused");
}

// A server side that could not reach its application says so, and a caller whose route lists that header asks another
// instance even for a POST.
TEST(Failures, UndeliveredIsSaidAndRetried) {
  Mesh broken;
  broken.listener.direction = model::Listener::kInbound;
  broken.AddCluster("app", {ClosedPort()});
  broken.Start();
  TestClient direct(broken.port());
  Reply r = direct.Post("/", "order");
  EXPECT_EQ(r.status, "503");
  EXPECT_EQ(r.header("x-weft-undelivered"), "true");

  TestServer good(Echo());
  Mesh caller;
  caller.AddCluster("app", {broken.port(), good.port()});
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::kRetryHeaders;
  retry->num_retries = 2;
  retry->previous_hosts_predicate = true;
  retry->retriable_headers.push_back({.name = "x-weft-undelivered"});
  caller.forward().retry = retry;
  caller.Start();
  TestClient c(caller.port());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(c.Post("/", "order").status, "200");
}

TEST(Failures, RetryOn503AndBodyIsSentAgain) {
  std::atomic<int> calls{0};
  TestServer app({.handler = [&](ServerStream& s) {
    if (!s.complete()) return;
    std::string body = s.in.body.ToString();
    s.Respond(++calls < 3 ? "503" : "200", body, {{"seen", std::string(s.in.head.Value(Token::kEnvoyAttemptCount))}});
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::kRetry5xx, retry->num_retries = 4, retry->backoff_base_ns = 1'000'000, retry->backoff_max_ns = 2'000'000;
  mesh.forward().retry = retry;
  mesh.routes.virtual_hosts[0].include_request_attempt_count = true;
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Post("/", "the order");
  EXPECT_EQ(r.status, "200");
  EXPECT_EQ(r.body, "the order");
  EXPECT_EQ(r.header("seen"), "3");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.attempt_count, 3u);
  EXPECT_EQ(rec.attempts[0].status, 503u);
  EXPECT_STREQ(rec.attempts[0].outcome, "retriable_status");
  EXPECT_EQ(rec.retries, 2u);
}

TEST(Failures, StaleConnectionIsReplacedForSafeRequests) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient c(mesh.port());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(c.Get("/").status, "200");
    app.CloseAllConnections();
  }
}

TEST(Failures, ResetBeforeResponse) {
  TestServer app({.close_at_once = true});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Post("/", "order");
  EXPECT_EQ(r.status, "503");
  Record rec = mesh.NextRecord();
  // Whether the reset is seen while connecting or after depends on the kernel's timing.
  EXPECT_TRUE(rec.flags.Has(ResponseFlag::kUpstreamConnectionTermination) || rec.flags.Has(ResponseFlag::kUpstreamConnectionFailure))
      << rec.flags.ToString() << " " << rec.detail;
}

TEST(Failures, ResetInTheMiddleIsPassedOn) {
  for (bool h2 : {false, true}) {
    TestServer app({.h2 = h2, .handler = [](ServerStream& s) {
      s.Head("200", {{"content-length", "100"}});
      s.Body("part", false);
      s.connection ? s.CloseConnection() : void();
    }});
    Mesh mesh;
    mesh.AddCluster("app", {app.port()}).protocol = h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
    mesh.Start();
    TestClient c(mesh.port(), true);
    Reply r = c.Get("/");
    EXPECT_TRUE(r.reset);
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.flags.ToString(), "UC");
  }
}

TEST(Failures, RouteTimeout) {
  TestServer app({.handler = [](ServerStream&) {}});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.forward().timeout_ns = 30'000'000, mesh.forward().timeout_set = true;
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "504");
  EXPECT_EQ(r.body, "upstream request timeout");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "UT");
  EXPECT_EQ(rec.detail, "response_timeout");
  // gRPC callers get a status.
  TestClient g(mesh.port(), true);
  r = g.Post("/svc/m", "x", {{"content-type", "application/grpc"}});
  EXPECT_EQ(r.status, "200");
  EXPECT_EQ(r.header("grpc-status"), "14");
  EXPECT_EQ(r.header("grpc-message"), "upstream request timeout");
}

// Whether the request ended before its response began, or after.
TEST(Failures, AGrpcStreamPastItsCallersDeadlineEndsWithAStatus) {
  for (bool answered_first : {false, true}) {
    TestServer app({.h2 = true, .handler = [answered_first](ServerStream& s) {
                      if (s.responded || !(answered_first || s.complete())) return;
                      s.Head("200", {{"content-type", "application/grpc"}}), s.Body("message", false);
                    }});
    Mesh mesh;
    mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
    mesh.Start();
    TestClient c(mesh.port(), true);
    auto* call = c.Open("POST", "/svc/m", {{"content-type", "application/grpc"}, {"grpc-timeout", "100m"}}, false);
    ASSERT_TRUE(call);
    if (answered_first) {
      ASSERT_TRUE(c.Until([&] { return call->in.bits & codec::Inbound::kHead; }));
    }
    c.Send(call, "x", true);
    const Reply r = c.Finish(call);
    EXPECT_FALSE(r.reset);
    EXPECT_EQ(r.status, "200");
    EXPECT_EQ(r.body, "message");
    EXPECT_EQ(r.trailers.Value(Token::kGrpcStatus), "4");
    Record rec = mesh.NextRecord();
    EXPECT_EQ(rec.flags.ToString(), "UT");
    EXPECT_EQ(rec.grpc_status, 4);
  }
}

TEST(Failures, PerTryTimeoutThenAnotherHost) {
  TestServer slow({.handler = [](ServerStream&) {}});
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {slow.port(), app.port()});
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::kRetry5xx, retry->num_retries = 2, retry->per_try_timeout_ns = 30'000'000, retry->previous_hosts_predicate = true;
  retry->host_selection_attempts = 5, retry->backoff_base_ns = 1'000'000;
  mesh.forward().retry = retry;
  mesh.Start();
  TestClient c(mesh.port());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(c.Get("/").status, "200");
}

TEST(Failures, BreakerOverflow) {
  std::atomic<bool> go{false};
  TestServer app({.handler = [&](ServerStream& s) {
    if (s.path() == "/hold") return;
    s.Respond("200", "ok");
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).breakers[0].max_requests = 1;
  mesh.Start();
  TestClient holder(mesh.port(), true);
  auto* held = holder.Open("GET", "/hold", {}, true);
  ASSERT_TRUE(held);
  while (mesh.plane->active_requests() == 0 || app.requests() == 0) std::this_thread::yield();
  TestClient c(mesh.port());
  Reply r = c.Get("/");
  EXPECT_EQ(r.status, "503");
  EXPECT_EQ(r.header("x-envoy-overloaded"), "true");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "UO");
  EXPECT_STREQ(rec.attempts[0].outcome, "overflow");
  // The caller that leaves frees the place.
  holder.Close();
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "DC");
  EXPECT_EQ(c.Get("/").status, "200");
}

TEST(Filters, RbacFaultAndLimit) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  auto rules = std::make_shared<model::RbacRules>();
  rules->action = model::RbacRules::kDeny;
  model::RbacPolicy deny;
  deny.name = "Authorization/default/no-red/0@7";
  model::RbacNode header;
  header.kind = model::RbacNode::kHeader;
  header.header.kind = model::HeaderMatcher::kString;
  header.header.name = "x-color";
  header.header.string.kind = model::StringMatcher::kExact, header.header.string.value = "red";
  model::RbacNode any;
  any.kind = model::RbacNode::kAny;
  deny.permissions.push_back(header), deny.principals.push_back(any);
  rules->policies.push_back(deny);
  auto rbac = std::make_shared<model::RbacConfig>();
  rbac->rules = rules;
  model::HttpFilter f;
  f.name = "rbac", f.config = std::shared_ptr<const model::RbacConfig>(rbac);
  mesh.hcm.filters.insert(mesh.hcm.filters.begin(), f);
  auto fault = std::make_shared<model::FaultConfig>();
  fault->has_abort = true, fault->http_status = 418, fault->abort_percent = {100, 100};
  fault->has_delay = true, fault->delay_ns = 20'000'000, fault->delay_percent = {100, 100};
  model::HeaderMatcher wants;
  wants.name = "x-fault";
  fault->headers.push_back(wants);
  f.name = "fault", f.config = std::shared_ptr<const model::FaultConfig>(fault);
  mesh.hcm.filters.insert(mesh.hcm.filters.begin() + 1, f);
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.Get("/", {{"x-color", "blue"}}).status, "200");
  mesh.NextRecord();
  Reply r = c.Get("/", {{"x-color", "red"}});
  EXPECT_EQ(r.status, "403");
  EXPECT_EQ(r.body, "RBAC: access denied");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.detail, "rbac_access_denied_matched_policy[Authorization/default/no-red/0@7]");
  EXPECT_EQ(rec.policy, "Authorization/default/no-red/0@7");
  EXPECT_EQ(rec.policy_revision, 7u);
  r = c.Get("/", {{"x-fault", "1"}});
  EXPECT_EQ(r.status, "418");
  EXPECT_EQ(r.body, "fault filter abort");
  rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "DI,FI");
  EXPECT_EQ(rec.fault, "delay 20ms, abort 418");
  EXPECT_GE(rec.duration_ns, 20'000'000);
}

TEST(Heads, TraceAndTrust) {
  TestServer app(Echo());
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient c(mesh.port());
  Reply r = c.Get("/", {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
                        {"x-envoy-attempt-count", "9"},
                        {"x-forwarded-client-cert", "URI=spiffe://mesh/ns/default/sa/admin"},
                        {"x-request-id", "mine"}});
  EXPECT_EQ(r.header("seen-traceparent").substr(3, 32), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_NE(r.header("seen-traceparent").substr(36, 16), "b7ad6b7169203331");
  EXPECT_EQ(r.header("seen-x-envoy-attempt-count"), "");
  EXPECT_EQ(r.header("seen-x-forwarded-client-cert"), "");
  EXPECT_EQ(r.header("seen-x-request-id"), "mine");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.parent_span_id[0], 0xb7);
  EXPECT_EQ(rec.trace_id[0], 0x0a);
}

// As Envoy without tracing: the caller's trace passes untouched, and none is begun.
TEST(Heads, NoSpansWhereNobodyReadsThem) {
  for (bool tracing : {false, true}) {
    TestServer app(Echo());
    Mesh mesh;
    mesh.options.all_records = false;
    if (!tracing) mesh.hcm.tracing.reset();
    mesh.AddCluster("app", {app.port()});
    mesh.Start();
    TestClient c(mesh.port());
    const char* theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    Reply r = c.Get("/", {{"traceparent", theirs}, {"tracestate", "a=b"}});
    EXPECT_EQ(r.header("seen-traceparent") == theirs, !tracing);
    EXPECT_EQ(r.header("seen-tracestate"), "a=b");
    EXPECT_EQ(c.Get("/").header("seen-traceparent").size(), tracing ? 55u : 0u);
  }
}

TEST(Tcp, RelaysBothWaysAndHalfCloses) {
  TestServer app({.raw = [](const std::string& got) { return got.empty() ? "hello\n" : "echo " + got; }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.tcp = std::make_unique<model::TcpProxy>();
  mesh.tcp->stat_prefix = "tcp", mesh.tcp->cluster = "app";
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.ReadRaw(6), "hello\n");
  c.SendRaw("abc");
  EXPECT_EQ(c.ReadRaw(8), "echo abc");
  c.transport().ShutdownWrite();
  c.SendRaw("");
  EXPECT_EQ(c.ReadRaw(1), "");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.protocol, Protocol::kTcp);
  EXPECT_EQ(rec.request_bytes, 3u);
  EXPECT_EQ(rec.response_bytes, 14u);
  EXPECT_EQ(rec.flags.ToString(), "");
  EXPECT_STREQ(rec.attempts[0].outcome, "ok");
}

TEST(Tcp, RefusedIsReset) {
  Mesh mesh;
  mesh.AddCluster("app", {ClosedPort()});
  mesh.tcp = std::make_unique<model::TcpProxy>();
  mesh.tcp->cluster = "app";
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.ReadRaw(1), "");
  EXPECT_TRUE(mesh.NextRecord().flags.Has(ResponseFlag::kUpstreamConnectionFailure));
}

TEST(Drain, FinishesWhatIsUnderWay) {
  std::atomic<bool> go{false};
  TestServer app({.h2 = true, .handler = [&](ServerStream& s) {
    if (s.complete()) s.Respond("200", "done");
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).protocol = model::Cluster::kHttp2;
  mesh.Start();
  TestClient h2(mesh.port(), true), h1(mesh.port());
  auto* call = h2.Open("POST", "/", {}, false);
  h2.Send(call, "some", false);
  EXPECT_EQ(h1.Get("/").status, "200");
  while (mesh.plane->active_requests() == 0) std::this_thread::yield();
  mesh.plane->StartDrain(20 * base::kSecond);
  ASSERT_TRUE(h1.Until([&] { return h1.closed(); }));
  h2.Send(call, "more", true);
  EXPECT_EQ(h2.Finish(call).status, "200");
  ASSERT_TRUE(h2.Until([&] { return h2.closed(); }));
  while (mesh.plane->active_connections() != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace weft::proxy::testing
