// Topology, traces and why over made-up events.
#include <gtest/gtest.h>

#include <functional>

#include "xds_server/telemetry/topology.h"
#include "xds_server/telemetry/traces.h"
#include "xds_server/telemetry/why.h"

namespace weft::insight {
namespace {

std::string Id(const std::string& service) { return "spiffe://mesh/ns/default/sa/" + service; }

// Both views of one hop; span ids are "<a>><b>" for the client side and "<b>" for the server side.
Event Client(const std::string& a, const std::string& b, int status, const char* flags = "") {
  Event e;
  e.direction = Direction::kOutbound, e.service = a, e.ns = "default", e.workload = a + "-1", e.epoch = "x";
  e.cluster = "outbound|80||" + b + ".default", e.status = status, e.response_flags = flags, e.protocol = "http/1.1";
  e.method = "GET", e.path = "/" + b, e.trace_id = "t1", e.request_id = "r1", e.span_id = a + ">" + b, e.parent_span_id = a;
  e.start_ns = 1'000'000'000, e.duration_us = 20'000, e.tls_version = "TLSv1.3";
  e.source_identity = Id(a), e.destination_identity = Id(b);
  return e;
}
Event Server(const std::string& a, const std::string& b, int status, const char* flags = "") {
  Event e = Client(a, b, status, flags);
  e.direction = Direction::kInbound, e.service = b, e.workload = b + "-1", e.cluster = "inbound|8000", e.version = "v1";
  e.span_id = b, e.parent_span_id = a + ">" + b, e.start_ns += 1'000'000, e.duration_us = 18'000;
  return e;
}
Attempt Try(const char* outcome, int status = 0, const char* version = "v1") {
  Attempt a;
  a.endpoint = "10.0.0.4:8000", a.workload = "cart-1", a.version = version, a.outcome = outcome, a.status = status;
  a.healthy_hosts = 2, a.total_hosts = 2, a.active_requests = 1, a.max_requests = 1024, a.duration_us = 5'000;
  return a;
}
std::vector<Cell> Cells(std::vector<Event> events) {
  std::vector<Cell> out;
  for (Event& e : events) {
    Derive(e);
    Cell c;
    c.key = SeriesOf(e), c.outcome = e.outcome, c.bucket = e.bucket, c.count = 1, c.retries = e.retries;
    out.push_back(c);
  }
  return out;
}

struct WhyCase {
  const char* name;
  std::function<void(std::vector<Event>&, std::vector<Cell>&)> make;
  const char* cause;
  std::vector<const char*> sentence;  // all must be in it
  std::vector<const char*> evidence;
};

class WhyTest : public testing::TestWithParam<WhyCase> {};

TEST_P(WhyTest, NamesTheCause) {
  std::vector<Event> events;
  std::vector<Cell> cells;
  GetParam().make(events, cells);
  for (Event& e : events) Derive(e);
  PolicyLookup lookup = [](const PolicyRef& p) -> std::optional<PolicyText> {
    PolicyText t;
    t.text = "kind: " + p.kind, t.diff = "+weight: 10", t.revision = p.revision ? p.revision : 14;
    return t;
  };
  auto why = Explain("r1", events, {}, cells, lookup);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->cause, GetParam().cause) << why->sentence;
  std::string evidence;
  for (const auto& s : why->evidence) evidence += s + "\n";
  for (const char* s : GetParam().sentence) EXPECT_NE(why->sentence.find(s), std::string::npos) << s << " in: " << why->sentence;
  for (const char* s : GetParam().evidence) EXPECT_NE(evidence.find(s), std::string::npos) << s << " in: " << evidence;
  EXPECT_EQ(evidence.find("  "), std::string::npos) << evidence;
  // The trace id leads to the same answer.
  auto by_trace = Explain("t1", events, {}, cells, lookup);
  ASSERT_TRUE(by_trace);
  EXPECT_EQ(by_trace->sentence, why->sentence);
}

using Events = std::vector<Event>;
using CellList = std::vector<Cell>;

const WhyCase kCases[] = {
    {"ConnectionRefused",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UF,URX")};
       e[0].attempts = {Try("connect_refused"), Try("connect_refused")};
       e[0].attempts[1].detail = "Connection refused";
     },
     "connection_refused", {"cart", "10.0.0.4:8000", "refused the connection", "2 attempts"},
     {"Attempt 1", "Connection refused", "did not reach a sidecar of cart"}},
    {"ApplicationNotListening",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503), Server("web", "cart", 503, "UF")};
       e[0].attempts = {Try("ok", 503)};
       e[1].attempts = {Try("connect_refused")};
       e[1].attempts[0].endpoint = "127.0.0.1:8000";
     },
     "connection_refused", {"application of cart", "127.0.0.1:8000", "nothing listens"}, {"flags UF"}},
    {"Reset",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UC")};
       e[0].attempts = {Try("reset")};
     },
     "reset", {"cart", "cut the connection", "5.0 ms"}, {}},
    {"ResetOfTheApplication",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503), Server("web", "cart", 503, "UC")};
       e[1].attempts = {Try("reset")};
     },
     "reset", {"application of cart", "cut"}, {}},
    {"RequestTimeout",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 504, "UT"), Server("web", "cart", 0, "DC")};
       e[0].duration_us = 3'000'000, e[1].duration_us = 2'999'000;
     },
     "timeout", {"cart", "3.00 s", "request timeout"}, {"had the request for 3.00 s"}},
    {"PerTryTimeout",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 504)};
       e[0].attempts = {Try("per_try_timeout"), Try("per_try_timeout"), Try("per_try_timeout")};
     },
     "timeout", {"per-try", "3 attempts"}, {"Attempt 3"}},
    {"ConnectTimeout",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UF")};
       e[0].attempts = {Try("connect_timeout")};
     },
     "timeout", {"not accepted"}, {}},
    {"TimeoutDeeper",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 504, "UT"), Server("web", "cart", 0, "DC"), Client("cart", "redis", 0, "DC")};
       e[2].parent_span_id = "cart", e[2].duration_us = 2'900'000;
     },
     "timeout", {"cart"}, {"cart → redis", "2.90 s"}},
    {"OpenBreaker",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UO")};
       e[0].attempts = {Try("overflow")};
       e[0].attempts[0].active_requests = 100, e[0].attempts[0].max_requests = 100, e[0].attempts[0].endpoint = "";
     },
     "open_breaker", {"circuit breaker for cart", "100 of at most 100"}, {"100/100 requests in flight"}},
    {"NoHealthyEndpoint",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UH")};
       e[0].attempts = {Try("")};
       e[0].attempts[0].endpoint = e[0].attempts[0].workload = e[0].attempts[0].version = "";
       e[0].attempts[0].healthy_hosts = 0, e[0].attempts[0].ejected = true;
     },
     "no_healthy_endpoint", {"No healthy endpoint of cart", "0 of 2", "ejected"}, {"0/2 hosts healthy"}},
    {"Denied",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 403), Server("web", "cart", 403)};
       e[1].policy = "Authorization/default/cart/no-web@7";
       e[1].response_detail = "rbac_access_denied_matched_policy[Authorization/default/cart/no-web@7]";
     },
     "denied_by_policy", {"Authorization cart", "no-web", "revision 7", "spiffe://mesh/ns/default/sa/web", "GET /cart"}, {}},
    {"DeniedByNoRule",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 403), Server("web", "cart", 403)};
       e[1].response_detail = "rbac_access_denied_matched_policy[none]";
     },
     "denied_by_policy", {"No rule that allows", "sa/web"}, {}},
    {"DeniedTcp",
     [](Events& e, CellList&) {
       e = {Client("web", "redis", 0), Server("web", "redis", 0)};
       for (Event& x : e) x.protocol = "tcp", x.method = x.path = "";
       e[1].policy = "Authorization/default/redis/deny@3";
     },
     "denied_by_policy", {"Authorization redis", "connect"}, {}},
    {"MissingIdentity",
     [](Events& e, CellList&) {
       e = {Server("", "cart", 0)};
       e[0].source_identity = "", e[0].tls_failure = "no_client_certificate", e[0].protocol = "tcp", e[0].parent_span_id = "";
       e[0].downstream_address = "10.0.0.9:51234";
     },
     "identity", {"refused the TLS handshake", "no_client_certificate", "10.0.0.9:51234", "proved no identity"}, {}},
    {"PlaintextUnderStrict",
     [](Events& e, CellList&) {
       e = {Server("", "cart", 0, "NR")};
       e[0].source_identity = e[0].tls_version = e[0].parent_span_id = "", e[0].response_detail = "filter_chain_not_found", e[0].protocol = "tcp";
       e[0].downstream_address = "10.0.0.9:51234";
     },
     "identity", {"refused the connection from 10.0.0.9:51234", "without mutual TLS"}, {}},
    {"WrongIdentity",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UF")};
       e[0].attempts = {Try("tls_wrong_identity")};
       e[0].attempts[0].detail = "expected spiffe://mesh/ns/default/sa/cart";
     },
     "identity", {"web's sidecar did not accept cart", "wrong_identity", "expected"}, {}},
    {"BadRollout",
     [](Events& e, CellList& cells) {
       e = {Client("web", "cart", 500), Server("web", "cart", 500)};
       e[0].cluster = "outbound|80|v2|cart.default", e[0].attempts = {Try("ok", 500, "v2")}, e[1].version = "v2";
       e[0].policy = "Route/default/cart", e[0].policy_revision = 14;
       Events around;
       for (int i = 0; i < 40; ++i) {
         Event x = Client("web", "cart", i % 4 == 0 ? 500 : 200);
         x.attempts = {Try("ok", x.status, i % 4 == 0 ? "v2" : "v1")};
         around.push_back(x);
       }
       cells = Cells(around);
     },
     "bad_rollout", {"Version v2 of cart", "100 %", "Route cart", "revision 14"}, {"version v1: 0 errors in 30 requests"}},
    {"AllVersionsFailIsNoRollout",
     [](Events& e, CellList& cells) {
       e = {Client("web", "cart", 500), Server("web", "cart", 500)};
       e[0].attempts = {Try("ok", 500, "v2")}, e[1].version = "v2", e[0].policy = "Route/default/cart", e[0].policy_revision = 14;
       Events around;
       for (int i = 0; i < 40; ++i) {
         Event x = Client("web", "cart", 500);
         x.attempts = {Try("ok", 500, i % 4 == 0 ? "v2" : "v1")};
         around.push_back(x);
       }
       cells = Cells(around);
     },
     "application_error", {"application of cart", "status 500"}, {}},
    {"Application",
     [](Events& e, CellList&) { e = {Client("web", "cart", 500), Server("web", "cart", 500)}; }, "application_error",
     {"application of cart", "status 500"}, {"Caller's view", "Callee's view", "TLSv1.3"}},
    {"DeepestHop",
     [](Events& e, CellList&) {
       e = {Server("", "web", 502), Client("web", "cart", 500), Server("web", "cart", 500), Client("cart", "redis", 503, "UF"),
            Client("web", "catalog", 200)};
       e[0].parent_span_id = "", e[0].source_identity = "";
       e[3].attempts = {Try("connect_refused")};
     },
     "connection_refused", {"redis could not be reached"}, {}},
    {"Fault",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503), Server("web", "cart", 503, "FI")};
       e[1].fault = "abort 503", e[1].policy = "Fault/default/cart", e[1].policy_revision = 5;
     },
     "fault_injected", {"on purpose", "abort 503"}, {}},
    {"NoRoute", [](Events& e, CellList&) { e = {Client("web", "cart", 404, "NR")}; }, "no_route", {"No route", "/cart"}, {}},
    {"CallerLeft", [](Events& e, CellList&) { e = {Client("web", "cart", 0, "DC")}; }, "caller_cancelled", {"web left"}, {}},
    {"FineAfterRetry",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 200)};
       e[0].attempts = {Try("connect_refused"), Try("ok", 200)};
     },
     "ok", {"did not fail", "2 attempts"}, {"connect_refused"}},
};
INSTANTIATE_TEST_SUITE_P(Causes, WhyTest, testing::ValuesIn(kCases), [](const auto& i) { return std::string(i.param.name); });

TEST(Why, PathPolicyTextAndUnknownIds) {
  std::vector<Event> e = {Client("web", "cart", 403), Server("web", "cart", 403)};
  e[1].policy = "Authorization/default/cart/no-web@7", e[1].response_detail = "rbac_access_denied_matched_policy[x]";
  for (auto& x : e) Derive(x);
  auto why = Explain("r1", e, {}, {}, [](const PolicyRef& p) {
    PolicyText t;
    t.text = p.kind + "/" + p.ns + "/" + p.name + "@" + std::to_string(p.revision);
    return t;
  });
  ASSERT_TRUE(why);
  EXPECT_EQ(why->path, (std::vector<std::string>{"web", "cart"}));
  EXPECT_EQ(why->policy_text->text, "Authorization/default/cart@7");
  EXPECT_EQ(why->policy.rule, "no-web");
  EXPECT_EQ(why->client, 0);
  EXPECT_EQ(why->server, 1);
  EXPECT_FALSE(Explain("nothing", e, {}, {}, {}));
  EXPECT_FALSE(Explain("r1", {}, {}, {}, {}));
}

TEST(Policy, Parses) {
  PolicyRef p = ParsePolicy("Authorization/ns/name/rule/with@slash@12", 3);
  EXPECT_EQ(p.rule, "rule/with@slash");
  EXPECT_EQ(p.revision, 12u);
  EXPECT_EQ(ParsePolicy("Route/default/cart", 3).revision, 3u);
  for (const char* bad : {"", "none", "a/b", "//", "x@99999999999999999999999"}) EXPECT_FALSE(ParsePolicy(bad, 0)) << bad;
}

TEST(Topology, CallersCountAndCalleesDeny) {
  std::vector<Event> events;
  for (int i = 0; i < 100; ++i) {
    Event c = Client("web", "cart", i < 3 ? 503 : i < 5 ? 403 : 200);
    c.attempts = {Try("ok", c.status, i % 2 ? "v1" : "v2")};
    c.duration_us = 1000 * (i + 1);
    events.push_back(c);
    Event s = Server("web", "cart", c.status);
    if (c.status == 403) s.policy = "Authorization/default/cart/x@2";
    events.push_back(s);
  }
  Event refused = Server("", "cart", 0);
  refused.source_identity = "", refused.tls_failure = "no_client_certificate", refused.protocol = "tcp";
  events.push_back(refused);
  Topology t = BuildTopology(Cells(events));
  ASSERT_EQ(t.edges.size(), 2u);
  const Edge& outside = t.edges[0];
  EXPECT_EQ(outside.source, "(no identity)");
  EXPECT_EQ(outside.denied, 1u);
  EXPECT_FALSE(outside.mtls);
  EXPECT_EQ(outside.denials[0].reason, "no_client_certificate");
  const Edge& e = t.edges[1];
  EXPECT_EQ(e.red.requests, 100u);
  EXPECT_EQ(e.red.errors, 3u);
  EXPECT_EQ(e.denied, 2u);
  EXPECT_EQ(e.denials, (std::vector<Denial>{{"Authorization/default/cart/x@2", 2}}));
  EXPECT_TRUE(e.mtls);
  EXPECT_EQ(e.source_identity, Id("web"));
  EXPECT_EQ(e.destination_identity, Id("cart"));
  EXPECT_EQ(e.versions.at("v1").requests, 50u);
  EXPECT_NEAR(e.red.Latency().p50_ms, 50, 3);
  EXPECT_NEAR(e.red.Latency().p95_ms, 95, 4);
  EXPECT_NEAR(e.red.Latency().p99_ms, 99, 4);
  ASSERT_EQ(t.nodes.size(), 3u);
  EXPECT_TRUE(t.nodes[1].in_mesh);
  EXPECT_FALSE(t.nodes[0].in_mesh);
  // One request in plaintext and the padlock is gone.
  Event open = Client("web", "cart", 200);
  open.tls_version = "";
  events.push_back(open);
  EXPECT_FALSE(BuildTopology(Cells(events)).edges[1].mtls);

  auto services = BuildServices(Cells(events));
  ASSERT_EQ(services.size(), 2u);
  EXPECT_EQ(services[0].name, "cart");
  EXPECT_EQ(services[0].total.requests, 101u);  // its own sidecar's view, the refused handshake included
  EXPECT_EQ(services[0].callers.size(), 2u);
  EXPECT_EQ(services[1].callees, (std::vector<std::string>{"cart"}));
}

TEST(Traces, JoinsBothEndsAndSpans) {
  std::vector<Event> events = {Server("web", "cart", 200), Client("web", "cart", 200), Client("cart", "redis", 200)};
  events[2].parent_span_id = "app";
  events[2].start_ns += 3'000'000;
  for (auto& e : events) Derive(e);
  std::vector<Span> spans(1);
  spans[0].span_id = "app", spans[0].parent_span_id = "cart", spans[0].name = "load", spans[0].service = "cart", spans[0].kind = "internal";
  spans[0].start_ns = 1'002'000'000, spans[0].end_ns = 1'010'000'000;
  TraceView v = BuildTrace("t1", events, spans);
  ASSERT_EQ(v.hops.size(), 4u);
  const char* kinds[] = {"client", "server", "internal", "client"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(v.hops[i].kind, kinds[i]);
    EXPECT_EQ(v.hops[i].depth, i);
    EXPECT_EQ(v.hops[i].parent, i - 1);
  }
  EXPECT_EQ(v.services, (std::vector<std::string>{"web", "cart"}));
}

TEST(Traces, CyclesDuplicatesAndFloods) {
  std::vector<Span> spans;
  auto add = [&](std::string id, std::string parent) {
    Span s;
    s.span_id = std::move(id), s.parent_span_id = std::move(parent), s.start_ns = static_cast<int64_t>(spans.size()) * 1000;
    s.end_ns = s.start_ns + 500;
    spans.push_back(s);
  };
  add("a", "c"), add("b", "a"), add("c", "b"), add("self", "self"), add("b", "x"), add("d", "c"), add("lost", "unknown");
  TraceView v = BuildTrace("t", {}, spans);
  EXPECT_TRUE(v.cycle);
  EXPECT_EQ(v.left_out, 1u);
  ASSERT_EQ(v.hops.size(), 6u);
  EXPECT_EQ(v.hops[0].span_id, "a");
  EXPECT_EQ(v.hops[0].parent, -1);
  for (int i = 10; i < 30'000; ++i) add(std::to_string(i), std::to_string(i - 1));
  v = BuildTrace("t", {}, spans);
  EXPECT_EQ(v.hops.size(), kMaxHops);
  EXPECT_EQ(BuildTrace("t", {}, {}).hops.size(), 0u);
}

}  // namespace
}  // namespace weft::insight
