#include "sidecar/filters/fault/fault.h"

#include <gtest/gtest.h>

#include "sidecar/base/random.h"

namespace weft::filters::fault {
namespace {

Plan Try(const model::FaultConfig& c, const http::HeaderMap& h, uint64_t r = 0, uint32_t active = 0) { return Decide(c, h, "cart", r, r, active); }

TEST(Fault, DelayAndAbort) {
  http::HeaderMap h;
  model::FaultConfig c{.has_delay = true, .has_abort = true, .delay_ns = 5, .delay_percent = {100, 100}, .abort_percent = {100, 100}, .http_status = 503};
  Plan p = Try(c, h);
  EXPECT_EQ(p.delay_ns, 5u);
  EXPECT_TRUE(p.abort);
  EXPECT_EQ(p.http_status, 503u);
  c.grpc_status = 14, c.http_status = 0;
  EXPECT_EQ(Try(c, h).http_status, 200u);
  EXPECT_EQ(Try(c, h).grpc_status, 14);
  c.delay_percent = c.abort_percent = {0, 100};
  EXPECT_EQ(Try(c, h).delay_ns, 0u);
  EXPECT_FALSE(Try(c, h).abort);
  EXPECT_FALSE(Try({}, h).abort);
}

TEST(Fault, Percentage) {
  http::HeaderMap h;
  model::FaultConfig c{.has_abort = true, .abort_percent = {2500, 10000}, .http_status = 500};
  base::Random random(3);
  int n = 0;
  for (int i = 0; i < 20000; ++i) n += Decide(c, h, "", 0, random.Next(), 0).abort;
  EXPECT_NEAR(n, 5000, 250);
}

TEST(Fault, HeadersClusterAndLimit) {
  http::HeaderMap h;
  model::FaultConfig c{.has_abort = true, .abort_percent = {100, 100}, .http_status = 500};
  c.headers.push_back({.name = "x-fail"});
  EXPECT_FALSE(Try(c, h).abort);
  h.Add("x-fail", "1");
  EXPECT_TRUE(Try(c, h).abort);
  c.max_active_faults = 2;
  EXPECT_FALSE(Try(c, h, 0, 2).abort);
  c.upstream_cluster = "pay";
  EXPECT_FALSE(Try(c, h).abort);
}

TEST(Fault, RequestHeadersDecideWithinTheCap) {
  http::HeaderMap h;
  model::FaultConfig c{.has_delay = true, .has_abort = true, .header_delay = true, .header_abort = true, .delay_percent = {100, 100}, .abort_percent = {50, 100}};
  EXPECT_EQ(Try(c, h).delay_ns, 0u);
  h.Add("x-envoy-fault-delay-request", "20");
  h.Add("x-envoy-fault-abort-request", "418");
  h.Add("x-envoy-fault-abort-request-percentage", "90");
  EXPECT_EQ(Try(c, h).delay_ns, 20'000'000u);
  EXPECT_EQ(Try(c, h, 10).http_status, 418u);
  EXPECT_FALSE(Try(c, h, 60).abort);  // 50 is the cap
  h.Set("x-envoy-fault-abort-request", "99");
  EXPECT_FALSE(Try(c, h).abort);
}

}  // namespace
}  // namespace weft::filters::fault
