// A moment as text: strftime's formats, and Envoy's %s (seconds), %f and %Nf (fraction with N digits; 9 when not said),
// %Ns (seconds and the fraction's first N digits).
//
//   TimeText t("%Y-%m-%dT%H:%M:%S.%3fZ", /*local=*/false);
//   t.Append(unix_ns, &line);
//
// The text of the last second is kept: moments of the same second only write their fraction.
// Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace weft::proxy {

class TimeText {
 public:
  TimeText(std::string_view format, bool local);
  void Append(uint64_t unix_ns, std::string* out);

 private:
  // strftime's part, then what follows it.
  struct Piece {
    std::string calendar;
    bool seconds = false;
    size_t digits = 0;  // of the fraction
  };
  struct Fraction {
    size_t at, digits;
  };
  void Render(uint64_t second);

  const bool local_;
  std::vector<Piece> pieces_;
  uint64_t second_ = UINT64_MAX;  // which text_ is of
  std::string text_;
  std::vector<Fraction> fractions_;  // where text_ waits for them
};

}  // namespace weft::proxy
