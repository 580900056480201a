// State of clusters and hosts that outlives snapshots: breaker counts, ejections, gauges. Keyed by cluster name and
// host address. Shared by all workers as relaxed atomics.
//
//   auto cells = registry.Get("outbound|80||cart.default");        // main thread, when building a snapshot
//   if (!cells->breakers[0].TryRequest(limits.max_requests)) ...   // any worker; every success needs its Release
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/model/cluster_config.h"

namespace weft::cluster {

using Gauge32 = std::atomic<uint32_t>;
using Count64 = std::atomic<uint64_t>;

struct HostCell {
  explicit HostCell(std::string a) : address(std::move(a)) {}
  const std::string address;
  Gauge32 active_requests{0}, active_connections{0};
  Count64 rq_total{0}, rq_success{0}, rq_error{0}, rq_timeout{0}, cx_total{0}, cx_connect_fail{0};
  // Outlier detection.
  Gauge32 consecutive_5xx{0}, consecutive_gateway{0}, consecutive_local{0};
  Gauge32 interval_total{0}, interval_success{0};   // since the last sweep
  std::atomic<bool> ejected{false};
  Count64 ejected_until_ns{0};
  Gauge32 run_kinds{0};      // of the errors in a row that were our own: bits of Outcome::Kind
  Gauge32 last_status{0};    // of the last answer that counted as an error
  // Of the last ejection, for whoever has to say why the host is out: outlier.h, WhyEjected().
  Count64 ejected_at_ns{0};
  Gauge32 ejected_rule{0}, ejected_errors{0}, ejected_kinds{0}, ejected_status{0};
  Gauge32 ejections{0};      // how often it was ejected lately: multiplies the ejection time
};

// Counts of one routing priority. A Try... that returns false has counted an overflow and taken nothing.
struct Breakers {
  Gauge32 connections{0}, pending{0}, requests{0}, retries{0};
  Count64 cx_overflow{0}, pending_overflow{0}, rq_overflow{0}, retry_overflow{0};

  static bool Try(Gauge32& gauge, uint32_t limit, Count64& overflow) {
    if (gauge.fetch_add(1, std::memory_order_relaxed) < limit) return true;
    gauge.fetch_sub(1, std::memory_order_relaxed);
    overflow.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  static void Release(Gauge32& gauge) { gauge.fetch_sub(1, std::memory_order_relaxed); }

  bool TryConnection(const model::BreakerThresholds& t) { return Try(connections, t.max_connections, cx_overflow); }
  bool TryPending(const model::BreakerThresholds& t) { return Try(pending, t.max_pending, pending_overflow); }
  bool TryRequest(const model::BreakerThresholds& t) { return Try(requests, t.max_requests, rq_overflow); }
  // By the retry budget (a share of the requests in flight, with a minimum), or max_retries when that is configured.
  bool TryRetry(const model::BreakerThresholds& t);
  uint32_t RetryLimit(const model::BreakerThresholds& t) const;
};

struct ClusterCells {
  explicit ClusterCells(std::string n) : name(std::move(n)) {}
  const std::string name;
  Breakers breakers[2];                    // by priority: default, high
  std::atomic<uint32_t> health_generation{0};  // changes whenever a host is ejected or returns
  Count64 next_sweep_ns{0}, next_return_ns{UINT64_MAX};
  Count64 ejections_enforced{0}, ejections_overflow{0}, ejections_consecutive_5xx{0}, ejections_gateway{0}, ejections_local{0},
      ejections_success_rate{0}, ejections_failure_percent{0};
  Gauge32 ejections_active{0};
  Count64 retry_success{0}, retry_limit_exceeded{0};
  Count64 membership_change{0};            // endpoints came or went

  // The cell of a host, made when missing. Any thread (takes a lock; not for the request path).
  std::shared_ptr<HostCell> Host(const std::string& address);

  std::mutex mutex;                        // host map and ejection decisions
  std::unordered_map<std::string, std::weak_ptr<HostCell>> hosts;
};

// All clusters' cells; those nobody uses any more are dropped at the next Get. Main thread only.
class CellRegistry {
 public:
  std::shared_ptr<ClusterCells> Get(const std::string& cluster);

 private:
  std::unordered_map<std::string, std::weak_ptr<ClusterCells>> cells_;
  size_t sweep_at_ = 1024;
};

}  // namespace weft::cluster
