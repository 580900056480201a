// What the configuration in use knows of itself, under Envoy's names among the stats: clusters' membership, ejections and
// open breakers, and when the certificates of clusters and listeners end. Read off the snapshot when somebody looks: exact
// at that moment, for every cluster, also for one that has seen no traffic, and no memory is held for it in between.
//
//   ConfigStats stats;
//   ConfigStatsReader rows = stats.Read(*builder.current());  StatsText(filter, &rows)
//   stats.ResetCounters(*builder.current());                  // counters of now are the new zero
//
// Threads: main.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sidecar/base/stats.h"
#include "sidecar/cluster/cells.h"
#include "sidecar/model/snapshot.h"

namespace weft::admin {

class ConfigStatsReader;

class ConfigStats {
 public:
  // The snapshot and this object outlive the reader.
  ConfigStatsReader Read(const model::ConfigSnapshot& snapshot) const;
  void ResetCounters(const model::ConfigSnapshot& snapshot);

 private:
  friend class ConfigStatsReader;
  static constexpr size_t kCounters = 8;
  using Counts = std::array<uint64_t, kCounters>;
  static Counts Count(const cluster::ClusterCells& cells);
  struct Zero {
    std::weak_ptr<const cluster::ClusterCells> cells;  // whose counts these were
    Counts counts;
  };
  std::unordered_map<std::string, Zero> zeros_;  // by cluster: only those that had counted something at the last reset
};

class ConfigStatsReader final : public base::StatSource {
 public:
  bool Next(base::StatView* out) override;

 private:
  friend class ConfigStats;
  struct Certificate {
    base::TagList tags;
    int64_t end;  // Unix seconds
  };
  ConfigStatsReader(const ConfigStats& stats, const model::ConfigSnapshot& snapshot);
  void TakeCluster(const model::ClusterEntry& entry);
  void TakeListeners();
  bool NextOfCluster(base::StatView* out);

  const ConfigStats& stats_;
  const model::ConfigSnapshot& snapshot_;
  std::vector<const model::ClusterEntry*> clusters_;  // in the order of their stats' names
  size_t cluster_ = 0, row_ = 0;
  std::string name_, certificate_;                    // the cluster's name, what its certificate is called
  base::TagList tags_, certificate_tags_;
  std::vector<uint64_t> values_;
  std::string full_, base_;                           // what the last view shows
  std::map<std::string, Certificate> listeners_;      // by full name
  std::map<std::string, Certificate>::const_iterator listener_;
};

}  // namespace weft::admin
