#include "xds_server/telemetry/known_numbers.h"

#include <iterator>

namespace weft::insight {

bool Intervals::Add(uint64_t n) {
  auto it = map_.upper_bound(n);
  if (it != map_.begin()) {
    auto before = std::prev(it);
    if (n <= before->second) return false;
    if (before->second + 1 == n) {
      before->second = n;
      if (it != map_.end() && it->first == n + 1) before->second = it->second, map_.erase(it);
      return true;
    }
  }
  if (it != map_.end() && it->first == n + 1) {
    uint64_t high = it->second;
    map_.erase(it);
    map_.emplace(n, high);
    return true;
  }
  map_.emplace(n, n);
  // Gaps are events a sidecar dropped; old ones will not be filled, so closing the lowest keeps this bounded.
  if (map_.size() > 4'096) {
    auto first = map_.begin(), second = std::next(first);
    first->second = second->second;
    map_.erase(second);
  }
  return true;
}

void KnownNumbers::AddRange(const Key& key, uint64_t low, uint64_t high, int64_t now_ms) {
  Known& k = known_[key];
  k.numbers.AddRange(low, high), k.used_ms = now_ms;
}

bool KnownNumbers::Batch::Add(const std::string& workload, const std::string& epoch, uint64_t number) {
  if (!last_ || last_->first.first != workload || last_->first.second != epoch) {
    Key key(workload, epoch);
    auto it = touched_.find(key);
    if (it == touched_.end()) {
      auto k = known_.known_.find(key);
      it = touched_.emplace(std::move(key), k == known_.known_.end() ? Intervals() : k->second.numbers).first;
    }
    last_ = &*it;
  }
  return last_->second.Add(number);
}

void KnownNumbers::Batch::Keep(int64_t now_ms) {
  for (auto& [key, numbers] : touched_) known_.known_[key] = Known{std::move(numbers), now_ms};
  touched_.clear(), last_ = nullptr;
  if (known_.known_.size() <= kMaxEpochs) return;
  std::erase_if(known_.known_, [&](const auto& item) { return item.second.used_ms < now_ms - kResendWindowMs; });
}

}  // namespace weft::insight
