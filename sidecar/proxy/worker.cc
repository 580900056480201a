#include "sidecar/proxy/worker.h"

#include <pthread.h>
#include <unistd.h>

#include "sidecar/base/stats.h"
#include "sidecar/proxy/core.h"

namespace weft::proxy {
namespace {

// Turns that took longer than io::Loop::kStallNs, and the longest one: where a blocked worker shows.
struct LoopReport final : io::Timer {
  static constexpr uint64_t kEveryNs = 5 * base::kSecond;
  LoopReport(io::Loop* loop, uint32_t index) : Timer([](io::Timer* t) { static_cast<LoopReport*>(t)->Report(); }), loop_of(loop) {
    std::string name = "server.worker_" + std::to_string(index) + ".";
    stalls = base::Stats::Get().Counter(name + "loop_stalls", "server.loop_stalls", {{"envoy_worker_id", std::to_string(index)}});
    longest = base::Stats::Get().Gauge(name + "loop_longest_turn_us", "server.loop_longest_turn_us", {{"envoy_worker_id", std::to_string(index)}});
    loop->Arm(this, kEveryNs);
  }
  void Report() {
    const io::Loop::Stats& s = loop_of->stats();
    base::Cells::Local().Add(stalls, s.stalls - reported);
    reported = s.stalls;
    base::Cells::Local().Set(longest, s.longest_turn_ns / 1000);
    loop_of->Arm(this, kEveryNs);
  }
  io::Loop* loop_of;
  base::StatId stalls, longest;
  uint64_t reported = 0;
};

}  // namespace

Worker::Worker(const PlaneOptions& options, uint32_t index, const std::vector<std::unique_ptr<Worker>>& peers)
    : options_(options), index_(index), peers_(peers), loop_(std::make_unique<io::Loop>(options.clock)) {}

Worker::~Worker() { Stop(); }

void Worker::Start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), ("worker_" + std::to_string(index_)).c_str());
    core_ = std::make_unique<WorkerCore>(this, loop_.get(), options_, index_);
    LoopReport report(loop_.get(), index_);
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
