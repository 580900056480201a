#include "xds_server/model/world.h"

#include <algorithm>
#include <set>

#include "api/weft/policy/v1/policy.pb.h"

namespace weft::server {

std::string_view ProtocolName(Protocol p) {
  switch (p) {
    case Protocol::kHttp: return "http";
    case Protocol::kHttp2: return "http2";
    case Protocol::kGrpc: return "grpc";
    case Protocol::kTcp: return "tcp";
  }
  return "tcp";
}

bool ParseProtocol(std::string_view text, Protocol& out) {
  for (Protocol p : {Protocol::kHttp, Protocol::kHttp2, Protocol::kGrpc, Protocol::kTcp}) {
    if (ProtocolName(p) == text) {
      out = p;
      return true;
    }
  }
  return false;
}

const Port* Service::FindPort(uint16_t service_port) const {
  for (const Port& p : ports) {
    if (p.service_port == service_port) return &p;
  }
  return nullptr;
}

const Service* World::FindService(const Name& name) const {
  auto it = services.find(name);
  return it == services.end() ? nullptr : &it->second;
}

const PolicyObject* World::FindPolicy(std::string_view kind, const Name& name) const {
  auto k = policies.find(std::string(kind));
  if (k == policies.end()) return nullptr;
  auto it = k->second.find(name);
  return it == k->second.end() ? nullptr : &it->second;
}

const PolicyObject* World::FindPolicyOrDefault(std::string_view kind, const Name& service) const {
  if (const PolicyObject* p = FindPolicy(kind, service)) return p;
  return FindPolicy(kind, {service.ns, "default"});
}

std::string SpiffeId(std::string_view trust_domain, const Name& service) {
  return "spiffe://" + std::string(trust_domain) + "/ns/" + service.ns + "/sa/" + service.name;
}

bool ParseSpiffeId(std::string_view id, std::string_view trust_domain, Name& out) {
  const std::string prefix = "spiffe://" + std::string(trust_domain) + "/ns/";
  if (id.substr(0, prefix.size()) != prefix) return false;
  id.remove_prefix(prefix.size());
  size_t slash = id.find('/');
  if (slash == std::string_view::npos || id.substr(slash, 4) != "/sa/") return false;
  Name name{std::string(id.substr(0, slash)), std::string(id.substr(slash + 4))};
  if (!IsDnsLabel(name.ns) || !IsDnsLabel(name.name)) return false;
  out = std::move(name);
  return true;
}

Name ParseServiceRef(std::string_view text, std::string_view default_ns) {
  size_t dot = text.find('.');
  if (dot == std::string_view::npos) return {std::string(default_ns), std::string(text)};
  return {std::string(text.substr(dot + 1)), std::string(text.substr(0, dot))};
}

bool IsDnsLabel(std::string_view s) {
  if (s.empty() || s.size() > 63 || s.front() == '-' || s.back() == '-') return false;
  return std::all_of(s.begin(), s.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

std::shared_ptr<const World> BuildWorld(const WorldInput& input) {
  auto world = std::make_shared<World>();
  world->trust_domain = input.trust_domain;
  world->revision = input.revision;
  for (const PolicyObject& p : input.policies) world->policies[p.kind][p.name] = p;

  auto service = [&](const Name& name) -> Service& {
    Service& s = world->services[name];
    s.name = name;
    return s;
  };
  std::map<Name, std::set<std::string>> versions;
  for (const auto& w : input.workloads) {
    world->workloads[w->id] = w;
    Service& s = service(w->service);
    s.workloads.push_back(w);
    if (!w->version.empty()) versions[w->service].insert(w->version);
    for (const Port& port : w->ports) {
      if (!s.FindPort(port.service_port)) s.ports.push_back(port);
    }
  }
  for (const auto& [name, ports] : input.remembered) {
    Service& s = service(name);
    for (const Port& port : ports) {
      if (!s.FindPort(port.service_port)) s.ports.push_back(port);
    }
  }
  for (const auto& [name, p] : world->policies["Service"]) {
    Service& s = service(name);
    const auto& spec = p.object->service();
    if (spec.ports_size() > 0) s.ports.clear();
    for (const auto& port : spec.ports()) {
      Port out{static_cast<uint16_t>(port.port()), static_cast<uint16_t>(port.target_port() ? port.target_port() : port.port())};
      if (!port.protocol().empty()) ParseProtocol(port.protocol(), out.protocol);
      s.ports.push_back(out);
    }
    s.hosts.assign(spec.hosts().begin(), spec.hosts().end());
    s.external_endpoints.assign(spec.endpoints().begin(), spec.endpoints().end());
  }
  // A version that a route names has its cluster even before its first workload, so that a request gets "no healthy
  // upstream" and not "no such cluster".
  for (const auto& [name, p] : world->policies["Route"]) {
    for (const auto& rule : p.object->route().rules()) {
      for (const auto& to : rule.to()) {
        Name target = to.service().empty() ? name : ParseServiceRef(to.service(), name.ns);
        if (!to.version().empty()) versions[target].insert(to.version());
      }
    }
  }
  for (auto& [name, s] : world->services) {
    std::sort(s.ports.begin(), s.ports.end());
    s.versions.assign(versions[name].begin(), versions[name].end());
    if (input.vip) s.vip = input.vip(name);
  }
  return world;
}

}  // namespace weft::server
