// One thread's event loop: five beats, no re-entrancy (docs/architecture.md, "The loop").
//
//   poll -> decode (Handler::OnReady, timers, mailbox) -> advance tasks -> flush tasks -> reap tasks
//
// Handlers, timers and posted functions only record what happened and Schedule() tasks; all acting is done by tasks
// in the advance beat, all writing in the flush beat, all deleting in the reap beat. So nothing is ever destroyed
// below a caller's feet, writes are corked by construction, and a stack trace reads Loop::Run -> task.
// advance and flush alternate until both are empty (bounded rounds per turn), then reap runs.
//
// Threads: all calls are the loop thread's, except Post() and Stop(). Time: nanoseconds of Clock (CLOCK_MONOTONIC),
// read once per turn.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "sidecar/base/clock.h"
#include "sidecar/base/list.h"

namespace weft::io {

// kHangup: the peer closed its side, or the socket is in error; always together with kReadable: read to the end.
enum : uint32_t { kReadable = 1, kWritable = 2, kHangup = 4 };

// A polled descriptor. Edge-triggered: after kReadable read until EAGAIN (or schedule yourself again). A short read
// counts as EAGAIN unless kHangup was set too.
class Handler {
 public:
  virtual void OnReady(uint32_t events) = 0;

 protected:
  ~Handler() = default;
};

// Work of one beat, embedded in the object that does it. Scheduling a scheduled task is a no-op.
struct Task : base::ListNode {
  using Run = void (*)(Task*);
  explicit Task(Run r) : run(r) {}
  ~Task() { Unlink(); }
  Run run;
};

enum class Beat { kAdvance, kFlush, kReap };

// A one-shot timer, embedded in its owner; O(1) arm and cancel, about 1 ms resolution. Re-arming moves it.
struct Timer : base::ListNode {
  using Fire = void (*)(Timer*);
  explicit Timer(Fire f) : fire(f) {}
  ~Timer() { Cancel(); }
  void Cancel();
  bool armed() const { return linked(); }
  Fire fire;
  uint64_t deadline = 0;  // the loop's tick
};

class Loop {
 public:
  // clock: the real one unless a test steps a manual one. Neither is owned.
  explicit Loop(base::Clock* clock = base::Clock::Real());
  ~Loop();

  // Runs turns until Stop(). RunOnce runs one turn, waiting at most max_wait_ns for an event (0: polls); tests use it.
  void Run();
  void RunOnce(int64_t max_wait_ns);
  void Stop();  // from any thread

  uint64_t now() const { return now_; }             // monotonic ns, of this turn
  uint64_t wall_now() const { return wall_now_; }   // Unix ns, of this turn

  void Watch(int fd, Handler* handler);  // both directions, edge-triggered, once per descriptor
  // level-triggered readable interest for listening sockets, with EPOLLEXCLUSIVE
  void WatchAccept(int fd, Handler* handler);
  // Stops events of fd; pending ones of this turn are dropped. Call before close().
  void Unwatch(int fd, Handler* handler);

  void Schedule(Beat beat, Task* task);
  void Arm(Timer* timer, uint64_t delay_ns);
  void Post(std::function<void()> fn);  // from any thread; runs in the decode beat of a later turn

  // stalls: turns whose work (without the wait) took longer than kStallNs.
  struct Stats { uint64_t turns, events, longest_turn_ns, timers_fired, round_limit_hits, stalls, posted; };
  static constexpr uint64_t kStallNs = 10 * base::kMs;
  const Stats& stats() const { return stats_; }
  // The loop this thread is running, or null.
  static Loop* current();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  uint64_t now_ = 0, wall_now_ = 0;
  Stats stats_{};
};

}  // namespace weft::io
