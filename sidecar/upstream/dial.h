// Opening one connection to a host: the socket and its options. Used by the HTTP pools and by TCP relays.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/model/address.h"
#include "sidecar/model/cluster_config.h"
#include "sidecar/tls/engine.h"

namespace weft::upstream {

// Why no stream could be had, or why it died before anything arrived.
enum class Failure : uint8_t {
  kNone,
  kOverflow,          // circuit breaker: pending requests or connections
  kConnectRefused,
  kConnectTimeout,
  kConnectError,      // any other errno
  kTls,
  kTerminated,        // the connection ended under the stream
  kPoolClosed,
};
// The Attempt.outcome of telemetry.proto; TLS failures are "tls_<name>", which is in the detail's place.
const char* FailureOutcome(Failure f);
bool IsConnectFailure(Failure f);

struct DialConfig {
  model::Address address;
  std::shared_ptr<const tls::Context> tls;      // null: plaintext
  std::shared_ptr<const model::Cluster> cluster;  // source address, socket options, keep-alive; null in tests
  uint64_t connect_timeout_ns = 5'000'000'000;  // TCP and TLS together
  uint32_t mark = 0;                            // SO_MARK; 0: none
  std::string first_bytes;                      // sent before anything else, TLS included: a PROXY header
};

// A non-blocking socket whose connect() is under way (or done). -1: *error is the errno.
int Dial(const DialConfig& config, int* error);
// The pending error of a connecting socket: 0 connected, EINPROGRESS not yet.
int ConnectResult(int fd);
Failure FailureOf(int error);
// "delayed connect error: 111" etc., Envoy's transport failure texts come from the engine.
std::string ErrnoText(int error);
std::string LocalAddress(int fd);
// The peer's kernel has acknowledged nothing for that long although bytes wait for it and were sent again: the host or the
// way to it is gone. A peer that merely reads or answers slowly is not meant.
bool PeerUnreachable(int fd, uint64_t silent_ns);

}  // namespace weft::upstream
