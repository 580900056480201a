// HTTP/1.1 towards clients.
#include <cstring>

#include "sidecar/codec/h1_codec.h"
#include "sidecar/http/authority.h"
#include "sidecar/http/status.h"

namespace weft::codec {

using http::EqualsIgnoreCase;
using http::Token;

namespace {

class Http1Server final : public Http1Codec {
 public:
  Http1Server(const Limits& limits, StreamHost* host) : Http1Codec(limits, true), host_(host) {}

  void SendHead(StreamId id, const http::HeaderMap& head, bool end) override;
  void Release(StreamId id) override;
  StreamId Open(Inbound*) override { return -1; }
  size_t OpenRoom() const override { return 0; }
  void StartDrain() override { draining_ = true; }
  bool peer_going_away() const override { return closing_ || eof_ || close_after_; }

  bool Rests() const {
    return state_ == State::kIdle && !inbound_ && tx_.empty() && input_left_ == 0 && empty_lines_ == 0 && !closing_ && !eof_ && !draining_ &&
           !close_after_ && ready_.empty() && writable_.empty();
  }
  void Lend(const Limits& limits, StreamHost* host) { limits_ = limits, host_ = host, id_ = 0, counters_ = {}, error_ = ""; }

 private:
  bool AtEof() override;
  bool BeginMessage() override;
  bool FirstLine(std::string_view line) override;
  bool HeadDone() override;
  void MessageDone() override {
    if (!inbound_ && sent_end_) Next();
  }
  void SentDone() override;
  void BadMessage(uint16_t status, const char* detail) override;
  bool IdleByte() override { return !close_after_; }
  bool Target(std::string_view method, std::string_view target);
  void Next();

  StreamHost* host_;
  bool close_after_ = false;  // no request after the current one
  bool head_request_ = false, upgrade_ = false, connect_ = false, http10_ = false;
};

bool Http1Server::BeginMessage() {
  sent_head_ = sent_end_ = false;
  framing_ = Framing::kNone;
  head_request_ = upgrade_ = connect_ = http10_ = false;
  ++counters_.streams;
  inbound_ = host_->OnNewStream(++id_);
  if (inbound_) return true;
  tx_.Append("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  closing_ = true;
  state_ = State::kDead;
  return false;
}

void Http1Server::BadMessage(uint16_t status, const char* detail) {
  state_ = State::kDead;
  close_after_ = true;
  error_ = detail;
  if (!inbound_) {  // while a body is thrown away
    closing_ = true;
    return;
  }
  inbound_->bits |= Inbound::kMalformed;
  inbound_->error_status = status;
  inbound_->error_detail = detail;
  List();
}

// The request target, in one of its four forms.
bool Http1Server::Target(std::string_view method, std::string_view target) {
  http::HeaderMap& head = inbound_->head;
  if (method == "CONNECT") {
    connect_ = true;
    head.Add(Token::kAuthority, target);
    return true;
  }
  head.Add(Token::kAuthority, "");  // filled when Host has been read; pseudo-headers stay in front
  if (target[0] == '/' || target == "*") {
    head.Add(Token::kPath, target);
    return true;
  }
  const size_t colon = target.find("://");
  if (colon == std::string_view::npos) return Bad(400, "http1.invalid_target");
  const std::string_view scheme = target.substr(0, colon);
  if (!EqualsIgnoreCase(scheme, "http") && !EqualsIgnoreCase(scheme, "https")) return Bad(400, "http1.invalid_scheme");
  target.remove_prefix(colon + 3);
  const size_t end = target.find_first_of("/?#");
  const std::string_view authority = target.substr(0, end);
  if (authority.empty()) return Bad(400, "http1.invalid_authority");
  info_.absolute = true;
  head.Set(Token::kAuthority, authority);
  const std::string_view path = end == std::string_view::npos ? std::string_view() : target.substr(end);
  if (path.empty()) {
    head.Add(Token::kPath, method == "OPTIONS" ? "*" : "/");
  } else if (path[0] == '/') {
    head.Add(Token::kPath, path);
  } else {
    head.Add(Token::kPath, std::string("/").append(path));
  }
  return true;
}

bool Http1Server::FirstLine(std::string_view line) {
  if (!ValidFieldValue(line)) return Bad(400, "http1.invalid_request_line");  // before any of it is stored
  const size_t a = line.find(' ');
  const size_t b = a == std::string_view::npos ? a : line.find(' ', a + 1);
  if (b == std::string_view::npos) return Bad(400, "http1.invalid_request_line");
  const std::string_view method = line.substr(0, a), target = line.substr(a + 1, b - a - 1), version = line.substr(b + 1);
  if (!ValidToken(method) || target.empty()) return Bad(400, "http1.invalid_request_line");
  if (version.size() != 8 || memcmp(version.data(), "HTTP/", 5) != 0 || version[6] != '.' || version[5] < '0' || version[5] > '9' ||
      version[7] < '0' || version[7] > '9') {
    return Bad(400, "http1.invalid_version");
  }
  if (method == "PRI") return Bad(400, "http1.http2_preface");
  if (version[5] != '1') return Bad(version[5] == '0' ? 400 : 505, "http1.unsupported_version");
  if (version[7] == '0') {
    if (!limits_.accept_http_10) return Bad(426, "http1.http10_not_accepted");
    info_.http10 = http10_ = true;
  }
  if (target.size() > limits_.max_target_bytes) return Bad(414, "http1.target_too_long");
  head_request_ = method == "HEAD";
  inbound_->head.Add(Token::kMethod, method);
  return Target(method, target);
}

bool Http1Server::HeadDone() {
  http::HeaderMap& head = inbound_->head;
  if (!info_.has_host && info_.http10 && !info_.absolute) authority_.assign("localhost");
  if (!info_.has_host && !info_.http10) return Bad(400, "http1.missing_host");
  if (info_.has_host && !http::ValidAuthority(authority_)) return Bad(400, "http1.invalid_host");
  const bool from_host = !info_.absolute && !connect_;
  if (from_host) head.Set(Token::kAuthority, authority_);
  if (info_.connection_close || (info_.http10 && !info_.connection_keep_alive)) close_after_ = true;
  const Verdict v = CheckRequestHead(head, limits_, from_host);
  if (v.status != 0) return Bad(v.status, v.detail);

  upgrade_ = info_.upgrade_websocket && info_.connection_upgrade && !info_.http10 && !connect_ && head.Value(Token::kMethod) == "GET";
  if (upgrade_) {
    if (!ValidWebSocketKey(websocket_)) return Bad(400, "http1.invalid_websocket_key");
    head.Set(Token::kMethod, "CONNECT");
    head.Add(Token::kProtocol, "websocket");
  }
  if (upgrade_ || connect_) {
    if (info_.chunked || (info_.has_length && info_.length > 0)) return Bad(400, "http1.tunnel_with_body");
    head.Remove(Token::kContentLength);
    head.Remove(Token::kExpect);
    framing_ = Framing::kTunnel;
    state_ = State::kHold;
    inbound_->bits |= Inbound::kHead;
    List();
    return true;
  }
  const bool has_body = info_.chunked || info_.length > 0;
  if (const auto expect = head.Get(Token::kExpect)) {
    if (!EqualsIgnoreCase(*expect, "100-continue")) return Bad(417, "http1.unknown_expectation");
    if (limits_.answer_expect) head.Remove(Token::kExpect);
    if (limits_.answer_expect && has_body && !info_.http10) tx_.Append("HTTP/1.1 100 Continue\r\n\r\n");
  }
  inbound_->bits |= Inbound::kHead;
  List();
  if (!has_body) {
    EndMessage();
  } else if (info_.chunked) {
    state_ = State::kChunkSize;
    fields_ = 0, head_bytes_ = 0;
  } else {
    state_ = State::kLength;
    left_ = info_.length;
  }
  return true;
}

void Http1Server::SendHead(StreamId id, const http::HeaderMap& head, bool end) {
  if (id != id_ || !inbound_ || sent_head_) return;
  const int status = http::ParseStatus(head.Value(Token::kStatus));
  if (status == 0) return Broken("http1.invalid_status");
  const bool interim = status < 200;
  if (interim && (http10_ || status == 101)) return;
  const bool tunnel = (upgrade_ || connect_) && status >= 200 && status < 300;
  Put("HTTP/1.1 ");
  const int shown = tunnel && upgrade_ ? 101 : status;
  Put(http::StatusText(shown));
  Put(" ");
  Put(http::ReasonPhrase(shown));
  Put("\r\n");
  BeginPut(head);
  PutFields(head);
  if (interim) {
    Put("\r\n");
    return Flush();
  }
  sent_head_ = true;
  if ((upgrade_ || connect_) && !tunnel) close_after_ = true;  // bytes meant for the tunnel may follow
  if (draining_) close_after_ = true;
  if (tunnel) {
    if (upgrade_) {
      char accept[kWebSocketAcceptLength];
      PutName("connection"), Put(": upgrade\r\n"), PutName("upgrade"), Put(": websocket\r\n"), PutName("sec-websocket-accept"), Put(": ");
      Put(WebSocketAccept(websocket_, accept));
      Put("\r\n");
    }
    Put("\r\n");
    Flush();
    tunnel_ = true;
    framing_ = Framing::kTunnel;
    state_ = State::kTunnel;
    if (eof_ && input_left_ == 0) AtEof();
    if (end) EndSending();
    return;
  }

  uint64_t length = 0;
  const auto given = head.Get(Token::kContentLength);
  const bool has_length = given && ParseContentLength(*given, length);
  const bool no_content = status == 204 || status == 304;
  bool cut = false;
  if (no_content) {
    framing_ = Framing::kNone;
  } else if (head_request_) {
    framing_ = Framing::kNone;
    if (has_length) PutName("content-length"), Put(": "), PutNumber(length, 10), Put("\r\n");
  } else if (has_length || end) {
    framing_ = Framing::kLength;
    send_left_ = length;
    PutName("content-length"), Put(": "), PutNumber(length, 10), Put("\r\n");
    cut = end && length > 0;
  } else if (!http10_) {
    framing_ = Framing::kChunked;
    PutName("transfer-encoding"), Put(": chunked\r\n");
  } else {
    framing_ = Framing::kUntilEof;
    close_after_ = true;
  }
  if (close_after_) {
    PutName("connection"), Put(": close\r\n");
  } else if (http10_) {
    PutName("connection"), Put(": keep-alive\r\n");
  }
  Put("\r\n");
  Flush();
  if (cut) return Broken("http1.body_shorter_than_content_length");
  if (end) EndSending();
}

void Http1Server::SentDone() {
  if (tunnel_ && received_end_) closing_ = true;
  if (!inbound_) Next();
}

// The stream is released and its answer complete.
void Http1Server::Next() {
  if (close_after_ || tunnel_) {
    closing_ = true;
    state_ = State::kDead;
  } else if (state_ == State::kDone) {
    state_ = State::kIdle;
    if (eof_ && input_left_ == 0) closing_ = true;
  } else if (state_ == State::kFirstLine || state_ == State::kFields) {
    closing_ = true;  // answered before its head was complete
    state_ = State::kDead;
  } else if (state_ != State::kDead) {
    discard_ = true;  // the rest of the request, within bounds; MessageDone() then makes room for the next
  }
}

void Http1Server::Release(StreamId id) {
  if (id != id_ || !inbound_) return;
  Forget();
  if (sent_end_) return Next();
  closing_ = true;  // half an answer
  state_ = State::kDead;
}

bool Http1Server::AtEof() {
  switch (state_) {
    case State::kIdle:
    case State::kIdleCr: closing_ = true; return false;
    case State::kDone: return inbound_ != nullptr;
    case State::kHold: return true;  // SendHead decides
    case State::kTunnel:
      state_ = State::kDone;
      received_end_ = true;
      if (inbound_) inbound_->bits |= Inbound::kEnd, List();
      if (sent_end_) closing_ = true;
      return !closing_;
    case State::kDead: return inbound_ != nullptr && !closing_;
    default:
      MarkReset(ResetCode::kTruncated, "http1.request_truncated");
      closing_ = true;
      state_ = State::kDead;
      return false;
  }
}

}  // namespace

bool Http1ServerRests(const Codec& codec) { return static_cast<const Http1Server&>(codec).Rests(); }
void LendHttp1Server(Codec& codec, const Limits& limits, StreamHost* host) { static_cast<Http1Server&>(codec).Lend(limits, host); }

std::unique_ptr<Codec> NewHttp1Server(const Limits& limits, StreamHost* host) {
  return std::make_unique<Http1Server>(limits, host);
}

}  // namespace weft::codec
