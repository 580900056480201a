// Non-blocking sockets: thin wrappers that return errno values instead of throwing or logging.
//
// Usage:
//   int fd = Listen(SockAddr::Loopback(0), {});     // >= 0: the descriptor; < 0: -errno
//   auto r = ReadInto(fd, in, 64 * 1024, events & kHangup);
//   if (r.eof || r.error) ...
//
// Ownership: descriptors are plain ints owned by the caller; Fd is an owner for those who want one. Threads: any.
// Addresses are raw kernel values; model::Address formats and parses them.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "sidecar/io/buffer.h"

namespace weft::io {

struct SockAddr {
  sockaddr_storage storage{};
  socklen_t length = 0;

  static SockAddr Loopback(uint16_t port);   // 127.0.0.1
  static SockAddr Loopback6(uint16_t port);  // ::1
  // From text: an IPv4 or IPv6 address without brackets, or the path of a unix socket ("@name": abstract).
  static std::optional<SockAddr> Ip(std::string_view ip, uint16_t port);
  static std::optional<SockAddr> Unix(std::string_view path);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return length ? storage.ss_family : AF_UNSPEC; }
  uint16_t port() const;  // 0 for unix sockets
  void set_port(uint16_t port);
  // Same family, address and port.
  bool operator==(const SockAddr& o) const;
};

// Closes on destruction.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd() { Reset(); }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;
  bool transparent = false;  // IP_TRANSPARENT: accept connections to any destination
  bool freebind = false;     // bind to an address the machine does not have (yet)
  bool ipv4_mapped = false;  // an IPv6 socket that serves IPv4 too (default: IPV6_V6ONLY)
  uint32_t unix_mode = 0;    // chmod of a unix socket's file, 0: by umask. A stale socket file is replaced.
};
// TCP (or unix stream) listener; port 0 lets the kernel choose (LocalAddress tells). Returns the descriptor or -errno.
int Listen(const SockAddr& address, const ListenOptions& options);
// Takes a listening socket opened by somebody else (socket activation, published ports): checks that it listens and
// makes it non-blocking and close-on-exec. 0 or -errno.
int AdoptListener(int fd);
// The next connection, non-blocking, with TCP_NODELAY; -EAGAIN when none waits. An IPv4-mapped peer becomes IPv4.
int Accept(int listener, SockAddr* peer);

struct ConnectOptions {
  uint32_t mark = 0;                   // SO_MARK, 0: none. Needs CAP_NET_ADMIN.
  const SockAddr* bind = nullptr;      // source address
  bool bind_no_port = true;            // IP_BIND_ADDRESS_NO_PORT with bind
  bool transparent = false;            // bind to a foreign source address
  bool keepalive = true;               // see SetKeepAlive
  // For tests and TCP_USER_TIMEOUT: milliseconds unacknowledged data may stay, 0: kernel default.
  uint32_t user_timeout_ms = 0;
};
// Starts a connection. Returns the descriptor (connected when *in_progress is false) or -errno.
int Connect(const SockAddr& address, const ConnectOptions& options, bool* in_progress);
// The outcome after the descriptor became writable: 0, or the errno of the failure.
int ConnectError(int fd);

// A bound datagram socket, or -errno.
int BindUdp(const SockAddr& address, uint32_t mark = 0, bool reuse_port = false);

int SetNoDelay(int fd);
// Probes after idle_s seconds, each interval_s, gives up after count. 0 or -errno.
int SetKeepAlive(int fd, int idle_s = 60, int interval_s = 15, int count = 4);
int SetMark(int fd, uint32_t mark);
// On close(): RST instead of FIN (the peer sees a reset).
int SetResetOnClose(int fd);
SockAddr LocalAddress(int fd);
SockAddr PeerAddress(int fd);
// Where the connection was going before a REDIRECT rule sent it here; nullopt when it was not redirected.
std::optional<SockAddr> OriginalDestination(int fd);

struct IoResult {
  size_t bytes = 0;
  bool eof = false;    // ReadInto: the peer closed its sending side
  bool more = false;   // stopped by the budget: call again in a later turn (no new edge will come)
  int error = 0;       // errno of a broken connection
};
// Reads until the socket is drained, the end, or about budget bytes. A block is borrowed only while bytes arrive.
// to_end: the event had kHangup (or it is unknown): do not take a short read for "drained".
IoResult ReadInto(int fd, Buffer& to, size_t budget, bool to_end);
// Gathered writes until from is empty or the socket is full (wait for kWritable). SIGPIPE never.
IoResult WriteFrom(int fd, Buffer& from);
// Bytes that wait in the socket, copied without taking them (listener sniffing): at most n. -errno, 0 at the end.
ssize_t Peek(int fd, char* to, size_t n);

}  // namespace weft::io
