// host[:port] of Host and :authority.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace weft::http {

struct HostPort {
  std::string_view host;  // IPv6 literals without their brackets
  uint16_t port = 0;      // 0: none given
  bool ipv6 = false;
};

// Strict: a non-empty host of reg-name characters (no comma, no userinfo, no escapes that are broken) or "[IPv6]", and
// a port of 0-65535 when there is a colon. nullopt otherwise.
std::optional<HostPort> ParseAuthority(std::string_view authority);
inline bool ValidAuthority(std::string_view authority) { return ParseAuthority(authority).has_value(); }

// ASCII, as host names compare.
bool EqualsIgnoreCase(std::string_view a, std::string_view b);

}  // namespace weft::http
