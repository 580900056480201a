// Who is at the other end of a gRPC call: the identity proved by its client certificate.
//
// The xDS port asks for a client certificate but does not require one (a workload without an identity must be able to
// call Join); every service but Mesh.Join therefore begins with PeerIdentity() and refuses an empty one with
// UNAUTHENTICATED. gRPC has verified the certificate against the trust bundle before any handler runs. On the loopback
// plaintext port there is no certificate: Peer::plaintext is true and the caller's own claim is taken.
#pragma once

#include <cstdint>
#include <string>

namespace grpc {
class ServerContextBase;
}

namespace weft::server {

struct Peer {
  std::string spiffe_id;           // empty: no certificate
  int64_t not_after_unix_s = 0;    // of the certificate, 0 without one
  bool plaintext = false;
  std::string address;             // "ipv4:10.77.0.4:51234"
};

Peer PeerOf(const grpc::ServerContextBase& context);

// The SPIFFE ID of the client certificate, "" when there is none.
inline std::string PeerIdentity(const grpc::ServerContextBase& context) { return PeerOf(context).spiffe_id; }

}  // namespace weft::server
