// Counts calls of malloc and its kin on this thread, for tests that promise "no allocation in the steady state".
//
//   AllocCounter count;
//   work();
//   EXPECT_EQ(count.calls(), 0u);
//
// Linking this library replaces malloc in the test binary. Under a sanitizer, which owns malloc, kWorks is false.
#pragma once

#include <cstddef>

namespace weft::base {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kAllocCounterWorks = false;
#else
constexpr bool kAllocCounterWorks = true;
#endif

class AllocCounter {
 public:
  AllocCounter() : start_(Total()) {}
  size_t calls() const { return Total() - start_; }
  static size_t Total();

 private:
  size_t start_;
};

}  // namespace weft::base
