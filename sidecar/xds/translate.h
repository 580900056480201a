// Envoy's protobuf resources → sidecar/model. Here protobuf stops: what comes out is plain, checked and compiled.
//
//   Warnings w;
//   auto l = TranslateListener(proto, &w);
//   if (!l) refuse with l.error().ToString();      // "filter_chains[2].filters[0].typed_config.route_config...: why"
//   for (auto& s : w.list()) log                   // "filter_chains[0].use_proxy_proto: not supported, ignored"
//
// Errors: what cannot be served as written (bad values, unknown or unsupported extensions that would change who may do
// what or where traffic goes). Warnings: fields that are set and that this sidecar does not act upon; every set field is
// checked against the table of supported ones (fields.cc), so none is ignored silently.
// Shared with the control plane (explain, validation): no I/O except reading files that the resource itself names.
// Threads: any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/model/cluster_config.h"
#include "sidecar/model/listener.h"
#include "sidecar/model/tls_config.h"
#include "sidecar/route/route_table.h"

namespace envoy::config::listener::v3 {
class Listener;
}
namespace envoy::config::cluster::v3 {
class Cluster;
}
namespace envoy::config::endpoint::v3 {
class ClusterLoadAssignment;
}
namespace envoy::config::route::v3 {
class RouteConfiguration;
}
namespace envoy::extensions::transport_sockets::tls::v3 {
class Secret;
}

namespace weft::xds {

// Collects warnings, each once; more than kMax are counted only.
class Warnings {
 public:
  static constexpr size_t kMax = 100;
  void Add(const std::string& where, const std::string& what);
  const std::vector<std::string>& list() const { return list_; }
  size_t suppressed() const { return suppressed_; }

 private:
  std::vector<std::string> list_;
  size_t suppressed_ = 0;
};

// warnings may be null in all of these.
base::Result<std::shared_ptr<const model::Listener>> TranslateListener(const envoy::config::listener::v3::Listener& p, Warnings* warnings);
base::Result<std::shared_ptr<const route::RouteTable>> TranslateRoutes(const envoy::config::route::v3::RouteConfiguration& p, Warnings* warnings);
base::Result<std::shared_ptr<const model::Cluster>> TranslateCluster(const envoy::config::cluster::v3::Cluster& p, Warnings* warnings);
base::Result<std::shared_ptr<const model::Endpoints>> TranslateEndpoints(const envoy::config::endpoint::v3::ClusterLoadAssignment& p, Warnings* warnings);
base::Result<std::shared_ptr<const model::Secret>> TranslateSecret(const envoy::extensions::transport_sockets::tls::v3::Secret& p, Warnings* warnings);

// What a resource refers to, for subscriptions and warming.
std::vector<std::string> RouteNames(const model::Listener& listener);           // RDS tables
std::vector<model::SdsRef> SecretRefs(const model::Listener& listener);         // of all chains
std::vector<model::SdsRef> SecretRefs(const model::TlsConfig& tls);
std::vector<std::string> ClusterNames(const route::RouteTable& table);          // clusters routes forward to

// The bytes behind a DataSource: reads the file; at most 1 MiB. An error names the file.
base::Result<std::string> ReadSource(const model::DataSource& source);

// The engine's configuration from a TLS configuration and the secrets it names (null where it names none).
// certificate: of kind kCertificate, for certificate_sds[0]; validation: of kind kValidation, for validation_sds[0].
base::Result<tls::ContextConfig> MakeContextConfig(const model::TlsConfig& tls, const model::Secret* certificate,
                                                   const model::Secret* validation);

}  // namespace weft::xds
