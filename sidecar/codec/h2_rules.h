// What makes a received HTTP/2 header block a message (RFC 9113 8.1-8.5): field by field, in their order. nghttp2 does
// not judge messages for us, because it knows only one verdict, and some broken requests deserve an answer.
//
//   BlockRules r;
//   r.Start(BlockRules::kRequest);
//   for each field: if (r.Field(token, name, value)) keep it;
//   if (r.broken()) ... RST_STREAM(PROTOCOL_ERROR); else if (r.refused()) ... 400
#pragma once

#include <cstdint>
#include <string_view>

#include "sidecar/http/headers.h"

namespace weft::codec {

// Details of stream errors, in Envoy's words.
inline constexpr char kInvalidField[] = "http2.invalid.header.field";
inline constexpr char kMessagingViolation[] = "http2.violation.of.messaging.rule";

class BlockRules {
 public:
  enum Kind : uint8_t { kRequest, kResponse, kTrailers };
  void Start(Kind kind);
  // One field. False: leave it out (the block may be broken or refused now, or the field goes no further).
  bool Field(http::Token t, std::string_view name, std::string_view value);
  // After the last field of a request: its pseudo-headers as far as they make the message malformed.
  void EndRequest(const http::HeaderMap& head, bool extended_connect);

  const char* broken() const { return broken_; }    // static text, null: well-formed so far
  const char* refused() const { return refused_; }  // static text, null: nothing to answer 400 to
  int64_t content_length() const { return length_; }  // -1: none given

 private:
  bool Break(const char* why) {
    if (!broken_) broken_ = why;
    return false;
  }
  bool Pseudo(http::Token t, std::string_view value);

  Kind kind_ = kRequest;
  bool fields_begun_ = false, host_seen_ = false;
  uint8_t pseudo_seen_ = 0;
  int64_t length_ = -1;
  const char* broken_ = nullptr;
  const char* refused_ = nullptr;
};

}  // namespace weft::codec
