// A gRPC client for the control plane on one io::Loop: one HTTP/2 connection kept up, bidirectional streams and unary
// calls, messages as encoded bytes. No gRPC library (its OpenSSL would meet our BoringSSL).
//
//   GrpcChannel channel(loop, {.addresses = {"10.77.0.1:15012"}, .tls = context, .authority = "xds.weft"});
//   channel.Start([&](bool up, const std::string& why) { if (up) stream = channel.Open("/pkg.Service/Method", &handler); });
//   stream->Send(bytes);
//   channel.Call("/pkg.Service/Unary", bytes, 5 * base::kSecond, [](const GrpcStatus& s, std::string_view reply) {...});
//
// A lost connection closes every stream with UNAVAILABLE and is made again with back-off (0.5 s doubling to 30 s, full
// jitter; back to the start once the server answers a stream). Addresses are tried in turn.
// Callbacks run in the loop's advance beat, never inside a call into the channel, except that the destructor and Stop()
// call nothing. A stream pointer is valid until its OnClosed returns.
// Bounds: message size, bytes queued for sending per stream (Send returns false above it), calls in flight.
// Threads: the loop's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/io/loop.h"
#include "sidecar/tls/engine.h"

namespace weft::xds {

// google.rpc codes that are made here.
enum GrpcCode : int { kGrpcOk = 0, kGrpcCancelled = 1, kGrpcUnknown = 2, kGrpcDeadlineExceeded = 4, kGrpcResourceExhausted = 8,
                      kGrpcUnimplemented = 12, kGrpcInternal = 13, kGrpcUnavailable = 14, kGrpcUnauthenticated = 16 };
struct GrpcStatus {
  int code = kGrpcOk;
  std::string message;
  bool ok() const { return code == kGrpcOk; }
  std::string ToString() const;  // "UNAVAILABLE: connection refused"
};

class GrpcStreamHandler {
 public:
  virtual void OnMessage(std::string_view bytes) = 0;
  virtual void OnClosed(const GrpcStatus& status) = 0;

 protected:
  ~GrpcStreamHandler() = default;
};

class GrpcStream {
 public:
  // False: too much is queued already (nothing was taken), or the stream is closing.
  virtual bool Send(std::string_view message) = 0;
  virtual void HalfClose() = 0;
  // Ends the stream; its handler is not called any more and the pointer is dead.
  virtual void Cancel() = 0;
  virtual size_t queued() const = 0;  // bytes waiting for the peer's window

 protected:
  ~GrpcStream() = default;
};

class GrpcChannel {
 public:
  struct Options {
    std::vector<std::string> addresses;            // "ip:port" or a unix socket's path
    std::shared_ptr<const tls::Context> tls;       // null: plaintext
    std::string authority;                         // :authority
    uint32_t mark = 0;                             // SO_MARK; 0: none
    uint64_t connect_timeout_ns = 5'000'000'000;   // TCP and TLS together
    uint64_t backoff_base_ns = 500'000'000, backoff_max_ns = 30'000'000'000;
    uint64_t keepalive_ns = 0;                     // HTTP/2 PING when this long idle; 0: TCP keep-alive only
    size_t max_message = 64u << 20, max_queued = 8u << 20, max_calls = 256;
    // Asked once the handshake is done; an error closes the connection.
    std::function<base::Status(const tls::Engine&)> check_peer;
    // Metadata sent with every call (lower-case names).
    std::vector<std::pair<std::string, std::string>> metadata;
  };
  using StateFn = std::function<void(bool up, const std::string& why)>;
  using CallFn = std::function<void(const GrpcStatus& status, std::string_view reply)>;

  GrpcChannel(io::Loop* loop, Options options);
  ~GrpcChannel();
  GrpcChannel(const GrpcChannel&) = delete;

  void Start(StateFn on_state);
  void Stop();
  // For the next connections; the present one stays. Reconnect() drops it.
  void SetTls(std::shared_ptr<const tls::Context> tls);
  void SetAddresses(std::vector<std::string> addresses);
  void Reconnect(const std::string& why);

  bool up() const;
  // Null when the channel is not up or the peer allows no more streams.
  GrpcStream* Open(const std::string& path, GrpcStreamHandler* handler);
  // done is called exactly once unless the channel is stopped first.
  void Call(const std::string& path, std::string_view request, uint64_t timeout_ns, CallFn done);

  const std::string& last_error() const;    // why it is or was down; "" after a good connection
  std::string peer_address() const;
  uint64_t connects() const, failures() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::xds
