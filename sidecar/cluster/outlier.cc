#include "sidecar/cluster/outlier.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace weft::cluster {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

enum class Cause { k5xx, kGateway, kLocal, kSuccessRate, kFailurePercent };

// Ejects unless too many are out already. Call with cells.mutex held.
bool Eject(const model::ClusterEntry& entry, HostCell& cell, Cause cause, uint32_t errors, uint64_t now) {
  const model::OutlierConfig& config = *entry.config->outlier;
  ClusterCells& cells = *entry.cells;
  if (cell.ejected.load(kRelaxed)) return false;
  uint32_t out = 0, total = 0;
  if (entry.hosts) {
    total = static_cast<uint32_t>(entry.hosts->hosts().size());
    for (const Host& h : entry.hosts->hosts()) out += h.cell->ejected.load(kRelaxed);
  }
  // One more must keep the share within the limit; with always_eject_one the first may go in any case.
  bool within = total > 0 && (out + 1) * 100 <= config.max_ejection_percent * total;
  if (!within && !(config.always_eject_one && out == 0 && config.max_ejection_percent > 0)) {
    cells.ejections_overflow.fetch_add(1, kRelaxed);
    return false;
  }
  uint32_t n = cell.ejections.load(kRelaxed) + 1;
  cell.ejections.store(n, kRelaxed);
  uint64_t most = std::max(config.max_ejection_ns, config.base_ejection_ns);
  uint64_t time = std::min(most, config.base_ejection_ns * n);
  cell.ejected_until_ns.store(now + time, kRelaxed);
  cell.ejected_at_ns.store(now, kRelaxed), cell.ejected_rule.store(static_cast<uint32_t>(cause), kRelaxed);
  cell.ejected_errors.store(errors, kRelaxed), cell.ejected_kinds.store(cell.run_kinds.exchange(0, kRelaxed), kRelaxed);
  cell.ejected_status.store(cell.last_status.load(kRelaxed), kRelaxed);
  cell.consecutive_5xx.store(0, kRelaxed), cell.consecutive_gateway.store(0, kRelaxed), cell.consecutive_local.store(0, kRelaxed);
  cell.ejected.store(true, kRelaxed);
  if (now + time < cells.next_return_ns.load(kRelaxed)) cells.next_return_ns.store(now + time, kRelaxed);
  cells.ejections_enforced.fetch_add(1, kRelaxed);
  cells.ejections_active.fetch_add(1, kRelaxed);
  switch (cause) {
    case Cause::k5xx: cells.ejections_consecutive_5xx.fetch_add(1, kRelaxed); break;
    case Cause::kGateway: cells.ejections_gateway.fetch_add(1, kRelaxed); break;
    case Cause::kLocal: cells.ejections_local.fetch_add(1, kRelaxed); break;
    case Cause::kSuccessRate: cells.ejections_success_rate.fetch_add(1, kRelaxed); break;
    case Cause::kFailurePercent: cells.ejections_failure_percent.fetch_add(1, kRelaxed); break;
  }
  cells.health_generation.fetch_add(1, std::memory_order_release);
  return true;
}

// Whether an ejection that was earned is carried out (enforcing_* percent). The count of the run decides instead of a
// random number: over 100 runs exactly that share is enforced.
bool Enforced(uint32_t percent, const HostCell& cell, uint64_t now) {
  if (percent >= 100) return true;
  return percent > 0 && (cell.rq_total.load(kRelaxed) + now / 1'000'000) % 100 < percent;
}

bool Count(const model::ClusterEntry& entry, HostCell& cell, Gauge32& run, uint32_t limit, uint32_t enforce, Cause cause, uint64_t now) {
  uint32_t n = run.fetch_add(1, kRelaxed) + 1;
  if (limit == 0 || n < limit) return false;
  run.store(0, kRelaxed);
  if (!Enforced(enforce, cell, now)) return false;
  std::lock_guard lock(entry.cells->mutex);
  return Eject(entry, cell, cause, n, now);
}

void BringBack(const model::ClusterEntry& entry, uint64_t now) {
  ClusterCells& cells = *entry.cells;
  uint64_t next = UINT64_MAX;
  bool changed = false;
  // By the map, not the host set: a host that left and came back must not stay ejected for ever.
  for (auto& [address, weak] : cells.hosts) {
    auto cell = weak.lock();
    if (!cell || !cell->ejected.load(kRelaxed)) continue;
    uint64_t until = cell->ejected_until_ns.load(kRelaxed);
    if (until > now) {
      next = std::min(next, until);
      continue;
    }
    cell->ejected.store(false, kRelaxed);
    cells.ejections_active.fetch_sub(1, kRelaxed);
    changed = true;
  }
  cells.next_return_ns.store(next, kRelaxed);
  if (changed) cells.health_generation.fetch_add(1, std::memory_order_release);
}

// Hosts whose success rate is far below the others', and hosts with too high a share of failures.
void CompareRates(const model::ClusterEntry& entry, uint64_t now) {
  const model::OutlierConfig& config = *entry.config->outlier;
  struct Rate { HostCell* cell; double success; };
  std::vector<Rate> rates, failing;
  for (const Host& h : entry.hosts->hosts()) {
    uint32_t total = h.cell->interval_total.exchange(0, kRelaxed), good = h.cell->interval_success.exchange(0, kRelaxed);
    if (h.cell->ejected.load(kRelaxed)) continue;
    double success = total ? 100.0 * good / total : 100;
    if (total >= std::max<uint32_t>(1, config.success_rate_volume)) rates.push_back({h.cell.get(), success});
    if (total >= std::max<uint32_t>(1, config.failure_percent_volume)) failing.push_back({h.cell.get(), success});
  }
  if (config.enforce_success_rate && rates.size() >= std::max<uint32_t>(1, config.success_rate_min_hosts)) {
    double mean = 0, variance = 0;
    for (const Rate& r : rates) mean += r.success / static_cast<double>(rates.size());
    for (const Rate& r : rates) variance += (r.success - mean) * (r.success - mean) / static_cast<double>(rates.size());
    double threshold = mean - std::sqrt(variance) * config.success_rate_stdev / 1000.0;
    for (const Rate& r : rates)
      if (r.success < threshold && Enforced(config.enforce_success_rate, *r.cell, now)) Eject(entry, *r.cell, Cause::kSuccessRate, 0, now);
  }
  if (config.enforce_failure_percent && failing.size() >= std::max<uint32_t>(1, config.failure_percent_min_hosts)) {
    for (const Rate& r : failing)
      if (100 - r.success >= config.failure_percent_threshold && Enforced(config.enforce_failure_percent, *r.cell, now))
        Eject(entry, *r.cell, Cause::kFailurePercent, 0, now);
  }
}

}  // namespace

bool Report(const model::ClusterEntry& entry, const Host& host, const Outcome& outcome, uint64_t now) {
  const model::OutlierConfig* config = entry.config->outlier.get();
  HostCell& cell = *host.cell;
  if (!config) return false;
  cell.interval_total.fetch_add(1, kRelaxed);
  bool local = outcome.kind != Outcome::kResponse;

  if (!local && outcome.status < 500) {
    cell.interval_success.fetch_add(1, kRelaxed);
    // Plain stores only when needed: the usual case touches no shared line for writing.
    if (cell.consecutive_5xx.load(kRelaxed)) cell.consecutive_5xx.store(0, kRelaxed);
    if (cell.consecutive_gateway.load(kRelaxed)) cell.consecutive_gateway.store(0, kRelaxed);
    if (cell.consecutive_local.load(kRelaxed)) cell.consecutive_local.store(0, kRelaxed);
    if (cell.run_kinds.load(kRelaxed)) cell.run_kinds.store(0, kRelaxed);
    return false;
  }
  if (local) cell.run_kinds.fetch_or(1u << outcome.kind, kRelaxed);
  else cell.last_status.store(outcome.status, kRelaxed);
  if (local && config->split_local_errors)
    return Count(entry, cell, cell.consecutive_local, config->consecutive_local, config->enforce_local, Cause::kLocal, now);
  if (!local && config->split_local_errors && cell.consecutive_local.load(kRelaxed)) {
    cell.consecutive_local.store(0, kRelaxed), cell.run_kinds.store(0, kRelaxed);
  }

  // Without the split our own failures count as 503 (504 for time), as in Envoy.
  bool gateway = local || (outcome.status >= 502 && outcome.status <= 504);
  bool ejected = false;
  if (gateway) {
    ejected = Count(entry, cell, cell.consecutive_gateway, config->consecutive_gateway, config->enforce_gateway, Cause::kGateway, now);
  } else if (cell.consecutive_gateway.load(kRelaxed)) {
    cell.consecutive_gateway.store(0, kRelaxed);
  }
  return Count(entry, cell, cell.consecutive_5xx, config->consecutive_5xx, config->enforce_5xx, Cause::k5xx, now) || ejected;
}

std::optional<EjectionInfo> WhyEjected(const HostCell& cell) {
  static constexpr const char* kRules[] = {"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure",
                                           "success_rate", "failure_percentage"};
  static constexpr const char* kKinds[] = {"", "connect_failure", "connect_timeout", "reset", "timeout", "refused_stream"};
  if (!cell.ejected.load(kRelaxed)) return std::nullopt;
  auto cause = static_cast<Cause>(cell.ejected_rule.load(kRelaxed));
  EjectionInfo out{kRules[static_cast<int>(cause)], "", cell.ejected_errors.load(kRelaxed), cell.ejected_at_ns.load(kRelaxed),
                   cell.ejected_until_ns.load(kRelaxed)};
  uint32_t kinds = cell.ejected_kinds.load(kRelaxed);
  for (uint32_t k = Outcome::kConnectFailure; k <= Outcome::kRefusedStream; ++k) {
    if (kinds & (1u << k)) out.kinds += (out.kinds.empty() ? "" : ",") + std::string(kKinds[k]);
  }
  if (out.kinds.empty() && cell.ejected_status.load(kRelaxed)) out.kinds = std::to_string(cell.ejected_status.load(kRelaxed));
  return out;
}

void Sweep(const model::ClusterEntry& entry, uint64_t now) {
  if (!entry.config->outlier || !entry.cells) return;
  ClusterCells& cells = *entry.cells;
  uint64_t sweep_at = cells.next_sweep_ns.load(kRelaxed);
  if (now < cells.next_return_ns.load(kRelaxed) && now < sweep_at) return;
  std::lock_guard lock(cells.mutex);
  sweep_at = cells.next_sweep_ns.load(kRelaxed);
  bool due = now >= sweep_at;
  if (due && sweep_at != 0 && entry.hosts) {
    // An interval in use without ejection lowers the next ejection's time; the one in which a host returns does not.
    for (const Host& h : entry.hosts->hosts()) {
      uint32_t n = h.cell->ejections.load(kRelaxed);
      if (n > 0 && !h.cell->ejected.load(kRelaxed)) h.cell->ejections.store(n - 1, kRelaxed);
    }
  }
  BringBack(entry, now);
  if (!due) return;
  cells.next_sweep_ns.store(now + std::max<uint64_t>(entry.config->outlier->interval_ns, 1'000'000), kRelaxed);
  if (sweep_at != 0 && entry.hosts) CompareRates(entry, now);  // the first one only starts the interval
}

uint16_t GrpcToHttpStatus(int grpc_status) {
  switch (grpc_status) {
    case 0: return 200;
    case 1: return 499;
    case 3: case 9: case 11: return 400;
    case 4: return 504;
    case 5: return 404;
    case 6: case 10: return 409;
    case 7: return 403;
    case 8: return 429;
    case 12: return 501;
    case 14: return 503;
    case 16: return 401;
    default: return 500;
  }
}

}  // namespace weft::cluster
