#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "sidecar/base/check.h"
#include "sidecar/base/clock.h"
#include "sidecar/base/list.h"
#include "sidecar/base/log.h"
#include "sidecar/base/random.h"
#include "sidecar/base/result.h"

namespace weft::base {
namespace {

struct Item : ListNode {
  explicit Item(int n) : n(n) {}
  int n;
};

TEST(List, KeepsOrderAndUnlinksOnDestruction) {
  List<Item> list;
  Item a(1), c(3);
  {
    Item b(2);
    list.PushBack(&a), list.PushBack(&b), list.PushBack(&c);
    EXPECT_EQ(list.Next(&a), &b);
  }
  EXPECT_EQ(list.PopFront(), &a);
  EXPECT_EQ(list.front(), &c);
  EXPECT_FALSE(a.linked());
  List<Item> other;
  other.PushBack(&a);
  list.TakeAll(other);
  EXPECT_TRUE(other.empty());
  EXPECT_EQ(list.back(), &a);
}

TEST(Result, ErrorNamesThePlaceOutermostLast) {
  auto fail = [] { return Result<int>(Error("port 70000 is out of range").In("port").In("[2]").In("listeners")); };
  auto r = fail();
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().ToString(), "listeners[2].port: port 70000 is out of range");
}

TEST(Random, SeedRepeatsAndBelowStaysInRange) {
  Random a(7), b(7), c(8);
  EXPECT_EQ(a.Next(), b.Next());
  EXPECT_NE(a.Next(), c.Next());
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(a.Below(10));
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(*seen.rbegin(), 9u);
  double d = a.Double();
  EXPECT_TRUE(d >= 0 && d < 1);
}

TEST(Log, FormatLevelsAndEscapes) {
  std::vector<std::string> lines;
  SetLogSink([&](std::string_view l) { lines.emplace_back(l); });
  int evaluated = 0;
  WEFT_LOG(kDns, kDebug, "hidden ", ++evaluated);
  EXPECT_EQ(evaluated, 0);
  ASSERT_TRUE(SetComponentLevels("dns:debug,upstream:off"));
  WEFT_LOG(kDns, kDebug, "name ", "a\nb", ' ', 42, " ", true);
  WEFT_LOG(kUpstream, kCritical, "off");
  WEFT_LOG(kMain, kWarn, "w");
  SetLogSink({});
  SetAllLevels(Level::kInfo);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_NE(lines[0].find("][debug][dns] [sidecar/base/base_test.cc:"), std::string::npos) << lines[0];
  EXPECT_TRUE(lines[0].ends_with("] name a\\nb 42 true\n")) << lines[0];
  EXPECT_NE(lines[1].find("[warning][main]"), std::string::npos);
  EXPECT_EQ(SetComponentLevels("nosuch:info").error().message(), "unknown log component \"nosuch\"");
  EXPECT_FALSE(SetComponentLevels("dns"));
  EXPECT_FALSE(SetComponentLevels("dns:loud"));
  EXPECT_EQ(GetLevel(Component::kUpstream), Level::kInfo);
}

TEST(CheckDeathTest, SaysWhatAndWhere) {
  int n = 3;
  EXPECT_DEATH(WEFT_CHECK(n == 4, "n is ", n), "check failed: n == 4: n is 3");
}

TEST(Clock, RealMovesAndManualStands) {
  uint64_t t = Clock::Real()->MonotonicNs();
  EXPECT_GE(Clock::Real()->MonotonicNs(), t);
  ManualClock m;
  uint64_t m0 = m.MonotonicNs();
  m.Advance(5 * kMs);
  EXPECT_EQ(m.MonotonicNs(), m0 + 5 * kMs);
}

}  // namespace
}  // namespace weft::base
