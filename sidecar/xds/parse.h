// Encoded resources to model structs: the seam between the snapshot builder (no protobuf) and the translation.
// Errors name the field. Unsupported fields that were set are logged once per resource version, and counted.
// Threads: main.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/route/route_table.h"

namespace weft::xds {

base::Result<std::shared_ptr<const model::Cluster>> ParseCluster(const std::string& body);
base::Result<std::shared_ptr<const model::Listener>> ParseListener(const std::string& body);
base::Result<std::shared_ptr<const route::RouteTable>> ParseRoutes(const std::string& body);
base::Result<std::shared_ptr<const model::Endpoints>> ParseEndpoints(const std::string& body);
base::Result<std::shared_ptr<const model::Secret>> ParseSecret(const std::string& body);
// All secrets of a file (a DiscoveryResponse in YAML or JSON, as Envoy's path_config_source).
base::Result<std::vector<std::shared_ptr<const model::Secret>>> ReadSecretFile(const std::string& path);
// The same Secret with private keys replaced, for dumps.
std::string RedactSecret(const std::string& body);

}  // namespace weft::xds
