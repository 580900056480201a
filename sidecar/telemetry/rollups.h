// Alike requests as one: what keeps counts exact when there is no room for every event.
//
//   Rollups table(options);
//   if (!table.Fold(record)) ++lost;                       // full even at its coarsest
//   table.Take(now_unix_s, [&](std::string_view shared, const RollupSums& s) { ... });   // seconds that are over
//
// A row stands for the requests of one outcome and pair of ends that ended in the same second within the same latency
// bucket (the server's, so that its histogram loses nothing). Bounded: kMaxRows; when that many wait, the seconds become
// coarser (2, 4, ... up to kMaxWidthS) and rows that then are alike become one. Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sidecar/telemetry/event_encode.h"

namespace weft::telemetry {

// 16 steps per power of two, as the server's BucketOf.
uint16_t LatencyBucket(uint64_t us);

class Rollups {
 public:
  explicit Rollups(const EventOptions& own) : encoder_(own) {}
  bool Fold(const proxy::Record& record);
  // All rows of `other`, which is empty afterwards. Returns how many requests found no place.
  uint64_t Merge(Rollups& other);
  // Hands out and forgets rows whose time is over at `now_s` (UINT64_MAX: all).
  void Take(uint64_t now_s, const std::function<void(std::string_view shared, const RollupSums& sums)>& fn);
  bool empty() const { return rows_.empty(); }
  size_t size() const { return rows_.size(); }
  uint64_t width_s() const { return width_s_; }

  static constexpr size_t kMaxRows = 8'192, kMaxSeries = 4'096;
  static constexpr uint64_t kMaxWidthS = 4'096;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  bool Add(std::string_view shared, uint16_t bucket, const RollupSums& sums);
  uint64_t Slot(uint64_t end_ns) const { return end_ns / 1'000'000'000 / width_s_; }
  bool Coarsen();  // false: it made no room
  void Clear();
  void ForgetSeries();

  EventEncoder encoder_;
  std::unordered_map<std::string, uint32_t, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> series_;  // keys of ids_
  std::unordered_map<uint64_t, RollupSums> rows_;  // by slot, series and bucket
  uint64_t width_s_ = 1;
};

}  // namespace weft::telemetry
