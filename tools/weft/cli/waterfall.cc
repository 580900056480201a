#include "tools/weft/cli/waterfall.h"

#include <algorithm>

#include "tools/weft/cli/output.h"

namespace weft::cli {
namespace {
size_t Characters(const std::string& s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}
}  // namespace

std::string Waterfall(const std::vector<WaterfallRow>& rows, int bar_width) {
  int64_t end = 1;
  size_t label_width = 0, time_width = 0;
  std::vector<std::string> labels, times;
  for (const auto& r : rows) {
    end = std::max(end, r.start_us + r.duration_us);
    labels.push_back(std::string(2 * std::min(r.depth, 20), ' ') + Clean(r.label));
    times.push_back(HumanDuration(static_cast<double>(r.duration_us)));
    label_width = std::max(label_width, Characters(labels.back()));
    time_width = std::max(time_width, Characters(times.back()));
  }
  std::string out;
  for (size_t i = 0; i < rows.size(); i++) {
    const auto& r = rows[i];
    const int from = std::clamp<int>(static_cast<int>(r.start_us * bar_width / end), 0, bar_width - 1);
    const int to = std::clamp<int>(static_cast<int>((r.start_us + r.duration_us) * bar_width / end), from + 1, bar_width);
    out += labels[i] + std::string(label_width - Characters(labels[i]) + 2, ' ') + "|" + std::string(from, ' ') +
           std::string(to - from, r.error ? '!' : '=') + std::string(bar_width - to, ' ') + "|  " +
           std::string(time_width - Characters(times[i]), ' ') + times[i];
    if (!r.note.empty()) out += "  " + Clean(r.note);
    out += "\n";
  }
  return out;
}

}  // namespace weft::cli
