#include "sidecar/proxy/worker.h"

#include <pthread.h>
#include <unistd.h>

#include "sidecar/proxy/core.h"

namespace weft::proxy {

Worker::Worker(const PlaneOptions& options, uint32_t index, const std::vector<std::unique_ptr<Worker>>& peers)
    : options_(options), index_(index), peers_(peers), records_(options.record_ring), free_records_(512), loop_(std::make_unique<io::Loop>(options.clock)) {}

Worker::~Worker() { Stop(); }

void Worker::Start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), ("worker_" + std::to_string(index_)).c_str());
    core_ = std::make_unique<WorkerCore>(this, loop_.get(), options_, index_);
    loop_->Run();
    core_.reset();  // here, where its blocks and cells belong
  });
}

void Worker::Publish(std::shared_ptr<const model::ConfigSnapshot> snapshot, ListenSockets sockets) {
  loop_->Post([this, snapshot = std::move(snapshot), sockets = std::move(sockets)]() mutable {
    core_->Swap(std::move(snapshot), std::move(sockets));
  });
}

void Worker::StartDrain(uint64_t deadline_ns) {
  loop_->Post([this, deadline_ns] { core_->StartDrain(deadline_ns); });
}

void Worker::HandOver(int fd, const std::string& listener, const model::Address& peer) {
  loop_->Post([this, fd, listener, peer] { core_->Adopt(fd, listener, peer); });
}

void Worker::Stop() {
  if (!thread_.joinable()) return;
  loop_->Post([this] {
    core_->CloseAll();
    loop_->Stop();  // after this turn, in which exchanges finish and are reaped
  });
  thread_.join();
}

}  // namespace weft::proxy
