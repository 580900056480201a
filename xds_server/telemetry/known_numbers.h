// Which events are stored already, so that what a sidecar sends again is counted once. Internal to the store.
//
//   KnownNumbers::Batch batch(known);
//   if (batch.Add(workload, epoch, number)) take it;     // false: known, or twice in this batch
//   commit, and when that worked: batch.Keep(now_ms);    // a failed commit leaves the numbers free for the resend
//
// Numbers are kept as intervals for each (workload, epoch); those not used for kResendWindowMs are forgotten when there are
// more than kMaxEpochs. Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace weft::insight {

constexpr int64_t kResendWindowMs = 10 * 60'000;

// Disjoint closed intervals.
class Intervals {
 public:
  bool Add(uint64_t n);  // false when n was in already
  void AddRange(uint64_t low, uint64_t high) { map_.emplace(low, high); }

 private:
  std::map<uint64_t, uint64_t> map_;
};

class KnownNumbers {
 public:
  using Key = std::pair<std::string, std::string>;  // workload, epoch
  // What was stored before this start.
  void AddRange(const Key& key, uint64_t low, uint64_t high, int64_t now_ms);

  class Batch {
   public:
    explicit Batch(KnownNumbers& known) : known_(known) {}
    bool Add(const std::string& workload, const std::string& epoch, uint64_t number);
    void Keep(int64_t now_ms);

   private:
    KnownNumbers& known_;
    std::map<Key, Intervals> touched_;
    std::pair<const Key, Intervals>* last_ = nullptr;  // events of a sidecar come together
  };

 private:
  static constexpr size_t kMaxEpochs = 20'000;
  struct Known {
    Intervals numbers;
    int64_t used_ms = 0;
  };
  std::map<Key, Known> known_;
};

}  // namespace weft::insight
