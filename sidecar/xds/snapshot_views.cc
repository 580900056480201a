// What others ask of the builder: the names to subscribe to, what waits for what, dumps.
#include <algorithm>
#include <utility>

#include "sidecar/xds/snapshot_dns.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

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
