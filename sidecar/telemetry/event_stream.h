// Wide events to the server (weft.telemetry.v1), over the mesh channel: batched, bounded, exact. Workers encode them
// (event_writer.h), this sends them.
//
//   EventStream events(loop, {.workload_id = ..., .service = ...}, [&](xds::GrpcStreamHandler* h) { return channel.Open(kPath, h); });
//   events.ChannelUp();                  // whenever the channel came up
//   events.Add(portion);                 // what a worker has encoded and counted
//
// Batches leave after kMaxBatchBytes or kMaxDelayNs. A batch stays here until it is acknowledged; after a lost stream
// the unacknowledged ones are sent again with the same (epoch, number) on every event, so that the server counts each
// exactly once.
//
// What workers only counted (rollups.h) is sent once its second is over. What no table could take is dropped and counted:
// that number travels with each batch. How much is open is told now and then (open_table.h).
// Threads: main, but for reading queued().
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"
#include "sidecar/telemetry/event_encode.h"
#include "sidecar/telemetry/event_writer.h"
#include "sidecar/telemetry/open_table.h"
#include "sidecar/telemetry/portion.h"
#include "sidecar/xds/grpc_channel.h"

namespace weft::telemetry {

class EventStream final : public xds::GrpcStreamHandler {
 public:
  // Begins a Telemetry.Stream; null while that cannot be.
  using OpenStream = std::function<xds::GrpcStream*(xds::GrpcStreamHandler*)>;
  static constexpr const char* kPath = "/weft.telemetry.v1.Telemetry/Stream";

  EventStream(io::Loop* loop, const EventOptions& options, OpenStream open);
  ~EventStream();
  void ChannelUp();
  void Add(EventPortion& portion);
  // Sends what is pending now; true when nothing is left unacknowledged.
  bool Flush();
  void Stop();

  uint64_t dropped() const { return dropped_; }
  size_t unacknowledged() const { return sent_.size(); }
  size_t queued_bytes() const { return queued_bytes_ + pending_.size(); }
  const std::atomic<size_t>* queued() const { return &queued_; }  // the same, for the workers

  static constexpr size_t kMaxInFlight = 16, kMaxBatchBytes = 256 << 10, kHardBytes = EventWriter::kHardBytes;
  static constexpr uint64_t kMaxDelayNs = 200'000'000;

 private:
  void OnMessage(std::string_view bytes) override;
  void OnClosed(const xds::GrpcStatus& status) override;
  void Open();
  void CollectRollups(bool all);
  void TellOpen();
  void Seal();           // pending events become a batch
  void SendWaiting();
  std::string Head(uint64_t sequence);
  void ReportDropped();
  void Drop(uint64_t n);
  void ArmTick();
  void TellQueued() { queued_.store(queued_bytes(), std::memory_order_relaxed); }

  struct Batch {
    std::string events;        // encoded EventBatch with the events only
    uint64_t sequence = 0;     // on this stream; 0: not sent on it
  };
  struct Tick : io::Timer {
    explicit Tick(EventStream* e) : io::Timer([](io::Timer* t) { static_cast<Tick*>(t)->events->OnTick(); }), events(e) {}
    EventStream* events;
  };
  void OnTick();

  io::Loop* const loop_;
  const EventOptions options_;
  const OpenStream open_;
  std::string epoch_;
  xds::GrpcStream* stream_ = nullptr;
  bool stopped_ = false;
  EventEncoder encoder_;
  std::string pending_;          // encoded events of the next batch
  uint64_t pending_revision_ = 0;
  Rollups rollups_;
  OpenTable open_now_;
  std::deque<Batch> sent_;       // sealed batches, oldest first, until acknowledged
  uint64_t number_ = 0, sequence_ = 0, acknowledged_ = 0, dropped_ = 0, dropped_sent_ = 0;
  size_t queued_bytes_ = 0;      // of sent_
  Tick tick_{this};
  std::atomic<size_t> queued_{0};
  base::StatId dropped_stat_, batches_stat_, resent_stat_, unacked_stat_;
};

}  // namespace weft::telemetry
