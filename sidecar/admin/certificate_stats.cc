#include "sidecar/admin/certificate_stats.h"

#include <algorithm>

namespace weft::admin {

void CertificateStats::Tell(const std::string& scope, const std::string& owner, const model::TlsConfig& config, const tls::Context& context) {
  const int64_t end = context.not_after_unix_s();
  if (end == 0) return;
  const std::string certificate = config.certificate_sds.empty() ? "unnamed_cert_e3b0c442" : config.certificate_sds[0].name;
  const std::string full = scope + "." + owner + ".ssl.certificate." + certificate + ".expiration_unix_time_seconds";
  auto [at, added] = told_.try_emplace(full);
  if (added) {
    const char* tag = scope == "cluster" ? "envoy_cluster_name" : "envoy_listener_address";
    at->second.id = base::Stats::Get().Gauge(full, scope + ".ssl.certificate.expiration_unix_time_seconds",
                                             {{"envoy_tls_certificate", certificate}, {tag, owner}});
  }
  at->second.round = round_;
  base::Cells::Local().Set(at->second.id, static_cast<uint64_t>(end));
}

void CertificateStats::Update(const model::ConfigSnapshot& snapshot) {
  ++round_;
  for (const auto& entry : snapshot.clusters) {
    if (entry->tls && entry->config->tls) Tell("cluster", entry->config->name, *entry->config->tls, *entry->tls);
  }
  for (const auto& entry : snapshot.listeners) {
    const model::Listener& l = *entry->config;
    std::string owner = !l.stat_prefix.empty() ? l.stat_prefix : l.addresses.empty() ? l.name : l.addresses[0].ToString();
    std::replace(owner.begin(), owner.end(), ':', '_');
    const auto chain = [&](const std::shared_ptr<const model::FilterChain>& c) {
      if (c && c->tls && c->index < entry->tls.size() && entry->tls[c->index]) Tell("listener", owner, *c->tls, *entry->tls[c->index]);
    };
    for (const auto& c : l.chains) chain(c);
    chain(l.default_chain);
  }
  std::erase_if(told_, [&](const auto& item) {
    if (item.second.round == round_) return false;
    base::Cells::Local().Set(item.second.id, 0);
    return true;
  });
}

}  // namespace weft::admin
