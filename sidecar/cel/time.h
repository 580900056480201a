// Times in CEL: what timestamp() and duration() read, what string() writes, fields of a date, and time zones.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::cel {

// RFC 3339, read as Envoy does: blanks around, small letters, offsets without colon. ns since 1970.
std::optional<__int128> ParseTimestamp(std::string_view text);
// "1h2m3.5s", "-5ms", "0"; ns, below zero too. Up to 315'576'000'000 s.
std::optional<__int128> ParseDuration(std::string_view text);
std::string FormatTimestamp(__int128 ns);
std::string FormatDuration(__int128 ns);

// A date of the proleptic Gregorian calendar.
struct Civil {
  int64_t year = 1970;
  int month = 0, day = 0, weekday = 0, yearday = 0;  // from 0; Sunday is 0
  int hour = 0, minute = 0, second = 0;
};
Civil ToCivil(int64_t unix_seconds);

// When which offset from UTC held, from the system's time zone files. Immutable, any thread.
class Zone {
 public:
  // By its IANA name; null when there is none. Reads a file.
  static std::shared_ptr<const Zone> Load(const std::string& name);
  int64_t Offset(int64_t unix_seconds) const;  // seconds east

 private:
  std::vector<int64_t> at_;      // ascending: from here on
  std::vector<int32_t> offset_;  // one more than at_: the first before all
};
// "+02:00", "-0:30", "" and "UTC"; seconds east.
std::optional<int64_t> FixedOffset(std::string_view name);

}  // namespace weft::cel
