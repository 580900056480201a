// WEFT_FUZZ_TARGET=client_hello bazel run --config=clang --config=asan --config=fuzz //test/fuzz -- $PWD/test/fuzz/corpus/client_hello
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "test/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const weft::fuzz::Target* target = [] {
    const char* name = getenv("WEFT_FUZZ_TARGET");
    for (size_t i = 0; i < weft::fuzz::kTargetCount; ++i) {
      if (name && strcmp(name, weft::fuzz::kTargets[i].name) == 0) return &weft::fuzz::kTargets[i];
    }
    fprintf(stderr, "set WEFT_FUZZ_TARGET to one of:\n");
    for (size_t i = 0; i < weft::fuzz::kTargetCount; ++i) fprintf(stderr, "  %s\n", weft::fuzz::kTargets[i].name);
    exit(2);
  }();
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
