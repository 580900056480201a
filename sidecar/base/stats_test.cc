#include "sidecar/base/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

namespace weft::base {
namespace {

TEST(Stats, DefinitionIsIdempotentAndKindsDoNotMix) {
  StatId a = Stats::Get().Counter("t.one.x", "t.x", {{"n", "one"}});
  EXPECT_NE(a, kNoStat);
  EXPECT_EQ(a, Stats::Get().Counter("t.one.x", "t.x", {{"n", "one"}}));
  EXPECT_EQ(kNoStat, Stats::Get().Gauge("t.one.x"));
}

TEST(Stats, ThreadsAreSummedAndTotalsSurviveThem) {
  StatId id = Stats::Get().Counter("t.threads");
  StatId gauge = Stats::Get().Gauge("t.active");
  for (int round = 0; round < 3; ++round) {
    std::thread a([&] { for (int i = 0; i < 1000; ++i) Cells::Local().Add(id), Cells::Local().Add(gauge); });
    std::thread b([&] { for (int i = 0; i < 1000; ++i) Cells::Local().Add(id), Cells::Local().Sub(gauge); });
    a.join(), b.join();
  }
  EXPECT_EQ(6000, Stats::Get().Value("t.threads"));
  EXPECT_EQ(0, Stats::Get().Value("t.active"));
}

TEST(Stats, ResetStartsCountersAgainButNotGauges) {
  StatId c = Stats::Get().Counter("t.reset.c"), g = Stats::Get().Gauge("t.reset.g");
  Cells::Local().Add(c, 5), Cells::Local().Set(g, 7);
  Stats::Get().ResetCounters();
  EXPECT_EQ(0, Stats::Get().Value("t.reset.c"));
  EXPECT_EQ(7, Stats::Get().Value("t.reset.g"));
  Cells::Local().Add(c);
  EXPECT_EQ(1, Stats::Get().Value("t.reset.c"));
}

TEST(Stats, HistogramBucketsSumAndQuantiles) {
  StatId h = Stats::Get().Histogram("t.time");
  for (int i = 0; i < 90; ++i) Cells::Local().Record(h, 700);
  for (int i = 0; i < 10; ++i) Cells::Local().Record(h, 7'200'000'000);
  bool seen = false;
  Stats::Get().Visit([&](const StatView& v) {
    if (v.name != "t.time") return;
    seen = true;
    EXPECT_EQ(100u, v.count);
    EXPECT_EQ(90u, v.buckets[1]);
    EXPECT_EQ(10u, v.buckets.back());
    EXPECT_NEAR(90 * 0.7 + 10 * 7'200'000.0, v.sum_ms, 0.01);
    EXPECT_NEAR(0.77, HistogramQuantileMs(v, 0.5), 0.02);
    EXPECT_EQ(3600000, HistogramQuantileMs(v, 0.99));
  });
  EXPECT_TRUE(seen);
  StatView empty{StatKind::kHistogram, "", "", nullptr};
  EXPECT_TRUE(std::isnan(HistogramQuantileMs(empty, 0.5)));
}

TEST(Stats, TheSinkIsNeverShown) {
  size_t before = Stats::Get().size();
  Cells::Local().Add(kNoStat, 3), Cells::Local().Record(kNoStat, 3);
  Stats::Get().Visit([](const StatView& v) { EXPECT_FALSE(v.name.empty()); });
  EXPECT_EQ(before, Stats::Get().size());
}

}  // namespace
}  // namespace weft::base
