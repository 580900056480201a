// A folder with all that a stock Envoy needs to be a client of the mesh: its bootstrap, and its identity as file-based SDS.
//
//   DIR/envoy.json      bootstrap: ADS over mTLS from the xDS server
//   DIR/default.yaml    SDS: key and certificate chain (0600), replaced by rename, which Envoy watches
//   DIR/ROOTCA.yaml     SDS: trust bundle
//   DIR/key.pem DIR/chain.pem   for the next renewal (0600)
#pragma once

#include <string>

#include "tools/weft/join/join.h"

namespace weft::join {

struct Foreign {
  std::string dir;
  std::string workload_id, service, ns = "default", version = "v1";
  std::string xds_server = "127.0.0.1:15012", server_name = "xds.weft", trust_domain = "weft.local";
  int admin_port = 0;   // on the loopback; 0: DIR/admin.sock
};

std::string RenderEnvoyBootstrap(const Foreign& f);
void WriteIdentity(const std::string& dir, const std::string& key_pem, const Identity& identity);
// Renews at half life until killed; says so on stderr. Failures are repeated with backoff up to a minute.
[[noreturn]] void KeepRenewed(const Foreign& f, Identity identity, std::string key_pem);

}  // namespace weft::join
