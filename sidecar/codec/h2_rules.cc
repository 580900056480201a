#include "sidecar/codec/h2_rules.h"

#include "sidecar/codec/message.h"

namespace weft::codec {

using http::Token;

void BlockRules::Start(Kind kind) {
  *this = BlockRules();
  kind_ = kind;
}

bool BlockRules::Pseudo(Token t, std::string_view value) {
  static_assert(static_cast<int>(Token::kStatus) < 8, "pseudo-headers come first among the tokens");
  if (fields_begun_ || kind_ == kTrailers || t == Token::kCustom) return Break(kInvalidField);
  if ((t == Token::kStatus) != (kind_ == kResponse)) return Break(kInvalidField);
  const auto bit = static_cast<uint8_t>(1u << static_cast<int>(t));
  if (pseudo_seen_ & bit) return Break(kInvalidField);
  pseudo_seen_ |= bit;
  return ValidFieldValue(value) || Break(kInvalidField);
}

bool BlockRules::Field(Token t, std::string_view name, std::string_view value) {
  if (!name.empty() && name[0] == ':') return Pseudo(t, value);
  fields_begun_ = true;
  if (t == Token::kCustom && !ValidFieldName(name)) return Break(kInvalidField);
  if (!ValidFieldValue(value)) return Break(kInvalidField);
  switch (t) {
    case Token::kConnection:
    case Token::kKeepAlive:
    case Token::kProxyConnection:
    case Token::kTransferEncoding:
    case Token::kUpgrade:
      return Break(kInvalidField);
    case Token::kTe:
      return kind_ == kRequest ? value == "trailers" || Break(kInvalidField) : false;
    case Token::kContentLength: {
      uint64_t length = 0;
      if (kind_ == kTrailers || length_ >= 0 || !ParseContentLength(value, length)) return Break(kInvalidField);
      length_ = static_cast<int64_t>(length);
      return true;
    }
    case Token::kHost:
      if (kind_ == kTrailers) return Break(kInvalidField);
      if (host_seen_) refused_ = "http2.several_hosts";
      host_seen_ = true;
      return true;
    default:
      return !(http::TokenPolicyBits(t) & (kind_ == kTrailers ? http::kHop | http::kNoTrailer : http::kHop));
  }
}

void BlockRules::EndRequest(const http::HeaderMap& head, bool extended_connect) {
  const auto method = head.Get(Token::kMethod);
  if (!method) return void(Break(kMessagingViolation));
  if (!ValidToken(*method)) return void(Break(kInvalidField));
  const bool protocol = head.Has(Token::kProtocol);
  if (protocol && !extended_connect) return void(Break(kMessagingViolation));
  if (*method == "CONNECT" && !protocol) return;
  const auto path = head.Get(Token::kPath);
  if (!path || !head.Has(Token::kScheme)) return void(Break(kMessagingViolation));
  if (path->empty() || ((*path)[0] != '/' && *path != "*") || path->find(' ') != std::string_view::npos) Break(kInvalidField);
}

}  // namespace weft::codec
