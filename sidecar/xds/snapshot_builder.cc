#include "sidecar/xds/snapshot_builder.h"


#include <algorithm>
#include <cstring>
#include <utility>

#include "sidecar/base/log.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/io/socket.h"
#include "sidecar/xds/parse.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

using base::Cells;

SnapshotBuilder::RebuildTask::RebuildTask(SnapshotBuilder* b)
    : io::Task([](io::Task* t) {
        auto* self = static_cast<RebuildTask*>(t)->builder;
        std::vector<Refused> refused;
        self->Settle(&refused);
      }),
      builder(b) {}
SnapshotBuilder::WarmTimer::WarmTimer(SnapshotBuilder* b)
    : io::Timer([](io::Timer* t) {
        auto* self = static_cast<WarmTimer*>(t)->builder;
        WEFT_LOG(kConfig, kWarn, "initial fetch timeout: ", self->WarmingText());
        self->Changed();
      }),
      builder(b) {}

SnapshotBuilder::SnapshotBuilder(io::Loop* loop, Hooks hooks) : loop_(loop), hooks_(std::move(hooks)) {
  auto& s = base::Stats::Get();
  ids_ = {s.Counter("cluster_manager.cluster_added"),      s.Counter("cluster_manager.cluster_modified"),
          s.Counter("cluster_manager.cluster_removed"),    s.Gauge("cluster_manager.active_clusters"),
          s.Gauge("cluster_manager.warming_clusters"),     s.Counter("listener_manager.listener_added"),
          s.Counter("listener_manager.listener_modified"), s.Counter("listener_manager.listener_removed"),
          s.Gauge("listener_manager.total_listeners_active"), s.Gauge("listener_manager.total_listeners_warming"),
          s.Counter("listener_manager.listener_create_success"), s.Counter("listener_manager.listener_create_failure"),
          s.Counter("weft.snapshots")};
}
SnapshotBuilder::~SnapshotBuilder() = default;

void SnapshotBuilder::AddStaticCluster(std::shared_ptr<const model::Cluster> cluster, std::string body) {
  ClusterSlot& slot = clusters_[cluster->name];
  slot.is_static = true;
  slot.warming = Generation<model::Cluster>{cluster, {"", std::make_shared<const std::string>(std::move(body)), loop_->wall_now()}, loop_->now()};
  StartDns(slot, cluster);
}
void SnapshotBuilder::AddStaticListener(std::shared_ptr<const model::Listener> listener, std::string body) {
  ListenerSlot& slot = listeners_[listener->name];
  slot.is_static = true;
  slot.warming = Generation<model::Listener>{listener, {"", std::make_shared<const std::string>(std::move(body)), loop_->wall_now()}, loop_->now()};
}
void SnapshotBuilder::AddStaticSecret(std::shared_ptr<const model::Secret> secret, std::string body) {
  std::string name = secret->name;
  Raw raw{"", std::make_shared<const std::string>(RedactSecret(body)), loop_->wall_now()};
  static_secrets_[name] = {std::move(secret), ++secret_generation_, std::move(raw), {}};
}
base::Status SnapshotBuilder::Start() {
  started_ = true;
  return Rebuild();
}

void SnapshotBuilder::SetIdentity(const std::string& chain, const std::string& key, const std::string& roots) {
  expect_identity_ = true;
  auto own = std::make_shared<model::Secret>(), ca = std::make_shared<model::Secret>();
  own->name = "default", own->kind = model::Secret::kCertificate;
  own->certificate_chain = {model::DataSource::kInline, chain}, own->private_key = {model::DataSource::kInline, key};
  ca->name = "ROOTCA", ca->kind = model::Secret::kValidation;
  ca->trusted_ca = {model::DataSource::kInline, roots};
  secrets_["default"] = {own, ++secret_generation_, {"", nullptr, loop_->wall_now()}, {}};
  auto it = secrets_.find("ROOTCA");
  if (it == secrets_.end() || it->second.secret->trusted_ca.value != roots)
    secrets_["ROOTCA"] = {ca, ++secret_generation_, {"", nullptr, loop_->wall_now()}, {}};
  MarkSecretUsers();
  Changed();
}

void SnapshotBuilder::SetVersion(Type type, const std::string& version) {
  switch (type) {
    case Type::kCluster: versions_.cds = version; break;
    case Type::kEndpoint: versions_.eds = version; break;
    case Type::kListener: versions_.lds = version; break;
    case Type::kRoute: versions_.rds = version; break;
    case Type::kSecret: versions_.sds = version; break;
    default: break;
  }
}

// ---- resources in

std::vector<Refused> SnapshotBuilder::OnResources(Type type, const std::vector<AdsResource>& updated,
                                                  const std::vector<std::string>& removed, bool full) {
  std::vector<Refused> refused;
  std::set<std::string> seen;
  for (const AdsResource& r : updated) {
    std::string why = r.name.empty() ? "has no name" : !seen.insert(r.name).second ? "appears twice in one response" : ApplyOne(type, r);
    if (!why.empty()) refused.push_back({r.name, why});
  }
  for (const std::string& name : removed) RemoveOne(type, name);
  if (full) {
    std::vector<std::string> gone;
    if (type == Type::kCluster) {
      for (const auto& [name, slot] : clusters_) if (!slot.is_static && !seen.count(name)) gone.push_back(name);
    } else if (type == Type::kListener) {
      for (const auto& [name, slot] : listeners_) if (!slot.is_static && !seen.count(name)) gone.push_back(name);
    }
    for (const std::string& name : gone) RemoveOne(type, name);
  }
  if (type != Type::kListener || !started_) {
    Changed();
    UpdateNames();
    return refused;
  }
  // Listeners bind at once, so that an address in use is part of the answer to this response.
  Settle(&refused);
  UpdateNames();
  return refused;
}

// Puts in force what can be; a listener that cannot bind is taken back, and the rest tried again.
void SnapshotBuilder::Settle(std::vector<Refused>* refused) {
  for (size_t tries = listeners_.size() + 1; tries > 0; --tries) {
    auto status = Rebuild();
    if (status) return;
    std::string text = status.error().ToString(), culprit;
    for (const auto& [name, slot] : listeners_) {
      bool fresh = slot.previous || !current_ || !current_->FindListener(name);
      bool named = text.find("'" + name + "'") != std::string::npos || text.find("\"" + name + "\"") != std::string::npos;
      if (fresh && named && name.size() > culprit.size()) culprit = name;
    }
    if (culprit.empty()) {
      if (text != last_publish_error_) WEFT_LOG(kConfig, kWarn, "configuration could not be put in force: ", text);
      last_publish_error_ = text;
      return;
    }
    WEFT_LOG(kConfig, kWarn, "refused: ", text);
    refused->push_back({culprit, text});
    Cells::Local().Add(ids_.create_failure);
    names_dirty_ = true;
    ListenerSlot& slot = listeners_[culprit];
    if (slot.previous) {  // back to the one that serves
      slot.refused = {text, slot.active ? slot.active->raw.version : "", slot.active ? slot.active->raw.body : nullptr, loop_->wall_now()};
      slot.active = std::move(slot.previous);
      slot.previous.reset();
      slot.entry = std::move(slot.previous_entry);
    } else {
      listeners_.erase(culprit);
    }
  }
}

// Whether a new listener's addresses are free, found out before it warms: the answer belongs to its own response.
std::string SnapshotBuilder::ProbeBind(const model::Listener& l) const {
  if (!l.bind_to_port || l.dns) return "";
  for (const model::Address& a : l.addresses) {
    if (a.kind != model::Address::kIp || a.port == 0) continue;
    bool ours = false;
    if (current_) {
      for (const auto& have : current_->listeners) {
        for (const model::Address& b : have->config->addresses) ours |= b == a;
      }
    }
    if (ours) continue;
    io::SockAddr at;
    at.length = a.ToSockaddr(&at.storage);
    io::ListenOptions options;
    options.transparent = l.transparent, options.freebind = l.freebind;
    io::Fd probe(io::Listen(at, options));
    if (!probe) return "address: cannot bind " + a.ToString() + ": " + strerror(-probe.get());
  }
  return "";
}

std::string SnapshotBuilder::ApplyOne(Type type, const AdsResource& r) {
  auto body = std::make_shared<const std::string>(r.body);
  Raw raw{r.version, body, loop_->wall_now()};
  names_dirty_ |= type == Type::kCluster || type == Type::kListener;
  auto refuse = [&](Refusal& to, const base::Error& e) {
    to = {e.ToString(), r.version, body, loop_->wall_now()};
    return to.error;
  };
  switch (type) {
    case Type::kCluster: {
      auto it = clusters_.find(r.name);
      if (it != clusters_.end() && it->second.is_static) return "a static cluster of that name exists";
      auto parsed = ParseCluster(r.body);
      if (!parsed) return it == clusters_.end() ? parsed.error().ToString() : refuse(it->second.refused, parsed.error());
      ClusterSlot& slot = clusters_[r.name];
      slot.refused = {};
      const Raw* newest = slot.warming ? &slot.warming->raw : slot.active ? &slot.active->raw : nullptr;
      if (newest && *newest->body == *body) {  // the same again: nothing warms
        (slot.warming ? slot.warming->raw : slot.active->raw).version = r.version;
        return "";
      }
      Cells::Local().Add(slot.active || slot.warming ? ids_.cluster_modified : ids_.cluster_added);
      slot.warming = Generation<model::Cluster>{*parsed, raw, loop_->now()};
      StartDns(slot, *parsed);
      return "";
    }
    case Type::kListener: {
      auto it = listeners_.find(r.name);
      if (it != listeners_.end() && it->second.is_static) return "a static listener of that name exists";
      auto parsed = ParseListener(r.body);
      if (!parsed) return it == listeners_.end() ? parsed.error().ToString() : refuse(it->second.refused, parsed.error());
      if (std::string why = started_ ? ProbeBind(**parsed) : ""; !why.empty())
        return it == listeners_.end() ? why : refuse(it->second.refused, base::Error(why));
      ListenerSlot& slot = listeners_[r.name];
      slot.refused = {};
      const Raw* newest = slot.warming ? &slot.warming->raw : slot.active ? &slot.active->raw : nullptr;
      if (newest && *newest->body == *body) {
        (slot.warming ? slot.warming->raw : slot.active->raw).version = r.version;
        return "";
      }
      Cells::Local().Add(slot.active || slot.warming ? ids_.listener_modified : ids_.listener_added);
      slot.warming = Generation<model::Listener>{*parsed, raw, loop_->now()};
      return "";
    }
    case Type::kRoute: {
      auto parsed = ParseRoutes(r.body);
      auto it = routes_.find(r.name);
      if (!parsed) return it == routes_.end() ? parsed.error().ToString() : refuse(it->second.refused, parsed.error());
      routes_[r.name] = {*parsed, raw, {}};
      routes_changed_ = true;
      return "";
    }
    case Type::kEndpoint: {
      auto parsed = ParseEndpoints(r.body);
      auto it = endpoints_.find(r.name);
      if (!parsed) return it == endpoints_.end() ? parsed.error().ToString() : refuse(it->second.refused, parsed.error());
      endpoints_[r.name] = {*parsed, raw, {}};
      for (auto& [name, slot] : clusters_) {
        if (slot.active && slot.active->config->type == model::Cluster::kEds && slot.active->config->eds_service_name == r.name) slot.dirty = true;
      }
      return "";
    }
    case Type::kSecret: {
      auto parsed = ParseSecret(r.body);
      auto it = secrets_.find(r.name);
      if (!parsed) return it == secrets_.end() ? parsed.error().ToString() : refuse(it->second.refused, parsed.error());
      if (expect_identity_ && (r.name == "default" || r.name == "ROOTCA")) return "this name is served by the sidecar's own identity";
      raw.body = std::make_shared<const std::string>(RedactSecret(r.body));
      secrets_[r.name] = {std::move(*parsed), ++secret_generation_, raw, {}};
      MarkSecretUsers();
      return "";
    }
    default: return "unknown type";
  }
}

void SnapshotBuilder::RemoveOne(Type type, const std::string& name) {
  names_dirty_ |= type == Type::kCluster || type == Type::kListener;
  switch (type) {
    case Type::kCluster: {
      auto it = clusters_.find(name);
      if (it == clusters_.end() || it->second.is_static) return;
      clusters_.erase(it);
      Cells::Local().Add(ids_.cluster_removed);
      return;
    }
    case Type::kListener: {
      auto it = listeners_.find(name);
      if (it == listeners_.end() || it->second.is_static) return;
      if (it->second.active && it->second.active->config->dns && hooks_.on_dns) hooks_.on_dns(*it->second.active->config, false);
      listeners_.erase(it);
      Cells::Local().Add(ids_.listener_removed);
      return;
    }
    case Type::kRoute:  // known not to exist: requests of its listeners get 404
      routes_[name] = {nullptr, {"", nullptr, loop_->wall_now()}, {}};
      routes_changed_ = true;
      return;
    case Type::kEndpoint: {
      auto none = std::make_shared<model::Endpoints>();
      none->cluster = name;
      endpoints_[name] = {std::move(none), {"", nullptr, loop_->wall_now()}, {}};
      for (auto& [cluster, slot] : clusters_) {
        if (slot.active && slot.active->config->eds_service_name == name) slot.dirty = true;
      }
      return;
    }
    case Type::kSecret:
      if (expect_identity_ && (name == "default" || name == "ROOTCA")) return;
      secrets_.erase(name);  // contexts in use keep what they were made of
      return;
    default: return;
  }
}

void SnapshotBuilder::Changed() { loop_->Schedule(io::Beat::kAdvance, &rebuild_); }

}  // namespace weft::xds
