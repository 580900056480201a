// What one worker keeps for each cluster beside the shared cells: the picker's view, stat ids, pools of connections.
//
//   ClusterState* c = clusters.Get(entry);            // entry from the exchange's snapshot; made when first used
//   c->refs++ ... c->refs--                           // while an exchange or relay uses it
//   upstream::Pool* pool = c->PoolOf(*host, mode, loop, mark, "");
//
// States outlive snapshots. Update() is called with each new snapshot: pools of hosts, TLS contexts and clusters that
// left are drained (streams finish, idle connections close) and deleted when empty.
// Threads: the worker's.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/cluster/host_set.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/proxy/stats.h"
#include "sidecar/upstream/pool.h"

namespace weft::proxy {

struct ClusterState {
  explicit ClusterState(const std::string& name) : stats(name), name(name) {}

  // Connections of this host for requests of that protocol; a pool made for other settings is drained and replaced.
  // first_bytes: what its connections begin with; such pools are of one client connection, and go when they are empty.
  upstream::Pool* PoolOf(const cluster::Host& host, upstream::HttpMode mode, io::Loop* loop, uint32_t mark, std::string first_bytes);
  upstream::DialConfig DialTo(const cluster::Host& host, uint32_t mark) const;
  // The breakers count connections of relays too.
  bool AcquireConnection();
  void ReleaseConnection();
  // The pseudo-host of an ORIGINAL_DST destination, kept while it has connections or was used lately.
  std::shared_ptr<const cluster::Host> OriginalHost(const model::Address& address);

  void Update(const std::shared_ptr<const model::ClusterEntry>& now);
  void Sweep();  // deletes drained pools and unused pseudo-hosts
  bool unused() const { return refs == 0 && pools.empty() && draining.empty(); }

  struct Key {
    const cluster::HostCell* cell;
    upstream::HttpMode mode;
    std::string first_bytes;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      const size_t of_host = (reinterpret_cast<size_t>(k.cell) >> 4) * 31 + static_cast<size_t>(k.mode);
      return k.first_bytes.empty() ? of_host : of_host ^ std::hash<std::string>()(k.first_bytes);
    }
  };
  struct Slot {
    std::shared_ptr<cluster::HostCell> cell;
    std::shared_ptr<const model::Cluster> config;
    std::shared_ptr<const tls::Context> tls;
    std::unique_ptr<upstream::Pool> pool;
  };
  struct Pseudo {
    std::shared_ptr<const cluster::Host> host;
    uint32_t idle_sweeps = 0;
  };

  ClusterStats stats;
  const std::string name;
  std::shared_ptr<const model::ClusterEntry> entry;  // the newest
  cluster::Picker picker;
  uint32_t refs = 0;
  std::unordered_map<Key, Slot, KeyHash> pools;
  std::vector<Slot> draining;
  std::unordered_map<std::string, Pseudo> pseudo_hosts;
};

class Clusters {
 public:
  explicit Clusters(io::Loop* loop) : loop_(loop) {}
  ClusterState* Get(const std::shared_ptr<const model::ClusterEntry>& entry);
  void Update(const model::ConfigSnapshot& snapshot);
  void Sweep();
  io::Loop* loop() const { return loop_; }

 private:
  io::Loop* loop_;
  model::NameMap<std::unique_ptr<ClusterState>> states_;
};

}  // namespace weft::proxy
