// The pieces the compiler is put together from. Inside compile/ only.
#pragma once

#include <google/protobuf/message.h>

#include <optional>
#include <string>
#include <vector>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/core/v3/base.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "google/protobuf/any.pb.h"
#include "xds_server/compile/compile.h"

namespace weft::server::compile {

// Map fields in a fixed order: equal messages, equal bytes.
std::string Serialize(const google::protobuf::Message& m);
void Pack(const google::protobuf::Message& m, google::protobuf::Any* out);

// metadata.filter_metadata["weft"]
struct Provenance {
  const PolicyObject* policy = nullptr;
  const Name* service = nullptr;
};
void SetProvenance(const Provenance& p, envoy::config::core::v3::Metadata* out);
void SetWeft(envoy::config::core::v3::Metadata* out, const std::string& key, const std::string& value);

void SetAddress(const std::string& ip, uint16_t port, envoy::config::core::v3::Address* out);

enum class TlsSide { kUpstream, kDownstream };
// The transport socket with the proxy's own certificate; peers: the exact SPIFFE ID expected (upstream), or the trust
// domain whose members may call (downstream).
void SetTls(TlsSide side, const World& world, const std::string& expected_id, const std::string& sni, bool h2,
            const std::string& sds_dir, envoy::config::core::v3::TransportSocket* out);

// cluster.cc
std::vector<envoy::config::cluster::v3::Cluster> OutboundClusters(const World& world, const std::string& sds_dir);
std::vector<envoy::config::endpoint::v3::ClusterLoadAssignment> Endpoints(const World& world);
envoy::config::cluster::v3::Cluster InboundCluster(const Port& port);
envoy::config::cluster::v3::Cluster Passthrough();
// What a route can name: every port and version of the services, and destinations of routes that do not exist (yet).
struct Target {
  Name service;
  Port port;
  std::string version;
  auto operator<=>(const Target&) const = default;
};
std::vector<Target> Targets(const World& world);

// route.cc
std::vector<envoy::config::route::v3::RouteConfiguration> Routes(const World& world);
// Where a destination without a port goes: the caller's port if the target has it, else its first.
Port TargetPort(const World& world, const Name& service, uint16_t wanted, const Port& own);

// listener.cc
// metrics: with Istio's standard metrics, which our own sidecars count and others do not know.
envoy::config::listener::v3::Listener OutboundListener(const World& world, bool ipv6, bool metrics);
envoy::config::listener::v3::Listener InboundListener(const World& world, const ProxyClass& c);
envoy::config::listener::v3::Listener DnsListener(const World& world, const std::string& ns, bool ipv6);

// authorization.cc: RBAC and fault filters of the service's inbound side, in the order they run.
struct NamedFilter {
  std::string name;
  google::protobuf::Any config;
};
std::vector<NamedFilter> HttpAuthorization(const World& world, const Name& service, const Port& port);
// Whether a rule that holds for the service names paths.
bool AuthorizationNamesPaths(const World& world, const Name& service);
std::vector<NamedFilter> NetworkAuthorization(const World& world, const Name& service, const Port& port);
std::optional<NamedFilter> FaultFilter(const World& world, const Name& service);


}  // namespace weft::server::compile
