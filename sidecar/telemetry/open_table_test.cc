#include "sidecar/telemetry/open_table.h"

#include <gtest/gtest.h>

#include <vector>

namespace weft::telemetry {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

OpenReport Interim(uint64_t id, const std::string& callee = "redis", uint64_t bytes = 0) { return {id, bytes, 2 * bytes, callee}; }

std::vector<OpenSums> TakeAt(OpenTable& t, uint64_t second) {
  std::vector<OpenSums> out;
  t.Take(second * kSecond, [&](std::string_view, const OpenSums& s) { out.push_back(s); });
  return out;
}

TEST(OpenTable, TellsAtOnceThenWhenItChangesThenNowAndThen) {
  OpenTable t;
  t.Report(Interim(1, "redis", 100)), t.Report(Interim(2));
  auto told = TakeAt(t, 100);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].open, 2u);
  EXPECT_EQ(told[0].request_bytes, 100u);
  EXPECT_TRUE(TakeAt(t, 105).empty());
  t.Report(Interim(2, "redis", 50));  // bytes alone wait for the next time
  EXPECT_TRUE(TakeAt(t, 106).empty());
  told = TakeAt(t, 110);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].open, 2u);
  EXPECT_EQ(told[0].response_bytes, 100u);
  t.Ended(1);
  told = TakeAt(t, 111);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].open, 1u);
  EXPECT_EQ(told[0].request_bytes, 0u);
  t.Ended(2), t.Ended(2), t.Ended(77);
  told = TakeAt(t, 112);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].open, 0u);
  EXPECT_TRUE(t.empty());
}

TEST(OpenTable, IsBounded) {
  OpenTable t;
  for (uint64_t i = 1; i <= OpenTable::kMaxSeries + 100; ++i) t.Report(Interim(i, "s" + std::to_string(i)));
  EXPECT_EQ(TakeAt(t, 1).size(), OpenTable::kMaxSeries);
  for (uint64_t i = 0; i < OpenTable::kMaxOpen + 100; ++i) t.Report(Interim(1'000'000 + i, "s1"));
  uint64_t open = 0;
  for (const auto& s : TakeAt(t, 100)) open += s.open;
  EXPECT_EQ(open, OpenTable::kMaxOpen);
}

}  // namespace
}  // namespace weft::telemetry
