// What a worker makes of its finished records: lines and entries of access logs, events for the server. They go to main in
// portions, after kPortionBytes or kMaxDelayNs; idle workers hand over nothing.
//
//   options.sink = [&](io::Loop* loop, uint32_t worker) {
//     return std::make_unique<RecordWriter>(loop, &handover, events.get(), own, worker);
//   };
//
// Threads: the worker's.
#pragma once

#include <memory>
#include <optional>

#include "sidecar/io/loop.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/access_log_writer.h"
#include "sidecar/telemetry/event_writer.h"
#include "sidecar/telemetry/portion.h"

namespace weft::telemetry {

class RecordWriter final : public proxy::RecordSink {
 public:
  static constexpr size_t kPortionBytes = 64 << 10;
  static constexpr uint64_t kMaxDelayNs = 100'000'000;

  // queued: of the event stream (EventStream::queued); null: no events are wanted.
  RecordWriter(io::Loop* loop, Handover* handover, const std::atomic<size_t>* queued, const EventOptions& own, uint32_t worker);
  ~RecordWriter() override;  // what is left is handed over
  void Take(proxy::Record& record) override;

 private:
  void Put(bool last = false);
  struct Due : io::Timer {
    explicit Due(RecordWriter* w) : io::Timer([](io::Timer* t) { static_cast<Due*>(t)->writer->Put(); }), writer(w) {}
    RecordWriter* writer;
  };

  io::Loop* const loop_;
  Handover* const handover_;
  const EventOptions own_;
  std::unique_ptr<Portion> portion_;
  AccessLogWriter logs_;
  std::optional<EventWriter> events_;
  size_t put_at_ = kPortionBytes;
  Due due_{this};
};

}  // namespace weft::telemetry
