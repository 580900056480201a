#include "sidecar/proxy/listener.h"

#include <cerrno>

#include "sidecar/base/log.h"
#include "sidecar/io/socket.h"

namespace weft::proxy {
namespace {
constexpr int kPerTurn = 32;
constexpr uint64_t kPauseNs = 50 * base::kMs;
}  // namespace

Acceptor::Acceptor(WorkerCore* core, std::string listener, std::shared_ptr<const ListenSocket> socket)
    : core_(core), listener_(std::move(listener)), socket_(std::move(socket)) {
  Resume();
}

Acceptor::~Acceptor() {
  if (watching_) core_->loop()->Unwatch(socket_->fd, this);
}

void Acceptor::Resume() {
  watching_ = true;
  core_->loop()->WatchAccept(socket_->fd, this);
}

void Acceptor::OnReady(uint32_t) {
  for (int i = 0; i < kPerTurn; ++i) {
    io::SockAddr peer;
    int fd = io::Accept(socket_->fd, &peer);
    if (fd >= 0) {
      core_->Place(fd, listener_, model::Address::FromSockaddr(peer.storage));
      continue;
    }
    if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
      // Out of descriptors: the waiting connection would be reported again at once.
      WEFT_LOG(kConnHandler, kWarn, "cannot accept on ", listener_, ": out of descriptors or memory");
      core_->loop()->Unwatch(socket_->fd, this);
      watching_ = false;
      core_->loop()->Arm(&pause_, kPauseNs);
    }
    return;
  }
}

}  // namespace weft::proxy
