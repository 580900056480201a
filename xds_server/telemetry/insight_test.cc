// Topology and traces over made-up events.
#include <gtest/gtest.h>

#include "xds_server/telemetry/test_events.h"
#include "xds_server/telemetry/topology.h"
#include "xds_server/telemetry/traces.h"

namespace weft::insight {
namespace {

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
