// Request ids and W3C trace context.
//
//   char id[kUuidLength];
//   head.Set(Token::kXRequestId, NewUuid4(id));
//   auto parent = ParseTraceparent(head.Value(Token::kTraceparent));      // nullopt: start a new trace
//   TraceContext mine = parent ? parent->Child() : TraceContext::NewRoot();
//   char text[kTraceparentLength];
//   head.Set(Token::kTraceparent, FormatTraceparent(mine, text));
//
// tracestate is opaque here: it is forwarded as it came when the traceparent was valid, and removed when it was not.
// Threads: the generator is per thread, seeded from the kernel; ids are unique, not secret.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace weft::http {

uint64_t RandomId();  // 64 random bits, never 0

constexpr int kUuidLength = 36;
std::string_view NewUuid4(char (&out)[kUuidLength]);

constexpr int kTraceparentLength = 55;
struct TraceContext {
  uint64_t trace_hi = 0, trace_lo = 0, span_id = 0;
  uint8_t flags = 0;  // bit 0: sampled

  bool sampled() const { return flags & 1; }
  static TraceContext NewRoot(bool sampled = true) { return {RandomId(), RandomId(), RandomId(), static_cast<uint8_t>(sampled)}; }
  // The same trace with a new span id; this one's span_id is its parent.
  TraceContext Child() const { return {trace_hi, trace_lo, RandomId(), flags}; }
};

// Strict, versions 00..fe ("00" exactly 55 characters, later ones may go on after a dash), lower-case hex, ids not zero.
std::optional<TraceContext> ParseTraceparent(std::string_view value);
std::string_view FormatTraceparent(const TraceContext& c, char (&out)[kTraceparentLength]);

// 16 lower-case hex digits each.
void FormatHex64(uint64_t v, char* out);
// Exactly 16 lower-case hex digits.
bool ParseHex64(std::string_view s, uint64_t& v);

}  // namespace weft::http
