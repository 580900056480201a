#include "sidecar/filters/local_ratelimit/local_ratelimit.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace weft::filters::local_ratelimit {
namespace {

constexpr uint64_t kMs = 1'000'000;

TEST(LocalRateLimit, FillsByInterval) {
  Bucket b(3, 2, 100 * kMs);
  uint64_t now = 1000 * kMs;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(b.Take(now));
  EXPECT_FALSE(b.Take(now));
  EXPECT_FALSE(b.Take(now + 99 * kMs));
  EXPECT_TRUE(b.Take(now + 100 * kMs));
  EXPECT_TRUE(b.Take(now + 100 * kMs));
  EXPECT_FALSE(b.Take(now + 100 * kMs));
  now += 10'000 * kMs;  // never more than max_tokens
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(b.Take(now));
  EXPECT_FALSE(b.Take(now));
}

TEST(LocalRateLimit, Verdicts) {
  BucketRegistry registry;
  model::LocalRateLimitConfig c{.max_tokens = 1, .fill_interval_ns = 1000 * kMs, .enabled = {100, 100}, .enforced = {50, 100}, .key = "k"};
  auto b = registry.Get(c);
  EXPECT_EQ(registry.Get(c), b);  // one bucket by key
  EXPECT_EQ(Evaluate(c, b.get(), 1, 0, 0), Verdict::kOk);
  EXPECT_EQ(Evaluate(c, b.get(), 1, 0, 0), Verdict::kLimited);
  EXPECT_EQ(Evaluate(c, b.get(), 1, 0, 70), Verdict::kLimitedNotEnforced);
  c.enabled = {0, 100};
  EXPECT_EQ(Evaluate(c, b.get(), 1, 0, 0), Verdict::kDisabled);
  EXPECT_EQ(registry.Get({}), nullptr);
}

TEST(LocalRateLimit, ThreadsShareTheBucketExactly) {
  Bucket b(10'000, 1, 1'000'000 * kMs);
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) taken += b.Take(1);
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(taken, 10'000);
}

}  // namespace
}  // namespace weft::filters::local_ratelimit
