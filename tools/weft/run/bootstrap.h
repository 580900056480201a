// The bootstrap file of an injected sidecar: Envoy's fields plus the typed extension weft.mesh.v1.MeshConfig.
#pragma once

#include <string>
#include <vector>

#include "tools/weft/run/spec.h"

namespace weft::run {

struct BootstrapSpec {
  std::string workload_id, service, ns = "default", version;
  std::string address;             // that callers' sidecars can reach
  std::vector<PortSpec> ports;
  std::string server_address;      // "10.77.0.1:15012": ADS, Mesh and Telemetry, mTLS
  std::string trust_domain = "weft.local";
  std::string token_file;          // join token
  std::string identity_dir;        // keeps the SVID across restarts of the sidecar; may be empty
  std::string admin_socket;        // unix socket path
  bool telemetry = true;
  bool ipv6 = false;               // its namespace has IPv6: listen there, too
};

// JSON text.
std::string RenderBootstrap(const BootstrapSpec& spec);

}  // namespace weft::run
