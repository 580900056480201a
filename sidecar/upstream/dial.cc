#include "sidecar/upstream/dial.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sidecar/base/clock.h"

namespace weft::upstream {

const char* FailureOutcome(Failure f) {
  switch (f) {
    case Failure::kNone: return "ok";
    case Failure::kOverflow: return "overflow";
    case Failure::kConnectRefused: return "connect_refused";
    case Failure::kConnectTimeout: return "connect_timeout";
    case Failure::kConnectError: return "connect_failed";
    case Failure::kTls: return "tls";
    case Failure::kTerminated: return "reset";
    case Failure::kPoolClosed: return "pool_closed";
  }
  return "";
}

bool IsConnectFailure(Failure f) {
  return f == Failure::kConnectRefused || f == Failure::kConnectTimeout || f == Failure::kConnectError || f == Failure::kTls;
}

int Dial(const DialConfig& config, int* error) {
  sockaddr_storage to{};
  socklen_t len = config.address.ToSockaddr(&to);
  if (len == 0) return *error = EADDRNOTAVAIL, -1;
  int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return *error = errno, -1;
  auto fail = [&] {
    *error = errno;
    close(fd);
    return -1;
  };
  auto set = [&](int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value) == 0; };
  // Without the mark an injected sidecar's own traffic would be redirected back to it: better no connection.
  if (config.mark && !set(SOL_SOCKET, SO_MARK, static_cast<int>(config.mark))) return fail();
  if (to.ss_family != AF_UNIX) set(IPPROTO_TCP, TCP_NODELAY, 1);
  if (const model::Cluster* c = config.cluster.get()) {
    if (c->tcp_keepalive) {
      set(SOL_SOCKET, SO_KEEPALIVE, 1);
      if (c->keepalive_probes) set(IPPROTO_TCP, TCP_KEEPCNT, static_cast<int>(c->keepalive_probes));
      if (c->keepalive_time_s) set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(c->keepalive_time_s));
      if (c->keepalive_interval_s) set(IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(c->keepalive_interval_s));
    }
    for (const auto& o : c->socket_options) {
      if (setsockopt(fd, o.level, o.name, o.bytes.data(), o.bytes.size()) != 0) return fail();
    }
    if (c->bind_source.kind == model::Address::kIp) {
      sockaddr_storage from{};
      socklen_t from_len = c->bind_source.ToSockaddr(&from);
      if (from_len && from.ss_family == to.ss_family &&
          bind(fd, reinterpret_cast<sockaddr*>(&from), from_len) != 0) {
        return fail();
      }
    }
  }
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), len) != 0 && errno != EINPROGRESS) return fail();
  return fd;
}

int ConnectResult(int fd) {
  int error = 0;
  socklen_t len = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) return errno;
  if (error) return error;
  pollfd p{fd, POLLOUT, 0};
  if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && !(p.revents & (POLLERR | POLLHUP))) return 0;
  return EINPROGRESS;
}

Failure FailureOf(int error) {
  if (error == ECONNREFUSED) return Failure::kConnectRefused;
  if (error == ETIMEDOUT) return Failure::kConnectTimeout;
  return Failure::kConnectError;
}

std::string ErrnoText(int error) {
  char text[128];
  return strerror_r(error, text, sizeof text);
}

bool PeerUnreachable(int fd, uint64_t silent_ns) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  return info.tcpi_unacked > 0 && info.tcpi_retransmits > 0 && uint64_t{info.tcpi_last_ack_recv} * base::kMs >= silent_ns;
}

std::string LocalAddress(int fd) {
  sockaddr_storage a{};
  socklen_t len = sizeof a;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&a), &len) != 0) return "";
  return model::Address::FromSockaddr(a).ToString();
}

}  // namespace weft::upstream
