#include "sidecar/admin/config_stats.h"

#include <algorithm>

#include "sidecar/cluster/host_set.h"

namespace weft::admin {
namespace {

using base::StatKind;
constexpr auto kRelaxed = std::memory_order_relaxed;

// A cluster's rows in the order of their names. Like Envoy's, those of outlier detection exist once it is configured.
struct Row {
  const char* name;
  StatKind kind;
  uint8_t value;  // place in the cluster's values: gauges, then counters
  bool outlier;
};
constexpr size_t kGauges = 3 + 2 * 4;
constexpr Row kRows[] = {
    {"circuit_breakers.default.cx_open", StatKind::kGauge, 3, false},
    {"circuit_breakers.default.rq_open", StatKind::kGauge, 5, false},
    {"circuit_breakers.default.rq_pending_open", StatKind::kGauge, 4, false},
    {"circuit_breakers.default.rq_retry_open", StatKind::kGauge, 6, false},
    {"circuit_breakers.high.cx_open", StatKind::kGauge, 7, false},
    {"circuit_breakers.high.rq_open", StatKind::kGauge, 9, false},
    {"circuit_breakers.high.rq_pending_open", StatKind::kGauge, 8, false},
    {"circuit_breakers.high.rq_retry_open", StatKind::kGauge, 10, false},
    {"membership_change", StatKind::kCounter, 11, false},
    {"membership_healthy", StatKind::kGauge, 1, false},
    {"membership_total", StatKind::kGauge, 0, false},
    {"outlier_detection.ejections_active", StatKind::kGauge, 2, true},
    {"outlier_detection.ejections_enforced_consecutive_5xx", StatKind::kCounter, 14, true},
    {"outlier_detection.ejections_enforced_consecutive_gateway_failure", StatKind::kCounter, 15, true},
    {"outlier_detection.ejections_enforced_consecutive_local_origin_failure", StatKind::kCounter, 16, true},
    {"outlier_detection.ejections_enforced_failure_percentage", StatKind::kCounter, 18, true},
    {"outlier_detection.ejections_enforced_success_rate", StatKind::kCounter, 17, true},
    {"outlier_detection.ejections_enforced_total", StatKind::kCounter, 12, true},
    {"outlier_detection.ejections_overflow", StatKind::kCounter, 13, true},
};

std::string CertificateName(const model::TlsConfig& c) {
  return c.certificate_sds.empty() ? "unnamed_cert_e3b0c442" : c.certificate_sds[0].name;
}
std::string CertificateStat(const std::string& scope, const std::string& certificate) {
  return scope + ".ssl.certificate." + certificate + ".expiration_unix_time_seconds";
}

void Show(StatKind kind, const std::string& name, const std::string& base, const base::TagList& tags, uint64_t value, base::StatView* out) {
  *out = {kind, name, base, &tags};
  out->value = static_cast<int64_t>(value), out->used = value != 0;
}

}  // namespace

ConfigStats::Counts ConfigStats::Count(const cluster::ClusterCells& c) {
  return {c.membership_change.load(kRelaxed), c.ejections_enforced.load(kRelaxed), c.ejections_overflow.load(kRelaxed),
          c.ejections_consecutive_5xx.load(kRelaxed), c.ejections_gateway.load(kRelaxed), c.ejections_local.load(kRelaxed),
          c.ejections_success_rate.load(kRelaxed), c.ejections_failure_percent.load(kRelaxed)};
}

ConfigStatsReader ConfigStats::Read(const model::ConfigSnapshot& snapshot) const { return {*this, snapshot}; }

void ConfigStats::ResetCounters(const model::ConfigSnapshot& snapshot) {
  zeros_.clear();
  for (const auto& entry : snapshot.clusters) {
    const Counts now = Count(*entry->cells);
    if (now != Counts{}) zeros_[entry->config->name] = {entry->cells, now};
  }
}

ConfigStatsReader::ConfigStatsReader(const ConfigStats& stats, const model::ConfigSnapshot& snapshot) : stats_(stats), snapshot_(snapshot) {
  for (const auto& entry : snapshot.clusters) clusters_.push_back(entry.get());
  std::sort(clusters_.begin(), clusters_.end(), [](const auto* a, const auto* b) {
    return a->config->name + "." < b->config->name + ".";
  });
  if (!clusters_.empty()) TakeCluster(*clusters_[0]);
  TakeListeners();
  listener_ = listeners_.begin();
}

void ConfigStatsReader::TakeCluster(const model::ClusterEntry& entry) {
  row_ = 0;
  name_ = entry.config->name;
  tags_ = {{"envoy_cluster_name", name_}};
  values_.assign(kGauges, 0);
  if (entry.hosts) {
    const auto& hosts = entry.hosts->hosts();
    values_[0] = hosts.size();
    values_[1] = static_cast<uint64_t>(std::count_if(hosts.begin(), hosts.end(), [](const auto& h) { return h.healthy(); }));
  }
  values_[2] = entry.cells->ejections_active.load(kRelaxed);
  for (size_t p = 0; p < 2; ++p) {
    const cluster::Breakers& b = entry.cells->breakers[p];
    const model::BreakerThresholds& limits = entry.config->breakers[p];
    uint64_t* open = &values_[3 + 4 * p];
    open[0] = b.connections.load(kRelaxed) >= limits.max_connections;
    open[1] = b.pending.load(kRelaxed) >= limits.max_pending;
    open[2] = b.requests.load(kRelaxed) >= limits.max_requests;
    open[3] = b.retries.load(kRelaxed) >= b.RetryLimit(limits);
  }
  ConfigStats::Counts counts = ConfigStats::Count(*entry.cells);
  if (auto zero = stats_.zeros_.find(name_); zero != stats_.zeros_.end() && zero->second.cells.lock() == entry.cells) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] -= zero->second.counts[i];
  }
  values_.insert(values_.end(), counts.begin(), counts.end());
  certificate_.clear();
  if (entry.tls && entry.config->tls && entry.tls->not_after_unix_s()) certificate_ = CertificateName(*entry.config->tls);
}

void ConfigStatsReader::TakeListeners() {
  for (const auto& entry : snapshot_.listeners) {
    const model::Listener& l = *entry->config;
    std::string owner = !l.stat_prefix.empty() ? l.stat_prefix : l.addresses.empty() ? l.name : l.addresses[0].ToString();
    std::replace(owner.begin(), owner.end(), ':', '_');
    const auto chain = [&](const std::shared_ptr<const model::FilterChain>& c) {
      if (!c || !c->tls || c->index >= entry->tls.size() || !entry->tls[c->index] || !entry->tls[c->index]->not_after_unix_s()) return;
      const std::string certificate = CertificateName(*c->tls);
      listeners_[CertificateStat("listener." + owner, certificate)] = {{{"envoy_tls_certificate", certificate}, {"envoy_listener_address", owner}},
                                                                       entry->tls[c->index]->not_after_unix_s()};
    };
    for (const auto& c : l.chains) chain(c);
    chain(l.default_chain);
  }
}

bool ConfigStatsReader::NextOfCluster(base::StatView* out) {
  const model::ClusterEntry& entry = *clusters_[cluster_];
  while (row_ < std::size(kRows)) {
    const Row& row = kRows[row_++];
    if (row.outlier && !entry.config->outlier) continue;
    full_ = "cluster." + name_ + "." + row.name, base_ = std::string("cluster.") + row.name;
    Show(row.kind, full_, base_, tags_, values_[row.value], out);
    return true;
  }
  if (row_ > std::size(kRows) || certificate_.empty()) return false;
  ++row_;
  full_ = CertificateStat("cluster." + name_, certificate_), base_ = "cluster.ssl.certificate.expiration_unix_time_seconds";
  certificate_tags_ = {{"envoy_tls_certificate", certificate_}, {"envoy_cluster_name", name_}};
  Show(StatKind::kGauge, full_, base_, certificate_tags_, static_cast<uint64_t>(entry.tls->not_after_unix_s()), out);
  return true;
}

bool ConfigStatsReader::Next(base::StatView* out) {
  while (cluster_ < clusters_.size()) {
    if (NextOfCluster(out)) return true;
    if (++cluster_ < clusters_.size()) TakeCluster(*clusters_[cluster_]);
  }
  if (listener_ == listeners_.end()) return false;
  base_ = "listener.ssl.certificate.expiration_unix_time_seconds";
  Show(StatKind::kGauge, listener_->first, base_, listener_->second.tags, static_cast<uint64_t>(listener_->second.end), out);
  ++listener_;
  return true;
}

}  // namespace weft::admin
