#include "sidecar/telemetry/rollups.h"

#include <gtest/gtest.h>

#include <map>

namespace weft::telemetry {
namespace {

constexpr uint64_t kStart = 1'700'000'000, kSecond = 1'000'000'000;
const EventOptions kOwn{"web-1", "web", "default", "v1"};

proxy::Record At(uint64_t second, uint64_t us, uint32_t status = 200, const std::string& cluster = "outbound|80||cart.default") {
  proxy::Record r;
  r.direction = proxy::Direction::kOutbound, r.protocol = proxy::Protocol::kHttp11, r.status = status, r.cluster = cluster;
  r.destination_service = "cart";
  r.start_unix_ns = (kStart + second) * kSecond, r.duration_ns = static_cast<int64_t>(us) * 1000;
  r.request_bytes = 1, r.response_bytes = 2, r.retries = 3;
  return r;
}

uint64_t CountOf(Rollups& t, uint64_t now_s = UINT64_MAX) {
  uint64_t n = 0;
  t.Take(now_s, [&](std::string_view, const RollupSums& s) { n += s.count; });
  return n;
}

TEST(Rollups, AlikeRequestsAreOneRow) {
  Rollups t(kOwn);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(t.Fold(At(0, 1'000 + i % 3)));
  EXPECT_EQ(t.size(), 1u);
  ASSERT_TRUE(t.Fold(At(0, 5'000)));        // slower
  ASSERT_TRUE(t.Fold(At(1, 1'000)));        // later
  ASSERT_TRUE(t.Fold(At(0, 1'000, 503)));   // another result
  EXPECT_EQ(t.size(), 4u);
  std::map<uint64_t, RollupSums> by_count;
  t.Take(kStart + 1, [&](std::string_view, const RollupSums& s) { by_count[s.count] = s; });
  EXPECT_EQ(t.size(), 1u);  // that second is not over
  ASSERT_TRUE(by_count.contains(100));
  const RollupSums& s = by_count[100];
  EXPECT_EQ(s.request_bytes, 100u);
  EXPECT_EQ(s.response_bytes, 200u);
  EXPECT_EQ(s.retries, 300u);
  EXPECT_EQ(LatencyBucket(s.duration_us / s.count), LatencyBucket(1'000));
  EXPECT_EQ(CountOf(t, kStart + 2), 1u);
  EXPECT_TRUE(t.empty());
}

TEST(Rollups, WhenFullTimeGetsCoarserAndNothingIsLost) {
  Rollups t(kOwn);
  uint64_t folded = 0;
  for (uint64_t second = 0; second < 4'000; ++second) {
    for (uint64_t us : {10, 100, 1'000, 10'000, 100'000}) {
      ASSERT_TRUE(t.Fold(At(second, us)));
      ++folded;
    }
    ASSERT_LE(t.size(), Rollups::kMaxRows);
  }
  EXPECT_GT(t.width_s(), 1u);
  EXPECT_EQ(CountOf(t), folded);
  EXPECT_EQ(t.width_s(), 1u);
}

TEST(Rollups, FullAtItsCoarsestRefuses) {
  Rollups t(kOwn);
  uint64_t taken = 0, refused = 0;
  for (int series = 0; series < 5'000; ++series) {
    for (uint64_t us : {10, 100, 1'000}) t.Fold(At(0, us, 200, "c" + std::to_string(series))) ? ++taken : ++refused;
  }
  EXPECT_LE(t.size(), Rollups::kMaxRows);
  EXPECT_GT(refused, 0u);
  EXPECT_TRUE(t.Fold(At(0, 10, 200, "c0")));  // a row that is there already
  EXPECT_EQ(CountOf(t), taken + 1);
}

TEST(Rollups, NamesNoRowUsesMakeRoom) {
  Rollups t(kOwn);
  for (uint64_t second = 0; second < 50; ++second) {
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(t.Fold(At(second, 100, 200, "c" + std::to_string(second * 200 + i))));
    CountOf(t, kStart + second);  // the present second stays, so the table is never empty
    ASSERT_FALSE(t.empty());
  }
  EXPECT_EQ(CountOf(t), 200u);
}

TEST(Rollups, MergeMovesEverything) {
  Rollups a(kOwn), b(kOwn);
  for (int i = 0; i < 10; ++i) a.Fold(At(0, 100)), b.Fold(At(0, 100)), b.Fold(At(3, 100, 503));
  EXPECT_EQ(a.Merge(b), 0u);
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(a.size(), 2u);
  EXPECT_EQ(CountOf(a), 30u);
}

}  // namespace
}  // namespace weft::telemetry
