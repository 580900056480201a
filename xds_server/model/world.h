// The mesh as the server knows it at one moment: services, workloads, policies. Immutable once built.
//
// A World is rebuilt by the control thread on every change and handed on as shared_ptr<const World>; compile/ turns it
// into Envoy resources. Nothing here does I/O. Policy messages are kept as parsed protobuf objects (forward declared, so
// that including this header stays cheap).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace weft::policy::v1 {
class Object;
}

namespace weft::server {

// A namespaced name; prints as "name.namespace".
struct Name {
  std::string ns, name;
  auto operator<=>(const Name&) const = default;
  std::string ToString() const { return name + "." + ns; }
};

enum class Protocol : uint8_t { kHttp, kHttp2, kGrpc, kTcp };
std::string_view ProtocolName(Protocol p);  // "http" "http2" "grpc" "tcp"
bool ParseProtocol(std::string_view text, Protocol& out);
inline bool IsHttp(Protocol p) { return p != Protocol::kTcp; }

struct Port {
  uint16_t service_port = 0;  // what callers dial
  uint16_t target_port = 0;   // where the application listens
  Protocol protocol = Protocol::kHttp;
  auto operator<=>(const Port&) const = default;
};

// One running instance, as its sidecar registered it.
struct Workload {
  std::string id;
  Name service;
  std::string version;
  std::string address;  // IP that callers' sidecars reach
  std::vector<Port> ports;
  std::map<std::string, std::string> labels;
  std::string sidecar_version;
  bool ready = false;     // the application's own check passes
  bool draining = false;  // leaving
  bool active() const { return ready && !draining; }
  auto operator<=>(const Workload&) const = default;
};

struct Service {
  Name name;
  std::string vip;  // stable virtual IP, "240.64.0.7"
  std::vector<Port> ports;
  std::vector<std::string> hosts;              // further DNS names
  std::vector<std::string> external_endpoints;  // "ip:port" outside the mesh: no mTLS
  std::vector<std::string> versions;           // seen on workloads or named by routes, sorted
  std::vector<std::shared_ptr<const Workload>> workloads;
  bool external() const { return !external_endpoints.empty(); }
  const Port* FindPort(uint16_t service_port) const;
};

// An applied object with the revision that last changed it.
struct PolicyObject {
  std::string kind;
  Name name;
  uint64_t revision = 0;
  std::shared_ptr<const policy::v1::Object> object;
  // "Route/default/cart": the provenance text in metadata and in "why".
  std::string Reference() const { return kind + "/" + name.ns + "/" + name.name; }
};

struct World {
  std::string trust_domain;
  uint64_t revision = 0;  // of the policies
  std::map<Name, Service> services;
  std::map<std::string, std::shared_ptr<const Workload>> workloads;         // by id
  std::map<std::string, std::map<Name, PolicyObject>> policies;             // kind -> name -> object

  const Service* FindService(const Name& name) const;
  const PolicyObject* FindPolicy(std::string_view kind, const Name& name) const;
  // The object of the service, else the namespace's "default" one (Traffic, MeshTls).
  const PolicyObject* FindPolicyOrDefault(std::string_view kind, const Name& service) const;
};

// spiffe://<trust domain>/ns/<ns>/sa/<service>
std::string SpiffeId(std::string_view trust_domain, const Name& service);
// The inverse; false when id is not of exactly that form in this trust domain.
bool ParseSpiffeId(std::string_view id, std::string_view trust_domain, Name& out);

// "name" or "name.namespace"
Name ParseServiceRef(std::string_view text, std::string_view default_ns);

// A DNS label: a-z 0-9 '-', 1..63 long, no '-' at the ends.
bool IsDnsLabel(std::string_view s);

struct WorldInput {
  std::string trust_domain;
  uint64_t revision = 0;
  std::vector<PolicyObject> policies;
  std::vector<std::shared_ptr<const Workload>> workloads;
  // Services known from before, with the ports they had: they keep their name, address and clusters while no instance is
  // registered, so that callers hear "no healthy upstream" and not "no such host".
  std::map<Name, std::vector<Port>> remembered;
  // The stable virtual IP of a service, made on first use.
  std::function<std::string(const Name&)> vip;
};
std::shared_ptr<const World> BuildWorld(const WorldInput& input);

}  // namespace weft::server
