// What a worker's records became, and how it gets to main: in portions, so that neither waits for the other.
//
//   Handover handover([&] { loop.Post(...); });   // called when main should come and take what is there
//   handover.Put(portion);                        // a worker; true: it holds an empty portion now
//   handover.Take([&](Portion& p) { ... });       // main; their memory goes back to the workers
//
// Bounded: while kMaxWaiting bytes wait, a portion stays with its worker, which has bounds of its own (RecordWriter).
// Threads: Put any, Take one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/model/grpc_log.h"
#include "sidecar/telemetry/rollups.h"

namespace weft::telemetry {

// An interim record: what is open yet; see OpenTable.
struct OpenReport {
  uint64_t id = 0, request_bytes = 0, response_bytes = 0;
  std::string shared;                // EventEncoder::Shared
};

// Of the event stream.
struct EventPortion {
  explicit EventPortion(const EventOptions& own) : rollups(own) {}
  std::string bytes;                 // encoded `events` of an EventBatch
  uint64_t config_revision = 0;      // the newest among them
  Rollups rollups;                   // what was counted without details
  uint64_t dropped = 0;              // what they had no room for
  std::vector<OpenReport> open;
  std::vector<uint64_t> ended;       // open_ids
  bool empty() const { return bytes.empty() && rollups.empty() && !dropped && open.empty() && ended.empty(); }
  void Clear();                      // of what was taken; rollups were merged
};

struct Portion {
  explicit Portion(const EventOptions& own) : events(own) {}
  struct Lines {                     // of one access log file
    std::string path, text;
  };
  struct Entries {                   // of one access log that goes to a server, one after the other
    std::shared_ptr<const model::GrpcLog> log;
    std::string bytes;
    std::vector<uint32_t> sizes;
  };
  std::vector<Lines> lines;
  std::vector<Entries> entries;
  EventPortion events;

  Lines& LinesOf(const std::string& path);
  Entries& EntriesOf(const std::shared_ptr<const model::GrpcLog>& log);
  size_t bytes() const;
  bool empty() const;
  void Clear();                      // texts keep their memory
};

class Handover {
 public:
  static constexpr size_t kMaxWaiting = 8u << 20;

  explicit Handover(std::function<void()> wake) : wake_(std::move(wake)) {}
  // False: too much waits, and the portion is unchanged. last: it must go, whatever waits.
  bool Put(std::unique_ptr<Portion>& portion, bool last = false);
  void Take(const std::function<void(Portion&)>& fn);

 private:
  const std::function<void()> wake_;
  std::mutex mu_;                    // guards what follows
  std::vector<std::unique_ptr<Portion>> waiting_, spare_;
  size_t bytes_ = 0;                 // of waiting_
};

}  // namespace weft::telemetry
