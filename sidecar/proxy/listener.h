// Takes connections from a listening socket that all workers poll exclusively, and places each on the least loaded one.
#pragma once

#include <memory>
#include <string>

#include "sidecar/proxy/core.h"

namespace weft::proxy {

class Acceptor final : public io::Handler {
 public:
  Acceptor(WorkerCore* core, std::string listener, std::shared_ptr<const ListenSocket> socket);
  ~Acceptor();
  const ListenSocket* socket() const { return socket_.get(); }

 private:
  void OnReady(uint32_t events) override;
  void Resume();

  WorkerCore* core_;
  const std::string listener_;
  const std::shared_ptr<const ListenSocket> socket_;
  bool watching_ = false;
  upstream::MemberTimer<Acceptor, &Acceptor::Resume> pause_{this};
};

}  // namespace weft::proxy
