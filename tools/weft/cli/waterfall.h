// A trace as text: one line a span, a bar where it ran.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace weft::cli {

struct WaterfallRow {
  std::string label;
  int64_t start_us = 0;     // from the start of the trace
  int64_t duration_us = 0;
  int depth = 0;
  bool error = false;       // bar of '!' instead of '='
  std::string note;         // after the duration
};

std::string Waterfall(const std::vector<WaterfallRow>& rows, int bar_width);

}  // namespace weft::cli
