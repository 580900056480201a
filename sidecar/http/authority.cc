#include "sidecar/http/authority.h"

#include <arpa/inet.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace weft::http {
namespace {

// Of a reg-name, but for escapes.
constexpr auto kPlain = [] {
  std::array<bool, 256> t{};
  for (int c = 0; c < 256; ++c) t[static_cast<size_t>(c)] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  for (const char c : std::string_view("-._~!$&'()*+;=")) t[static_cast<uint8_t>(c)] = true;
  return t;
}();

bool HexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// How much of a is a reg-name: up to its end or a colon. npos: none, or one with something else in it.
size_t RegName(std::string_view a) {
  size_t i = 0;
  for (; i < a.size(); ++i) {
    if (kPlain[static_cast<uint8_t>(a[i])]) continue;
    if (a[i] != '%') break;
    if (i + 2 >= a.size() || !HexDigit(a[i + 1]) || !HexDigit(a[i + 2])) return std::string_view::npos;
    if (a[i + 1] < '2' || a.substr(i + 1, 2) == "7f" || a.substr(i + 1, 2) == "7F") return std::string_view::npos;  // an encoded control
    i += 2;
  }
  const bool ends = i == a.size() || a[i] == ':';
  return ends && i > 0 && i <= 255 ? i : std::string_view::npos;
}

bool ValidIpv6(std::string_view h) {
  char text[64];
  if (h.empty() || h.size() >= sizeof(text) || h.find('\0') != std::string_view::npos) return false;  // inet_pton would stop there
  memcpy(text, h.data(), h.size());
  text[h.size()] = 0;
  in6_addr ignored;
  return inet_pton(AF_INET6, text, &ignored) == 1;
}

}  // namespace

std::optional<HostPort> ParseAuthority(std::string_view a) {
  HostPort r;
  std::string_view rest;
  if (!a.empty() && a[0] == '[') {
    const size_t end = a.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    r.host = a.substr(1, end - 1), r.ipv6 = true;
    if (!ValidIpv6(r.host)) return std::nullopt;
    rest = a.substr(end + 1);
  } else {
    const size_t end = RegName(a);
    if (end == std::string_view::npos) return std::nullopt;
    r.host = a.substr(0, end), rest = a.substr(end);
  }
  if (rest.empty()) return r;
  if (rest[0] != ':' || rest.size() < 2 || rest.size() > 6) return std::nullopt;
  uint32_t port = 0;
  for (const char c : rest.substr(1)) {
    if (c < '0' || c > '9') return std::nullopt;
    port = port * 10 + static_cast<uint32_t>(c - '0');
  }
  if (port > 65535) return std::nullopt;
  r.port = static_cast<uint16_t>(port);
  return r;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const char x = a[i] >= 'A' && a[i] <= 'Z' ? static_cast<char>(a[i] + 32) : a[i];
    const char y = b[i] >= 'A' && b[i] <= 'Z' ? static_cast<char>(b[i] + 32) : b[i];
    if (x != y) return false;
  }
  return true;
}

}  // namespace weft::http
