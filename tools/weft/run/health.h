// Answers a kubelet's probes for the application. The kubelet has no certificate, so under strict mTLS it cannot ask the
// application's own ports: `weft inject` points its HTTP, TCP and gRPC probes at this server, which asks the application
// from inside the pod, each time anew, and passes the verdict on.
//
//   HealthServer health(15020, ParseProbes(json, error), "10.0.0.7");   // GET /app-health/cart/readyz -> 200 or 503
//
// probes: Kubernetes' own form, by path: {"/app-health/cart/readyz": {"httpGet": {"path": "/healthz", "port": 8000}}};
// with httpGet (path, port, httpHeaders), tcpSocket (port) or grpc (port, service), and timeoutSeconds (1).
// Threads: the server's own (their signals are blocked); nothing here is shared with the caller's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace weft::run {

struct HealthProbe {
  enum class Kind { kHttp, kTcp, kGrpc } kind = Kind::kHttp;
  uint16_t port = 0;
  std::string path = "/";                                     // kHttp
  std::vector<std::pair<std::string, std::string>> headers;   // kHttp
  std::string service;                                        // kGrpc; "" asks for the server as a whole
  int timeout_ms = 1000;
};
using HealthProbes = std::map<std::string, HealthProbe>;

// Empty with `error` set when the text is not what is described above.
HealthProbes ParseProbes(const std::string& json, std::string& error);

// "" when the application at `address` says that it is well, otherwise what it said.
std::string Ask(const HealthProbe& probe, const std::string& address);

class HealthServer {
 public:
  // Port 0 takes a free one. `address` (IPv4, may be empty) is asked when the loopback refuses. Throws cli::Failure.
  HealthServer(uint16_t port, HealthProbes probes, std::string address);
  ~HealthServer();
  uint16_t port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::run
