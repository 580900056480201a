// Cat("port ", 80, " of ", name): joins strings, characters, numbers and booleans into one string.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace weft::base {

inline void AppendPiece(std::string& out, std::string_view s) { out.append(s); }
template <typename T>
  requires std::is_arithmetic_v<T>
inline void AppendPiece(std::string& out, T v) {
  if constexpr (std::is_same_v<T, bool>) {
    out.append(v ? "true" : "false");
  } else if constexpr (std::is_same_v<T, char>) {
    out.push_back(v);
  } else {
    char buf[32];
    auto r = std::to_chars(buf, buf + sizeof buf, v);
    out.append(buf, r.ptr);
  }
}

template <typename... Args>
void CatTo(std::string& out, const Args&... args) {
  (AppendPiece(out, args), ...);
}
template <typename... Args>
std::string Cat(const Args&... args) {
  std::string out;
  CatTo(out, args...);
  return out;
}

// Lower-case hexadecimal of bytes.
inline std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (unsigned char c : bytes) out.push_back(kDigits[c >> 4]), out.push_back(kDigits[c & 15]);
  return out;
}

}  // namespace weft::base
