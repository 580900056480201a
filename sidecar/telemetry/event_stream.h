// Finished records as wide events to the server (weft.telemetry.v1), over the mesh channel: batched, bounded, exact.
//
//   EventStream events(loop, {.workload_id = ..., .service = ...});
//   events.OnChannel(channel, up);       // from the mesh client
//   events.Add(record);                  // main thread, for each record drained
//
// Batches leave after kMaxBatch events or kMaxDelayNs. A batch stays here until it is acknowledged; after a lost stream
// the unacknowledged ones are sent again with the same (epoch, number) on every event, so that the server counts each
// exactly once. When kMaxQueuedBytes wait, new events are dropped and counted: that number travels with each batch.
// Threads: main.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"
#include "sidecar/proxy/record.h"
#include "sidecar/xds/grpc_channel.h"

namespace weft::telemetry {

struct EventOptions {
  std::string workload_id, service, service_namespace, version;
};

class EventStream final : public xds::GrpcStreamHandler {
 public:
  EventStream(io::Loop* loop, EventOptions options);
  ~EventStream();
  void OnChannel(xds::GrpcChannel* channel, bool up);
  void Add(const proxy::Record& record);
  // Sends what is pending now; true when nothing is left unacknowledged.
  bool Flush();
  void AddDropped(uint64_t n);  // records that were lost before they came here (full rings)
  void Stop();

  uint64_t dropped() const { return dropped_; }
  size_t unacknowledged() const { return sent_.size(); }

  static constexpr size_t kMaxBatch = 1024, kMaxInFlight = 16, kMaxBatchBytes = 256 << 10, kMaxQueuedBytes = 8 << 20;
  static constexpr uint64_t kMaxDelayNs = 200'000'000;

 private:
  void OnMessage(std::string_view bytes) override;
  void OnClosed(const xds::GrpcStatus& status) override;
  void Open();
  void Seal();           // pending events become a batch
  void SendWaiting();
  std::string Head(uint64_t sequence);
  void ReportDropped();

  struct Batch {
    std::string events;        // encoded EventBatch with the events only
    uint64_t count = 0;
    uint64_t sequence = 0;     // on this stream; 0: not sent on it
  };
  struct Tick : io::Timer {
    explicit Tick(EventStream* e) : io::Timer([](io::Timer* t) { static_cast<Tick*>(t)->events->OnTick(); }), events(e) {}
    EventStream* events;
  };
  void OnTick();

  io::Loop* const loop_;
  const EventOptions options_;
  std::string epoch_;
  xds::GrpcChannel* channel_ = nullptr;
  xds::GrpcStream* stream_ = nullptr;
  struct Pending;
  std::unique_ptr<Pending> pending_;
  std::deque<Batch> sent_;       // sealed batches, oldest first, until acknowledged
  uint64_t number_ = 0, sequence_ = 0, acknowledged_ = 0, dropped_ = 0, dropped_sent_ = 0;
  size_t queued_bytes_ = 0;      // of sent_
  Tick tick_{this};
  base::StatId events_stat_, dropped_stat_, batches_stat_, resent_stat_, unacked_stat_;
};

}  // namespace weft::telemetry
