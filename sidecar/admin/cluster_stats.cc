#include "sidecar/admin/cluster_stats.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "sidecar/cluster/host_set.h"

namespace weft::admin {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr const char* kGaugeNames[] = {"membership_total", "membership_healthy", "outlier_detection.ejections_active",
                                       "circuit_breakers.default.cx_open", "circuit_breakers.default.rq_pending_open",
                                       "circuit_breakers.default.rq_open", "circuit_breakers.default.rq_retry_open",
                                       "circuit_breakers.high.cx_open", "circuit_breakers.high.rq_pending_open",
                                       "circuit_breakers.high.rq_open", "circuit_breakers.high.rq_retry_open"};
constexpr const char* kCounterNames[] = {"membership_change", "outlier_detection.ejections_enforced_total",
                                         "outlier_detection.ejections_overflow",
                                         "outlier_detection.ejections_enforced_consecutive_5xx",
                                         "outlier_detection.ejections_enforced_consecutive_gateway_failure",
                                         "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
                                         "outlier_detection.ejections_enforced_success_rate",
                                         "outlier_detection.ejections_enforced_failure_percentage"};

}  // namespace

void ClusterStats::Ids::Define(const std::string& cluster, bool outlier) {
  static_assert(std::size(kGaugeNames) == kGauges && std::size(kCounterNames) == kCounters);
  auto& stats = base::Stats::Get();
  auto define = [&](base::StatId& id, std::string_view name, bool gauge) {
    if (name.starts_with("outlier_detection.") != outlier) return;
    const std::string full = "cluster." + cluster + "." + std::string(name), base = "cluster." + std::string(name);
    const base::Stats::Tags tags = {{"envoy_cluster_name", cluster}};
    id = gauge ? stats.Gauge(full, base, tags) : stats.Counter(full, base, tags);
  };
  for (size_t i = 0; i < kGauges; ++i) define(gauges[i], kGaugeNames[i], true);
  for (size_t i = 0; i < kCounters; ++i) define(counters[i], kCounterNames[i], false);
}

void ClusterStats::Update(const model::ConfigSnapshot& snapshot) {
  base::Cells& out = base::Cells::Local();
  certificates_.Update(snapshot);
  ++round_;
  for (const auto& entry : snapshot.clusters) {
    const std::string& name = entry->config->name;
    const auto [at, added] = clusters_.try_emplace(name);
    Ids& ids = at->second;
    if (added) ids.Define(name, false);
    if (entry->config->outlier && !std::exchange(ids.outlier, true)) ids.Define(name, true);
    ids.round = round_;
    const cluster::ClusterCells& cells = *entry->cells;
    std::array<uint64_t, kGauges> now = {};
    if (entry->hosts) {
      const auto& hosts = entry->hosts->hosts();
      now[0] = hosts.size();
      now[1] = static_cast<uint64_t>(std::count_if(hosts.begin(), hosts.end(), [](const auto& h) { return h.healthy(); }));
    }
    now[2] = cells.ejections_active.load(kRelaxed);
    for (size_t p = 0; p < 2; ++p) {
      const cluster::Breakers& b = cells.breakers[p];
      const model::BreakerThresholds& limits = entry->config->breakers[p];
      uint64_t* open = &now[3 + 4 * p];
      open[0] = b.connections.load(kRelaxed) >= limits.max_connections;
      open[1] = b.pending.load(kRelaxed) >= limits.max_pending;
      open[2] = b.requests.load(kRelaxed) >= limits.max_requests;
      open[3] = b.retries.load(kRelaxed) >= b.RetryLimit(limits);
    }
    for (size_t i = 0; i < kGauges; ++i) out.Set(ids.gauges[i], now[i]);

    const std::array<uint64_t, kCounters> counts = {
        cells.membership_change.load(kRelaxed),        cells.ejections_enforced.load(kRelaxed),
        cells.ejections_overflow.load(kRelaxed),       cells.ejections_consecutive_5xx.load(kRelaxed),
        cells.ejections_gateway.load(kRelaxed),        cells.ejections_local.load(kRelaxed),
        cells.ejections_success_rate.load(kRelaxed),   cells.ejections_failure_percent.load(kRelaxed)};
    if (ids.cells.lock() != entry->cells) ids.cells = entry->cells, ids.seen = {};  // new cells count from zero
    for (size_t i = 0; i < kCounters; ++i) out.Add(ids.counters[i], counts[i] - ids.seen[i]);
    ids.seen = counts;
  }
  std::erase_if(clusters_, [&](auto& item) {
    if (item.second.round == round_) return false;
    for (base::StatId id : item.second.gauges) out.Set(id, 0);
    return item.second.cells.expired();  // until then the cluster may come back with its old counts
  });
}

}  // namespace weft::admin
