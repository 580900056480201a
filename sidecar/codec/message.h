// Message rules both protocols share: characters of names and values, lengths, what makes a request head acceptable.
#pragma once

#include <cstdint>
#include <string_view>

#include "sidecar/codec/codec.h"
#include "sidecar/http/headers.h"

namespace weft::codec {

// The lower-case form of a field-name (RFC 9110 token) character; 0 for any other.
extern const uint8_t kNameChar[256];

bool ValidToken(std::string_view s);             // one or more token characters, any case
bool ValidFieldName(std::string_view lower);     // the same in lower case; pseudo-headers are not fields
bool ValidFieldValue(std::string_view value);    // no control character but HTAB; bytes from 0x80 pass
// Without SP and HTAB at both ends.
inline std::string_view TrimBlanks(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Digits only, below 2^63.
bool ParseContentLength(std::string_view value, uint64_t& length);

// "x_forwarded_for", "content_length": equals a known name once "_" is read as "-", as some servers do.
bool ShadowsKnownName(std::string_view lower_name);

// Calls f(trimmed item) for each comma-separated item, empty ones too; stops when f returns false.
template <typename F>
void ForEachListItem(std::string_view list, F&& f) {
  for (;;) {
    const size_t comma = list.find(',');
    if (!f(TrimBlanks(list.substr(0, comma))) || comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

struct Verdict {
  uint16_t status = 0;  // 0: acceptable
  const char* detail = "";
};
// Method, target, authority, scheme and tunnel form of a complete request head. Values are not changed.
// authority_is_valid: the caller has checked it already (HTTP/1's Host); never with CONNECT, whose port is read here.
Verdict CheckRequestHead(const http::HeaderMap& head, const Limits& limits, bool authority_is_valid = false);

// May the field go out at all (name and value stand in a message, not hop-by-hop, not a pseudo-header)?
bool Sendable(const http::HeaderMap::Entry& e);
// The same for a trailer: also nothing that frames, routes or authenticates.
bool SendableTrailer(const http::HeaderMap::Entry& e);

}  // namespace weft::codec
