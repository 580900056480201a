// Addresses behind the names of one STRICT_DNS or LOGICAL_DNS cluster: private to the snapshot builder's files.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sidecar/xds/snapshot_builder.h"

namespace weft::xds {

// One target per name of the cluster; addresses of failed lookups stay as they were.
struct SnapshotBuilder::Dns {
  // Asks for a name again. Lives in its target.
  struct Again final : io::Timer {
    Again(SnapshotBuilder* b, std::weak_ptr<Dns> w, size_t i)
        : io::Timer([](io::Timer* x) {
            auto* self = static_cast<Again*>(x);
            auto keep = self->dns.lock();
            if (keep) self->builder->Resolve(self->dns, self->index);
          }),
          builder(b), dns(std::move(w)), index(i) {}
    SnapshotBuilder* builder;
    std::weak_ptr<Dns> dns;
    size_t index;
  };
  struct Target {
    size_t endpoint;  // index into the cluster's inline endpoints
    bool answered = false;
    std::vector<model::Ip> addresses;
    std::unique_ptr<Again> timer;
  };
  std::string cluster;
  std::shared_ptr<const model::Cluster> config;
  std::vector<Target> targets;
  std::shared_ptr<const model::Endpoints> resolved;
  uint64_t started_ns = 0;

  bool answered() const {
    return std::all_of(targets.begin(), targets.end(), [](const Target& t) { return t.answered; });
  }
  void Combine() {
    auto out = std::make_shared<model::Endpoints>(*config->inline_endpoints);
    out->endpoints.clear();
    for (size_t i = 0; i < config->inline_endpoints->endpoints.size(); ++i) {
      const model::Endpoint& e = config->inline_endpoints->endpoints[i];
      if (e.address.kind != model::Address::kName) {
        out->endpoints.push_back(e);
        continue;
      }
      for (const Target& t : targets) {
        if (t.endpoint != i) continue;
        for (const model::Ip& ip : t.addresses) {
          model::Endpoint copy = e;
          copy.address = model::Address::FromIp(ip, e.address.port);
          if (copy.hostname.empty()) copy.hostname = e.address.text;
          out->endpoints.push_back(std::move(copy));
          if (config->type == model::Cluster::kLogicalDns) break;
        }
      }
    }
    resolved = std::move(out);
  }
};

}  // namespace weft::xds
