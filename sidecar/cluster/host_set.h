// Hosts of a cluster and the choice among them: priorities, health, panic, load balancing. Pure: time and random numbers
// are arguments.
//
//   auto set = HostSet::Build(*cluster, *endpoints, *cells);       // main thread, once per endpoint update
//   Choice c = picker.Pick(*entry, {.random = r, .now_ns = now, .excluded = tried});   // worker, per attempt
//   if (!c.host) 503 UH
//
// A Picker belongs to one worker and one cluster: it caches the healthy view, which it rebuilds when the set or the
// health generation of the cells changes, so that a pick costs O(1) (O(log n) with weights).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sidecar/cluster/cells.h"
#include "sidecar/model/cluster_config.h"
#include "sidecar/model/snapshot.h"

namespace weft::cluster {

struct Host {
  model::Endpoint endpoint;          // address, weight, workload, version ...
  std::string address;               // text, as in records and /clusters
  std::shared_ptr<HostCell> cell;
  double weight = 1;                 // effective: locality weight included where the cluster asks for it
  bool eds_healthy = true;           // by the control plane (unknown counts as healthy)
  bool usable = true;                // false: control plane says unhealthy/draining: never picked, not even in panic
  bool degraded = false;
  bool healthy() const { return eds_healthy && !cell->ejected.load(std::memory_order_relaxed); }
};

class HostSet {
 public:
  static std::shared_ptr<const HostSet> Build(const model::Cluster& cluster, const model::Endpoints& endpoints, ClusterCells& cells);
  const std::vector<Host>& hosts() const { return hosts_; }
  uint32_t priorities() const { return priorities_; }
  uint32_t overprovisioning_percent() const { return overprovisioning_percent_; }
  bool equal_weights() const { return equal_weights_; }
  uint32_t drop_per_million() const { return drop_per_million_; }
  uint64_t id() const { return id_; }  // differs between any two sets of the process

 private:
  std::vector<Host> hosts_;
  uint32_t priorities_ = 0, overprovisioning_percent_ = 140, drop_per_million_ = 0;
  bool equal_weights_ = true;
  uint64_t id_ = 0;
};

// An endpoint that no control plane named (ORIGINAL_DST): made per destination; keep it while it is used.
std::shared_ptr<const Host> MakeHost(const model::Address& address, ClusterCells& cells);

struct PickInput {
  uint64_t random = 0;
  uint64_t now_ns = 0;
  std::span<const HostCell* const> excluded = {};  // hosts tried before (retries): avoided while others are there
  uint32_t excluded_attempts = 5;                  // RetryPolicy::host_selection_attempts + 1; how hard to avoid them
  const std::vector<std::pair<std::string, std::string>>* subset = nullptr;  // route metadata_match; null: none
};
struct Choice {
  const Host* host = nullptr;
  const char* why = "";     // static text when host is null: "no_hosts", "no_healthy_host", "drop_overload", "unconditional_drop_overload"
  bool panic = false;       // chosen among unhealthy ones too
  uint32_t healthy = 0, total = 0;
};

class Picker {
 public:
  Choice Pick(const model::ClusterEntry& entry, const PickInput& in);
  // Whom Pick() with that input would choose after `ahead` others (by turns; the other policies go by the random number alone).
  Choice Peek(const model::ClusterEntry& entry, const PickInput& in, uint32_t ahead);
  // Hosts of the view, for gauges (membership_healthy, membership_total).
  uint32_t healthy() const { return healthy_; }
  uint32_t total() const { return total_; }

 private:
  struct View {                          // one priority
    std::vector<const Host*> hosts;      // that may be picked (all usable ones in panic)
    std::vector<double> cumulative;      // of weights, when they differ
    bool panic = false;
    uint32_t load = 0;                   // share of the traffic, percent; sums to 100
  };
  void Rebuild(const model::ClusterEntry& entry, uint64_t random);
  const Host* PickIn(View& view, const model::Cluster& cluster, uint64_t random);

  uint64_t set_id_ = 0;
  uint32_t generation_ = 0;
  bool equal_ = true;
  uint32_t healthy_ = 0, total_ = 0;
  uint64_t cursor_ = 0;
  std::vector<View> views_;
};

}  // namespace weft::cluster
