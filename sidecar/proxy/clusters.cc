#include "sidecar/proxy/clusters.h"

#include <algorithm>

namespace weft::proxy {
namespace {

constexpr uint32_t kKeepPseudoSweeps = 6;       // about a minute
constexpr size_t kMaxPseudoHosts = 16 * 1024;   // beyond: unused ones go at once

codec::Limits LimitsOf(const model::Cluster& c) {
  codec::Limits l;
  const model::Http2Options& h2 = c.http2;
  if (h2.max_concurrent_streams) l.max_concurrent_streams = h2.max_concurrent_streams;
  if (h2.initial_stream_window) l.stream_window = h2.initial_stream_window;
  if (h2.initial_connection_window) l.connection_window = h2.initial_connection_window;
  if (c.common.max_headers_count) l.max_header_count = c.common.max_headers_count;
  if (c.common.max_response_headers_kb) l.max_header_bytes = c.common.max_response_headers_kb * 1024;
  l.header_case = static_cast<codec::Limits::HeaderCase>(c.http1.header_case);
  return l;
}

}  // namespace

bool ClusterState::AcquireConnection() { return entry->cells->breakers[0].TryConnection(entry->config->breakers[0]); }
void ClusterState::ReleaseConnection() { cluster::Breakers::Release(entry->cells->breakers[0].connections); }

upstream::DialConfig ClusterState::DialTo(const cluster::Host& host, uint32_t mark) const {
  upstream::DialConfig d;
  d.address = host.endpoint.address;
  d.tls = entry->tls;
  d.cluster = entry->config;
  d.connect_timeout_ns = entry->config->connect_timeout_ns;
  d.mark = mark;
  return d;
}

upstream::Pool* ClusterState::PoolOf(const cluster::Host& host, upstream::HttpMode mode, io::Loop* loop, uint32_t mark,
                                     std::string first_bytes) {
  Slot& slot = pools[{host.cell.get(), mode, first_bytes}];
  if (slot.pool && slot.tls == entry->tls && slot.config == entry->config) return slot.pool.get();
  if (slot.pool) {
    slot.pool->Drain();
    draining.push_back(std::move(slot));
  }
  upstream::PoolConfig config;
  config.dial = DialTo(host, mark);
  config.dial.first_bytes = std::move(first_bytes);
  config.mode = mode;
  config.limits = LimitsOf(*entry->config);
  if (entry->config->common.idle_timeout_ns) config.idle_timeout_ns = *entry->config->common.idle_timeout_ns;
  config.max_requests_per_connection = entry->config->common.max_requests_per_connection;
  config.max_connection_duration_ns = entry->config->common.max_connection_duration_ns;
  config.preconnect_ratio = entry->config->preconnect_ratio;
  const model::Http2Options& h2 = entry->config->http2;
  if (h2.keepalive_interval_ns) config.ping_interval_ns = config.ping_active_ns = h2.keepalive_interval_ns;
  if (h2.keepalive_timeout_ns) config.ping_timeout_ns = h2.keepalive_timeout_ns;
  config.breaker.cell = this;
  config.breaker.acquire_connection = [](void* s) { return static_cast<ClusterState*>(s)->AcquireConnection(); };
  config.breaker.release_connection = [](void* s) { static_cast<ClusterState*>(s)->ReleaseConnection(); };
  config.breaker.acquire_pending = [](void* s) {
    const model::ClusterEntry& e = *static_cast<ClusterState*>(s)->entry;
    return e.cells->breakers[0].TryPending(e.config->breakers[0]);
  };
  config.breaker.release_pending = [](void* s) {
    cluster::Breakers::Release(static_cast<ClusterState*>(s)->entry->cells->breakers[0].pending);
  };
  config.stats = stats.pool;
  slot.cell = host.cell, slot.config = entry->config, slot.tls = entry->tls;
  slot.pool = std::make_unique<upstream::Pool>(loop, std::move(config));
  return slot.pool.get();
}

std::shared_ptr<const cluster::Host> ClusterState::OriginalHost(const model::Address& address) {
  std::string text = address.ToString();
  Pseudo& p = pseudo_hosts[text];
  if (!p.host) p.host = cluster::MakeHost(address, *entry->cells);
  p.idle_sweeps = 0;
  return p.host;
}

void ClusterState::Update(const std::shared_ptr<const model::ClusterEntry>& now) {
  if (now == entry) return;
  entry = now;
  if (now->config->type == model::Cluster::kOriginalDst || !now->hosts) return;
  const auto& hosts = now->hosts->hosts();
  for (auto it = pools.begin(); it != pools.end();) {
    bool stays = std::any_of(hosts.begin(), hosts.end(), [&](const cluster::Host& h) { return h.cell.get() == it->first.cell; });
    // A renewed certificate is a new context: connections made with the old one carry no new request.
    if (stays && it->second.tls == now->tls) {
      ++it;
      continue;
    }
    it->second.pool->Drain();
    draining.push_back(std::move(it->second));
    it = pools.erase(it);
  }
}

void ClusterState::Sweep() {
  std::erase_if(draining, [](const Slot& s) { return s.pool->empty(); });
  std::erase_if(pools, [](const auto& p) { return !p.first.first_bytes.empty() && p.second.pool->empty(); });
  for (auto it = pseudo_hosts.begin(); it != pseudo_hosts.end();) {
    bool busy = false;
    for (auto mode : {upstream::HttpMode::kHttp1, upstream::HttpMode::kHttp2, upstream::HttpMode::kAlpn}) {
      auto pool = pools.find({it->second.host->cell.get(), mode, {}});
      if (pool == pools.end()) continue;
      if (pool->second.pool->empty() && it->second.idle_sweeps >= kKeepPseudoSweeps) {
        pools.erase(pool);
      } else {
        busy = true;
      }
    }
    // Who uses the host holds a count on it.
    bool old = ++it->second.idle_sweeps > kKeepPseudoSweeps || pseudo_hosts.size() > kMaxPseudoHosts;
    it = !busy && old && it->second.host.use_count() == 1 ? pseudo_hosts.erase(it) : std::next(it);
  }
}

ClusterState* Clusters::Get(const std::shared_ptr<const model::ClusterEntry>& entry) {
  auto it = states_.find(entry->config->name);
  if (it != states_.end()) return it->second.get();
  auto state = std::make_unique<ClusterState>(entry->config->name);
  state->entry = entry;
  return states_.emplace(entry->config->name, std::move(state)).first->second.get();
}

void Clusters::Update(const model::ConfigSnapshot& snapshot) {
  for (auto& [name, state] : states_) {
    const uint32_t* slot = nullptr;
    if (snapshot.cluster_index) {
      auto it = snapshot.cluster_index->find(name);
      if (it != snapshot.cluster_index->end()) slot = &it->second;
    }
    if (slot) {
      state->Update(snapshot.clusters[*slot]);
      continue;
    }
    for (auto& [key, pool] : state->pools) {
      pool.pool->Drain();
      state->draining.push_back(std::move(pool));
    }
    state->pools.clear();
  }
}

void Clusters::Sweep() {
  for (auto it = states_.begin(); it != states_.end();) {
    it->second->Sweep();
    it = it->second->unused() && it->second->pseudo_hosts.empty() ? states_.erase(it) : std::next(it);
  }
}

}  // namespace weft::proxy
