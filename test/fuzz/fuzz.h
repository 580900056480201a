// Fuzz targets: functions that must survive any bytes. One file declares them all; replay_test.cc runs each over its
// corpus folder and seeded mutations of it in the normal test run; libfuzzer_main.cc makes a libFuzzer program of them.
//
// A target checks more than "does not crash": what it accepts must keep the parser's promises (abort with WEFT_CHECK).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weft::fuzz {

struct Target {
  const char* name;  // also its folder below test/fuzz/corpus
  void (*run)(std::string_view bytes);
};

extern const Target kTargets[];
extern const size_t kTargetCount;

}  // namespace weft::fuzz
