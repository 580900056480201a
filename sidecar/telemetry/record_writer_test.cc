#include "sidecar/telemetry/record_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/base/testing/alloc_counter.h"

namespace weft::telemetry {
namespace {

const EventOptions kOwn{"web-1", "web", "default", "v1"};

class RecordWriterTest : public testing::Test {
 protected:
  RecordWriterTest() {
    loop.RunOnce(0);
    auto to_files = std::make_shared<model::AccessLogs>();
    to_files->logs.resize(2);
    to_files->logs[0].path = "/all", to_files->logs[0].text_format = "%REQ(:PATH)% %RESPONSE_CODE%\n";
    to_files->logs[1].path = "/failed", to_files->logs[1].text_format = "%RESPONSE_CODE%\n";
    to_files->logs[1].filter = model::LogFilter{.kind = model::LogFilter::kStatus, .op = model::LogFilter::kGe, .value = 500};
    record.access_logs = to_files;
    record.direction = proxy::Direction::kOutbound, record.protocol = proxy::Protocol::kHttp11, record.status = 200;
    record.cluster = "outbound|80||cart.default", record.path = "/cart";
  }
  RecordWriter* Start() { return (writer = std::make_unique<RecordWriter>(&loop, &handover, &queued, kOwn, 0)).get(); }
  void Pass(uint64_t ns) {
    clock.Advance(ns);
    loop.RunOnce(0);
  }
  size_t Take() {
    size_t portions = 0;
    handover.Take([&](Portion& p) {
      ++portions;
      for (const auto& l : p.lines) lines[l.path] += l.text;
      v1::EventBatch b;
      ASSERT_TRUE(b.ParseFromString(p.events.bytes));
      for (const auto& e : b.events()) numbers.push_back(e.number());
      dropped += p.events.dropped;
      p.events.rollups.Take(UINT64_MAX, [&](std::string_view, const RollupSums& s) { counted += s.count; });
    });
    return portions;
  }

  base::ManualClock clock;
  io::Loop loop{&clock};
  int woken = 0;
  Handover handover{[this] { ++woken; }};
  std::atomic<size_t> queued{0};
  std::unique_ptr<RecordWriter> writer;
  proxy::Record record;
  std::map<std::string, std::string> lines;
  std::vector<uint64_t> numbers;
  uint64_t counted = 0, dropped = 0;
};

TEST_F(RecordWriterTest, PortionsLeaveInTimeAndAtTheEnd) {
  RecordWriter* w = Start();
  w->Take(record);
  record.status = 503;
  w->Take(record);
  EXPECT_EQ(0, woken);
  Pass(RecordWriter::kMaxDelayNs + 2 * base::kMs);
  EXPECT_EQ(1, woken);
  EXPECT_EQ(1u, Take());
  EXPECT_EQ("/cart 200\n/cart 503\n", lines["/all"]);
  EXPECT_EQ("503\n", lines["/failed"]);
  ASSERT_EQ(2u, numbers.size());
  EXPECT_EQ(numbers[0] + 1, numbers[1]);
  Pass(base::kSecond);
  EXPECT_EQ(1, woken) << "nothing came since";
  w->Take(record);
  writer.reset();
  EXPECT_EQ(2, woken);
  EXPECT_EQ(1u, Take());
  EXPECT_EQ("503\n503\n", lines["/failed"]);
}

TEST_F(RecordWriterTest, ABigPortionLeavesAtOnceAndMainIsWokenOnce) {
  RecordWriter* w = Start();
  for (int i = 0; i < 1'000; ++i) w->Take(record);
  EXPECT_EQ(1, woken);
  const size_t portions = Take();
  EXPECT_GE(portions, 1u);
  EXPECT_LT(portions, 10u);
  writer.reset();
  Take();
  EXPECT_EQ(1'000, std::count(lines["/all"].begin(), lines["/all"].end(), '\n'));
  EXPECT_EQ(1'000u, numbers.size());
}

// Two workers' events of one epoch never have the same number.
TEST_F(RecordWriterTest, WorkersNumberApart) {
  RecordWriter other(&loop, &handover, &queued, kOwn, 1);
  Start()->Take(record);
  other.Take(record);
  Pass(RecordWriter::kMaxDelayNs + 2 * base::kMs);
  Take();
  ASSERT_EQ(2u, numbers.size());
  EXPECT_NE(numbers[0], numbers[1]);
  EXPECT_LT(std::max(numbers[0], numbers[1]), uint64_t{1} << 53) << "the page keeps numbers as doubles";
}

// Main may be busy for long: memory stays bounded, every request is counted once.
TEST_F(RecordWriterTest, AMainThatDoesNotComeCostsDetailsNotCounts) {
  RecordWriter* w = Start();
  constexpr uint64_t kRequests = 300'000;
  for (uint64_t i = 0; i < kRequests; ++i) {
    w->Take(record);
    if (i % 1'000 == 0) Pass(base::kMs);
  }
  size_t held = 0;
  handover.Take([&](Portion& p) {
    held += p.bytes();
    p.events.rollups.Take(UINT64_MAX, [&](std::string_view, const RollupSums& s) { counted += s.count; });
    v1::EventBatch b;
    ASSERT_TRUE(b.ParseFromString(p.events.bytes));
    numbers.insert(numbers.end(), static_cast<size_t>(b.events_size()), 0);
  });
  EXPECT_LE(held, Handover::kMaxWaiting + RecordWriter::kPortionBytes + 2'000);
  writer.reset();
  Take();
  EXPECT_GT(counted, 0u);
  EXPECT_EQ(kRequests, numbers.size() + counted);
  EXPECT_EQ(0u, dropped);
}

TEST_F(RecordWriterTest, OverTheSoftLimitOnlyFailuresKeepTheirDetails) {
  RecordWriter* w = Start();
  queued = EventWriter::kSoftBytes;
  w->Take(record);
  record.status = 503;
  w->Take(record);
  queued = EventWriter::kHardBytes;
  w->Take(record);
  writer.reset();
  Take();
  EXPECT_EQ(1u, numbers.size());
  EXPECT_EQ(2u, counted);
  EXPECT_EQ("503\n503\n", lines["/failed"]) << "logs are another matter";
}

TEST_F(RecordWriterTest, ASteadyFlowAllocatesNothing) {
  if (!base::kAllocCounterWorks) GTEST_SKIP() << "the sanitizer owns malloc";
  RecordWriter* w = Start();
  const auto flow = [&](int n) {
    for (int i = 0; i < n; ++i) {
      w->Take(record);
      if (i % 100 == 99) handover.Take([](Portion&) {});
    }
  };
  flow(5'000);
  const base::AllocCounter count;
  flow(5'000);
  // What main takes it takes in a list of its own.
  EXPECT_LE(count.calls(), 5'000u / 20);
}

}  // namespace
}  // namespace weft::telemetry
