#include "sidecar/proxy/time_text.h"

#include <cstring>
#include <ctime>

namespace weft::proxy {

TimeText::TimeText(std::string_view format, bool local) : local_(local), pieces_(1) {
  for (size_t i = 0; i < format.size(); ++i) {
    std::string& calendar = pieces_.back().calendar;
    if (format[i] != '%' || i + 1 == format.size()) {
      calendar += format[i];
      continue;
    }
    size_t digits = 0;
    ++i;
    if (format[i] >= '1' && format[i] <= '9' && i + 1 < format.size()) digits = static_cast<size_t>(format[i++] - '0');
    if (format[i] == 'f' || format[i] == 's') {
      const bool seconds = format[i] == 's';
      pieces_.back().seconds = seconds;
      pieces_.back().digits = digits == 0 && !seconds ? 9 : digits;
      pieces_.emplace_back();
    } else {
      calendar += '%', calendar += format[i];
    }
  }
}

void TimeText::Render(uint64_t second) {
  second_ = second;
  text_.clear(), fractions_.clear();
  const time_t at = static_cast<time_t>(second);
  tm parts{};
  local_ ? localtime_r(&at, &parts) : gmtime_r(&at, &parts);
  for (const Piece& p : pieces_) {
    char calendar[256];
    text_.append(calendar, strftime(calendar, sizeof calendar, p.calendar.c_str(), &parts));
    if (p.seconds) text_ += std::to_string(second);
    if (p.digits > 0) fractions_.push_back({text_.size(), p.digits});
    text_.append(p.digits, '0');
  }
}

void TimeText::Append(uint64_t unix_ns, std::string* out) {
  constexpr uint64_t kSecond = 1'000'000'000;
  if (unix_ns / kSecond != second_) Render(unix_ns / kSecond);
  char nanos[9];
  uint64_t rest = unix_ns % kSecond;
  for (size_t i = sizeof nanos; i > 0; rest /= 10) nanos[--i] = static_cast<char>('0' + rest % 10);
  for (const Fraction& f : fractions_) memcpy(&text_[f.at], nanos, f.digits);
  out->append(text_);
}

}  // namespace weft::proxy
