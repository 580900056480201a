#include "sidecar/xds/snapshot_builder.h"

#include <sys/stat.h>

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

namespace {

bool SameHosts(const cluster::HostSet* before, const cluster::HostSet& now) {
  auto same = [](const cluster::Host& a, const cluster::Host& b) { return a.address == b.address; };
  return before ? std::equal(before->hosts().begin(), before->hosts().end(), now.hosts().begin(), now.hosts().end(), same) : now.hosts().empty();
}

}  // namespace

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

// ---- secrets and TLS

bool SnapshotBuilder::Local(const model::SdsRef& ref) const {
  return expect_identity_ && ref.source != model::SdsRef::kFile && ref.source != model::SdsRef::kCluster &&
         (ref.name == "default" || ref.name == "ROOTCA");
}

const SnapshotBuilder::SecretSlot* SnapshotBuilder::Find(const model::SdsRef& ref) const {
  if (ref.source == model::SdsRef::kFile) {
    auto file = files_.find(ref.path);
    if (file == files_.end()) return nullptr;
    auto it = file->second.secrets.find(ref.name);
    return it == file->second.secrets.end() ? nullptr : &it->second;
  }
  const auto& from = ref.source == model::SdsRef::kStatic && !Local(ref) ? static_secrets_ : secrets_;
  auto it = from.find(ref.name);
  return it == from.end() ? nullptr : &it->second;
}

void SnapshotBuilder::MarkSecretUsers() {
  for (auto& [name, slot] : clusters_) {
    if (slot.active && slot.active->config->tls) slot.dirty = true;
  }
  for (auto& [name, slot] : listeners_) slot.dirty = true;
}

base::Result<std::shared_ptr<const tls::Context>> SnapshotBuilder::ContextFor(const model::TlsConfig& t, bool server, bool* waiting) {
  *waiting = false;
  std::string key = (server ? "s|" : "c|") + t.key;
  auto secret = [&](const std::vector<model::SdsRef>& refs) -> const model::Secret* {
    if (refs.empty()) return nullptr;
    const SecretSlot* s = Find(refs.front());
    if (!s) return *waiting = true, nullptr;
    key += "|" + std::to_string(s->generation);
    return s->secret.get();
  };
  const model::Secret* certificate = secret(t.certificate_sds);
  const model::Secret* validation = secret(t.validation_sds);
  if (*waiting) return std::shared_ptr<const tls::Context>();
  auto is_file = [](const model::DataSource& d) { return d.kind == model::DataSource::kFile; };
  bool files = is_file(t.certificate_chain) || is_file(t.private_key) || is_file(t.trusted_ca) ||
               (certificate && (is_file(certificate->certificate_chain) || is_file(certificate->private_key))) ||
               (validation && is_file(validation->trusted_ca));
  bool cached = !files && !t.key.empty();
  if (cached) {
    auto it = contexts_.find(key);
    if (it != contexts_.end()) return it->second;
  }
  auto config = MakeContextConfig(t, certificate, validation);
  if (!config) return config.error();
  auto made = server ? tls::Context::Server(*config) : tls::Context::Client(*config);
  if (made && cached) contexts_[key] = *made;
  return made;
}

// ---- DNS

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

// ---- warming and building

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

void SnapshotBuilder::ReadFiles() {
  bool changed = false;
  for (auto& [path, file] : files_) {
    struct stat st{};
    std::string stamp = stat(path.c_str(), &st) != 0 ? "absent"
        : std::to_string(st.st_ino) + "/" + std::to_string(st.st_size) + "/" + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
    if (stamp == file.stamp) continue;
    file.stamp = stamp;
    auto secrets = ReadSecretFile(path);
    std::string error = secrets ? "" : secrets.error().ToString();
    if (error != file.error && !error.empty()) WEFT_LOG(kSecret, kWarn, "secret file: ", error);
    file.error = error;
    if (!secrets) continue;
    file.secrets.clear();
    for (auto& s : *secrets) file.secrets[s->name] = {s, ++secret_generation_, {"", nullptr, loop_->wall_now()}, {}};
    changed = true;
  }
  if (!files_.empty()) loop_->Arm(&file_timer_, base::kSecond);
  if (!changed) return;
  MarkSecretUsers();
  Changed();
}

void SnapshotBuilder::UpdateNames() {
  if (!std::exchange(names_dirty_, false)) return;
  std::set<std::string> now[kTypes], paths;
  auto secrets_of = [&](const model::TlsConfig* t) {
    if (!t) return;
    for (const auto* list : {&t->certificate_sds, &t->validation_sds}) {
      for (const model::SdsRef& ref : *list) {
        if (ref.source == model::SdsRef::kFile) paths.insert(ref.path);
        if (ref.source == model::SdsRef::kAds && !Local(ref)) now[static_cast<int>(Type::kSecret)].insert(ref.name);
      }
    }
  };
  for (const auto& [name, slot] : clusters_) {
    for (const auto* g : {slot.active ? &*slot.active : nullptr, slot.warming ? &*slot.warming : nullptr}) {
      if (!g) continue;
      if (g->config->type == model::Cluster::kEds)
        now[static_cast<int>(Type::kEndpoint)].insert(g->config->eds_service_name.empty() ? name : g->config->eds_service_name);
      secrets_of(g->config->tls.get());
    }
  }
  for (const auto& [name, slot] : listeners_) {
    for (const auto* g : {slot.active ? &*slot.active : nullptr, slot.warming ? &*slot.warming : nullptr}) {
      if (!g) continue;
      auto chain = [&](const model::FilterChain& c) {
        if (const auto* hcm = c.http(); hcm && !hcm->rds_name.empty()) now[static_cast<int>(Type::kRoute)].insert(hcm->rds_name);
        secrets_of(c.tls.get());
      };
      for (const auto& c : g->config->chains) chain(*c);
      if (g->config->default_chain) chain(*g->config->default_chain);
    }
  }
  bool new_file = false;
  for (const std::string& path : paths) new_file |= files_.try_emplace(path).second;
  for (auto it = files_.begin(); it != files_.end();) {
    if (paths.count(it->first)) ++it;
    else it = files_.erase(it);
  }
  if (new_file) ReadFiles();
  bool changed = false;
  for (int i = 0; i < kTypes; ++i) {
    if (now[i] == names_[i]) continue;
    changed = true;
    // What nobody refers to any more is forgotten; asked for again it is fetched again.
    for (const std::string& old : names_[i]) {
      if (now[i].count(old)) continue;
      if (static_cast<Type>(i) == Type::kEndpoint) endpoints_.erase(old);
      if (static_cast<Type>(i) == Type::kRoute) routes_.erase(old), routes_changed_ = true;
      if (static_cast<Type>(i) == Type::kSecret) secrets_.erase(old);
    }
    names_[i] = std::move(now[i]);
  }
  if (changed && hooks_.on_names) hooks_.on_names();
}

std::set<std::string> SnapshotBuilder::Names(Type type) const { return names_[static_cast<int>(type)]; }

bool SnapshotBuilder::warming() const {
  auto is = [](const auto& pair) { return pair.second.warming.has_value(); };
  return std::any_of(clusters_.begin(), clusters_.end(), is) || std::any_of(listeners_.begin(), listeners_.end(), is);
}

std::string SnapshotBuilder::WarmingText() const {
  std::string out;
  auto add = [&](const std::string& what) { out += (out.empty() ? "" : "; ") + what; };
  auto missing = [&](const model::TlsConfig* t) {
    std::string s;
    if (!t) return s;
    for (const auto* list : {&t->certificate_sds, &t->validation_sds}) {
      for (const model::SdsRef& ref : *list) if (!Find(ref)) s += " secret \"" + ref.name + "\"";
    }
    return s;
  };
  for (const auto& [name, slot] : clusters_) {
    if (!slot.warming) continue;
    std::string s = missing(slot.warming->config->tls.get());
    if (slot.warming->config->type == model::Cluster::kEds && !EndpointsOf(*slot.warming->config, slot)) s += " endpoints";
    if (slot.dns && !slot.dns->answered()) s += " DNS";
    add("cluster \"" + name + "\" waits for" + (s.empty() ? " " + slot.refused.error : s));
  }
  for (const auto& [name, slot] : listeners_) {
    if (!slot.warming) continue;
    std::string s;
    auto chain = [&](const model::FilterChain& c) {
      if (const auto* hcm = c.http(); hcm && !hcm->rds_name.empty() && !routes_.count(hcm->rds_name)) s += " routes \"" + hcm->rds_name + "\"";
      s += missing(c.tls.get());
    };
    for (const auto& c : slot.warming->config->chains) chain(*c);
    if (slot.warming->config->default_chain) chain(*slot.warming->config->default_chain);
    add("listener \"" + name + "\" waits for" + (s.empty() ? " " + slot.refused.error : s));
  }
  return out;
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

std::vector<ResourceView> SnapshotBuilder::View(Type type) const {
  std::vector<ResourceView> out;
  auto refusal = [](ResourceView& v, const Refusal& r) {
    v.error = r.error, v.refused_body = r.body, v.refused_version = r.version, v.refused_unix_ns = r.unix_ns;
  };
  auto generations = [&](const auto& slots) {
    for (const auto& [name, slot] : slots) {
      auto one = [&](const auto& g, bool warming) {
        ResourceView v;
        v.name = name, v.version = g.raw.version, v.body = g.raw.body, v.is_static = slot.is_static;
        v.warming = warming, v.active = !warming, v.updated_unix_ns = g.raw.updated_unix_ns;
        if (!warming || !slot.active) refusal(v, slot.refused);
        out.push_back(std::move(v));
      };
      if (slot.active) one(*slot.active, false);
      if (slot.warming) one(*slot.warming, true);
    }
  };
  auto plain = [&](const auto& slots, bool is_static) {
    for (const auto& [name, slot] : slots) {
      ResourceView v;
      v.name = name, v.version = slot.raw.version, v.body = slot.raw.body, v.active = true, v.is_static = is_static;
      v.updated_unix_ns = slot.raw.updated_unix_ns;
      refusal(v, slot.refused);
      out.push_back(std::move(v));
    }
  };
  switch (type) {
    case Type::kCluster: generations(clusters_); break;
    case Type::kListener: generations(listeners_); break;
    case Type::kRoute: plain(routes_, false); break;
    case Type::kEndpoint: plain(endpoints_, false); break;
    case Type::kSecret: plain(static_secrets_, true), plain(secrets_, false); break;
    default: break;
  }
  return out;
}

std::vector<CertificateView> SnapshotBuilder::Certificates() const {
  // One entry for each distinct TLS configuration in force.
  std::vector<CertificateView> out;
  std::set<std::string> seen;
  auto add = [&](const model::TlsConfig* t, const std::string& where) {
    if (!t) return;
    auto secret = [&](const std::vector<model::SdsRef>& refs) {
      const SecretSlot* s = refs.empty() ? nullptr : Find(refs.front());
      return s ? s->secret.get() : nullptr;
    };
    const model::Secret* certificate = secret(t->certificate_sds);
    const model::Secret* validation = secret(t->validation_sds);
    if ((!t->certificate_sds.empty() && !certificate) || (!t->validation_sds.empty() && !validation)) return;
    auto config = MakeContextConfig(*t, certificate, validation);
    if (!config || !seen.insert(config->certificate_chain_pem + "|" + config->trusted_ca_pem).second) return;
    std::string from = certificate ? "secret " + certificate->name
                       : t->certificate_chain.kind == model::DataSource::kFile ? t->certificate_chain.value : where;
    out.push_back({from, config->certificate_chain_pem, config->trusted_ca_pem});
  };
  for (const auto& [name, slot] : clusters_) if (slot.active) add(slot.active->config->tls.get(), "cluster " + name);
  for (const auto& [name, slot] : listeners_) {
    if (!slot.active) continue;
    for (const auto& chain : slot.active->config->chains) add(chain->tls.get(), "listener " + name);
    if (slot.active->config->default_chain) add(slot.active->config->default_chain->tls.get(), "listener " + name);
  }
  return out;
}

}  // namespace weft::xds
