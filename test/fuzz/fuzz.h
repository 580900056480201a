// Fuzz targets: functions that must survive any bytes. replay_test.cc runs each over its corpus folder and seeded
// mutations of it in the normal test run; libfuzzer_main.cc makes a libFuzzer program of them (tools/fuzz).
//
// A target checks more than "does not crash": what it accepts must keep the parser's promises (abort with WEFT_CHECK).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace weft::fuzz {

struct Target {
  const char* name;  // also its folder below test/fuzz/corpus
  void (*run)(std::string_view bytes);
};

// All of them.
const std::vector<Target>& Targets();

// By file: codecs and wire formats, header values, a whole exchange, Envoy configuration, the server's readers.
std::vector<Target> WireTargets();
std::vector<Target> ValueTargets();
std::vector<Target> ExchangeTargets();
std::vector<Target> ConfigTargets();
std::vector<Target> ServerTargets();

}  // namespace weft::fuzz
