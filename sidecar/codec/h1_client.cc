// HTTP/1.1 towards upstream hosts.
#include <charconv>
#include <cstring>

#include "sidecar/codec/h1_codec.h"
#include "sidecar/http/authority.h"
#include "sidecar/http/status.h"

namespace weft::codec {

using http::EqualsIgnoreCase;
using http::Token;

namespace {

class Http1Client final : public Http1Codec {
 public:
  explicit Http1Client(const Limits& limits) : Http1Codec(limits, false) {}

  void SendHead(StreamId id, const http::HeaderMap& head, bool end) override;
  void Release(StreamId id) override;
  StreamId Open(Inbound* inbound) override;
  size_t OpenRoom() const override { return !inbound_ && state_ == State::kIdle && reusable_ && !draining_ && !closing_ && !eof_ ? 1 : 0; }
  int keep_alive_s() const override { return keep_alive_s_; }
  void StartDrain() override { draining_ = true; }
  bool peer_going_away() const override { return !reusable_ || closing_ || eof_; }

 private:
  bool AtEof() override;
  bool BeginMessage() override { return true; }
  bool FirstLine(std::string_view line) override;
  bool HeadDone() override;
  void MessageDone() override {}
  void SentDone() override {
    if (tunnel_ && received_end_) closing_ = true;
  }
  void BadMessage(uint16_t status, const char* detail) override;
  bool IdleByte() override;
  void KeepAlive(std::string_view value) override;

  bool reusable_ = true;
  int keep_alive_s_ = -1;
  bool head_request_ = false, upgrade_ = false, connect_ = false;
  int status_ = 0;
  char key_[kWebSocketKeyLength];
};

StreamId Http1Client::Open(Inbound* inbound) {
  if (OpenRoom() == 0) return -1;
  inbound_ = inbound;
  ++counters_.streams;
  sent_head_ = sent_end_ = received_end_ = false;
  interims_ = 0;
  framing_ = Framing::kNone;
  head_request_ = upgrade_ = connect_ = false;
  return ++id_;
}

// Bytes nobody asked for on a pooled connection must never become somebody's answer.
bool Http1Client::IdleByte() {
  if (inbound_ && sent_head_) return true;
  ++counters_.glitches;
  if (inbound_) MarkReset(ResetCode::kProtocol, "http1.response_before_request");
  return false;
}

void Http1Client::BadMessage(uint16_t, const char* detail) {
  state_ = State::kDead;
  closing_ = true, reusable_ = false;
  error_ = detail;
  if (inbound_) inbound_->error_status = 502;
  MarkReset(ResetCode::kProtocol, detail);
}

bool Http1Client::FirstLine(std::string_view line) {
  // HTTP/1.x SP 3DIGIT [SP reason]
  if (line.size() < 12 || memcmp(line.data(), "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ' ||
      (line.size() > 12 && line[12] != ' ') || !ValidFieldValue(line)) {
    return Bad(502, "http1.invalid_status_line");
  }
  status_ = http::ParseStatus(line.substr(9, 3));
  if (status_ == 0) return Bad(502, "http1.invalid_status");
  info_.http10 = line[7] == '0';
  inbound_->head.Clear();
  inbound_->head.Add(Token::kStatus, http::StatusText(status_));
  return true;
}

bool Http1Client::HeadDone() {
  http::HeaderMap& head = inbound_->head;
  if (status_ < 200 && status_ != 101) {
    if (++interims_ > 8) return Bad(502, "http1.too_many_interim_responses");
    if (info_.chunked || info_.has_length) return Bad(502, "http1.interim_response_with_body");
    std::swap(inbound_->interim, head);
    inbound_->bits |= Inbound::kInterim;
    List();
    head.Clear();
    StartHead();
    state_ = State::kFirstLine;
    return true;
  }
  if (status_ == 101) {
    char accept[kWebSocketAcceptLength];
    if (!upgrade_) return Bad(502, "http1.unexpected_101");
    if (!info_.upgrade_websocket || !info_.connection_upgrade || websocket_ != WebSocketAccept({key_, sizeof(key_)}, accept)) {
      return Bad(502, "http1.invalid_websocket_handshake");
    }
    head.Set(Token::kStatus, "200");
  } else if (upgrade_ && status_ < 300) {
    return Bad(502, "http1.upgrade_ignored");
  }
  if (status_ == 101 || (connect_ && status_ < 300)) {
    head.Remove(Token::kContentLength);
    tunnel_ = true;
    reusable_ = false;
    inbound_->bits |= Inbound::kHead | Inbound::kUpgraded;
    state_ = State::kTunnel;
    List();
    writable_.push_back(inbound_);
    return true;
  }
  if (info_.connection_close || (info_.http10 && !info_.connection_keep_alive) || upgrade_ || connect_) reusable_ = false;
  inbound_->bits |= Inbound::kHead;
  List();
  if (status_ == 204 || status_ == 304) {
    if (info_.chunked || (info_.has_length && status_ == 204)) reusable_ = false;
    head.Remove(Token::kContentLength);
    EndMessage();
  } else if (head_request_) {
    EndMessage();
  } else if (info_.chunked) {
    state_ = State::kChunkSize;
    fields_ = 0, head_bytes_ = 0;
  } else if (info_.has_length) {
    left_ = info_.length;
    state_ = State::kLength;
    if (left_ == 0) EndMessage();
  } else {
    reusable_ = false;
    state_ = State::kUntilEof;
  }
  return true;
}

// "timeout=5, max=100". What is not understood says nothing.
void Http1Client::KeepAlive(std::string_view value) {
  constexpr std::string_view kTimeout = "timeout=";
  ForEachListItem(value, [&](std::string_view item) {
    if (item.size() <= kTimeout.size() || !EqualsIgnoreCase(item.substr(0, kTimeout.size()), kTimeout)) return true;
    const char* end = item.data() + item.size();
    uint16_t seconds = 0;
    auto [at, error] = std::from_chars(item.data() + kTimeout.size(), end, seconds);
    if (error == std::errc() && at == end) keep_alive_s_ = seconds;
    return true;
  });
}

void Http1Client::SendHead(StreamId id, const http::HeaderMap& head, bool end) {
  if (id != id_ || !inbound_ || sent_head_) return;
  const std::string_view method = head.Value(Token::kMethod), path = head.Value(Token::kPath);
  const std::string_view authority = head.Value(Token::kAuthority);
  const bool tunnel = method == "CONNECT";
  upgrade_ = tunnel && head.Has(Token::kProtocol);
  connect_ = tunnel && !upgrade_;
  head_request_ = method == "HEAD";
  const std::string_view target = connect_ ? authority : path;
  bool clean = ValidToken(method) && !target.empty();
  for (const char c : target) clean &= static_cast<uint8_t>(c) > 0x20 && c != 0x7f;
  if (!clean || !ValidFieldValue(authority) || (upgrade_ && head.Value(Token::kProtocol) != "websocket")) {
    Bad(502, "http1.unsendable_request");
    return;
  }
  sent_head_ = true;
  Put(upgrade_ ? std::string_view("GET") : method);
  Put(" ");
  Put(target);
  BeginPut(head);
  Put(" HTTP/1.1\r\n"), PutName("host"), Put(": ");
  Put(authority);
  Put("\r\n");
  PutFields(head);
  if (upgrade_) {
    PutName("connection"), Put(": upgrade\r\n"), PutName("upgrade"), Put(": websocket\r\n"), PutName("sec-websocket-key"), Put(": ");
    Put(NewWebSocketKey(key_)), Put("\r\n");
    if (!head.Get("sec-websocket-version")) PutName("sec-websocket-version"), Put(": 13\r\n");
    Put("\r\n");
    framing_ = Framing::kTunnel;
    return Flush();
  }
  if (connect_) {
    framing_ = Framing::kTunnel;
    Put("\r\n");
    return Flush();
  }
  uint64_t length = 0;
  const auto given = head.Get(Token::kContentLength);
  const bool has_length = given && ParseContentLength(*given, length);
  if (has_length || (end && (method == "POST" || method == "PUT" || method == "PATCH"))) {
    framing_ = Framing::kLength;
    send_left_ = length;
    PutName("content-length"), Put(": "), PutNumber(length, 10), Put("\r\n");
  } else if (!end) {
    framing_ = Framing::kChunked;
    PutName("transfer-encoding"), Put(": chunked\r\n");
  }
  Put("\r\n");
  Flush();
  if (end && framing_ == Framing::kLength && send_left_ > 0) return Broken("http1.body_shorter_than_content_length");
  if (end) EndSending();
}

void Http1Client::Release(StreamId id) {
  if (id != id_ || !inbound_) return;
  Forget();
  if (state_ == State::kDone && sent_end_ && reusable_ && !tunnel_ && !draining_ && !eof_) {
    state_ = State::kIdle;
  } else {
    closing_ = true, reusable_ = false;
    state_ = State::kDead;
  }
}

bool Http1Client::AtEof() {
  reusable_ = false;
  switch (state_) {
    case State::kUntilEof: EndMessage(); return false;
    case State::kTunnel:
      state_ = State::kDone;
      received_end_ = true;
      if (inbound_) inbound_->bits |= Inbound::kEnd, List();
      if (sent_end_) closing_ = true;
      return !closing_;
    case State::kIdle: MarkReset(ResetCode::kConnectionLost, "http1.connection_closed_before_response"); break;
    case State::kDone:
    case State::kDead: break;
    default: MarkReset(ResetCode::kTruncated, "http1.response_truncated"); break;
  }
  closing_ = true;
  return false;
}

}  // namespace

std::unique_ptr<Codec> NewHttp1Client(const Limits& limits) { return std::make_unique<Http1Client>(limits); }

}  // namespace weft::codec
