// The bootstrap: Envoy's file (YAML, or JSON), overridden by --config-yaml, translated.
//
//   auto b = LoadBootstrap({.config_path = "envoy.yaml", .config_yaml = overrides});
//   if (!b) die(b.error().ToString());            // "envoy.yaml: static_resources.listeners[0].foo: unknown field"
//   for (auto& w : b->warnings.list()) log
//
// Unknown fields and duplicate keys are refused with their place. Size up to 64 MiB, nesting up to 64.
// Main thread, at start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/xds/translate.h"

namespace envoy::config::bootstrap::v3 {
class Bootstrap;
}
namespace envoy::config::core::v3 {
class Node;
}
namespace google::protobuf {
class Message;
}
namespace weft::mesh::v1 {
class MeshConfig;
}

namespace weft::xds {

struct BootstrapSource {
  std::string config_path;   // may be empty when config_yaml is given
  std::string config_yaml;   // merged over the file, as Envoy does (MergeFrom)
  std::string service_node, service_cluster, service_zone;  // flags override the node's fields when not empty
};

// How discovery reaches its server.
struct AdsSource {
  bool delta = true;                 // DELTA_GRPC, else SotW
  std::string cluster;               // static cluster of the server (envoy_grpc); "" with mesh: MeshConfig.server_address
  std::string authority;
  std::vector<std::pair<std::string, std::string>> initial_metadata;
};

struct Bootstrap {
  std::shared_ptr<envoy::config::bootstrap::v3::Bootstrap> proto;  // as loaded, for /config_dump and the ADS node
  std::string static_resources;  // serialised, once the owner has cleared them in proto
  std::shared_ptr<const envoy::config::core::v3::Node> node;             // with flags applied
  std::string node_id, node_cluster;

  std::vector<std::shared_ptr<const model::Listener>> listeners;
  std::vector<std::shared_ptr<const model::Cluster>> clusters;
  std::vector<std::shared_ptr<const model::Secret>> secrets;

  struct Admin {
    model::Address address;          // kNone: no admin listener
    std::string access_log_path;
  } admin;

  bool has_ads = false;
  AdsSource ads;
  bool lds = false, cds = false;     // wildcard subscriptions by ADS

  std::shared_ptr<const weft::mesh::v1::MeshConfig> mesh;  // bootstrap_extensions "weft.mesh"; null: a plain Envoy file

  uint64_t max_downstream_connections = 0;   // overload manager's global limit; 0: none
  uint64_t stats_flush_interval_ns = 5'000'000'000;
  std::string header_prefix = "x-envoy";
  Warnings warnings;
};

base::Result<Bootstrap> LoadBootstrap(const BootstrapSource& source);

// YAML (or JSON) text into any message; the error names line and field. Used by tests and tools as well.
base::Status ParseYaml(const std::string& text, google::protobuf::Message* to);

}  // namespace weft::xds
