// One worker thread: a loop, the listeners' acceptors, downstream connections, pools of upstream connections.
// Workers share nothing mutable but the cells of hosts and clusters (atomics).
//
// Threads: Start, Publish, StartDrain, Stop and the gauges are the main thread's; the rest belongs to the worker's own.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "sidecar/io/loop.h"
#include "sidecar/model/address.h"
#include "sidecar/proxy/plane.h"

namespace weft::proxy {

class WorkerCore;  // what lives on the worker's thread: core.h

class Worker {
 public:
  // peers: all workers of the plane, this one too; looked at once they have started.
  Worker(const PlaneOptions& options, uint32_t index, const std::vector<std::unique_ptr<Worker>>& peers);
  ~Worker();

  void Start();
  void Publish(std::shared_ptr<const model::ConfigSnapshot> snapshot, ListenSockets sockets);
  void StartDrain(uint64_t deadline_ns);
  void Stop();
  // From another worker: an accepted connection that is better served here.
  void HandOver(int fd, const std::string& listener, const model::Address& peer);

  uint64_t active_connections() const { return connections_.load(std::memory_order_relaxed); }
  uint64_t active_requests() const { return requests_.load(std::memory_order_relaxed); }
  io::Loop& loop() { return *loop_; }
  const std::vector<std::unique_ptr<Worker>>& peers() const { return peers_; }
  void CountConnection(int delta) { connections_.fetch_add(static_cast<uint64_t>(delta), std::memory_order_relaxed); }
  void CountRequest(int delta) { requests_.fetch_add(static_cast<uint64_t>(delta), std::memory_order_relaxed); }

 private:
  const PlaneOptions& options_;  // the plane's
  const uint32_t index_;
  const std::vector<std::unique_ptr<Worker>>& peers_;
  std::atomic<uint64_t> connections_{0}, requests_{0};
  std::unique_ptr<io::Loop> loop_;
  std::unique_ptr<WorkerCore> core_;
  std::thread thread_;
};

}  // namespace weft::proxy
