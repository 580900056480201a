// Counts of the last minutes, kept in memory and fed from committed batches, so that the map is current within a second.
//
// A Cell is a count for one series (who called whom, how), one outcome and one latency bucket; the store answers older
// ranges with the same cells by SQL, so everything above (topology.h) is written once. Threads: Live is locked inside.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "xds_server/telemetry/record.h"

namespace weft::insight {

// What requests of one kind have in common. `version` is the reporter's (for INBOUND: the callee's).
struct SeriesKey {
  Direction direction = Direction::kUnknown;
  std::string source, destination, protocol, version, destination_version;
  std::string source_identity, destination_identity, tls_version;
  std::string reason;  // of a denial: the policy or the TLS failure
  bool operator==(const SeriesKey&) const = default;
};

struct Cell {
  SeriesKey key;
  Outcome outcome = Outcome::kOk;
  uint16_t bucket = 0;
  uint64_t count = 0, retries = 0, request_bytes = 0, response_bytes = 0;
  uint64_t open = 0;  // connections and streams of the series that are open now
};

SeriesKey SeriesOf(const Event& e);

class Live {
 public:
  // Keeps `seconds` of history and at most `max_series` different series; what is beyond is counted as "(other)".
  explicit Live(int seconds = 300, size_t max_series = 10'000) : seconds_(seconds), max_series_(max_series) {}

  void Add(const std::vector<Event>& events, int64_t now_ns);
  // Interim events: each replaces what its sidecar said before of the same series; forgotten after kOpenSeconds of silence.
  void Open(const std::vector<Event>& interim, int64_t now_ns);
  // One cell without requests for each series that has something open now. Part of Window() already.
  std::vector<Cell> OpenNow(int64_t now_ns) const;
  static constexpr int kOpenSeconds = 25;
  // What the store knows of the time before this start.
  void Seed(const std::vector<std::pair<int64_t, Cell>>& by_second, int64_t now_ns);
  // Cells of the requests that ended in the last `window_s` seconds (at most `seconds`).
  std::vector<Cell> Window(int window_s, int64_t now_ns) const;
  // Seconds for which counts exist, at most `window_s`, at least 1: the divisor of a rate while the history is young.
  int Span(int window_s, int64_t now_ns) const;
  int seconds() const { return seconds_; }
  size_t series() const;

 private:
  struct Slot {
    int64_t second = 0;
    std::unordered_map<uint64_t, Cell> cells;  // (series, outcome, bucket) packed; Cell.key is empty here
  };
  uint32_t SeriesId(SeriesKey key);
  Cell& At(int64_t second, uint32_t series, Outcome outcome, uint16_t bucket);
  void Trim(int64_t now_s);
  void AppendOpen(int64_t now_ns, std::vector<Cell>& out) const;

  const int seconds_;
  const size_t max_series_;
  mutable std::mutex mu_;
  std::vector<SeriesKey> keys_;
  std::unordered_map<std::string, uint32_t> ids_;
  std::deque<Slot> slots_;  // ascending
  int64_t first_second_ = 0;
  struct Told {
    SeriesKey key;
    uint64_t open = 0;
    int64_t at_ns = 0;
  };
  std::unordered_map<std::string, Told> open_;  // by sidecar and series; at most max_series_
};

}  // namespace weft::insight
