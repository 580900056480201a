#include "xds_server/telemetry/record.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "xds_server/telemetry/aggregate.h"

namespace weft::insight {
namespace {

TEST(Names, FromSpiffeAndCluster) {
  EXPECT_EQ(NodeOfSpiffe("spiffe://mesh/ns/default/sa/cart"), "cart");
  EXPECT_EQ(NodeOfSpiffe("spiffe://mesh/ns/shop/sa/cart"), "cart.shop");
  for (const char* bad : {"", "spiffe://mesh", "spiffe://mesh/ns/x", "spiffe://mesh/ns//sa/x", "spiffe://m/ns/a/sa/", "http://m/ns/a/sa/b",
                          "spiffe://m/ns/a/sa/b/c"}) {
    EXPECT_EQ(NodeOfSpiffe(bad), "") << bad;
  }
  EXPECT_EQ(NodeOfCluster("outbound|80|v2|cart.default"), "cart");
  EXPECT_EQ(NodeOfCluster("outbound|80||cart.shop"), "cart.shop");
  EXPECT_EQ(NodeOfCluster("passthrough"), "");
  EXPECT_EQ(VersionOfCluster("outbound|80|v2|cart.default"), "v2");
}

struct OutcomeCase {
  const char* name;
  Event event;
  Outcome want;
};

TEST(Outcome, ExactlyOne) {
  auto http = [](int status, const char* flags = "", int grpc = -1) {
    Event e;
    e.protocol = grpc >= 0 ? "grpc" : "http/1.1", e.status = status, e.response_flags = flags, e.grpc_status = grpc;
    return e;
  };
  Event denied = http(403);
  denied.response_detail = "rbac_access_denied_matched_policy[none]";
  Event by_policy = http(403);
  by_policy.policy = "Authorization/default/cart/deny@7";
  Event refused;
  refused.protocol = "tcp", refused.tls_failure = "no_certificate";
  Event tcp;
  tcp.protocol = "tcp";
  Event tcp_down = tcp;
  tcp_down.response_flags = "UF";
  const OutcomeCase cases[] = {
      {"200", http(200), Outcome::kOk},
      {"404", http(404), Outcome::kClientError},
      {"403 of the application", http(403), Outcome::kClientError},
      {"503 UF,URX", http(503, "UF,URX"), Outcome::kServerError},
      {"cut response", http(200, "UC"), Outcome::kReset},
      {"no response", http(0, "UR"), Outcome::kReset},
      {"caller left", http(0, "DC"), Outcome::kCancelled},
      {"grpc unavailable", http(200, "", 14), Outcome::kGrpcError},
      {"grpc cancelled", http(200, "", 1), Outcome::kCancelled},
      {"grpc ok", http(200, "", 0), Outcome::kOk},
      {"denied", denied, Outcome::kDenied},
      {"denied by name", by_policy, Outcome::kDenied},
      {"refused", refused, Outcome::kRefused},
      {"tcp", tcp, Outcome::kOk},
      {"tcp refused upstream", tcp_down, Outcome::kReset},
  };
  for (const auto& c : cases) {
    Event e = c.event;
    Derive(e);
    EXPECT_EQ(OutcomeName(e.outcome), OutcomeName(c.want)) << c.name;
  }
}

TEST(Derive, OwnEndComesFromTheCertificate) {
  Event e;
  e.direction = Direction::kInbound, e.service = "cart", e.ns = "default", e.destination_service = "bank";
  e.source_service = "web";  // claimed, not proven
  Derive(e);
  EXPECT_EQ(e.destination, "cart");
  EXPECT_EQ(e.source, "(no identity)");
  e.source_identity = "spiffe://mesh/ns/default/sa/web";
  Derive(e);
  EXPECT_EQ(e.source, "web");
  Event o;
  o.direction = Direction::kOutbound, o.service = "web", o.ns = "default", o.cluster = "outbound|80|v2|cart.default";
  o.source_service = "bank";
  Derive(o);
  EXPECT_EQ(o.source, "web");
  EXPECT_EQ(o.destination, "cart");
  EXPECT_EQ(o.destination_version, "v2");
}

TEST(Buckets, WithinThreePercent) {
  for (int64_t us : {0, 1, 15, 16, 17, 31, 32, 100, 999, 12'345, 1'000'000, 60'000'000}) {
    EXPECT_NEAR(BucketMiddleUs(BucketOf(us)), static_cast<double>(us), static_cast<double>(us) * 0.033 + 0.51) << us;
  }
  for (int64_t us = 1; us < 100'000; ++us) ASSERT_LE(BucketOf(us - 1), BucketOf(us));
  EXPECT_EQ(BucketOf(-5), 0);
  EXPECT_EQ(BucketOf(INT64_MAX), kBuckets - 1);
}

TEST(CleanText, CutsAndRepairs) {
  EXPECT_EQ(CleanText("abc", 10), "abc");
  EXPECT_EQ(CleanText("a\xFF" "b", 10), "a\xEF\xBF\xBD" "b");
  EXPECT_EQ(CleanText("\xC0\xAF", 10), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(CleanText("abcdefgh", 6), "abc\xE2\x80\xA6");
  EXPECT_EQ(CleanText("äääää", 7), "ää\xE2\x80\xA6");
  std::mt19937 rng(7);
  for (int i = 0; i < 2'000; ++i) {
    std::string s;
    for (unsigned n = rng() % 40; n > 0; --n) s += static_cast<char>(rng());
    std::string c = CleanText(s, 24);
    EXPECT_LE(c.size(), 24u);
    EXPECT_EQ(CleanText(c, 100), c);
  }
}

TEST(Attempts, RoundTrip) {
  Attempt a;
  a.endpoint = "10.0.0.1:80", a.outcome = "reset", a.detail = "quote \" and \xFF", a.status = 503, a.ejected = true;
  a.healthy_hosts = 1, a.total_hosts = 3, a.active_requests = 7, a.max_requests = 8, a.duration_us = 1234;
  auto back = AttemptsFromJson(AttemptsJson({a, Attempt{}}));
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].endpoint, a.endpoint);
  EXPECT_TRUE(back[0].ejected);
  EXPECT_EQ(back[0].max_requests, 8u);
  EXPECT_EQ(back[0].duration_us, 1234);
  EXPECT_TRUE(AttemptsFromJson("{broken").empty());
  EXPECT_EQ(AttemptsFromJson(R"([{"endpoint": 5, "status": "x"}, 3])").size(), 1u);
}

Event At(const char* from, const char* to, int64_t end_s, int64_t us = 1000) {
  Event e;
  e.direction = Direction::kOutbound, e.service = from, e.ns = "default", e.destination_service = to, e.status = 200;
  e.protocol = "http/1.1", e.start_ns = end_s * 1'000'000'000 - us * 1000, e.duration_us = us;
  Derive(e);
  return e;
}

TEST(Live, CountsByWindow) {
  Live live(60, 100);
  int64_t now = 1'000'000'000'000;
  live.Add({At("a", "b", 1000), At("a", "b", 995), At("a", "c", 950), At("a", "c", 900)}, now);
  auto count = [&](int window, int64_t at) {
    uint64_t n = 0;
    for (const Cell& c : live.Window(window, at)) n += c.count;
    return n;
  };
  EXPECT_EQ(count(2, now), 1u);
  EXPECT_EQ(count(10, now), 2u);
  EXPECT_EQ(count(60, now), 3u);  // the fourth is older than the history
  EXPECT_EQ(count(60, now + 100'000'000'000), 0u);
  EXPECT_EQ(live.Span(60, now), 51);
  live.Add({At("a", "b", 5000)}, now);  // a clock far ahead counts now
  EXPECT_EQ(count(2, now), 2u);
}

TEST(Live, SeriesAreCapped) {
  Live live(60, 10);
  int64_t now = 1'000'000'000'000;
  std::vector<Event> many;
  for (int i = 0; i < 500; ++i) many.push_back(At("a", ("b" + std::to_string(i)).c_str(), 1000));
  live.Add(many, now);
  EXPECT_LE(live.series(), 11u);
  uint64_t total = 0, other = 0;
  for (const Cell& c : live.Window(60, now)) {
    total += c.count;
    if (c.key.destination == "(other)") other += c.count;
  }
  EXPECT_EQ(total, 500u);
  EXPECT_EQ(other, 490u);
  // Later names get their place once the old ones left the window.
  live.Add({At("x", "y", 2000)}, now * 2);
  live.Add({At("x", "y", 2001)}, now * 2 + 1'000'000'000);
  bool found = false;
  for (const Cell& c : live.Window(60, now * 2 + 1'000'000'000)) found = found || c.key.destination == "y";
  EXPECT_TRUE(found);
}

TEST(Live, WhatIsOpenIsShownUntilItsSidecarFallsSilent) {
  Live live(60, 100);
  int64_t now = 1'000'000'000'000, second = 1'000'000'000;
  Event told = At("cart", "redis", 1000);
  told.interim = true, told.count = 0, told.open = 3, told.request_bytes = 40, told.workload = "cart-1", told.protocol = "tcp";
  Event other = told;
  other.workload = "cart-2", other.open = 2;
  live.Open({told, other}, now);
  auto sums = [&](int64_t at) {
    uint64_t open = 0, count = 0, bytes = 0;
    for (const Cell& c : live.Window(60, at)) open += c.open, count += c.count, bytes += c.request_bytes;
    return std::array<uint64_t, 3>{open, count, bytes};
  };
  EXPECT_EQ(sums(now), (std::array<uint64_t, 3>{5, 0, 80}));
  told.open = 1, told.request_bytes = 0;
  live.Open({told}, now + 10 * second);
  EXPECT_EQ(sums(now + 10 * second)[0], 3u);
  EXPECT_EQ(sums(now + 30 * second)[0], 1u);  // cart-2 said nothing more
  // The end: counted, with the bytes not told yet.
  Event end = At("cart", "redis", 1031);
  end.request_bytes = 100, end.told_request_bytes = 40;
  told.open = 0;
  live.Open({told}, now + 31 * second);
  live.Add({end}, now + 31 * second);
  EXPECT_EQ(sums(now + 31 * second), (std::array<uint64_t, 3>{0, 1, 140}));
  EXPECT_TRUE(live.OpenNow(now + 31 * second).empty());
}

}  // namespace
}  // namespace weft::insight
