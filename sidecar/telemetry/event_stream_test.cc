#include "sidecar/telemetry/event_stream.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "api/weft/telemetry/v1/telemetry.pb.h"

namespace weft::telemetry {
namespace {

// The server's end of one stream: keeps what was sent, as far as it has room.
struct FakeStream final : xds::GrpcStream {
  bool Send(std::string_view message) override {
    if (full) return false;
    v1::EventBatch b;
    EXPECT_TRUE(b.ParseFromArray(message.data(), static_cast<int>(message.size())));
    batches.push_back(std::move(b));
    return true;
  }
  void HalfClose() override {}
  void Cancel() override { cancelled = true; }
  size_t queued() const override { return 0; }
  std::vector<v1::EventBatch> batches;
  bool full = false, cancelled = false;
};

const EventOptions kOwn{"web-1", "web", "default", "v1"};
constexpr uint64_t kBase = uint64_t{1} << 40;

class EventStreamTest : public testing::Test {
 protected:
  EventStreamTest()
      : loop(&clock), events(&loop, kOwn, [this](xds::GrpcStreamHandler* h) -> xds::GrpcStream* {
          ++opened;
          if (!reachable) return nullptr;
          handler = h;
          streams.push_back(std::make_unique<FakeStream>());
          return streams.back().get();
        }) {
    loop.RunOnce(0);
  }

  void Pass(uint64_t ms) {
    for (uint64_t i = 0; i < ms; i += 10) {
      clock.Advance(10 * base::kMs);
      loop.RunOnce(0);
    }
  }
  proxy::Record Request(uint32_t status = 200) {
    proxy::Record r;
    r.direction = proxy::Direction::kOutbound, r.protocol = proxy::Protocol::kHttp11, r.status = status;
    r.cluster = "outbound|80||cart.default", r.destination_service = "cart", r.detail = status < 400 ? "via_upstream" : "failed";
    r.request_id = "some-request-id", r.path = "/" + std::string(200, 'p');
    r.start_unix_ns = loop.wall_now() - base::kMs, r.duration_ns = base::kMs;
    return r;
  }
  // A worker's finished record, handed to main on its own.
  void Add(const proxy::Record& r) {
    writer.Add(r, &portion);
    events.Add(portion);
    portion.Clear();
  }
  FakeStream& stream() { return *streams.back(); }
  void Ack(uint64_t sequence) {
    v1::BatchAck ack;
    ack.set_sequence(sequence);
    handler->OnMessage(ack.SerializeAsString());
  }
  void AckAll() {
    for (uint64_t acked = 0; acked < stream().batches.size();) Ack(acked = stream().batches.size());
  }
  void LoseStream() { handler->OnClosed({xds::kGrpcUnavailable, "gone"}); }

  struct Sum {
    uint64_t requests = 0, whole = 0, rollups = 0, failed_whole = 0;
    std::set<uint64_t> numbers;
  };
  static Sum Count(const std::vector<v1::EventBatch>& batches) {
    Sum s;
    for (const auto& b : batches) {
      for (const auto& e : b.events()) {
        if (!s.numbers.insert(e.number()).second) continue;  // sent again
        s.requests += e.count() ? e.count() : 1;
        e.count() ? ++s.rollups : ++s.whole;
        s.failed_whole += e.count() == 0 && e.status() >= 500;
      }
    }
    return s;
  }

  base::ManualClock clock;
  io::Loop loop;
  bool reachable = true;
  int opened = 0;
  xds::GrpcStreamHandler* handler = nullptr;
  std::vector<std::unique_ptr<FakeStream>> streams;
  EventStream events;
  EventWriter writer{kOwn, kBase, events.queued()};
  EventPortion portion{kOwn};
};

TEST_F(EventStreamTest, BatchesLeaveInTimeWithTheHead) {
  events.ChannelUp();
  for (int i = 0; i < 10; ++i) Add(Request());
  EXPECT_TRUE(stream().batches.empty());
  Pass(EventStream::kMaxDelayNs / base::kMs + 20);
  ASSERT_EQ(stream().batches.size(), 1u);
  const auto& b = stream().batches[0];
  EXPECT_EQ(b.events_size(), 10);
  EXPECT_EQ(b.sequence(), 1u);
  EXPECT_EQ(b.workload_id() + "/" + b.service() + "/" + b.namespace_() + "/" + b.version(), "web-1/web/default/v1");
  EXPECT_EQ(b.epoch().size(), 32u);
  EXPECT_EQ(b.events(0).number(), kBase + 1);
  EXPECT_EQ(b.events(9).number(), kBase + 10);
  EXPECT_EQ(events.unacknowledged(), 1u);
  Ack(1);
  EXPECT_EQ(events.unacknowledged(), 0u);
  EXPECT_EQ(events.queued_bytes(), 0u);
}

TEST_F(EventStreamTest, ABigBatchLeavesAtOnceAndAFewAreInFlight) {
  events.ChannelUp();
  while (events.unacknowledged() < EventStream::kMaxInFlight + 4 && events.queued_bytes() < EventStream::kHardBytes) {
    proxy::Record failed = Request(503);  // kept whole up to the hard limit
    Add(failed);
  }
  EXPECT_EQ(stream().batches.size(), EventStream::kMaxInFlight);
  for (const auto& b : stream().batches) EXPECT_LE(b.ByteSizeLong(), EventStream::kMaxBatchBytes + 2'000);
  Ack(2);  // two at once
  EXPECT_EQ(stream().batches.size(), EventStream::kMaxInFlight + 2);
}

TEST_F(EventStreamTest, ResendsAfterALostStreamWithTheSameNumbers) {
  events.ChannelUp();
  for (int i = 0; i < 5; ++i) Add(Request());
  Pass(250);
  Ack(1);
  for (int i = 0; i < 5; ++i) Add(Request());
  Pass(250);
  ASSERT_EQ(stream().batches.size(), 2u);
  std::string first = stream().batches[1].events(0).SerializeAsString();
  LoseStream();
  for (int i = 0; i < 5; ++i) Add(Request());
  Pass(1'500);
  ASSERT_EQ(streams.size(), 2u);
  ASSERT_EQ(stream().batches.size(), 2u);
  EXPECT_EQ(stream().batches[0].sequence(), 1u);
  EXPECT_EQ(stream().batches[0].epoch(), streams[0]->batches[0].epoch());
  EXPECT_EQ(stream().batches[0].events(0).SerializeAsString(), first);
  EXPECT_EQ(stream().batches[1].events(0).number(), kBase + 11);
  AckAll();
  EXPECT_TRUE(events.Flush());
}

TEST_F(EventStreamTest, WaitsWhileTheChannelIsDown) {
  reachable = false;
  Add(Request());
  Pass(2'500);
  EXPECT_GE(opened, 2);
  reachable = true;
  events.ChannelUp();
  ASSERT_EQ(streams.size(), 1u);
  EXPECT_EQ(Count(stream().batches).requests, 1u);
}

TEST_F(EventStreamTest, OverTheSoftLimitSuccessesAreCountedAndFailuresKeepTheirDetails) {
  events.ChannelUp();
  uint64_t sent = 0, failed = 0;
  for (int i = 0; i < 100'000; ++i, ++sent) {
    const bool fails = i % 20 == 0;
    failed += fails;
    Add(Request(fails ? 503 : 200));
    if (i % 500 == 0) Pass(10);
  }
  EXPECT_LE(events.queued_bytes(), EventStream::kHardBytes);
  while (!events.Flush()) AckAll();
  Sum sum = Count(stream().batches);
  EXPECT_EQ(sum.requests, sent);
  EXPECT_EQ(events.dropped(), 0u);
  EXPECT_GT(sum.rollups, 0u);
  EXPECT_LT(sum.rollups, 50u);
  EXPECT_EQ(sum.failed_whole, failed);
  EXPECT_GE(sum.whole, EventWriter::kSoftBytes / 700);
  // No gap, neither in the worker's numbers nor in main's.
  const auto workers = sum.numbers.lower_bound(kBase);
  EXPECT_EQ(static_cast<uint64_t>(std::distance(workers, sum.numbers.end())), *sum.numbers.rbegin() - kBase);
  EXPECT_EQ(static_cast<uint64_t>(std::distance(sum.numbers.begin(), workers)), *std::prev(workers));
}

TEST_F(EventStreamTest, FailuresAreFoldedAtTheHardLimit) {
  uint64_t sent = 0;
  for (int i = 0; i < 60'000; ++i, ++sent) Add(Request(503));
  EXPECT_LE(events.queued_bytes(), EventStream::kHardBytes + EventStream::kMaxBatchBytes);
  Pass(3'000);
  EXPECT_LE(events.queued_bytes(), EventStream::kHardBytes + EventStream::kMaxBatchBytes);
  events.ChannelUp();
  while (!events.Flush()) AckAll();
  EXPECT_EQ(Count(stream().batches).requests, sent);
  EXPECT_EQ(events.dropped(), 0u);
}

TEST_F(EventStreamTest, RollupsAreResentExactlyToo) {
  events.ChannelUp();
  uint64_t sent = 0;
  for (int i = 0; i < 20'000; ++i, ++sent) Add(Request());
  Pass(1'500);  // their second is over, but nothing was acknowledged
  LoseStream();
  Pass(1'500);
  while (!events.Flush()) AckAll();
  std::vector<v1::EventBatch> all = streams[0]->batches;
  all.insert(all.end(), stream().batches.begin(), stream().batches.end());
  Sum sum = Count(all);
  EXPECT_EQ(sum.requests, sent);
  EXPECT_GT(sum.rollups, 0u);
}

TEST_F(EventStreamTest, WhatTheTableCannotTakeIsDroppedAndReported) {
  uint64_t sent = 0;
  for (int i = 0; i < 20'000; ++i, ++sent) Add(Request());
  for (int i = 0; i < 10'000; ++i, ++sent) {
    proxy::Record r = Request();
    r.cluster = "passthrough-" + std::to_string(i);
    Add(r);
  }
  EXPECT_GT(events.dropped(), 0u);
  events.ChannelUp();
  while (!events.Flush()) AckAll();
  EXPECT_EQ(Count(stream().batches).requests + events.dropped(), sent);
  EXPECT_EQ(stream().batches.back().dropped_events_total(), events.dropped());
}

TEST_F(EventStreamTest, WhatIsOpenIsToldAndCountedOnceItEnds) {
  events.ChannelUp();
  proxy::Record r = Request();
  r.interim = true, r.open_id = 5, r.request_bytes = 10;
  Add(r);
  Pass(250);
  ASSERT_EQ(stream().batches.size(), 1u);
  const auto& told = stream().batches[0].events(0);
  EXPECT_TRUE(told.interim());
  EXPECT_EQ(told.open(), 1u);
  EXPECT_EQ(told.number(), 0u);
  EXPECT_EQ(told.request_bytes(), 10u);
  r = Request();
  r.open_id = 5, r.request_bytes = 30, r.told_request_bytes = 10;
  Add(r);
  Pass(1'500);
  std::vector<v1::RequestEvent> rest;
  for (size_t i = 1; i < stream().batches.size(); ++i) rest.insert(rest.end(), stream().batches[i].events().begin(), stream().batches[i].events().end());
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].number(), kBase + 1);
  EXPECT_EQ(rest[0].told_request_bytes(), 10u);
  EXPECT_TRUE(rest[1].interim());
  EXPECT_EQ(rest[1].open(), 0u);
}

TEST_F(EventStreamTest, AFullStreamIsTriedAgain) {
  events.ChannelUp();
  stream().full = true;
  Add(Request());
  Pass(300);
  EXPECT_TRUE(stream().batches.empty());
  stream().full = false;
  Pass(300);
  EXPECT_EQ(stream().batches.size(), 1u);
}

}  // namespace
}  // namespace weft::telemetry
