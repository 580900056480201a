// Timers: a hierarchical wheel of 1 ms ticks, 64 slots a level. A timer lives on the level of the highest six bits in
// which its tick differs from the current one, so everything on a lower level is due before anything on a higher one:
// the next event is the first occupied slot of the lowest occupied level, and time may jump there at once (no walking
// of empty ticks, which matters for the manual clock). Cancelling only unlinks; occupancy bits are corrected when met.
// Test: loop_test.cc.
#include "sidecar/io/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <mutex>
#include <vector>

#include "sidecar/base/check.h"

namespace weft::io {
namespace {

constexpr int kLevels = 7, kSlotBits = 6, kSlots = 64;
constexpr uint64_t kTick = base::kMs;
constexpr uint64_t kMaxTicks = uint64_t{1} << 40;  // 34 years
constexpr int kMaxRounds = 32;                     // of advance and flush in one turn
constexpr int kMaxEvents = 256;

thread_local Loop* t_current = nullptr;

class Wheel {
 public:
  uint64_t current() const { return current_; }

  void Insert(Timer* t, uint64_t tick) {
    t->deadline = tick;
    if (tick <= current_) tick = t->deadline = current_ + 1;
    Place(t);
  }

  // The tick of the next slot to visit, or UINT64_MAX. It is a lower bound of the next deadline.
  uint64_t Next() {
    for (int level = 0; level < kLevels; ++level) {
      while (occupied_[level]) {
        int slot = std::countr_zero(occupied_[level]);
        if (slots_[level][slot].empty()) {
          occupied_[level] &= ~(uint64_t{1} << slot);
          continue;
        }
        int shift = level * kSlotBits;
        uint64_t above = current_ >> (shift + kSlotBits) << (shift + kSlotBits);
        return above | static_cast<uint64_t>(slot) << shift;
      }
    }
    return UINT64_MAX;
  }

  // Moves everything due at or before tick to due.
  void AdvanceTo(uint64_t tick, base::List<Timer>& due) {
    for (uint64_t next; (next = Next()) <= tick;) {
      int level = 0;
      while (!occupied_[level]) ++level;
      int slot = std::countr_zero(occupied_[level]);
      occupied_[level] &= ~(uint64_t{1} << slot);
      base::List<Timer> batch;
      batch.TakeAll(slots_[level][slot]);
      current_ = next;
      while (Timer* t = batch.PopFront()) {
        if (t->deadline <= current_) {
          due.PushBack(t);
        } else {
          Place(t);
        }
      }
    }
    if (tick > current_) current_ = tick;
  }

 private:
  void Place(Timer* t) {
    int level = (63 - std::countl_zero(t->deadline ^ current_)) / kSlotBits;
    int slot = static_cast<int>(t->deadline >> (level * kSlotBits)) & (kSlots - 1);
    slots_[level][slot].PushBack(t);
    occupied_[level] |= uint64_t{1} << slot;
  }

  uint64_t current_ = 0;
  uint64_t occupied_[kLevels] = {};
  base::List<Timer> slots_[kLevels][kSlots];
};

}  // namespace

void Timer::Cancel() { Unlink(); }

struct Loop::Impl {
  struct Registration {
    Handler* handler = nullptr;
    uint32_t generation = 0;
  };

  explicit Impl(base::Clock* c) : clock(c), origin(c->MonotonicNs()) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    WEFT_CHECK(epoll >= 0 && wake >= 0, "epoll or eventfd: ", strerror(errno));
    epoll_event e{};
    e.events = EPOLLIN | EPOLLET;
    e.data.u64 = kWake;
    WEFT_CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &e) == 0, strerror(errno));
  }
  ~Impl() {
    close(wake);
    close(epoll);
  }

  void Wake() {
    uint64_t one = 1;
    // Fails only when the counter is saturated, and then the loop is woken anyway.
    if (write(wake, &one, sizeof one) < 0) return;
  }

  void Add(int fd, Handler* handler, uint32_t events) {
    WEFT_CHECK(fd >= 0 && handler);
    if (static_cast<size_t>(fd) >= registrations.size()) registrations.resize(static_cast<size_t>(fd) + 64);
    Registration& r = registrations[static_cast<size_t>(fd)];
    WEFT_CHECK(!r.handler, "descriptor ", fd, " is watched already");
    r.handler = handler, ++r.generation;
    epoll_event e{};
    e.events = events;
    e.data.u64 = uint64_t{r.generation} << 32 | static_cast<uint32_t>(fd);
    WEFT_CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) == 0, "epoll_ctl of ", fd, ": ", strerror(errno));
  }

  uint64_t TickOf(uint64_t ns) const { return ns <= origin ? 0 : (ns - origin) / kTick; }

  static constexpr uint64_t kWake = UINT64_MAX;
  base::Clock* clock;
  uint64_t origin;
  int epoll = -1, wake = -1;
  std::vector<Registration> registrations;
  Wheel wheel;
  base::List<Timer> due;
  base::List<Task> beats[3];
  epoll_event events[kMaxEvents];

  std::mutex mutex;
  std::vector<std::function<void()>> mailbox;  // under mutex
  std::vector<std::function<void()>> taken;
  std::atomic<bool> stop{false};
};

Loop::Loop(base::Clock* clock) : impl_(std::make_unique<Impl>(clock)) {
  now_ = clock->MonotonicNs();
  wall_now_ = clock->UnixNs();
}

Loop::~Loop() = default;

Loop* Loop::current() { return t_current; }

void Loop::Stop() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->Wake();
}

void Loop::Run() {
  while (!impl_->stop.load(std::memory_order_acquire)) RunOnce(-1);
  impl_->stop.store(false, std::memory_order_release);
}

void Loop::Watch(int fd, Handler* handler) { impl_->Add(fd, handler, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET); }

void Loop::WatchAccept(int fd, Handler* handler) { impl_->Add(fd, handler, EPOLLIN | EPOLLEXCLUSIVE); }

void Loop::Unwatch(int fd, Handler* handler) {
  if (fd < 0 || static_cast<size_t>(fd) >= impl_->registrations.size()) return;
  auto& r = impl_->registrations[static_cast<size_t>(fd)];
  if (r.handler != handler) return;
  r.handler = nullptr, ++r.generation;
  epoll_ctl(impl_->epoll, EPOLL_CTL_DEL, fd, nullptr);
}

void Loop::Schedule(Beat beat, Task* task) {
  if (!task->linked()) impl_->beats[static_cast<int>(beat)].PushBack(task);
}

void Loop::Arm(Timer* timer, uint64_t delay_ns) {
  timer->Cancel();
  uint64_t elapsed = now_ - impl_->origin;
  if (delay_ns > kMaxTicks * kTick) delay_ns = kMaxTicks * kTick;
  // Rounded up: a timer never fires early.
  impl_->wheel.Insert(timer, (elapsed + delay_ns + kTick - 1) / kTick);
}

void Loop::Post(std::function<void()> fn) {
  bool first;
  {
    std::lock_guard lock(impl_->mutex);
    first = impl_->mailbox.empty();
    impl_->mailbox.push_back(std::move(fn));
  }
  if (first) impl_->Wake();
}

void Loop::RunOnce(int64_t max_wait_ns) {
  Impl& m = *impl_;
  Loop* outer = t_current;
  t_current = this;

  // poll
  bool work = !m.beats[0].empty() || !m.beats[1].empty() || !m.beats[2].empty();
  int wait_ms = 0;
  if (!work && max_wait_ns != 0 && !m.stop.load(std::memory_order_acquire)) {
    uint64_t wait = max_wait_ns < 0 ? UINT64_MAX : static_cast<uint64_t>(max_wait_ns);
    if (uint64_t next = m.wheel.Next(); next != UINT64_MAX) {
      uint64_t at = m.origin + next * kTick, now = m.clock->MonotonicNs();
      uint64_t until = at > now ? at - now : 0;
      if (until < wait) wait = until;
    }
    wait_ms = wait == UINT64_MAX ? -1 : static_cast<int>(std::min<uint64_t>((wait + kTick - 1) / kTick, 60'000));
  }
  int n = epoll_wait(m.epoll, m.events, kMaxEvents, wait_ms);
  WEFT_CHECK(n >= 0 || errno == EINTR, "epoll_wait: ", strerror(errno));
  uint64_t started = now_ = m.clock->MonotonicNs();
  wall_now_ = m.clock->UnixNs();

  // decode: descriptors, timers, mailbox
  bool mail = false;
  for (int i = 0; i < n; ++i) {
    const epoll_event& e = m.events[i];
    if (e.data.u64 == Impl::kWake) {
      uint64_t count;
      while (read(m.wake, &count, sizeof count) > 0) continue;
      mail = true;
      continue;
    }
    const auto& r = m.registrations[static_cast<uint32_t>(e.data.u64)];
    if (!r.handler || r.generation != e.data.u64 >> 32) continue;  // unwatched earlier in this turn
    uint32_t bits = 0;
    if (e.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) bits |= kReadable;
    if (e.events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) bits |= kWritable;
    if (e.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) bits |= kHangup;
    ++stats_.events;
    r.handler->OnReady(bits);
  }
  m.wheel.AdvanceTo(m.TickOf(now_), m.due);
  while (Timer* t = m.due.PopFront()) {
    ++stats_.timers_fired;
    t->fire(t);
  }
  if (mail) {
    {
      std::lock_guard lock(m.mutex);
      m.taken.swap(m.mailbox);
    }
    stats_.posted += m.taken.size();
    for (auto& fn : m.taken) fn();
    m.taken.clear();
  }

  // advance and flush, in rounds
  int round = 0;
  while (!m.beats[0].empty() || !m.beats[1].empty()) {
    if (round++ == kMaxRounds) {
      ++stats_.round_limit_hits;
      break;
    }
    for (int beat = 0; beat < 2; ++beat) {
      base::List<Task> batch;
      batch.TakeAll(m.beats[beat]);
      while (Task* t = batch.PopFront()) t->run(t);
    }
  }
  // reap
  base::List<Task> batch;
  batch.TakeAll(m.beats[2]);
  while (Task* t = batch.PopFront()) t->run(t);

  uint64_t took = m.clock->MonotonicNs() - started;
  ++stats_.turns;
  if (took > stats_.longest_turn_ns) stats_.longest_turn_ns = took;
  if (took > kStallNs) ++stats_.stalls;
  t_current = outer;
}

}  // namespace weft::io
