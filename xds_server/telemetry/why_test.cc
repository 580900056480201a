// Why, over made-up events.
#include <gtest/gtest.h>

#include <functional>

#include "xds_server/telemetry/denials.h"
#include "xds_server/telemetry/test_events.h"
#include "xds_server/telemetry/why.h"

namespace weft::insight {
namespace {

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
  Sources sources;
  sources.policy = lookup;
  sources.workload_at = [](const std::string& ip) { return ip == "10.0.0.9" ? "stray-1 of service stray.default" : ""; };
  auto why = Explain("r1", events, {}, cells, sources);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->cause, GetParam().cause) << why->sentence;
  std::string evidence;
  for (const auto& s : why->evidence) evidence += s + "\n";
  for (const char* s : GetParam().sentence) EXPECT_NE(why->sentence.find(s), std::string::npos) << s << " in: " << why->sentence;
  for (const char* s : GetParam().evidence) EXPECT_NE(evidence.find(s), std::string::npos) << s << " in: " << evidence;
  EXPECT_EQ(evidence.find("  "), std::string::npos) << evidence;
  // The trace id leads to the same answer.
  auto by_trace = Explain("t1", events, {}, cells, sources);
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
    {"EjectedSaysWhoWhenAndWhy",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UH")};
       e[0].policy = "Traffic/default/cart", e[0].policy_revision = 5;
       e[0].attempts = {Try("no_healthy_host")};
       Attempt& a = e[0].attempts[0];
       a.endpoint = a.workload = a.version = "", a.healthy_hosts = 0, a.total_hosts = 1;
       a.ejections = {{"10.0.0.4:8000", "cart-1", "v1", "consecutive_local_origin_failure", "timeout", 2, 3'723'004, 3'743'004}};
     },
     "no_healthy_endpoint",
     {"web's sidecar had ejected its only instance, 10.0.0.4:8000 (cart-1, version v1) at 01:02:03.004 UTC after 2 timeouts in a row, until 01:02:23.004 UTC",
      "Traffic cart, revision 5"},
     {"Ejected: 10.0.0.4:8000", "consecutive_local_origin_failure", "did not reach a sidecar of cart"}},
    {"NoInstance",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UH")};
       e[0].attempts = {Try("no_healthy_host")};
       e[0].attempts[0].total_hosts = e[0].attempts[0].healthy_hosts = 0;
     },
     "no_healthy_endpoint", {"none of its instances is ready"}, {}},
    {"RetryBudgetIsNoBreaker",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UO"), Server("web", "cart", 503)};
       e[0].policy = "Traffic/default/cart", e[0].policy_revision = 9;
       e[0].attempts = {Try("ok", 503)};
       e[0].attempts[0].not_retried = "retry_budget", e[0].attempts[0].retry_budget_percent = 20;
       e[0].attempts[0].active_retries = e[0].attempts[0].max_retries = 3;
     },
     "application_error", {"application of cart", "Retries stopped: the retry budget of 20 % was spent (it allowed 3 at a time", "Traffic cart, revision 9"}, {}},
    {"MaxRetriesIsNoBreaker",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UO,UF")};
       e[0].attempts = {Try("connect_refused")};
       e[0].attempts[0].not_retried = "max_retries", e[0].attempts[0].max_retries = 1, e[0].attempts[0].active_retries = 1;
     },
     "connection_refused", {"refused the connection", "the limit of parallel retries was reached", "default limits"}, {}},
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
       e[0].source_identity = "", e[0].tls_failure = "no_certificate", e[0].protocol = "tcp", e[0].parent_span_id = "";
       e[0].downstream_address = "10.0.0.9:51234", e[0].policy = "MeshTls/default/cart", e[0].policy_revision = 6;
     },
     "missing_identity",
     {"cart's sidecar refused", "10.0.0.9:51234 (workload stray-1 of service stray.default)", "showed no certificate", "STRICT of MeshTls cart, revision 6"},
     {"no sidecar reported a connection from 10.0.0.9:51234"}},
    {"PlaintextUnderStrict",
     [](Events& e, CellList&) {
       e = {Server("", "cart", 0, "NR")};
       e[0].source_identity = e[0].tls_version = e[0].parent_span_id = "", e[0].response_detail = "filter_chain_not_found", e[0].protocol = "tcp";
       e[0].downstream_address = "10.0.0.8:51234", e[0].tls_failure = "plaintext";
     },
     "missing_identity", {"refused the connection from 10.0.0.8:51234 (no workload of the mesh)", "spoke plaintext", "default mode STRICT"}, {}},
    {"PortThatNobodyServes",
     [](Events& e, CellList&) {
       e = {Server("", "cart", 0, "NR")};
       e[0].source_identity = e[0].tls_version = e[0].parent_span_id = "", e[0].response_detail = "filter_chain_not_found", e[0].protocol = "tcp";
       e[0].original_destination = "10.0.0.4:9999";
     },
     "no_route", {"serves nothing at 10.0.0.4:9999"}, {}},
    {"ForeignCertificate",
     [](Events& e, CellList&) {
       e = {Server("", "cart", 0)};
       e[0].source_identity = e[0].parent_span_id = "", e[0].tls_failure = "unknown_ca", e[0].protocol = "tcp";
       e[0].response_detail = "no trusted root (spiffe://elsewhere/ns/default/sa/web)";
     },
     "wrong_identity", {"another authority", "claiming spiffe://elsewhere/ns/default/sa/web."}, {"TLS: unknown_ca, no trusted root"}},
    {"WrongIdentity",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UF")};
       e[0].attempts = {Try("tls_san_mismatch")};
       e[0].attempts[0].endpoint = "10.0.0.9:8000";
       e[0].attempts[0].detail = "san_mismatch: peer is spiffe://mesh/ns/default/sa/stray, expected spiffe://mesh/ns/default/sa/cart";
     },
     "wrong_identity", {"web's sidecar expected spiffe://mesh/ns/default/sa/cart at 10.0.0.9:8000", "but spiffe://mesh/ns/default/sa/stray presented itself"},
     {"Registered at that address: stray-1 of service stray.default", "did not reach a sidecar of cart"}},
    {"WrongIdentitySeenByBoth",
     [](Events& e, CellList&) {
       e = {Client("web", "cart", 503, "UF"), Server("", "stray", 0)};
       e[0].attempts = {Try("tls_san_mismatch")};
       e[0].attempts[0].detail = "san_mismatch: peer is spiffe://mesh/ns/default/sa/stray, expected spiffe://mesh/ns/default/sa/cart";
       e[1].parent_span_id = "web>cart", e[1].tls_failure = "peer_alert", e[1].source_identity = "", e[1].protocol = "tcp";
     },
     "wrong_identity", {"expected spiffe://mesh/ns/default/sa/cart", "presented itself"}, {"Callee's view (stray-1): handshake refused, peer_alert"}},
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
  Sources sources;
  sources.policy = [](const PolicyRef& p) {
    PolicyText t;
    t.text = p.kind + "/" + p.ns + "/" + p.name + "@" + std::to_string(p.revision);
    return t;
  };
  auto why = Explain("r1", e, {}, {}, sources);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->path, (std::vector<std::string>{"web", "cart"}));
  EXPECT_EQ(why->policy_text->text, "Authorization/default/cart@7");
  EXPECT_EQ(why->policy.rule, "no-web");
  EXPECT_EQ(why->client->span_id, "web>cart");
  EXPECT_EQ(why->server->span_id, "cart");
  EXPECT_FALSE(Explain("nothing", e, {}, {}, {}));
  EXPECT_FALSE(Explain("r1", {}, {}, {}, {}));
}

// A denied TCP connection behind an application's 503: nothing in it names the request.
TEST(Why, TiesACallThatCarriesNoTrace) {
  std::vector<Event> asked = {Client("web", "cart", 503), Server("web", "cart", 503)};
  asked[0].attempts = {Try("ok", 503)}, asked[1].attempts = {Try("ok", 503)};
  Event call = Client("cart", "redis", 0, "UC"), refused = Server("cart", "redis", 0, "UAEX");
  for (Event* e : {&call, &refused}) {
    e->protocol = "tcp", e->method = e->path = e->request_id = e->parent_span_id = "", e->trace_id = "t-of-" + e->workload;
    e->start_ns = asked[1].start_ns + 2'000'000, e->duration_us = 3'000;
  }
  call.attempts = {Try("ok")};
  call.attempts[0].local_address = "10.0.0.4:40001";
  refused.policy = "Authorization/default/redis/nobody@12", refused.downstream_address = "10.0.0.4:40001";
  refused.response_detail = "rbac_access_denied_matched_policy[Authorization/default/redis/nobody@12]";
  for (Event* e : {&asked[0], &asked[1], &call, &refused}) Derive(*e);
  Sources sources;
  sources.failed_calls = [&](const std::string& workload, int64_t from, int64_t to) {
    EXPECT_EQ(workload, "cart-1");
    EXPECT_LE(from, call.end_ns);
    EXPECT_GT(to, call.end_ns);
    return std::vector<Event>{call};
  };
  sources.arrivals = [&](const std::string& address, int64_t, int64_t) {
    return address == "10.0.0.4:40001" ? std::vector<Event>{refused} : std::vector<Event>();
  };
  sources.departures = [&](const std::string& address, int64_t, int64_t) {
    return address == "10.0.0.4:40001" ? std::vector<Event>{call} : std::vector<Event>();
  };
  auto why = Explain("r1", asked, {}, {}, sources);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->cause, "denied_by_policy");
  EXPECT_EQ(why->sentence.find("cart answered web with status 503 because its TCP connection to redis was denied. redis's policy Authorization redis, "
                               "rule nobody, revision 12, does not let spiffe://mesh/ns/default/sa/cart connect."), 0u) << why->sentence;
  EXPECT_EQ(why->path, (std::vector<std::string>{"web", "cart", "redis"}));
  ASSERT_TRUE(why->client && why->server);
  EXPECT_EQ(why->client->workload, "cart-1");
  EXPECT_EQ(why->server->workload, "redis-1");
  EXPECT_EQ(why->decided_by, "Authorization redis, rule nobody, revision 12");
  // Somebody else's request was there as well: then it is only likely.
  Event other = Server("web", "cart", 200);
  other.span_id = "other", other.start_ns = call.start_ns - 1'000'000;
  Derive(other);
  sources.requests = [&](const std::string&, int64_t, int64_t) { return std::vector<Event>{asked[1], other}; };
  EXPECT_NE(Explain("r1", asked, {}, {}, sources)->sentence.find("with status 503, most likely because its TCP connection"), std::string::npos);
  // Asked for by the refused connection's own id: the same two ends.
  auto there = Explain("t-of-redis-1", {refused}, {}, {}, sources);
  ASSERT_TRUE(there);
  EXPECT_EQ(there->cause, "denied_by_policy");
  ASSERT_TRUE(there->client);
  EXPECT_EQ(there->client->span_id, call.span_id);
}

// The same by HTTP, when the application does not pass the trace on.
TEST(Why, TiesAnUntracedRequestAndFollowsItsTrace) {
  std::vector<Event> asked = {Client("web", "cart", 500), Server("web", "cart", 500)};
  std::vector<Event> behind = {Client("cart", "pricing", 503, "UF"), Server("cart", "pricing", 503, "UF")};
  for (Event& e : behind) e.trace_id = "t2", e.request_id = "r2", e.start_ns = asked[1].start_ns + 1'000'000, e.duration_us = 2'000;
  behind[0].parent_span_id = "", behind[1].attempts = {Try("connect_refused")};
  for (auto* list : {&asked, &behind}) {
    for (Event& e : *list) Derive(e);
  }
  Sources sources;
  sources.failed_calls = [&](const std::string& workload, int64_t, int64_t) {
    return workload == "cart-1" ? std::vector<Event>{behind[0]} : std::vector<Event>();
  };
  sources.trace = [&](const std::string& id) { return id == "t2" ? behind : std::vector<Event>(); };
  auto why = Explain("r1", asked, {}, {}, sources);
  ASSERT_TRUE(why);
  EXPECT_EQ(why->cause, "connection_refused");
  EXPECT_NE(why->sentence.find("cart answered web with status 500 because its GET /pricing to pricing failed. The application of pricing refused"),
            std::string::npos) << why->sentence;
  ASSERT_TRUE(why->server);
  EXPECT_EQ(why->server->workload, "pricing-1");
}

TEST(Denials, NewestExamplesStandBesideTheirReason) {
  std::vector<Event> events;
  for (int i = 0; i < 9; ++i) {
    Event e = Server("web", "cart", 403);
    e.policy = i % 3 ? "Authorization/default/cart/a@2" : "Authorization/default/cart/b@2", e.trace_id = "t" + std::to_string(i);
    Derive(e);
    events.push_back(e);
  }
  Topology t = BuildTopology(Cells(events));
  AddExamples(events, t);
  ASSERT_EQ(t.edges.size(), 1u);
  ASSERT_EQ(t.edges[0].denials.size(), 2u);
  EXPECT_EQ(t.edges[0].denials[0].examples, (std::vector<std::string>{"t1", "t2", "t4", "t5", "t7"}));
  EXPECT_EQ(t.edges[0].denials[1].examples, (std::vector<std::string>{"t0", "t3", "t6"}));
}

TEST(Policy, Parses) {
  PolicyRef p = ParsePolicy("Authorization/ns/name/rule/with@slash@12", 3);
  EXPECT_EQ(p.rule, "rule/with@slash");
  EXPECT_EQ(p.revision, 12u);
  EXPECT_EQ(ParsePolicy("Route/default/cart", 3).revision, 3u);
  for (const char* bad : {"", "none", "a/b", "//", "x@99999999999999999999999"}) EXPECT_FALSE(ParsePolicy(bad, 0)) << bad;
}

}  // namespace
}  // namespace weft::insight
