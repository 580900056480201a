#include "sidecar/cluster/cells.h"

#include <algorithm>

namespace weft::cluster {

uint32_t Breakers::RetryLimit(const model::BreakerThresholds& t) const {
  if (!t.budget) return t.max_retries;
  uint64_t active = uint64_t{requests.load(std::memory_order_relaxed)} + pending.load(std::memory_order_relaxed);
  return std::max(t.min_retry_concurrency, static_cast<uint32_t>(static_cast<double>(active) * t.budget_percent / 100.0));
}

bool Breakers::TryRetry(const model::BreakerThresholds& t) { return Try(retries, RetryLimit(t), retry_overflow); }

std::shared_ptr<HostCell> ClusterCells::Host(const std::string& address) {
  std::lock_guard lock(mutex);
  auto& slot = hosts[address];
  auto cell = slot.lock();
  if (!cell) slot = cell = std::make_shared<HostCell>(address);
  return cell;
}

std::shared_ptr<ClusterCells> CellRegistry::Get(const std::string& cluster) {
  if (cells_.size() >= sweep_at_) {
    std::erase_if(cells_, [](const auto& e) { return e.second.expired(); });
    sweep_at_ = std::max<size_t>(1024, cells_.size() * 2);
  }
  auto& slot = cells_[cluster];
  auto cells = slot.lock();
  if (!cells) slot = cells = std::make_shared<ClusterCells>(cluster);
  return cells;
}

}  // namespace weft::cluster
