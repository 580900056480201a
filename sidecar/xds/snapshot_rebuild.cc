// What is warm goes into force: promotion, the next snapshot, its publication.
#include <algorithm>
#include <utility>

#include "sidecar/base/log.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/xds/snapshot_dns.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

using base::Cells;

namespace {

bool SameHosts(const cluster::HostSet* before, const cluster::HostSet& now) {
  auto same = [](const cluster::Host& a, const cluster::Host& b) { return a.address == b.address; };
  return before ? std::equal(before->hosts().begin(), before->hosts().end(), now.hosts().begin(), now.hosts().end(), same) : now.hosts().empty();
}

}  // namespace

bool SnapshotBuilder::Expired(uint64_t since) const { return loop_->now() >= since + kFetchTimeoutNs; }

// Moves a warm generation into force. True when it did.
bool SnapshotBuilder::PromoteCluster(ClusterSlot& slot) {
  if (!slot.warming) return false;
  const model::Cluster& c = *slot.warming->config;
  bool expired = Expired(slot.warming->since_ns);
  if (c.type == model::Cluster::kEds && !EndpointsOf(c, slot) && !expired) return false;
  if (slot.dns && !slot.dns->answered() && !expired) return false;
  if (c.tls) {
    bool waiting = false;
    auto context = ContextFor(*c.tls, false, &waiting);
    if (waiting) return false;
    if (!context) {
      std::string why = std::move(context.error()).In("transport_socket").ToString();
      if (slot.refused.error != why) {
        WEFT_LOG(kConfig, kError, "cluster \"", c.name, "\": ", why);
        slot.refused = {why, slot.warming->raw.version, slot.warming->raw.body, loop_->wall_now()};
      }
      return false;
    }
  }
  slot.active = std::move(slot.warming);
  slot.warming.reset();
  slot.dirty = names_dirty_ = true;
  return true;
}

bool SnapshotBuilder::PromoteListener(ListenerSlot& slot) {
  if (!slot.warming) return false;
  const model::Listener& l = *slot.warming->config;
  bool expired = Expired(slot.warming->since_ns);
  auto chain_ready = [&](const model::FilterChain& chain) {
    if (const auto* hcm = chain.http(); hcm && !hcm->rds_name.empty() && !routes_.count(hcm->rds_name) && !expired) return false;
    if (!chain.tls) return true;
    bool waiting = false;
    auto context = ContextFor(*chain.tls, true, &waiting);
    if (!waiting && !context) {
      std::string why = std::move(context.error()).In("transport_socket").In("filter chain \"" + chain.name + "\"").ToString();
      if (slot.refused.error != why) {
        WEFT_LOG(kConfig, kError, "listener \"", l.name, "\": ", why);
        slot.refused = {why, slot.warming->raw.version, slot.warming->raw.body, loop_->wall_now()};
      }
    }
    return !waiting && static_cast<bool>(context);
  };
  for (const auto& chain : l.chains) {
    if (!chain_ready(*chain)) return false;
  }
  if (l.default_chain && !chain_ready(*l.default_chain)) return false;
  if (hooks_.on_dns) {
    if (slot.active && slot.active->config->dns) hooks_.on_dns(*slot.active->config, false);
    if (l.dns) hooks_.on_dns(l, true);
  }
  if (slot.active && !slot.previous) slot.previous = std::move(slot.active), slot.previous_entry = slot.entry;
  slot.active = std::move(slot.warming);
  slot.warming.reset();
  slot.dirty = names_dirty_ = true;
  Cells::Local().Add(ids_.create_success);
  return true;
}

base::Status SnapshotBuilder::Rebuild() {
  if (!started_) return base::Ok{};
  rebuild_.Unlink();
  for (auto& [name, slot] : clusters_) PromoteCluster(slot);
  for (auto& [name, slot] : listeners_) PromoteListener(slot);

  auto next = std::make_shared<model::ConfigSnapshot>();
  bool changed = !current_, same_names = current_ && current_->cluster_index;
  for (auto& [name, slot] : clusters_) {
    if (!slot.active) continue;
    if (slot.dirty || !slot.entry) {
      const auto& config = slot.active->config;
      auto entry = std::make_shared<model::ClusterEntry>();
      entry->config = config;
      entry->via_api = !slot.is_static;
      entry->cells = slot.entry ? slot.entry->cells : cells_.Get(name);
      entry->endpoints = EndpointsOf(*config, slot);
      if (!entry->endpoints && config->type != model::Cluster::kOriginalDst) {
        auto none = std::make_shared<model::Endpoints>();
        none->cluster = name;
        entry->endpoints = none;
      }
      if (slot.entry && slot.entry->endpoints == entry->endpoints && slot.entry->config == config) {
        entry->hosts = slot.entry->hosts;
      } else {
        static const model::Endpoints kNone;
        entry->hosts = cluster::HostSet::Build(*config, entry->endpoints ? *entry->endpoints : kNone, *entry->cells);
        if (!SameHosts(slot.entry ? slot.entry->hosts.get() : nullptr, *entry->hosts)) entry->cells->membership_change.fetch_add(1, std::memory_order_relaxed);
      }
      if (config->tls) {
        bool waiting = false;
        auto context = ContextFor(*config->tls, false, &waiting);
        // A secret that went away or turned bad: the context in use stays.
        if (!waiting && context) entry->tls = *context;
        else if (slot.entry) entry->tls = slot.entry->tls;
      }
      slot.dirty = false;
      if (!slot.entry || slot.entry->config != entry->config || slot.entry->endpoints != entry->endpoints || slot.entry->tls != entry->tls) {
        slot.entry = std::move(entry);
        changed = true;
      }
    }
    uint32_t at = static_cast<uint32_t>(next->clusters.size());
    next->clusters.push_back(slot.entry);
    if (same_names) {
      auto it = current_->cluster_index->find(name);
      if (it == current_->cluster_index->end() || it->second != at) same_names = false;
    }
  }
  if (same_names && current_->clusters.size() == next->clusters.size()) {
    next->cluster_index = current_->cluster_index;
  } else {
    changed = true;
    auto index = std::make_shared<model::NameMap<uint32_t>>();
    for (uint32_t i = 0; i < next->clusters.size(); ++i) index->emplace(next->clusters[i]->config->name, i);
    next->cluster_index = std::move(index);
  }

  for (auto& [name, slot] : listeners_) {
    if (!slot.active || slot.active->config->dns) continue;
    if (slot.dirty || !slot.entry) {
      const auto& config = slot.active->config;
      auto entry = std::make_shared<model::ListenerEntry>();
      entry->config = config;
      entry->via_api = !slot.is_static;
      auto context_of = [&](const model::FilterChain& chain) -> std::shared_ptr<const tls::Context> {
        if (!chain.tls) return nullptr;
        bool waiting = false;
        auto context = ContextFor(*chain.tls, true, &waiting);
        if (!waiting && context) return *context;
        return slot.entry && slot.entry->config == config && chain.index < slot.entry->tls.size() ? slot.entry->tls[chain.index] : nullptr;
      };
      for (const auto& chain : config->chains) entry->tls.push_back(context_of(*chain));
      if (config->default_chain) entry->tls.push_back(context_of(*config->default_chain));
      slot.dirty = false;
      if (!slot.entry || slot.entry->config != entry->config || slot.entry->tls != entry->tls) {
        slot.entry = std::move(entry);
        changed = true;
      }
    }
    next->listeners.push_back(slot.entry);
  }
  if (current_ && current_->listeners.size() != next->listeners.size()) changed = true;
  if (routes_changed_ || !current_) {
    auto tables = std::make_shared<model::NameMap<std::shared_ptr<const route::RouteTable>>>();
    for (const auto& [name, slot] : routes_) {
      if (slot.table) tables->emplace(name, slot.table);
    }
    next->route_tables = std::move(tables);
    changed = true;
  } else {
    next->route_tables = current_->route_tables;
  }
  UpdateGauges();
  UpdateNames();
  ArmWarming();
  if (!changed) return base::Ok{};

  next->sequence = sequence_ + 1;
  next->config_revision = revision_;
  next->versions = versions_;
  if (hooks_.publish) {
    if (auto s = hooks_.publish(next); !s) return s;
  }
  ++sequence_;
  current_ = std::move(next);
  routes_changed_ = false;
  last_publish_error_.clear();
  for (auto& [name, slot] : listeners_) slot.previous.reset(), slot.previous_entry.reset();
  Cells::Local().Add(ids_.snapshots);
  for (auto it = contexts_.begin(); it != contexts_.end();) {
    if (it->second.use_count() == 1) it = contexts_.erase(it);
    else ++it;
  }
  return base::Ok{};
}

void SnapshotBuilder::ArmWarming() {
  uint64_t first = UINT64_MAX;
  auto look = [&](const auto& slot) {
    if (slot.warming && !Expired(slot.warming->since_ns)) first = std::min(first, slot.warming->since_ns + kFetchTimeoutNs);
  };
  for (const auto& [name, slot] : clusters_) look(slot);
  for (const auto& [name, slot] : listeners_) look(slot);
  if (first == UINT64_MAX) warm_timer_.Cancel();
  else loop_->Arm(&warm_timer_, first > loop_->now() ? first - loop_->now() : 0);
}

void SnapshotBuilder::UpdateGauges() {
  uint64_t active = 0, warm = 0, l_active = 0, l_warm = 0;
  for (const auto& [name, slot] : clusters_) active += slot.active.has_value(), warm += slot.warming.has_value();
  for (const auto& [name, slot] : listeners_) l_active += slot.active.has_value(), l_warm += slot.warming.has_value();
  Cells& cells = Cells::Local();
  cells.Set(ids_.active_clusters, active), cells.Set(ids_.warming_clusters, warm);
  cells.Set(ids_.listeners_active, l_active), cells.Set(ids_.listeners_warming, l_warm);
}

}  // namespace weft::xds
