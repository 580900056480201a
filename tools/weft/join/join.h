// Mesh.Join and Mesh.Renew as a client, for proxies that cannot call them themselves. gRPC; blocking, 15 s a call.
#pragma once

#include <cstdint>
#include <string>

namespace weft::join {

struct Identity {
  std::string chain_pem, bundle_pem, spiffe_id;
  int64_t not_after_unix_s = 0;
};

struct Server {
  std::string address;             // "10.77.0.1:15012"
  std::string name = "xds.weft";   // SNI, and the DNS name its certificate must bear
  std::string bundle_pem;          // roots to trust
};

// Both throw cli::Failure with the server's words.
Identity Join(const Server& server, const std::string& token, const std::string& csr_der, const std::string& workload_id);
Identity Renew(const Server& server, const std::string& key_pem, const std::string& chain_pem, const std::string& csr_der);

}  // namespace weft::join
