#include "sidecar/base/clock.h"

#include <time.h>

namespace weft::base {
namespace {

class RealClock final : public Clock {
 public:
  uint64_t MonotonicNs() override { return Read(CLOCK_MONOTONIC); }
  uint64_t UnixNs() override { return Read(CLOCK_REALTIME); }

 private:
  static uint64_t Read(clockid_t id) {
    timespec t;
    clock_gettime(id, &t);
    return static_cast<uint64_t>(t.tv_sec) * kSecond + static_cast<uint64_t>(t.tv_nsec);
  }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock clock;
  return &clock;
}

}  // namespace weft::base
