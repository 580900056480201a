#include "sidecar/io/loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "sidecar/base/random.h"

namespace weft::io {
namespace {

using base::kMs;
using base::kSecond;

struct TestTimer : Timer {
  TestTimer() : Timer([](Timer* t) { static_cast<TestTimer*>(t)->on_fire(); }) {}
  std::function<void()> on_fire = [] {};
};
struct TestTask : Task {
  TestTask() : Task([](Task* t) { static_cast<TestTask*>(t)->body(); }) {}
  std::function<void()> body = [] {};
};
struct TestHandler : Handler {
  void OnReady(uint32_t events) override { on_ready(events); }
  std::function<void(uint32_t)> on_ready;
};

TEST(Timers, FireOnceInOrderAndNeverEarly) {
  base::ManualClock clock;
  Loop loop(&clock);
  std::string log;
  TestTimer a, b, c;
  a.on_fire = [&] { log += "a"; }, b.on_fire = [&] { log += "b"; }, c.on_fire = [&] { log += "c"; };
  loop.Arm(&a, 5 * kMs);
  loop.Arm(&b, 3 * kMs);
  loop.Arm(&c, 10 * kSecond);
  clock.Advance(3 * kMs - 1);
  loop.RunOnce(0);
  EXPECT_EQ(log, "");
  clock.Advance(1);
  loop.RunOnce(0);
  EXPECT_EQ(log, "b");
  clock.Advance(2 * kMs);
  loop.RunOnce(0);
  loop.RunOnce(0);
  EXPECT_EQ(log, "ba");
  c.Cancel();
  EXPECT_FALSE(c.armed());
  clock.Advance(3600 * kSecond);
  loop.RunOnce(0);
  EXPECT_EQ(log, "ba");
  EXPECT_EQ(loop.stats().timers_fired, 2u);
}

TEST(Timers, RearmMovesAndCallbackMayRearmOrCancelOthers) {
  base::ManualClock clock;
  Loop loop(&clock);
  int fired = 0;
  TestTimer a, b;
  a.on_fire = [&] { ++fired, b.Cancel(), loop.Arm(&a, kMs); };
  b.on_fire = [&] { FAIL(); };
  loop.Arm(&a, 2 * kMs);
  loop.Arm(&b, 2 * kMs);
  loop.Arm(&a, kMs);
  for (int i = 0; i < 5; ++i) clock.Advance(kMs), loop.RunOnce(0);
  EXPECT_EQ(fired, 5);
}

TEST(Timers, RandomAgainstModel) {
  base::ManualClock clock;
  Loop loop(&clock);
  base::Random random(3);
  struct Item {
    TestTimer timer;
    uint64_t due = 0;
    bool armed = false;
  };
  std::vector<std::unique_ptr<Item>> items;
  for (int i = 0; i < 200; ++i) {
    items.push_back(std::make_unique<Item>());
    Item* item = items.back().get();
    item->timer.on_fire = [&, item] {
      ASSERT_TRUE(item->armed);
      ASSERT_GE(loop.now(), item->due);
      item->armed = false;
    };
  }
  for (int step = 0; step < 3000; ++step) {
    for (int k = 0; k < 10; ++k) {
      Item* item = items[random.Below(items.size())].get();
      if (random.Below(4) == 0) {
        item->timer.Cancel(), item->armed = false;
      } else {
        uint64_t delay = random.Below(uint64_t{1} << random.Below(45));
        loop.Arm(&item->timer, delay);
        item->due = loop.now() + delay, item->armed = true;
      }
    }
    clock.Advance(random.Below(uint64_t{1} << random.Below(42)));
    loop.RunOnce(0);
    for (auto& item : items) {
      ASSERT_EQ(item->armed, item->timer.armed());
      if (item->armed) {
        ASSERT_GT(item->due + kMs, loop.now());  // at most one tick late
      }
    }
  }
}

TEST(Beats, RunInOrderAndAlternateUntilEmpty) {
  Loop loop;
  std::string log;
  TestTask advance, flush, reap;
  int rounds = 0;
  advance.body = [&] { log += "a", loop.Schedule(Beat::kFlush, &flush), loop.Schedule(Beat::kReap, &reap); };
  flush.body = [&] {
    log += "f";
    if (++rounds < 3) loop.Schedule(Beat::kAdvance, &advance);
  };
  reap.body = [&] { log += "r"; };
  loop.Schedule(Beat::kAdvance, &advance);
  loop.Schedule(Beat::kAdvance, &advance);  // already scheduled: once
  loop.RunOnce(0);
  EXPECT_EQ(log, "afafafr");
}

TEST(Beats, RoundsAreBounded) {
  Loop loop;
  int runs = 0;
  TestTask spin;
  spin.body = [&] { ++runs, loop.Schedule(Beat::kAdvance, &spin); };
  loop.Schedule(Beat::kAdvance, &spin);
  loop.RunOnce(-1);
  EXPECT_LE(runs, 64);
  EXPECT_EQ(loop.stats().round_limit_hits, 1u);
  int before = runs;
  loop.RunOnce(-1);  // does not wait: work is left
  EXPECT_GT(runs, before);
  spin.Unlink();
}

TEST(Beats, DestroyedTaskDoesNotRun) {
  Loop loop;
  auto victim = std::make_unique<TestTask>();
  victim->body = [] { FAIL(); };
  TestTask killer;
  killer.body = [&] { victim.reset(); };
  loop.Schedule(Beat::kAdvance, &killer);
  loop.Schedule(Beat::kAdvance, victim.get());
  loop.RunOnce(0);
}

TEST(Mailbox, PostsFromOtherThreadsRunInOrder) {
  Loop loop;
  std::vector<int> got;
  std::thread t([&] {
    for (int i = 0; i < 1000; ++i) loop.Post([&, i] { got.push_back(i); });
    loop.Post([&] { loop.Stop(); });
  });
  loop.Run();
  t.join();
  ASSERT_EQ(got.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], i);
  EXPECT_EQ(loop.stats().posted, 1001u);
}

TEST(Mailbox, CurrentIsTheRunningLoop) {
  Loop loop;
  EXPECT_EQ(Loop::current(), nullptr);
  Loop* seen = nullptr;
  loop.Post([&] { seen = Loop::current(); });
  loop.RunOnce(kSecond);
  EXPECT_EQ(seen, &loop);
  EXPECT_EQ(Loop::current(), nullptr);
}

TEST(Watch, ReportsEdgesHangupAndDropsEventsOfUnwatched) {
  Loop loop;
  int p[2], q[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, q), 0);
  TestHandler a, b;
  uint32_t seen = 0;
  int calls = 0;
  a.on_ready = [&](uint32_t e) {
    seen |= e, ++calls;
  };
  loop.Watch(p[0], &a);
  loop.RunOnce(0);
  EXPECT_EQ(seen, kWritable);
  loop.RunOnce(0);
  EXPECT_EQ(calls, 1);  // edge-triggered
  ASSERT_EQ(write(p[1], "x", 1), 1);
  loop.RunOnce(kSecond);
  EXPECT_TRUE(seen & kReadable);
  EXPECT_FALSE(seen & kHangup);
  shutdown(p[1], SHUT_WR);
  loop.RunOnce(kSecond);
  EXPECT_TRUE(seen & kHangup);

  // Whichever of two ready handlers runs first unwatches the other: exactly one runs.
  loop.Unwatch(p[0], &a);
  calls = 0;
  a.on_ready = [&](uint32_t) { ++calls, loop.Unwatch(q[0], &b); };
  b.on_ready = [&](uint32_t) { ++calls, loop.Unwatch(p[0], &a); };
  loop.Watch(p[0], &a);
  loop.Watch(q[0], &b);
  loop.RunOnce(0);
  EXPECT_EQ(calls, 1);
  loop.Unwatch(p[0], &a);
  loop.Unwatch(q[0], &b);
  for (int fd : {p[0], p[1], q[0], q[1]}) close(fd);
}

TEST(Stats, LongTurnsAreCounted) {
  base::ManualClock clock;
  Loop loop(&clock);
  TestTask slow;
  slow.body = [&] { clock.Advance(50 * kMs); };
  loop.RunOnce(0);
  EXPECT_EQ(loop.stats().stalls, 0u);
  loop.Schedule(Beat::kAdvance, &slow);
  loop.RunOnce(0);
  EXPECT_EQ(loop.stats().stalls, 1u);
  EXPECT_EQ(loop.stats().longest_turn_ns, 50 * kMs);
}

}  // namespace
}  // namespace weft::io
