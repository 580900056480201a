#include "sidecar/http/authority.h"

#include <arpa/inet.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace weft::http {
namespace {

constexpr auto kRegNameChars = [] {
  std::array<bool, 256> t{};
  for (int c = 0; c < 256; ++c) t[static_cast<size_t>(c)] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  for (const char c : std::string_view("-._~!$&'()*+;=%")) t[static_cast<uint8_t>(c)] = true;
  return t;
}();
bool RegNameChar(char c) { return kRegNameChars[static_cast<uint8_t>(c)]; }

bool HexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool ValidRegName(std::string_view h) {
  if (h.empty() || h.size() > 255) return false;
  for (size_t i = 0; i < h.size(); ++i) {
    if (!RegNameChar(h[i])) return false;
    if (h[i] == '%') {
      if (i + 2 >= h.size() || !HexDigit(h[i + 1]) || !HexDigit(h[i + 2])) return false;
      if (h[i + 1] < '2' || h.substr(i + 1, 2) == "7f" || h.substr(i + 1, 2) == "7F") return false;  // an encoded control
      i += 2;
    }
  }
  return true;
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
    const size_t colon = a.find(':');
    r.host = a.substr(0, colon);
    if (!ValidRegName(r.host)) return std::nullopt;
    rest = colon == std::string_view::npos ? std::string_view() : a.substr(colon);
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
