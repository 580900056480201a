// The gRPC face of the control plane: Envoy's ADS (delta and state of the world) and weft.mesh.v1.Mesh, and the server
// that carries them (and others' services) over mTLS.
//
//   GrpcServer server({.xds_address = "127.0.0.1:15012", ...}, control, authority, store, clock);
//   server.AddService(&telemetry);          // before Start; it must check PeerIdentity() itself
//   auto port = server.Start();
//
// TLS: the certificate is the server's own SVID with the DNS name xds.weft (renewed at half life, read again without a
// restart), the chain ends with the root so that a joiner can compare it with the hash in its token. A client certificate
// is requested, not required; one that does not verify fails the handshake.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "sidecar/base/clock.h"
#include "sidecar/base/result.h"
#include "xds_server/ca/authority.h"
#include "xds_server/ca/policy.h"
#include "xds_server/serve/control.h"
#include "xds_server/store/store.h"

namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace weft::server {

std::unique_ptr<grpc::Service> MakeAdsService(Control& control);
// Issues identities: rate limits, token checks, signing.
std::unique_ptr<grpc::Service> MakeMeshService(Control& control, const Authority& authority, Store& store, base::Clock* clock);

class GrpcServer {
 public:
  struct Options {
    std::string xds_address = "127.0.0.1:15012";  // "host:port"; port 0 picks one
    std::string plaintext_address;                // loopback only; empty: none
    std::string data_dir;                         // <data_dir>/server keeps the server's certificate and key
    std::vector<std::string> dns_names = {"xds.weft"};
  };
  GrpcServer(Options options, Control& control, const Authority& authority, Store& store, base::Clock* clock);
  ~GrpcServer();
  void AddService(grpc::Service* service);
  base::Status Start();
  void Stop();
  int port() const { return port_; }
  int plaintext_port() const { return plaintext_port_; }
  // Writes a fresh certificate when half of the present one's life is over. Called now and then by main.
  base::Status RenewCertificate(bool force);

 private:
  Options options_;
  const Authority& authority_;
  base::Clock* clock_;
  std::vector<std::unique_ptr<grpc::Service>> own_;
  std::vector<grpc::Service*> services_;
  std::unique_ptr<grpc::Server> server_;
  int64_t renew_at_unix_s_ = 0;
  int port_ = 0, plaintext_port_ = 0;
};

}  // namespace weft::server
