// The libFuzzer program of tools/fuzz: WEFT_FUZZ_TARGET names the target, arguments are libFuzzer's.
//
// Compiled by gcc, whose -fsanitize-coverage=trace-pc calls a function at every branch. It is wrapped here (--wrap) into the
// counters that libFuzzer's runtime reads, so that the same compiler, libraries and cache serve as everywhere else.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "test/fuzz/fuzz.h"

extern "C" void __sanitizer_cov_8bit_counters_init(uint8_t* start, uint8_t* stop);

namespace {

constexpr uintptr_t kCounters = 1 << 16;
uint8_t g_counters[kCounters];
const bool g_registered = [] { return __sanitizer_cov_8bit_counters_init(g_counters, g_counters + kCounters), true; }();

}  // namespace

extern "C" __attribute__((no_sanitize_coverage, no_sanitize("address"), no_sanitize("undefined"))) void __wrap___sanitizer_cov_trace_pc() {
  const auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& c = g_counters[(pc ^ (pc >> 16)) & (kCounters - 1)];
  if (++c == 0) c = 255;  // stays: 256 times is not never
}

// gcc reports comparisons of floating-point numbers, too; libFuzzer has no use for them.
extern "C" void __sanitizer_cov_trace_cmpf(float, float) {}
extern "C" void __sanitizer_cov_trace_cmpd(double, double) {}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const weft::fuzz::Target* target = [] {
    const char* name = getenv("WEFT_FUZZ_TARGET");
    for (const auto& t : weft::fuzz::Targets()) {
      if (name && strcmp(name, t.name) == 0) return &t;
    }
    fprintf(stderr, "set WEFT_FUZZ_TARGET to one of:\n");
    for (const auto& t : weft::fuzz::Targets()) fprintf(stderr, "  %s\n", t.name);
    exit(2);
  }();
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
