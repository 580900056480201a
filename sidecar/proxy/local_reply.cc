// Answers by the sidecar itself. They leave by the same way as any response, with a detail that says why.
#include "sidecar/http/status.h"
#include "sidecar/proxy/exchange.h"

namespace weft::proxy {
namespace {

// Envoy's mapping (the gRPC specification's, for answers that are not gRPC).
int HttpToGrpc(uint32_t status) {
  switch (status) {
    case 200: return 0;
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 429:
    case 502:
    case 503:
    case 504: return 14;
    default: return 2;
  }
}

// Percent-encoding of grpc-message.
std::string EncodeMessage(std::string_view s) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : s) {
    if (c >= 0x20 && c <= 0x7e && c != '%') {
      out += static_cast<char>(c);
    } else {
      out += '%', out += kHex[c >> 4], out += kHex[c & 15];
    }
  }
  return out;
}

}  // namespace

using In = codec::Inbound;
using http::Token;

void Exchange::LocalReply(uint32_t status, std::string_view detail, std::string_view body, int grpc_status) {
  record_->detail = detail;
  if (phase_ == Phase::kHead && !head_seen_) head_seen_ = true;
  wait_timer_.Cancel(), route_timer_.Cancel(), try_timer_.Cancel(), head_timer_.Cancel();
  phase_ = Phase::kReply;
  request_abandoned_ = true;
  source_ = &reply_;
  http::HeaderMap& head = reply_.head;
  head.Clear(), reply_.body.Clear(), reply_.trailers.Clear();
  reply_.bits = In::kHead | In::kEnd;
  local_status_ = status;
  if (grpc_) {
    int code = grpc_status >= 0 ? grpc_status : HttpToGrpc(status);
    head.Add(Token::kStatus, "200");
    head.Add(Token::kContentType, "application/grpc");
    head.Add(Token::kGrpcStatus, std::to_string(code));
    if (!body.empty()) head.Add(Token::kGrpcMessage, EncodeMessage(body));
  } else {
    head.Add(Token::kStatus, http::StatusText(static_cast<int>(status)));
    if (grpc_status >= 0 && status == 200) head.Add(Token::kGrpcStatus, std::to_string(grpc_status));
    if (!body.empty()) {
      head.Add(Token::kContentLength, std::to_string(body.size()));
      head.Add(Token::kContentType, "text/plain");
    }
    if (!head_request_) reply_.body.Append(body);
  }
  if (!location_.empty()) head.Add(Token::kLocation, location_);
  if (overloaded_) head.Add(Token::kEnvoyOverloaded, "true");
  // The application was not reached at all: the caller's sidecar may ask another instance, whatever the method (its route
  // has this header among the retriable ones).
  if (record_->direction == Direction::kInbound && record_->flags.Has(ResponseFlag::kUpstreamConnectionFailure) &&
      !record_->flags.Has(ResponseFlag::kUpstreamConnectionTermination) && !record_->flags.Has(ResponseFlag::kUpstreamRemoteReset)) {
    head.Add("x-weft-undelivered", "true");
  }
  if (reply_headers_) {
    for (const auto& [name, value] : *reply_headers_) head.Add(name, value);
  }
  PrepareResponseHead(head);
  SendResponseHead(head, reply_.body.empty());
}

}  // namespace weft::proxy
