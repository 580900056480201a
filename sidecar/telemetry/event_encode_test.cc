#include "sidecar/telemetry/event_encode.h"

#include <gtest/gtest.h>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/base/testing/alloc_counter.h"

namespace weft::telemetry {
namespace {

const EventOptions kOwn{"web-1", "web", "default", "v1"};

proxy::Record Outbound() {
  proxy::Record r;
  r.direction = proxy::Direction::kOutbound, r.protocol = proxy::Protocol::kHttp11;
  r.start_unix_ns = 1'700'000'000'000'000'000, r.duration_ns = 2'500'000;
  r.request_id = "id-1", r.method = "GET", r.path = "/cart?user=secret#x", r.authority = "cart", r.status = 503, r.grpc_status = 7;
  r.trace_id[3] = 1, r.span_id[0] = 2;
  r.flags.Set(proxy::ResponseFlag::kUpstreamConnectionFailure);
  r.detail = "via_upstream", r.route = "canary", r.cluster = "outbound|80|v2|cart.default";
  r.local_identity = "spiffe://mesh/ns/default/sa/web", r.upstream_peer_identity = "spiffe://mesh/ns/default/sa/cart";
  r.destination_service = "cart", r.destination_namespace = "default", r.upstream_tls_version = "TLSv1.3";
  r.policy = "Route/default/cart", r.policy_revision = 12, r.config_revision = 14;
  r.request_bytes = 10, r.response_bytes = 2'000, r.retries = 1, r.fault = "delay 100ms";
  r.downstream_remote = *model::Address::FromIp("10.77.0.3", 555), r.downstream_local = *model::Address::FromIp("240.64.0.1", 80);
  r.attempts.resize(3);  // the third is memory kept for reuse
  r.attempt_count = 2;
  r.attempts[0].endpoint = "10.77.0.4:8000", r.attempts[0].version = "v1", r.attempts[0].outcome = "reset", r.attempts[0].detail = "why";
  r.attempts[0].connect_ns = 400'000, r.attempts[0].host_ejected = true;
  r.attempts[0].local_address = "10.77.0.3:99", r.attempts[0].not_retried = "retry_budget", r.attempts[0].max_retries = 3;
  r.attempts[0].retry_budget_percent = 12.5;
  r.attempts[0].ejections.resize(2);
  r.attempts[0].ejections[1].endpoint = "10.77.0.9:1", r.attempts[0].ejections[1].rule = "rule", r.attempts[0].ejections[1].errors = 5;
  r.attempts[0].ejections[1].until_unix_ns = 7'000'000;
  r.attempts[1].version = "v2", r.attempts[1].outcome = "ok", r.attempts[1].status = 503, r.attempts[1].start_offset_ns = 1'000'000;
  return r;
}

v1::RequestEvent Decoded(const std::string& batch) {
  v1::EventBatch b;
  EXPECT_TRUE(b.ParseFromString(batch));
  EXPECT_EQ(b.events_size(), 1);
  return b.events_size() ? b.events(0) : v1::RequestEvent();
}

v1::RequestEvent Whole(const proxy::Record& r, const EventOptions& own = kOwn) {
  std::string bytes;
  EventEncoder(own).Whole(r, 7, &bytes);
  return Decoded(bytes);
}

TEST(EventEncode, WholeOutbound) {
  auto e = Whole(Outbound());
  EXPECT_EQ(e.number(), 7u);
  EXPECT_EQ(e.direction(), v1::OUTBOUND);
  EXPECT_EQ(e.request_id(), "id-1");
  EXPECT_EQ(e.trace_id().size(), 16u);
  EXPECT_EQ(e.parent_span_id(), "");
  EXPECT_EQ(e.duration_us(), 2'500u);
  EXPECT_EQ(e.protocol(), "http/1.1");
  EXPECT_EQ(e.path(), "/cart");  // no query: it may hold credentials
  EXPECT_EQ(e.status(), 503u);
  EXPECT_EQ(e.grpc_status(), -1);  // not gRPC
  EXPECT_EQ(e.response_flags(), "UF");
  EXPECT_EQ(e.source_service(), "web.default");
  EXPECT_EQ(e.destination_service(), "cart.default");
  EXPECT_EQ(e.destination_identity(), "spiffe://mesh/ns/default/sa/cart");
  EXPECT_EQ(e.tls_version(), "TLSv1.3");
  EXPECT_EQ(e.policy_revision(), 12u);
  EXPECT_EQ(e.config_revision(), 14u);
  ASSERT_EQ(e.attempts_size(), 2);
  EXPECT_EQ(e.attempts(0).detail(), "why");
  EXPECT_TRUE(e.attempts(0).host_ejected());
  EXPECT_EQ(e.attempts(0).connect_us(), 400u);
  EXPECT_EQ(e.attempts(0).local_address() + "/" + e.attempts(0).not_retried(), "10.77.0.3:99/retry_budget");
  EXPECT_EQ(e.attempts(0).max_retries(), 3u);
  EXPECT_EQ(e.attempts(0).retry_budget_percent(), 12.5);
  ASSERT_EQ(e.attempts(0).ejections_size(), 2);
  EXPECT_EQ(e.attempts(0).ejections(1).rule(), "rule");
  EXPECT_EQ(e.attempts(0).ejections(1).errors(), 5u);
  EXPECT_EQ(e.attempts(0).ejections(1).until_unix_ms(), 7u);
  EXPECT_EQ(e.attempts(1).status(), 503u);
  EXPECT_EQ(e.attempts(1).start_offset_us(), 1'000u);
  EXPECT_EQ(e.retries(), 1u);
  EXPECT_EQ(e.fault(), "delay 100ms");
  EXPECT_EQ(e.downstream_address(), "10.77.0.3:555");
  EXPECT_EQ(e.original_destination(), "240.64.0.1:80");
  EXPECT_EQ(e.count(), 0u);
}

TEST(EventEncode, WholeInboundNamesTheCallerFromItsIdentity) {
  proxy::Record r;
  r.direction = proxy::Direction::kInbound, r.protocol = proxy::Protocol::kHttp2, r.grpc = true, r.grpc_status = 5, r.status = 200;
  r.peer_identity = "spiffe://mesh/ns/shop/sa/front", r.local_identity = "spiffe://mesh/ns/default/sa/web", r.tls_version = "TLSv1.3";
  auto e = Whole(r);
  EXPECT_EQ(e.direction(), v1::INBOUND);
  EXPECT_EQ(e.source_service(), "front.shop");
  EXPECT_EQ(e.destination_service(), "web.default");
  EXPECT_EQ(e.protocol(), "grpc");
  EXPECT_EQ(e.grpc_status(), 5);
}

TEST(EventEncode, TextIsBoundedAndValid) {
  proxy::Record r = Outbound();
  r.path = "/" + std::string(100'000, 'a'), r.method = std::string(50, 'M'), r.detail = "bad \xff\xc0\xaf\xed\xa0\x80 but gr\xc3\xbc\xc3\x9f" "e";
  r.authority = std::string(255, 'b') + "\xc3\xbc";  // cut within a character
  r.attempt_count = 40;
  r.attempts.resize(40);
  auto e = Whole(r);  // undecodable if any text were not UTF-8
  EXPECT_EQ(e.path().size(), 1'024u);
  EXPECT_EQ(e.method().size(), 32u);
  EXPECT_EQ(e.response_detail(), "bad ?????? but gr\xc3\xbc\xc3\x9f" "e");
  EXPECT_EQ(e.authority(), std::string(255, 'b') + "?");
  EXPECT_EQ(e.attempts_size(), 16);
}

TEST(EventEncode, RollupKeepsWhatCountsNeed) {
  EventEncoder encoder(kOwn);
  std::string shared(encoder.Shared(Outbound())), bytes;
  RollupSums sums{.count = 10, .duration_us = 25'009, .last_end_ns = 1'700'000'001'000'000'000, .request_bytes = 100, .response_bytes = 20'000,
                  .retries = 3, .config_revision = 14};
  encoder.Rollup(shared, sums, 9, &bytes);
  auto e = Decoded(bytes);
  EXPECT_EQ(e.number(), 9u);
  EXPECT_EQ(e.count(), 10u);
  EXPECT_EQ(e.duration_us(), 2'500u);
  EXPECT_EQ(e.start_unix_ns() + e.duration_us() * 1000, sums.last_end_ns);
  EXPECT_EQ(e.retries(), 3u);
  EXPECT_EQ(e.destination_version(), "v2");
  EXPECT_EQ(e.status(), 503u);
  EXPECT_EQ(e.grpc_status(), -1);
  EXPECT_EQ(e.response_flags(), "UF");
  EXPECT_EQ(e.cluster(), "outbound|80|v2|cart.default");
  EXPECT_EQ(e.request_id() + e.path() + e.method() + e.authority() + e.trace_id(), "");
  EXPECT_EQ(e.attempts_size(), 0);
  // What differs from request to request is not in the key.
  proxy::Record other = Outbound();
  other.request_id = "id-2", other.path = "/other", other.duration_ns = 1, other.start_unix_ns += 5, other.span_id[1] = 9, other.authority = "x";
  EXPECT_EQ(encoder.Shared(other), shared);
  other.status = 200;
  EXPECT_NE(encoder.Shared(other), shared);
}

TEST(EventEncode, OutsideTheMeshTheNameStays) {
  proxy::Record r = Outbound();
  r.destination_service.clear(), r.upstream_peer_identity.clear(), r.cluster = "passthrough", r.authority = "example.org";
  EventEncoder encoder(kOwn);
  std::string a(encoder.Shared(r));
  r.authority = "example.com";
  EXPECT_NE(encoder.Shared(r), a);
  r.authority.clear();
  EXPECT_NE(encoder.Shared(r).find("240.64.0.1:80"), std::string_view::npos);
}

TEST(EventEncode, AllocatesNothingInTheSteadyState) {
  if (!base::kAllocCounterWorks) GTEST_SKIP();
  EventEncoder encoder(kOwn);
  proxy::Record r = Outbound();
  r.flags = {};
  r.attempts[0].ejections.clear();  // rare
  std::string bytes;
  encoder.Whole(r, 1, &bytes);
  encoder.Shared(r);
  bytes.clear();
  base::AllocCounter count;
  encoder.Whole(r, 2, &bytes);
  encoder.Shared(r);
  EXPECT_EQ(count.calls(), 0u);
}

}  // namespace
}  // namespace weft::telemetry
