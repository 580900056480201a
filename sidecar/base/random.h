// Fast pseudo-random numbers (xoshiro256++), not for secrets. Tests and simulations pass a seed and get a repeatable
// sequence; the data path uses Random::ThisThread(), seeded by the kernel. Threads: one instance, one thread.
#pragma once

#include <cstdint>

namespace weft::base {

class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t Next() {
    const uint64_t result = Rotl(s_[0] + s_[3], 23) + s_[0], t = s_[1] << 17;
    s_[2] ^= s_[0], s_[3] ^= s_[1], s_[1] ^= s_[2], s_[0] ^= s_[3];
    s_[2] ^= t, s_[3] = Rotl(s_[3], 45);
    return result;
  }
  // Uniform in [0, n); n > 0.
  uint64_t Below(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64); }
  // Uniform in [0, 1).
  double Double() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  static Random& ThisThread();

 private:
  static uint64_t Rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t s_[4];
};

}  // namespace weft::base
