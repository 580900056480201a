#include "sidecar/cel/time.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

namespace weft::cel {
namespace {

constexpr __int128 kSecond = 1'000'000'000, kLongest = static_cast<__int128>(315'576'000'000) * kSecond;

bool Digit(char c) { return c >= '0' && c <= '9'; }

// Reads from the front of what is left.
struct Cursor {
  std::string_view left;
  bool Eat(char c) { return !left.empty() && left[0] == c && (left.remove_prefix(1), true); }
  bool Eat(char c, char other) { return Eat(c) || Eat(other); }
  // A number of at most max digits.
  std::optional<int64_t> Number(size_t max) {
    int64_t n = 0;
    size_t i = 0;
    for (; i < max && i < left.size() && Digit(left[i]); ++i) n = n * 10 + (left[i] - '0');
    if (i == 0) return std::nullopt;
    left.remove_prefix(i);
    return n;
  }
  // Digits of a fraction in units of 1/unit; what is finer is dropped.
  __int128 Fraction(__int128 unit, size_t* digits) {
    __int128 value = 0;
    for (*digits = 0; !left.empty() && Digit(left[0]); ++*digits, left.remove_prefix(1)) {
      if (unit >= 10) unit /= 10, value += (left[0] - '0') * unit;
      else unit = 0;
    }
    return value;
  }
};

int64_t DaysFromCivil(int64_t y, int64_t m, int64_t d) {
  y -= m <= 2;
  const int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
  const int64_t doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1, doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
  return era * 146097 + doe - 719468;
}

bool Leap(int64_t y) { return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0); }

int DaysIn(int64_t y, int64_t m) {
  static constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return m == 2 && Leap(y) ? 29 : kDays[m - 1];
}

std::string_view Stripped(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

// Three, six or nine digits, or none.
std::string Fraction(int64_t ns) {
  if (ns == 0) return "";
  char text[16];
  if (ns % 1'000'000 == 0) snprintf(text, sizeof text, ".%03d", static_cast<int>(ns / 1'000'000));
  else if (ns % 1000 == 0) snprintf(text, sizeof text, ".%06d", static_cast<int>(ns / 1000));
  else snprintf(text, sizeof text, ".%09d", static_cast<int>(ns));
  return text;
}

}  // namespace

std::optional<__int128> ParseTimestamp(std::string_view text) {
  Cursor c{Stripped(text)};
  const bool before = c.Eat('-');
  const auto year = c.Number(6);
  if (!year || !c.Eat('-')) return std::nullopt;
  const auto month = c.Number(2);
  if (!month || !c.Eat('-')) return std::nullopt;
  const auto day = c.Number(2);
  if (!day || !c.Eat('T', 't')) return std::nullopt;
  const auto hour = c.Number(2);
  if (!hour || !c.Eat(':')) return std::nullopt;
  const auto minute = c.Number(2);
  if (!minute || !c.Eat(':')) return std::nullopt;
  const auto second = c.Number(2);
  if (!second) return std::nullopt;
  __int128 ns = 0;
  if (c.Eat('.')) {
    size_t digits = 0;
    ns = c.Fraction(kSecond, &digits);
    if (digits == 0) return std::nullopt;
  }
  int64_t offset = 0;
  if (!c.Eat('Z', 'z')) {
    const bool west = c.Eat('-');
    if (!west && !c.Eat('+')) return std::nullopt;
    if (c.left.size() < 2 || !Digit(c.left[1])) return std::nullopt;
    const auto hours = c.Number(2);
    std::optional<int64_t> minutes = 0;
    if (c.Eat(':') || !c.left.empty()) {
      if (c.left.size() != 2) return std::nullopt;
      minutes = c.Number(2);
    }
    if (!hours || !minutes || *hours > 23 || *minutes > 59) return std::nullopt;
    offset = (*hours * 60 + *minutes) * (west ? -60 : 60);
  }
  const int64_t y = before ? -*year : *year;
  if (!c.left.empty() || *month < 1 || *month > 12 || *day < 1 || *day > DaysIn(y, *month) || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  const int64_t seconds = DaysFromCivil(y, *month, *day) * 86400 + *hour * 3600 + *minute * 60 + *second - offset;
  return static_cast<__int128>(seconds) * kSecond + ns;
}

std::optional<__int128> ParseDuration(std::string_view text) {
  Cursor c{text};
  const bool negative = c.Eat('-');
  if (!negative) c.Eat('+');
  if (c.left.empty()) return std::nullopt;
  if (c.left == "0") return 0;
  static constexpr struct {
    std::string_view name;
    int64_t ns;
  } kUnits[] = {{"ns", 1}, {"us", 1000}, {"ms", 1'000'000}, {"s", 1'000'000'000}, {"m", 60'000'000'000}, {"h", 3'600'000'000'000}};
  __int128 total = 0;
  while (!c.left.empty()) {
    const auto whole = c.Number(18);
    const std::string_view fraction = c.Eat('.') ? c.left : std::string_view();
    size_t digits = 0;
    c.Fraction(1, &digits);
    if (!whole && digits == 0) return std::nullopt;
    const auto* unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& u) { return c.left.starts_with(u.name); });
    if (unit == std::end(kUnits)) return std::nullopt;
    c.left.remove_prefix(unit->name.size());
    Cursor f{fraction.substr(0, digits)};
    total += static_cast<__int128>(whole.value_or(0)) * unit->ns;
    // A fraction of an hour has more digits than one of a second.
    __int128 scale = 1, value = 0;
    for (char d : f.left.substr(0, 15)) value = value * 10 + (d - '0'), scale *= 10;
    total += value * unit->ns / scale;
    if (total > kLongest) return std::nullopt;
  }
  return negative ? -total : total;
}

std::string FormatTimestamp(__int128 ns) {
  __int128 seconds = ns / kSecond;
  int64_t rest = static_cast<int64_t>(ns % kSecond);
  if (rest < 0) --seconds, rest += kSecond;
  const Civil c = ToCivil(static_cast<int64_t>(seconds));
  char text[64];
  snprintf(text, sizeof text, "%04lld-%02d-%02dT%02d:%02d:%02d", static_cast<long long>(c.year), c.month + 1, c.day + 1, c.hour, c.minute, c.second);
  return text + Fraction(rest) + "Z";
}

std::string FormatDuration(__int128 ns) {
  const __int128 size = ns < 0 ? -ns : ns;
  return (ns < 0 ? "-" : "") + std::to_string(static_cast<int64_t>(size / kSecond)) + Fraction(static_cast<int64_t>(size % kSecond)) + "s";
}

Civil ToCivil(int64_t unix_seconds) {
  int64_t days = unix_seconds / 86400, rest = unix_seconds % 86400;
  if (rest < 0) --days, rest += 86400;
  Civil c;
  c.hour = static_cast<int>(rest / 3600), c.minute = static_cast<int>(rest / 60 % 60), c.second = static_cast<int>(rest % 60);
  c.weekday = static_cast<int>(((days + 4) % 7 + 7) % 7);
  const int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
  const int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
  const int64_t month = mp < 10 ? mp + 3 : mp - 9;
  c.year = yoe + era * 400 + (month <= 2);
  c.month = static_cast<int>(month - 1), c.day = static_cast<int>(doy - (153 * mp + 2) / 5);
  c.yearday = static_cast<int>(days - DaysFromCivil(c.year, 1, 1));
  return c;
}

// RFC 8536. The second, 64-bit block; what comes after its last transition keeps that one's offset.
std::shared_ptr<const Zone> Zone::Load(const std::string& name) {
  if (name.empty() || name.size() > 64 || name[0] == '/' || name.find("..") != std::string::npos || name.find('\0') != std::string::npos) return nullptr;
  std::ifstream in("/usr/share/zoneinfo/" + name, std::ios::binary);
  std::string file(1 << 16, 0);
  if (!in) return nullptr;
  in.read(file.data(), static_cast<std::streamsize>(file.size()));
  file.resize(static_cast<size_t>(in.gcount()));
  const auto number = [&](size_t at, size_t n) {
    uint64_t v = 0;
    for (size_t k = 0; k < n; ++k) v = v << 8 | static_cast<unsigned char>(file[at + k]);
    return v;
  };
  constexpr size_t kHeader = 44;
  size_t at = 0, times = 0, types = 0;
  for (int block = 0; block < 2; ++block) {
    if (file.size() < at + kHeader || file.compare(at, 4, "TZif") != 0 || file[at + 4] < '2') return nullptr;
    const size_t width = block == 0 ? 4 : 8;
    const size_t isut = number(at + 20, 4), isstd = number(at + 24, 4), leaps = number(at + 28, 4), chars = number(at + 40, 4);
    times = number(at + 32, 4), types = number(at + 36, 4);
    if (isut + isstd + leaps + chars + times + types > file.size()) return nullptr;
    const size_t size = times * (width + 1) + types * 6 + chars + leaps * (width + 4) + isstd + isut;
    if (file.size() < at + kHeader + size) return nullptr;
    if (block == 0) at += kHeader + size;
  }
  if (types == 0) return nullptr;
  at += kHeader;
  const size_t index = at + times * 8, records = index + times;
  const auto offset = [&](size_t type) { return static_cast<int32_t>(number(records + type * 6, 4)); };
  auto zone = std::make_shared<Zone>();
  zone->offset_.push_back(offset(0));
  for (size_t i = 0; i < times; ++i) {
    const size_t type = static_cast<unsigned char>(file[index + i]);
    if (type >= types) return nullptr;
    zone->at_.push_back(static_cast<int64_t>(number(at + i * 8, 8)));
    zone->offset_.push_back(offset(type));
  }
  return std::is_sorted(zone->at_.begin(), zone->at_.end()) ? zone : nullptr;
}

int64_t Zone::Offset(int64_t unix_seconds) const {
  return offset_[static_cast<size_t>(std::upper_bound(at_.begin(), at_.end(), unix_seconds) - at_.begin())];
}

std::optional<int64_t> FixedOffset(std::string_view name) {
  if (name.empty() || name == "UTC") return 0;
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  auto ns = ParseDuration(std::string(name.substr(0, colon)) + "h" + std::string(name.substr(colon + 1)) + "m");
  if (!ns) return std::nullopt;
  return static_cast<int64_t>(*ns / kSecond);
}

}  // namespace weft::cel
