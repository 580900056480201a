#include "sidecar/io/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <string>

namespace weft::io {
namespace {

constexpr int kIp6tSoOriginalDst = 80;  // linux/netfilter_ipv6/ip6_tables.h, which clashes with netinet/in.h

int SetInt(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

// ::ffff:a.b.c.d -> a.b.c.d, so that policies see one form.
void Unmap(SockAddr& a) {
  if (a.family() != AF_INET6) return;
  auto* six = reinterpret_cast<sockaddr_in6*>(&a.storage);
  if (!IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) return;
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = six->sin6_port;
  memcpy(&four.sin_addr, six->sin6_addr.s6_addr + 12, 4);
  memset(&a.storage, 0, sizeof a.storage);
  memcpy(&a.storage, &four, sizeof four);
  a.length = sizeof four;
}

int FailClosed(int fd, int error) {
  close(fd);
  return error;
}

}  // namespace

SockAddr SockAddr::Loopback(uint16_t port) { return *Ip("127.0.0.1", port); }
SockAddr SockAddr::Loopback6(uint16_t port) { return *Ip("::1", port); }

std::optional<SockAddr> SockAddr::Ip(std::string_view ip, uint16_t port) {
  std::string text(ip);
  SockAddr a;
  auto* four = reinterpret_cast<sockaddr_in*>(&a.storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&a.storage);
  if (inet_pton(AF_INET, text.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET, four->sin_port = htons(port), a.length = sizeof *four;
    return a;
  }
  if (inet_pton(AF_INET6, text.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6, six->sin6_port = htons(port), a.length = sizeof *six;
    return a;
  }
  return std::nullopt;
}

std::optional<SockAddr> SockAddr::Unix(std::string_view path) {
  SockAddr a;
  auto* un = reinterpret_cast<sockaddr_un*>(&a.storage);
  if (path.empty() || path.size() >= sizeof un->sun_path) return std::nullopt;
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path.data(), path.size());
  bool abstract = path[0] == '@';
  if (abstract) un->sun_path[0] = 0;
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  return a;
}

uint16_t SockAddr::port() const {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return 0;
}

void SockAddr::set_port(uint16_t port) {
  if (family() == AF_INET) reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
  if (family() == AF_INET6) reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
}

bool SockAddr::operator==(const SockAddr& o) const {
  if (family() != o.family()) return false;
  switch (family()) {
    case AF_INET: {
      auto *a = reinterpret_cast<const sockaddr_in*>(&storage), *b = reinterpret_cast<const sockaddr_in*>(&o.storage);
      return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
    }
    case AF_INET6: {
      auto *a = reinterpret_cast<const sockaddr_in6*>(&storage), *b = reinterpret_cast<const sockaddr_in6*>(&o.storage);
      return a->sin6_port == b->sin6_port && memcmp(&a->sin6_addr, &b->sin6_addr, 16) == 0 &&
             a->sin6_scope_id == b->sin6_scope_id;
    }
    default:
      return length == o.length && memcmp(&storage, &o.storage, length) == 0;
  }
}

int Listen(const SockAddr& address, const ListenOptions& options) {
  int family = address.family();
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = 0;
  if (family == AF_UNIX) {
    const char* path = reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
    struct stat st;
    // A socket file left by a killed process; anything else at that path is not ours to remove.
    if (path[0] && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path);
    // The file must never be reachable with wider rights than asked: bind creates it under this umask.
    mode_t old = options.unix_mode ? umask(0777 & ~options.unix_mode) : 0;
    error = bind(fd, address.get(), address.length) == 0 ? 0 : -errno;
    if (options.unix_mode) umask(old);
    if (error == 0 && options.unix_mode && path[0] && chmod(path, options.unix_mode) != 0) error = -errno;
  } else {
    error = SetInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!error && options.reuse_port) error = SetInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    bool six = family == AF_INET6;
    if (!error && six) error = SetInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv4_mapped ? 0 : 1);
    if (!error && options.transparent) {
      error = six ? SetInt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1) : SetInt(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
    }
    if (!error && options.freebind) {
      error = six ? SetInt(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1) : SetInt(fd, IPPROTO_IP, IP_FREEBIND, 1);
    }
    if (!error && bind(fd, address.get(), address.length) != 0) error = -errno;
  }
  if (!error && listen(fd, options.backlog) != 0) error = -errno;
  return error ? FailClosed(fd, error) : fd;
}

int AdoptListener(int fd) {
  int listening = 0;
  socklen_t length = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0) return -errno;
  if (!listening) return -EINVAL;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -errno;
  return 0;
}

int Accept(int listener, SockAddr* peer) {
  for (;;) {
    peer->length = sizeof peer->storage;
    int fd = accept4(listener, reinterpret_cast<sockaddr*>(&peer->storage), &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      // The connection died in the queue: take the next.
      if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
      return -errno;
    }
    if (peer->family() != AF_UNIX) SetNoDelay(fd);
    Unmap(*peer);
    return fd;
  }
}

int Connect(const SockAddr& address, const ConnectOptions& options, bool* in_progress) {
  *in_progress = false;
  int family = address.family();
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = 0;
  if (family != AF_UNIX) {
    error = SetNoDelay(fd);
    if (!error && options.mark) error = SetMark(fd, options.mark);
    if (!error && options.keepalive) error = SetKeepAlive(fd);
    if (!error && options.user_timeout_ms) {
      error = SetInt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(options.user_timeout_ms));
    }
    if (!error && options.transparent) {
      error = family == AF_INET6 ? SetInt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1) : SetInt(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
    }
    if (!error && options.bind) {
      if (options.bind_no_port) SetInt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);  // only saves ports: may fail
      if (bind(fd, options.bind->get(), options.bind->length) != 0) error = -errno;
    }
  }
  if (!error && connect(fd, address.get(), address.length) != 0) {
    if (errno == EINPROGRESS) {
      *in_progress = true;
    } else {
      error = -errno;
    }
  }
  return error ? FailClosed(fd, error) : fd;
}

int ConnectError(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

int BindUdp(const SockAddr& address, uint32_t mark, bool reuse_port) {
  int fd = socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = mark ? SetMark(fd, mark) : 0;
  if (!error && reuse_port) error = SetInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (!error && address.family() == AF_INET6) error = SetInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (!error && bind(fd, address.get(), address.length) != 0) error = -errno;
  return error ? FailClosed(fd, error) : fd;
}

int SetNoDelay(int fd) { return SetInt(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

int SetKeepAlive(int fd, int idle_s, int interval_s, int count) {
  int e = SetInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  if (!e) e = SetInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s);
  if (!e) e = SetInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
  if (!e) e = SetInt(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
  return e;
}

int SetMark(int fd, uint32_t mark) { return SetInt(fd, SOL_SOCKET, SO_MARK, static_cast<int>(mark)); }

int SetResetOnClose(int fd) {
  linger l{1, 0};
  return setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0 ? 0 : -errno;
}

SockAddr LocalAddress(int fd) {
  SockAddr a;
  a.length = sizeof a.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&a.storage), &a.length) != 0) a.length = 0;
  Unmap(a);
  return a;
}

SockAddr PeerAddress(int fd) {
  SockAddr a;
  a.length = sizeof a.storage;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&a.storage), &a.length) != 0) a.length = 0;
  Unmap(a);
  return a;
}

std::optional<SockAddr> OriginalDestination(int fd) {
  SockAddr local = LocalAddress(fd), original;
  original.length = sizeof original.storage;
  int rc = -1;
  if (local.family() == AF_INET) {
    rc = getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &original.storage, &original.length);
  } else if (local.family() == AF_INET6) {
    rc = getsockopt(fd, SOL_IPV6, kIp6tSoOriginalDst, &original.storage, &original.length);
  }
  if (rc != 0) return std::nullopt;
  if (original == local) return std::nullopt;  // tracked, but not redirected
  return original;
}

IoResult ReadInto(int fd, Buffer& to, size_t budget, bool to_end) {
  IoResult r;
  while (r.bytes < budget) {
    auto span = to.Reserve(1);
    ssize_t n = recv(fd, span.data(), span.size(), 0);
    if (n > 0) {
      to.Commit(static_cast<size_t>(n));
      r.bytes += static_cast<size_t>(n);
      if (static_cast<size_t>(n) < span.size() && !to_end) {
        to.ReleaseReserve();
        return r;
      }
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    to.ReleaseReserve();
    if (n == 0) {
      r.eof = true;
    } else if (errno != EAGAIN) {
      r.error = errno;
    }
    return r;
  }
  to.ReleaseReserve();
  r.more = true;
  return r;
}

IoResult WriteFrom(int fd, Buffer& from) {
  IoResult r;
  while (!from.empty()) {
    iovec iov[64];
    msghdr message{};
    message.msg_iov = iov;
    message.msg_iovlen = static_cast<size_t>(from.Pieces(iov, 64));
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (n >= 0) {
      from.Consume(static_cast<size_t>(n));
      r.bytes += static_cast<size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) r.error = errno;
    return r;
  }
  return r;
}

ssize_t Peek(int fd, char* to, size_t n) {
  ssize_t got;
  do got = recv(fd, to, n, MSG_PEEK);
  while (got < 0 && errno == EINTR);
  return got < 0 ? -errno : got;
}

}  // namespace weft::io
