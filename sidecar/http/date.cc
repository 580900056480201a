#include "sidecar/http/date.h"

#include <ctime>

namespace weft::http {

std::string_view HttpDate(uint64_t unix_seconds) {
  static const char kDays[] = "SunMonTueWedThuFriSat";
  static const char kMonths[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  thread_local uint64_t last = UINT64_MAX;
  thread_local char text[29];
  if (last == unix_seconds) return {text, sizeof(text)};
  const auto t = static_cast<time_t>(unix_seconds);
  tm p{};
  gmtime_r(&t, &p);
  char* o = text;
  const auto put = [&o](const char* s, int n) { for (int i = 0; i < n; ++i) *o++ = s[i]; };
  const auto two = [&o](int v) { *o++ = static_cast<char>('0' + v / 10 % 10), *o++ = static_cast<char>('0' + v % 10); };
  put(kDays + p.tm_wday * 3, 3), put(", ", 2), two(p.tm_mday), put(" ", 1), put(kMonths + p.tm_mon * 3, 3), put(" ", 1);
  two((p.tm_year + 1900) / 100), two(p.tm_year % 100), put(" ", 1);
  two(p.tm_hour), put(":", 1), two(p.tm_min), put(":", 1), two(p.tm_sec), put(" GMT", 4);
  last = unix_seconds;
  return {text, sizeof(text)};
}

}  // namespace weft::http
