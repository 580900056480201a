// The idea: a pick never counts hosts. Control-plane health is fixed when a HostSet is built; ejections bump a generation
// counter; each worker's Picker keeps the view (healthy hosts per priority, shares, panic) that belongs to both and
// rebuilds it when either changed. Tests: cluster_test.cc.
#include "sidecar/cluster/host_set.h"

#include <algorithm>
#include <unordered_set>

#include "sidecar/cluster/outlier.h"

namespace weft::cluster {
namespace {

using model::EndpointHealth;

std::atomic<uint64_t> next_set_id{1};

// A well-mixed second random number from the first.
uint64_t Mix(uint64_t x) {
  x ^= x >> 33, x *= 0xff51afd7ed558ccdull, x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

uint64_t Below(uint64_t random, uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * n) >> 64); }

// Shares of the priorities in percent (Envoy's algorithm: health × overprovisioning fills from the first on).
std::vector<uint32_t> Shares(const std::vector<uint32_t>& health) {
  std::vector<uint32_t> shares(health.size(), 0);
  uint64_t sum = 0;
  for (uint32_t h : health) sum += h;
  if (sum == 0) return shares;
  uint32_t left = 100;
  uint64_t total = std::min<uint64_t>(sum, 100);
  for (size_t i = 0; i < health.size(); ++i) {
    shares[i] = static_cast<uint32_t>(std::min<uint64_t>(left, health[i] * 100ull / total));
    left -= shares[i];
  }
  for (size_t i = 0; left && i < shares.size(); ++i)
    if (health[i]) shares[i] += left, left = 0;
  return shares;
}

bool Excluded(const Host* h, std::span<const HostCell* const> list) {
  return std::find(list.begin(), list.end(), h->cell.get()) != list.end();
}

bool SubsetMatches(const Host& h, const std::vector<std::pair<std::string, std::string>>& want) {
  for (const auto& kv : want)
    if (std::find(h.endpoint.lb_metadata.begin(), h.endpoint.lb_metadata.end(), kv) == h.endpoint.lb_metadata.end()) return false;
  return true;
}

}  // namespace

std::shared_ptr<const HostSet> HostSet::Build(const model::Cluster& cluster, const model::Endpoints& endpoints, ClusterCells& cells) {
  auto set = std::make_shared<HostSet>();
  set->id_ = next_set_id.fetch_add(1, std::memory_order_relaxed);
  set->overprovisioning_percent_ = endpoints.overprovisioning_percent;
  set->drop_per_million_ = endpoints.drop_per_million;
  set->hosts_.reserve(endpoints.endpoints.size());

  std::vector<double> locality_sum(endpoints.localities.size(), 0);
  if (cluster.locality_weighted)
    for (const auto& e : endpoints.endpoints) locality_sum[e.locality] += e.weight;

  std::unordered_set<std::string> seen;
  for (const auto& e : endpoints.endpoints) {
    Host h;
    h.endpoint = e;
    h.address = e.address.ToString();
    if (!seen.insert(h.address).second) continue;  // the same address twice is one host, as in Envoy
    h.cell = cells.Host(h.address);
    h.weight = std::max<uint32_t>(1, e.weight);
    if (cluster.locality_weighted) {
      // A locality without a weight gets no traffic (Envoy's rule); its hosts stay for panic.
      double share = endpoints.localities[e.locality].weight;
      h.weight = locality_sum[e.locality] > 0 ? share * e.weight / locality_sum[e.locality] : 0;
    }
    h.eds_healthy = e.health == EndpointHealth::kUnknown || e.health == EndpointHealth::kHealthy || e.health == EndpointHealth::kDegraded;
    h.degraded = e.health == EndpointHealth::kDegraded;
    h.usable = h.eds_healthy;
    set->priorities_ = std::max(set->priorities_, e.priority + 1);
    if (!set->hosts_.empty() && h.weight != set->hosts_[0].weight) set->equal_weights_ = false;
    set->hosts_.push_back(std::move(h));
  }
  // The map of cells must not grow with addresses that are gone.
  std::lock_guard lock(cells.mutex);
  if (cells.hosts.size() > 2 * set->hosts_.size() + 64) std::erase_if(cells.hosts, [](const auto& e) { return e.second.expired(); });
  return set;
}

std::shared_ptr<const Host> MakeHost(const model::Address& address, ClusterCells& cells) {
  auto h = std::make_shared<Host>();
  h->endpoint.address = address;
  h->address = address.ToString();
  h->cell = cells.Host(h->address);
  return h;
}

void Picker::Rebuild(const model::ClusterEntry& entry, uint64_t random) {
  const HostSet& set = *entry.hosts;
  const model::Cluster& cluster = *entry.config;
  generation_ = entry.cells->health_generation.load(std::memory_order_acquire);
  if (set_id_ == 0) cursor_ = Mix(random);  // workers start at different hosts
  set_id_ = set.id();
  equal_ = set.equal_weights();
  healthy_ = 0, total_ = static_cast<uint32_t>(set.hosts().size());
  views_.assign(set.priorities(), View{});

  struct Tally { uint32_t total = 0, healthy = 0; };
  std::vector<Tally> tally(views_.size());
  for (const Host& h : set.hosts()) {
    Tally& t = tally[h.endpoint.priority];
    ++t.total;
    if (!h.healthy()) continue;
    ++t.healthy, ++healthy_;
    if (!h.degraded) views_[h.endpoint.priority].hosts.push_back(&h);
  }
  std::vector<uint32_t> health;
  for (size_t p = 0; p < views_.size(); ++p) {
    const Tally& t = tally[p];
    health.push_back(t.total == 0 ? 0 : static_cast<uint32_t>(std::min<uint64_t>(100, uint64_t{t.healthy} * set.overprovisioning_percent() / t.total)));
    // Below the panic threshold ejections are ignored; hosts the control plane took out stay out.
    bool panic = t.total > 0 && t.healthy * 100.0 < cluster.healthy_panic_percent * t.total;
    View& v = views_[p];
    if (v.hosts.empty() || panic) {
      // Degraded ones serve when nothing better is there.
      v.hosts.clear();
      for (const Host& h : set.hosts())
        if (h.endpoint.priority == p && h.usable && (h.healthy() || panic)) v.hosts.push_back(&h);
      v.panic = panic;
      if (panic && cluster.fail_traffic_on_panic) v.hosts.clear();
    }
  }
  std::vector<uint32_t> shares = Shares(health);
  if (std::all_of(shares.begin(), shares.end(), [](uint32_t s) { return s == 0; })) {
    // Nobody is healthy: the first priority that may serve in panic takes all.
    for (size_t p = 0; p < views_.size(); ++p) {
      if (views_[p].hosts.empty()) continue;
      shares[p] = 100;
      break;
    }
  }
  for (size_t p = 0; p < views_.size(); ++p) {
    View& v = views_[p];
    v.load = shares[p];
    if (equal_) continue;
    double sum = 0;
    for (const Host* h : v.hosts) v.cumulative.push_back(sum += h->weight);
  }
}

const Host* Picker::PickIn(View& view, const model::Cluster& cluster, uint64_t random) {
  const size_t n = view.hosts.size();
  if (n == 0) return nullptr;
  bool weighted = !equal_ && !view.cumulative.empty() && view.cumulative.back() > 0;
  auto by_weight = [&](double at) {  // at in [0, 1)
    auto it = std::upper_bound(view.cumulative.begin(), view.cumulative.end(), at * view.cumulative.back());
    return view.hosts[std::min(static_cast<size_t>(it - view.cumulative.begin()), n - 1)];
  };
  auto unit = [](uint64_t r) { return static_cast<double>(r >> 11) * 0x1.0p-53; };

  switch (cluster.lb) {
    case model::LbPolicy::kLeastRequest: {
      const Host* best = nullptr;
      double best_load = 0;
      for (uint32_t i = 0; i < std::max<uint32_t>(1, cluster.least_request_choices); ++i) {
        random = Mix(random + i * 0x9e3779b97f4a7c15ull);
        const Host* h = view.hosts[Below(random, n)];
        // With weights: the load a host would have, per unit of weight.
        double load = (h->cell->active_requests.load(std::memory_order_relaxed) + 1) / std::max(h->weight, 1e-9);
        if (!best || load < best_load) best = h, best_load = load;
      }
      return best;
    }
    case model::LbPolicy::kRandom: return weighted ? by_weight(unit(random)) : view.hosts[Below(random, n)];
    default: break;
  }
  // Round robin. With weights: a low-discrepancy walk (multiples of the golden ratio) over the weights, which gives each
  // host its share within one part in a few picks, without a queue.
  ++cursor_;
  if (weighted) return by_weight(unit(cursor_ * 0x9e3779b97f4a7c15ull));
  return view.hosts[cursor_ % n];
}

Choice Picker::Pick(const model::ClusterEntry& entry, const PickInput& in) {
  Choice c;
  if (!entry.hosts || entry.hosts->hosts().empty()) {
    c.why = "no_hosts";
    return c;
  }
  if (entry.config->outlier) Sweep(entry, in.now_ns);
  if (set_id_ != entry.hosts->id() || generation_ != entry.cells->health_generation.load(std::memory_order_acquire)) Rebuild(entry, in.random);
  c.healthy = healthy_, c.total = total_;
  if (entry.hosts->drop_per_million() && Mix(in.random + 3) % 1'000'000 < entry.hosts->drop_per_million()) {
    c.why = entry.hosts->drop_per_million() >= 1'000'000 ? "unconditional_drop_overload" : "drop_overload";
    return c;
  }

  View* view = nullptr;
  uint32_t at = static_cast<uint32_t>(Mix(in.random + 1) % 100);
  for (View& v : views_) {
    if (at < v.load) {
      view = &v;
      break;
    }
    at -= v.load;
  }
  if (!view || view->hosts.empty()) {
    c.why = "no_healthy_host";
    return c;
  }
  c.panic = view->panic;

  auto fits = [&](const Host* h) {
    return !Excluded(h, in.excluded) && (!in.subset || in.subset->empty() || SubsetMatches(*h, *in.subset));
  };
  uint64_t random = in.random;
  for (uint32_t i = 0; i < std::max<uint32_t>(1, in.excluded_attempts); ++i, random = Mix(random + i)) {
    const Host* h = PickIn(*view, *entry.config, random);
    if (fits(h)) return c.host = h, c;
  }
  // A host that fits, wherever it is: few hosts and unlucky picks must not send a retry to the host that just failed.
  size_t n = view->hosts.size(), start = Below(Mix(random), n);
  for (size_t i = 0; i < n; ++i)
    if (const Host* h = view->hosts[(start + i) % n]; fits(h)) return c.host = h, c;
  // All were tried before: better one of them than none. A subset that nobody is in stays empty.
  for (size_t i = 0; i < n; ++i)
    if (const Host* h = view->hosts[(start + i) % n]; !in.subset || in.subset->empty() || SubsetMatches(*h, *in.subset)) return c.host = h, c;
  c.why = "no_healthy_host";
  return c;
}

Choice Picker::Peek(const model::ClusterEntry& entry, const PickInput& in, uint32_t ahead) {
  const uint64_t cursor = cursor_;
  cursor_ += ahead;
  const Choice c = Pick(entry, in);
  cursor_ = cursor;
  return c;
}

}  // namespace weft::cluster
