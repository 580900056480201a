// SPIFFE IDs: spiffe://<trust domain>/<path>, judged by the letter of the standard (SPIFFE-ID section 2).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace weft::tls {

struct SpiffeId {
  std::string_view trust_domain;  // "example.org"
  std::string_view path;          // "/ns/default/sa/cart", never empty
};

// Views into id. Refused: over 2048 bytes, no path, empty or dot segments, trailing slash, any character outside
// [a-z0-9._-] in the trust domain or [A-Za-z0-9._-] in the path (so ports, queries, percent-encoding, NUL).
std::optional<SpiffeId> ParseSpiffeId(std::string_view id);

// spiffe://<trust domain>/ns/<ns>/sa/<service>
std::string MakeSpiffeId(std::string_view trust_domain, std::string_view ns, std::string_view service);

}  // namespace weft::tls
