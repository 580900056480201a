// What clusters know of themselves, under Envoy's names among the stats: membership, ejections, open breakers. Shown for
// every cluster, also for one that has seen no traffic, and exact at the moment somebody reads.
//
//   ClusterStats stats;  stats.Update(*builder.current());  StatsText(filter)
//
// Threads: main (it writes main's cells). Clusters that went away keep their counters; their gauges fall to zero.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "sidecar/admin/certificate_stats.h"
#include "sidecar/base/stats.h"
#include "sidecar/cluster/cells.h"
#include "sidecar/model/snapshot.h"

namespace weft::admin {

class ClusterStats {
 public:
  void Update(const model::ConfigSnapshot& snapshot);

 private:
  static constexpr size_t kGauges = 3 + 2 * 4, kCounters = 8;
  struct Ids {
    void Define(const std::string& cluster, bool outlier);  // those of outlier detection, or all others
    std::array<base::StatId, kGauges> gauges = {};     // total, healthy, ejected; then the breakers of both priorities
    std::array<base::StatId, kCounters> counters = {};
    bool outlier = false;                              // like Envoy's, these exist once outlier detection is configured
    std::array<uint64_t, kCounters> seen = {};         // what was added already, so that a reset of the counters stays one
    std::weak_ptr<const cluster::ClusterCells> cells;  // whose counts `seen` are
    uint64_t round = 0;
  };
  std::unordered_map<std::string, Ids> clusters_;
  CertificateStats certificates_;  // theirs, and the listeners'
  uint64_t round_ = 0;
};

}  // namespace weft::admin
