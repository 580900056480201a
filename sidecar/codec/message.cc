#include "sidecar/codec/message.h"

#include <array>
#include <cstring>

#include "sidecar/http/authority.h"
#include "sidecar/http/path.h"

namespace weft::codec {

using http::Token;

namespace {

constexpr auto MakeNameChars() {
  std::array<uint8_t, 256> t{};
  for (int c = 0; c < 256; ++c) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) t[static_cast<size_t>(c)] = static_cast<uint8_t>(c);
    if (c >= 'A' && c <= 'Z') t[static_cast<size_t>(c)] = static_cast<uint8_t>(c + 32);
  }
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) t[static_cast<uint8_t>(c)] = static_cast<uint8_t>(c);
  return t;
}
constexpr auto kNames = MakeNameChars();

}  // namespace

// A plain array so that the header needs no <array>; copied from the computed one by the compiler.
#define WEFT_ROW4(i) kNames[i], kNames[i + 1], kNames[i + 2], kNames[i + 3]
#define WEFT_ROW16(i) WEFT_ROW4(i), WEFT_ROW4(i + 4), WEFT_ROW4(i + 8), WEFT_ROW4(i + 12)
#define WEFT_ROW64(i) WEFT_ROW16(i), WEFT_ROW16(i + 16), WEFT_ROW16(i + 32), WEFT_ROW16(i + 48)
constinit const uint8_t kNameChar[256] = {WEFT_ROW64(0), WEFT_ROW64(64), WEFT_ROW64(128), WEFT_ROW64(192)};
#undef WEFT_ROW64
#undef WEFT_ROW16
#undef WEFT_ROW4

bool ValidToken(std::string_view s) {
  for (const char c : s) {
    if (kNameChar[static_cast<uint8_t>(c)] == 0) return false;
  }
  return !s.empty();
}

bool ValidFieldName(std::string_view lower) {
  for (const char c : lower) {
    const uint8_t lowered = kNameChar[static_cast<uint8_t>(c)];
    if (lowered == 0 || lowered != static_cast<uint8_t>(c)) return false;
  }
  return !lower.empty();
}

// Sixteen bytes at a time, the last sixteen perhaps twice: a byte below 0x20 or equal to 0x7f anywhere sends us to the exact
// look. (The compilers' vectors: SSE2, NEON, or plain words.)
bool ValidFieldValue(std::string_view value) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  const char* const p = value.data();
  const size_t n = value.size();
  Bytes found{};
  const auto look = [&](const Bytes& b) { found |= reinterpret_cast<Bytes>(b < 0x20) | reinterpret_cast<Bytes>(b == 0x7f); };
  Bytes b = Bytes{} + static_cast<uint8_t>(' ');
  if (n >= 16) {
    for (size_t i = 0; i + 16 < n; i += 16) memcpy(&b, p + i, 16), look(b);
    memcpy(&b, p + n - 16, 16);
  } else if (n >= 8) {
    memcpy(&b, p, 8), memcpy(reinterpret_cast<char*>(&b) + 8, p + n - 8, 8);
  } else if (n >= 4) {
    memcpy(&b, p, 4), memcpy(reinterpret_cast<char*>(&b) + 4, p + n - 4, 4);
  } else if (n > 0) {
    const char three[3] = {p[0], p[n / 2], p[n - 1]};
    memcpy(&b, three, 3);
  }
  look(b);
  uint64_t words[2];
  memcpy(words, &found, sizeof words);
  if ((words[0] | words[1]) == 0) return true;
  for (const char ch : value) {
    const auto c = static_cast<uint8_t>(ch);
    if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
  }
  return true;
}

bool ParseContentLength(std::string_view value, uint64_t& length) {
  if (value.empty() || value.size() > 64) return false;
  length = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') return false;
    if (length > (INT64_MAX - 9) / 10) return false;
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  return true;
}

bool ShadowsKnownName(std::string_view name) {
  char dashed[64];
  if (name.size() > sizeof(dashed) || memchr(name.data(), '_', name.size()) == nullptr) return false;
  for (size_t i = 0; i < name.size(); ++i) dashed[i] = name[i] == '_' ? '-' : name[i];
  const std::string_view d(dashed, name.size());
  return http::FindToken(d) != Token::kCustom || d.starts_with("x-envoy-") || d.starts_with("x-weft-") ||
         d.starts_with("x-forwarded-") || d == "x-real-ip";
}

Verdict CheckRequestHead(const http::HeaderMap& head, const Limits& limits, bool authority_is_valid) {
  const std::string_view method = head.Value(Token::kMethod), authority = head.Value(Token::kAuthority);
  const std::string_view path = head.Value(Token::kPath), scheme = head.Value(Token::kScheme);
  const auto protocol = head.Get(Token::kProtocol);
  if (!ValidToken(method)) return {400, "http.invalid_method"};
  if (method == "TRACE" || method == "TRACK") return {405, "http.method_not_allowed"};
  if (authority.empty()) return {400, "http.missing_authority"};
  std::optional<http::HostPort> host;
  if (!authority_is_valid && !(host = http::ParseAuthority(authority))) return {400, "http.invalid_authority"};
  if (protocol) {
    if (method != "CONNECT" || !ValidToken(*protocol)) return {400, "http.invalid_protocol"};
  } else if (method == "CONNECT") {
    if (head.Has(Token::kPath) || head.Has(Token::kScheme)) return {400, "http.connect_with_path"};
    if (!host || host->port == 0) return {400, "http.connect_without_port"};
    return {};
  }
  if (path.size() > limits.max_target_bytes) return {414, "http.target_too_long"};
  if (!http::ValidTarget(path)) return {400, "http.invalid_target"};
  if (path[0] != '/' && !(path == "*" && method == "OPTIONS")) return {400, "http.invalid_target"};
  if (head.Has(Token::kScheme) && !http::EqualsIgnoreCase(scheme, "http") && !http::EqualsIgnoreCase(scheme, "https")) {
    return {400, "http.invalid_scheme"};
  }
  return {};
}

bool Sendable(const http::HeaderMap::Entry& e) {
  const Token t = e.token();
  if (t == Token::kCustom) {
    if (!ValidFieldName(e.name())) return false;
  } else if (http::TokenPolicyBits(t) & (http::kPseudo | http::kHop)) {
    return false;
  }
  return ValidFieldValue(e.value());
}

bool SendableTrailer(const http::HeaderMap::Entry& e) {
  const Token t = e.token();
  return t != Token::kHost && !(http::TokenPolicyBits(t) & http::kNoTrailer) && Sendable(e);
}

}  // namespace weft::codec
