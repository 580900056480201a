#include "sidecar/proxy/plane.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstring>

#include "sidecar/base/str.h"
#include "sidecar/filters/local_ratelimit/local_ratelimit.h"
#include "sidecar/io/socket.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/proxy/server_first.h"
#include "sidecar/proxy/worker.h"

namespace weft::proxy {
namespace {

uint64_t DefaultMaxConnections() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 100'000;
  return limit.rlim_cur * 45 / 100;
}

base::Result<std::shared_ptr<const ListenSocket>> Bind(const model::Listener& l, const model::Address& address) {
  io::SockAddr to;
  to.length = address.ToSockaddr(&to.storage);
  if (to.length == 0) return base::Error("not an address that can be listened on: " + address.ToString());
  io::ListenOptions options;
  if (l.backlog) options.backlog = static_cast<int>(l.backlog);
  options.transparent = l.transparent, options.freebind = l.freebind;
  options.unix_mode = address.pipe_mode;
  int fd = io::Listen(to, options);
  if (fd < 0) return base::Error(base::Cat("cannot bind '", address.ToString(), "': ", strerror(-fd)));
  for (const auto& o : l.socket_options) setsockopt(fd, o.level, o.name, o.bytes.data(), static_cast<socklen_t>(o.bytes.size()));
  return std::make_shared<const ListenSocket>(fd, model::Address::FromSockaddr(io::LocalAddress(fd).storage).ToString());
}

// The socket of a listener's n-th address: the first carries the listener's name.
std::string SocketKey(const std::string& name, size_t n) { return n == 0 ? name : name + "\n" + std::to_string(n); }

}  // namespace

ListenSocket::~ListenSocket() {
  if (fd >= 0) close(fd);
}

DataPlane::DataPlane(PlaneOptions options) : options_(std::move(options)) {
  if (options_.max_connections == 0) options_.max_connections = DefaultMaxConnections();
  if (!options_.buckets) options_.buckets = std::make_shared<filters::local_ratelimit::BucketRegistry>();
  if (!options_.server_first) options_.server_first = std::make_shared<ServerFirst>();
  for (uint32_t i = 0; i < options_.workers; ++i) workers_.push_back(std::make_unique<Worker>(options_, i, workers_));
}

DataPlane::~DataPlane() { Stop(); }

void DataPlane::Start() {
  if (started_) return;
  started_ = true;
  for (auto& w : workers_) w->Start();
}

base::Status DataPlane::Publish(std::shared_ptr<const model::ConfigSnapshot> snapshot) {
  Sockets next;
  for (const auto& entry : snapshot->listeners) {
    const model::Listener& l = *entry->config;
    if (!l.bind_to_port || l.dns) continue;
    for (size_t i = 0; i < l.addresses.size(); ++i) {
      const model::Address& a = l.addresses[i];
      if (a.udp) continue;
      std::string key = SocketKey(l.name, i), wanted = a.ToString();
      auto old = sockets_.find(key);
      if (old != sockets_.end() && old->second.wanted == wanted) {
        next[key] = old->second;
        continue;
      }
      // An address that moves from one listener to another keeps its socket.
      const Bound* same = nullptr;
      for (const auto& [name, bound] : sockets_) {
        if (bound.wanted == wanted && a.port != 0) same = &bound;
      }
      if (same) {
        next[key] = *same;
        continue;
      }
      auto socket = Bind(l, a);
      if (!socket) return std::move(socket.error()).In("listener '" + l.name + "'");
      next[key] = Bound{std::move(wanted), l.name, *socket};
    }
  }
  for (auto& [key, bound] : next) bound.listener = key.substr(0, key.find('\n'));
  sockets_ = std::move(next);
  ListenSockets shared;
  for (const auto& [key, bound] : sockets_) shared[key] = bound.socket;
  for (auto& w : workers_) w->Publish(snapshot, shared);
  return base::Ok{};
}

void DataPlane::StartDrain(uint64_t deadline_ns) {
  for (auto& w : workers_) w->StartDrain(deadline_ns);
}

uint64_t DataPlane::active_connections() const {
  uint64_t n = 0;
  for (const auto& w : workers_) n += w->active_connections();
  return n;
}

uint64_t DataPlane::active_requests() const {
  uint64_t n = 0;
  for (const auto& w : workers_) n += w->active_requests();
  return n;
}

void DataPlane::Stop() {
  for (auto& w : workers_) w->Stop();
  sockets_.clear();
}

std::string DataPlane::BoundAddress(const std::string& listener) const {
  auto it = sockets_.find(listener);
  return it == sockets_.end() ? "" : it->second.socket->address;
}

}  // namespace weft::proxy
