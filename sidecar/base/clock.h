// Time as an argument: code that waits takes a Clock, tests step a ManualClock.
#pragma once

#include <cstdint>

namespace weft::base {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t MonotonicNs() = 0;
  virtual uint64_t UnixNs() = 0;
  static Clock* Real();  // never destroyed
};

class ManualClock final : public Clock {
 public:
  uint64_t MonotonicNs() override { return mono_; }
  uint64_t UnixNs() override { return unix_ + mono_; }
  void Advance(uint64_t ns) { mono_ += ns; }

 private:
  uint64_t mono_ = 1'000'000'000, unix_ = 1'700'000'000'000'000'000;
};

constexpr uint64_t kMs = 1'000'000, kSecond = 1'000'000'000;

}  // namespace weft::base
