#include "sidecar/http/tokens.h"

#include <array>
#include <cstddef>
#include <cstring>

namespace weft::http {
namespace {

constexpr size_t kTokenCount = sizeof(kTokens) / sizeof(kTokens[0]);
static_assert(kTokenCount == static_cast<size_t>(Token::kCount));

constexpr uint32_t kTableSize = 256;

constexpr uint32_t Hash(std::string_view s) {
  const size_t n = s.size();
  uint32_t h = static_cast<uint32_t>(n) * 37u;
  h = h * 31u + static_cast<uint8_t>(s[0]);
  h = h * 31u + static_cast<uint8_t>(s[n - 1]);
  h = h * 31u + static_cast<uint8_t>(s[n / 2]);
  h = h * 31u + static_cast<uint8_t>(s[n * 3 / 4]);
  return (h ^ (h >> 8)) % kTableSize;
}

// Open addressing, built by the compiler: lookups touch one or two bytes of it and compare one name.
constexpr auto kTable = [] {
  std::array<uint8_t, kTableSize> t{};
  for (size_t i = 1; i < kTokenCount; ++i) {
    uint32_t h = Hash(kTokens[i].name);
    while (t[h] != 0) h = (h + 1) % kTableSize;
    t[h] = static_cast<uint8_t>(i);
  }
  return t;
}();

constexpr size_t kMaxLength = [] {
  size_t n = 0;
  for (const auto& t : kTokens) n = t.name.size() > n ? t.name.size() : n;
  return n;
}();

}  // namespace

Token FindToken(std::string_view lower_name) {
  if (lower_name.empty() || lower_name.size() > kMaxLength) return Token::kCustom;
  for (uint32_t h = Hash(lower_name);; h = (h + 1) % kTableSize) {
    const uint8_t i = kTable[h];
    if (i == 0) return Token::kCustom;
    const std::string_view name = kTokens[i].name;
    if (name.size() == lower_name.size() && memcmp(name.data(), lower_name.data(), name.size()) == 0) {
      return static_cast<Token>(i);
    }
  }
}

}  // namespace weft::http
