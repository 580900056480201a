// The whole configuration as workers see it: immutable, complete (what is not warm is not in it), shared by pointers.
//
// Built on the main thread by SnapshotBuilder (xds/), posted to each worker, swapped between turns. Entries of things
// that did not change are the same pointers as in the previous snapshot. Cells (host health, breaker counts) live
// outside and are only pointed to, so they survive.
//
//   const ClusterEntry* c = snapshot->FindCluster(route.forward.cluster);
//   const route::RouteTable* t = snapshot->Routes(*chain->http());
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sidecar/model/cluster_config.h"
#include "sidecar/model/listener.h"
#include "sidecar/tls/engine.h"

namespace weft::cluster {
class HostSet;
struct ClusterCells;
}  // namespace weft::cluster

namespace weft::model {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};
template <typename T>
using NameMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

// A cluster that may be used: configuration, its hosts now, its TLS context (null: plain), its cells.
struct ClusterEntry {
  std::shared_ptr<const Cluster> config;
  std::shared_ptr<const Endpoints> endpoints;         // null for ORIGINAL_DST
  std::shared_ptr<const cluster::HostSet> hosts;      // built from endpoints; empty set for ORIGINAL_DST
  std::shared_ptr<cluster::ClusterCells> cells;
  std::shared_ptr<const tls::Context> tls;
  bool via_api = false;                               // came by CDS (not static)
};

struct ListenerEntry {
  std::shared_ptr<const Listener> config;
  // By FilterChain::index (default chain last); null for plain chains.
  std::vector<std::shared_ptr<const tls::Context>> tls;
  bool via_api = false;
};

struct ConfigSnapshot {
  uint64_t sequence = 0;           // grows by one with each snapshot of this process
  std::string config_revision;     // the server's revision of the newest applied resources, for records ("" unknown)
  struct Versions { std::string lds, rds, cds, eds, sds; } versions;

  std::vector<std::shared_ptr<const ListenerEntry>> listeners;

  // Names to slots; shared between snapshots as long as the set of names is the same.
  std::shared_ptr<const NameMap<uint32_t>> cluster_index;
  std::vector<std::shared_ptr<const ClusterEntry>> clusters;

  std::shared_ptr<const NameMap<std::shared_ptr<const route::RouteTable>>> route_tables;  // by RDS name

  const ClusterEntry* FindCluster(std::string_view name) const {
    if (!cluster_index) return nullptr;
    auto it = cluster_index->find(name);
    return it == cluster_index->end() ? nullptr : clusters[it->second].get();
  }
  const ListenerEntry* FindListener(std::string_view name) const {
    for (const auto& l : listeners)
      if (l->config->name == name) return l.get();
    return nullptr;
  }
  // The table a connection manager uses now; null when its RDS table is not there.
  const route::RouteTable* Routes(const HttpConnectionManager& hcm) const {
    if (hcm.route_table) return hcm.route_table.get();
    if (!route_tables) return nullptr;
    auto it = route_tables->find(hcm.rds_name);
    return it == route_tables->end() ? nullptr : it->second.get();
  }
};
using SnapshotPtr = std::shared_ptr<const ConfigSnapshot>;

}  // namespace weft::model
