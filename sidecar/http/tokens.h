// The header names the proxy knows, and what each may do: rules are this table, not code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weft::http {

// kCustom is any other name. Order: pseudo-headers first.
#define WEFT_HTTP_TOKENS(X)                                                                                        \
  X(kMethod, ":method", kPseudo) X(kScheme, ":scheme", kPseudo) X(kAuthority, ":authority", kPseudo)               \
  X(kPath, ":path", kPseudo) X(kProtocol, ":protocol", kPseudo) X(kStatus, ":status", kPseudo)                     \
  X(kHost, "host", 0) X(kConnection, "connection", kHop) X(kKeepAlive, "keep-alive", kHop)                         \
  X(kProxyConnection, "proxy-connection", kHop) X(kTransferEncoding, "transfer-encoding", kHop)                    \
  X(kUpgrade, "upgrade", kHop) X(kTe, "te", kHop) X(kTrailer, "trailer", 0) X(kHttp2Settings, "http2-settings", kHop) \
  X(kContentLength, "content-length", kNoTrailer) X(kContentType, "content-type", kNoTrailer)                      \
  X(kExpect, "expect", 0) X(kDate, "date", 0) X(kServer, "server", 0) X(kVia, "via", 0)                            \
  X(kUserAgent, "user-agent", 0) X(kAccept, "accept", 0) X(kAcceptEncoding, "accept-encoding", 0)                  \
  X(kCookie, "cookie", kNeverIndex | kNoTrailer) X(kSetCookie, "set-cookie", kNeverIndex | kNoTrailer)             \
  X(kAuthorization, "authorization", kNeverIndex | kNoTrailer) X(kLocation, "location", 0) X(kRetryAfter, "retry-after", 0) \
  X(kReferer, "referer", 0) X(kTraceparent, "traceparent", kNeverIndex) X(kTracestate, "tracestate", 0)                      \
  X(kXForwardedFor, "x-forwarded-for", 0) X(kXForwardedProto, "x-forwarded-proto", 0)                              \
  X(kXForwardedHost, "x-forwarded-host", 0) X(kXfcc, "x-forwarded-client-cert", 0) X(kXRequestId, "x-request-id", kNeverIndex) \
  X(kGrpcStatus, "grpc-status", 0) X(kGrpcMessage, "grpc-message", 0) X(kGrpcTimeout, "grpc-timeout", 0)           \
  X(kEnvoyOverloaded, "x-envoy-overloaded", 0) X(kEnvoyAttemptCount, "x-envoy-attempt-count", 0)                   \
  X(kEnvoyUpstreamServiceTime, "x-envoy-upstream-service-time", 0)                                                 \
  X(kEnvoyExpectedRqTimeout, "x-envoy-expected-rq-timeout-ms", 0)                                                  \
  X(kEnvoyOriginalPath, "x-envoy-original-path", 0) X(kEnvoyDecoratorOperation, "x-envoy-decorator-operation", 0)  \
  X(kWeftRequest, "x-weft-request", 0)

// kNeverIndex: secret, or different in every message, so that an HPACK table entry would never be used.
enum TokenPolicy : uint8_t { kPseudo = 1, kHop = 2, kNeverIndex = 4, kNoTrailer = 8 };

enum class Token : uint8_t {
  kCustom = 0,
#define X(id, name, policy) id,
  WEFT_HTTP_TOKENS(X)
#undef X
  kCount
};

struct TokenInfo {
  std::string_view name;
  uint8_t policy;
};
inline constexpr TokenInfo kTokens[] = {
    {"", 0},
#define X(id, name, policy) {name, policy},
    WEFT_HTTP_TOKENS(X)
#undef X
};
// HeaderMap keeps a 64-bit set of them.
static_assert(static_cast<size_t>(Token::kCount) <= 64);

Token FindToken(std::string_view lower_name);  // kCustom when unknown
inline std::string_view TokenName(Token token) { return kTokens[static_cast<size_t>(token)].name; }  // "" for kCustom
inline uint8_t TokenPolicyBits(Token token) { return kTokens[static_cast<size_t>(token)].policy; }

}  // namespace weft::http
