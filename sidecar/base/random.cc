#include "sidecar/base/random.h"

#include <sys/random.h>

#include "sidecar/base/clock.h"

namespace weft::base {

Random::Random(uint64_t seed) {
  for (auto& s : s_) {  // splitmix64, as the authors advise for seeding
    uint64_t z = (seed += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    s = z ^ (z >> 31);
  }
}

Random& Random::ThisThread() {
  static thread_local Random random = [] {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = Clock::Real()->MonotonicNs();
    return Random(seed);
  }();
  return random;
}

}  // namespace weft::base
