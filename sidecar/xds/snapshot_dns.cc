// Where a cluster's endpoints come from: its own list, EDS, or names that are looked up again and again.
#include <algorithm>

#include "sidecar/base/log.h"
#include "sidecar/xds/snapshot_dns.h"

namespace weft::xds {

void SnapshotBuilder::StartDns(ClusterSlot& slot, const std::shared_ptr<const model::Cluster>& cluster) {
  slot.dns.reset();
  if (cluster->type != model::Cluster::kStrictDns && cluster->type != model::Cluster::kLogicalDns) return;
  auto dns = std::make_shared<Dns>();
  dns->cluster = cluster->name, dns->config = cluster, dns->started_ns = loop_->now();
  if (cluster->inline_endpoints) {
    for (size_t i = 0; i < cluster->inline_endpoints->endpoints.size(); ++i) {
      if (cluster->inline_endpoints->endpoints[i].address.kind == model::Address::kName) dns->targets.push_back({i, false, {}, nullptr});
    }
    dns->Combine();
  }
  slot.dns = dns;
  for (size_t i = 0; i < dns->targets.size(); ++i) Resolve(dns, i);
}

void SnapshotBuilder::Resolve(const std::weak_ptr<Dns>& weak, size_t target) {
  auto dns = weak.lock();
  if (!dns || !hooks_.resolve) return;
  const model::Endpoint& e = dns->config->inline_endpoints->endpoints[dns->targets[target].endpoint];
  hooks_.resolve(e.address.text, dns->config->dns_family, [this, weak, target](const ResolveAnswer& answer) {
    auto d = weak.lock();
    if (!d) return;
    Dns::Target& t = d->targets[target];
    bool first = !t.answered;
    t.answered = true;
    uint64_t again = d->config->dns_refresh_ns;
    if (answer.ok) {
      std::vector<model::Ip> sorted = answer.addresses;
      std::sort(sorted.begin(), sorted.end());
      if (sorted != t.addresses || first) {
        t.addresses = std::move(sorted);
        d->Combine();
        auto it = clusters_.find(d->cluster);
        if (it != clusters_.end()) it->second.dirty = true;
        Changed();
      }
      if (d->config->respect_dns_ttl && answer.ttl_s) again = std::max<uint64_t>(answer.ttl_s, 1) * base::kSecond;
    } else {
      // Hosts known before stay: a failing resolver must not take a service down.
      WEFT_LOG(kDns, kWarn, "cluster \"", d->cluster, "\": ", answer.error);
      if (first) Changed();
    }
    if (!t.timer) t.timer = std::make_unique<Dns::Again>(this, weak, target);
    loop_->Arm(t.timer.get(), std::max<uint64_t>(again, base::kMs));
  });
}

std::shared_ptr<const model::Endpoints> SnapshotBuilder::EndpointsOf(const model::Cluster& c, const ClusterSlot& slot) const {
  switch (c.type) {
    case model::Cluster::kStatic: return c.inline_endpoints;
    case model::Cluster::kStrictDns:
    case model::Cluster::kLogicalDns: return slot.dns ? slot.dns->resolved : nullptr;
    case model::Cluster::kEds: {
      auto it = endpoints_.find(c.eds_service_name.empty() ? c.name : c.eds_service_name);
      return it == endpoints_.end() ? nullptr : it->second.endpoints;
    }
    default: return nullptr;
  }
}

}  // namespace weft::xds
