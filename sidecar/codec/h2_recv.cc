// The receiving half of the HTTP/2 codec: what nghttp2 tells us about the peer's frames.
#include <algorithm>
#include <charconv>

#include "sidecar/codec/h2_codec.h"
#include "sidecar/http/authority.h"
#include "sidecar/http/status.h"

namespace weft::codec {

using http::Token;

namespace {

constexpr uint64_t kMostStreams = 1'000'000;  // then the connection is renewed

ResetCode FromWire(uint32_t code) {
  switch (code) {
    case NGHTTP2_SETTINGS_TIMEOUT:
    case NGHTTP2_INADEQUATE_SECURITY: return ResetCode::kProtocol;
    default: return code <= 13 ? static_cast<ResetCode>(code) : ResetCode::kInternal;
  }
}

}  // namespace

void Http2Codec::OnFrameHead(const nghttp2_frame_hd* hd) {
  if (broken_) return;
  if (hd->type == NGHTTP2_PRIORITY) {
    if (hd->stream_id == 0) return Fail(NGHTTP2_PROTOCOL_ERROR, "http2.protocol_error");
    if (++priorities_ > 100 * (1 + counters_.streams)) Fail(NGHTTP2_ENHANCE_YOUR_CALM, "http2.priority_flood");
  }
  if (hd->type == NGHTTP2_HEADERS && server_) OnPastStream(hd->type, hd->stream_id);
}

// What the tap stopped at, before nghttp2 sees it.
void Http2Codec::OnSuspect(const FrameTap::Frame& f) {
  if (f.type == NGHTTP2_DATA) return OnPastStream(f.type, f.stream);
  if (f.type > NGHTTP2_CONTINUATION) {
    if (!ping_rate_.Take(Now())) Fail(NGHTTP2_ENHANCE_YOUR_CALM, "http2.unknown_frame_flood");
    return;
  }
  if (f.type == NGHTTP2_WINDOW_UPDATE && f.value > 0) return OnWindowUpdate(f);
  const bool priority = f.type == NGHTTP2_PRIORITY;
  if (!priority) *f.last = 1;  // harmless on a stream that ends here
  if (Stream* s = f.stream ? ByWire(f.stream) : nullptr) {
    Broken(s, priority ? "http2.stream_depends_on_itself" : "http2.window_update_of_zero");
  } else if (f.stream > past_.last()) {
    Fail(NGHTTP2_PROTOCOL_ERROR, "http2.protocol_error");  // an idle stream cannot be reset
  } else if (f.stream != 0) {
    Glitch();
  }
}

// More than a window can hold ends the stream (RFC 9113 6.9.1). nghttp2 would end the connection, unless the stream is gone
// when it sees the frame.
void Http2Codec::OnWindowUpdate(const FrameTap::Frame& f) {
  const int32_t window = nghttp2_session_get_stream_remote_window_size(session_, f.stream);
  if (window < 0 || f.value <= static_cast<uint32_t>(INT32_MAX - window)) return;
  Stream* s = ByWire(f.stream);
  if (!s) return;
  Broken(s, "http2.flow_control_error", ResetCode::kFlowControl);
  Pump(pending_, SIZE_MAX);
}

// HEADERS or DATA for a stream that is over or was passed over. nghttp2 ignores them, in case our RST_STREAM has not
// arrived yet; we know which streams that can be.
void Http2Codec::OnPastStream(uint8_t type, int32_t wire) {
  if (draining_ || wire == 0 || wire > past_.last() || nghttp2_session_find_stream(session_, wire) != nullptr) return;
  switch (past_.Of(wire)) {
    case PastStreams::kLate:
      return;
    case PastStreams::kSkipped:
      return Fail(NGHTTP2_PROTOCOL_ERROR, "http2.stream_id_not_rising");
    case PastStreams::kClosed:
      if (type == NGHTTP2_HEADERS) return Fail(NGHTTP2_STREAM_CLOSED, "http2.headers_on_closed_stream");
      Glitch();
      ResetPast(wire);
  }
}

// RST_STREAM for a stream that nghttp2 has forgotten, and would not send one for.
void Http2Codec::ResetPast(int32_t wire) {
  if (!settings_sent_) Pump(pending_, 1);  // they are the first frame of all
  char frame[13] = {0, 0, 4, NGHTTP2_RST_STREAM};
  for (int i = 0; i < 4; ++i) frame[5 + i] = static_cast<char>(wire >> (24 - 8 * i));
  frame[12] = NGHTTP2_STREAM_CLOSED;
  pending_.Append(std::string_view(frame, sizeof frame));
  CountReset(wire);
}

int Http2Codec::OnBeginHeaders(const nghttp2_frame* frame) {
  block_ = nullptr;
  block_fields_ = 0, block_bytes_ = 0;
  cookie_.clear();
  if (broken_) return 0;
  Stream* s;
  if (server_ && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    const int32_t wire = frame->hd.stream_id;
    past_.Opened(wire);
    if (open_ >= limits_.max_concurrent_streams) Glitch();
    Inbound* inbound = streams_.size() < limits_.max_concurrent_streams && !broken_ ? host_->OnNewStream(wire) : nullptr;
    if (!inbound) {
      nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, wire, NGHTTP2_REFUSED_STREAM);
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    s = New(wire, wire, inbound);
    ++open_;
    SetByWire(wire, s);
    // All streams alike: without this nghttp2 would finish the lowest id before it serves the next.
    const nghttp2_extpri fair{NGHTTP2_EXTPRI_DEFAULT_URGENCY, 1};
    nghttp2_session_change_extpri_stream_priority(session_, wire, &fair, 1);
    if (counters_.streams == kMostStreams && drain_ == 0) StartDrain();
  } else {
    s = ByWire(frame->hd.stream_id);
  }
  if (!s || !s->inbound || s->discard) return 0;
  block_trailers_ = s->head_received;
  rules_.Start(block_trailers_ ? BlockRules::kTrailers : server_ ? BlockRules::kRequest : BlockRules::kResponse);
  block_ = block_trailers_ ? &s->inbound->trailers : &s->inbound->head;
  block_->Clear();
  return 0;
}

int Http2Codec::OnHeader(std::string_view name, std::string_view value) {
  if (!block_ || broken_) return 0;
  block_bytes_ += name.size() + value.size() + 32;
  if (name.empty() || name[0] != ':') ++block_fields_;
  // Over the limit we go on decoding (the compression state is shared) but keep nothing more.
  if (block_bytes_ > limits_.max_header_bytes || block_fields_ > limits_.max_header_count) return 0;
  const Token t = http::FindToken(name);
  value = TrimBlanks(value);
  if (!rules_.Field(t, name, value)) return 0;
  if (t == Token::kCookie && !block_trailers_) {
    if (!cookie_.empty()) cookie_.append("; ");
    cookie_.append(value);
  } else if (t == Token::kContentLength) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, rules_.content_length()).ptr;
    block_->Add(t, {digits, static_cast<size_t>(end - digits)});
  } else if (t != Token::kCustom) {
    block_->Add(t, value);
  } else if (ShadowsKnownName(name)) {
    ++counters_.dropped_fields;
  } else {
    block_->Add(name, value);
  }
  return 0;
}

void Http2Codec::Broken(Stream* s, const char* detail, ResetCode code) {
  s->discard = true;
  if (block_ && s->inbound && (block_ == &s->inbound->head || block_ == &s->inbound->trailers)) block_ = nullptr;
  Glitch();
  ResetWire(s, code);
  MarkReset(s, code, detail);
}

void Http2Codec::Malformed(Stream* s, uint16_t status, const char* detail) {
  s->discard = true;
  if (status == 400) Glitch();
  if (!s->inbound) return;
  s->inbound->bits |= Inbound::kMalformed;
  s->inbound->error_status = status;
  s->inbound->error_detail = detail;
  List(s);
}

void Http2Codec::FinishRequest(Stream* s, bool end) {
  Inbound& in = *s->inbound;
  http::HeaderMap& head = in.head;
  in.head_bytes = block_bytes_;
  s->head_received = true;
  s->connect = head.Value(Token::kMethod) == "CONNECT";
  const bool too_large = block_bytes_ > limits_.max_header_bytes || block_fields_ > limits_.max_header_count;
  if (!too_large) rules_.EndRequest(head, limits_.allow_connect_protocol);
  if (rules_.broken()) return Broken(s, rules_.broken());
  s->expect = s->connect ? -1 : rules_.content_length();
  if (end && !FinishBody(s)) return;
  if (end) in.bits |= Inbound::kEnd;
  if (too_large) return Malformed(s, 431, "http2.headers_too_large");
  if (rules_.refused()) return Malformed(s, 400, rules_.refused());
  if (!cookie_.empty()) head.Add(Token::kCookie, cookie_);
  if (const auto host = head.Get(Token::kHost)) {
    if (!head.Has(Token::kAuthority)) {
      const std::string copy(*host);
      head.Add(Token::kAuthority, copy);
    } else if (!http::EqualsIgnoreCase(*host, head.Value(Token::kAuthority))) {
      return Malformed(s, 400, "http2.host_differs_from_authority");
    }
    head.Remove(Token::kHost);
  }
  const Verdict v = CheckRequestHead(head, limits_);
  if (v.status != 0) return Malformed(s, v.status, v.detail);
  if (const auto expect = head.Get(Token::kExpect)) {
    if (!http::EqualsIgnoreCase(*expect, "100-continue")) return Malformed(s, 417, "http2.unknown_expectation");
    if (limits_.answer_expect) head.Remove(Token::kExpect);
    if (limits_.answer_expect && !end) {
      static const uint8_t kName[] = ":status", kValue[] = "100";
      const nghttp2_nv nv{const_cast<uint8_t*>(kName), const_cast<uint8_t*>(kValue), 7, 3, NGHTTP2_NV_FLAG_NONE};
      nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, s->wire, nullptr, &nv, 1, nullptr);
    }
  }
  in.bits |= Inbound::kHead;
  List(s);
}

void Http2Codec::FinishResponse(Stream* s, bool end) {
  Inbound& in = *s->inbound;
  const int status = http::ParseStatus(in.head.Value(Token::kStatus));
  const bool too_large = block_bytes_ > limits_.max_header_bytes || block_fields_ > limits_.max_header_count;
  if (!cookie_.empty()) in.head.Add(Token::kCookie, cookie_);
  const char* wrong = rules_.broken();
  if (!wrong && too_large) wrong = "http2.response_headers_too_large";
  if (!wrong && (status == 0 || status == 101 || (status < 200 && (end || ++s->interims > 8)))) wrong = kMessagingViolation;
  if (wrong) {
    in.error_status = 502;
    return Broken(s, wrong);
  }
  if (status < 200) {
    std::swap(in.interim, in.head);
    in.bits |= Inbound::kInterim;
    List(s);
    in.head.Clear();
    return;
  }
  in.head_bytes = block_bytes_;
  s->head_received = true;
  const bool tunnel = s->connect && status < 300;
  if (tunnel || status == 204) in.head.Remove(Token::kContentLength);
  // None of these has a body, whatever length it names.
  s->expect = tunnel ? -1 : s->head_only || status == 204 || status == 304 ? 0 : rules_.content_length();
  if (end && !FinishBody(s)) return;
  in.bits |= Inbound::kHead;
  if (tunnel) {
    s->tunnel = true;
    in.bits |= Inbound::kUpgraded;
  }
  if (end) in.bits |= Inbound::kEnd;
  List(s);
}

bool Http2Codec::FinishBody(Stream* s) {
  if (s->expect < 0 || static_cast<uint64_t>(s->expect) == s->body_received) return true;
  Broken(s, kMessagingViolation);
  return false;
}

void Http2Codec::FinishTrailers(Stream* s, bool end) {
  Inbound& in = *s->inbound;
  if (rules_.broken()) return Broken(s, rules_.broken());
  if (block_bytes_ > limits_.max_header_bytes || block_fields_ > limits_.max_header_count) return Broken(s, "http2.trailers_too_large");
  if (!end) return Broken(s, kMessagingViolation);
  if (!FinishBody(s)) return;
  if (!limits_.enable_trailers) in.trailers.Clear();
  if (!in.trailers.empty()) in.bits |= Inbound::kTrailers;
  in.bits |= Inbound::kEnd;
  List(s);
}

void Http2Codec::FinishHeaders(Stream* s, bool end) {
  if (end) s->received_end = true;
  if (!s->inbound || s->discard || !block_) return;
  if (s->head_received) return FinishTrailers(s, end);
  server_ ? FinishRequest(s, end) : FinishResponse(s, end);
}

void Http2Codec::OnData(int32_t wire, std::string_view data) {
  Stream* s = ByWire(wire);
  if (!s || !s->inbound || s->discard || broken_) {
    nghttp2_session_consume_connection(session_, data.size());
    return;
  }
  s->body_received += data.size();
  const bool too_long = s->expect >= 0 && s->body_received > static_cast<uint64_t>(s->expect);
  if (too_long || !s->head_received) {
    nghttp2_session_consume_connection(session_, data.size());
    return Broken(s, kMessagingViolation);
  }
  s->unconsumed += data.size();
  held_ += data.size();
  // The connection's window opens at once: a reader that stalls must not hold up its neighbours. Its own window stays
  // shut until Consumed(), and all of them together are bounded here.
  if (held_ <= limits_.max_buffered_per_connection) {
    nghttp2_session_consume_connection(session_, data.size());
  } else {
    owed_ += data.size();
  }
  s->inbound->body.Append(data);
  s->inbound->body_bytes += data.size();
  List(s);
}

void Http2Codec::OnSettings() {
  settings_received_ = true;
  if (server_) return;
  streams_.ForEach([&](Stream* s) {
    const std::unique_ptr<http::HeaderMap> head = std::move(s->held_head);
    if (!head || !s->inbound) return;
    if (nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1) {
      MarkReset(s, ResetCode::kHttp11Required, "http2.extended_connect_not_supported");
    } else if (!Submit(s, *head, s->end && s->send.empty() && !s->trailers)) {
      MarkReset(s, ResetCode::kRefused, "http2.submit_failed");
    }
  });
}

// Frames that are legal one by one and an attack in numbers.
void Http2Codec::CountFrame(const nghttp2_frame* frame) {
  bool flood = false;
  const char* why = "";
  switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
      flood = !(frame->hd.flags & NGHTTP2_FLAG_ACK) && !settings_rate_.Take(Now()), why = "http2.settings_flood";
      break;
    case NGHTTP2_PING:
      flood = !(frame->hd.flags & NGHTTP2_FLAG_ACK) && !ping_rate_.Take(Now()), why = "http2.ping_flood";
      break;
    case NGHTTP2_RST_STREAM:
      ++counters_.rx_reset;
      flood = frame->rst_stream.error_code != NGHTTP2_REFUSED_STREAM && !resets_.Take(Now()), why = "http2.reset_flood";
      break;
    case NGHTTP2_WINDOW_UPDATE:
      flood = ++window_updates_ > 100 + 4 * counters_.streams + 10 * data_sent_, why = "http2.window_update_flood";
      break;
    case NGHTTP2_DATA: {
      Stream* s = ByWire(frame->hd.stream_id);
      if (frame->hd.length > frame->data.padlen) {
        ping_rate_.Earn(1), settings_rate_.Earn(0.1);
        if (s && s->empty_data > 0) --s->empty_data;
      } else if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        flood = s && ++s->empty_data > 50, why = "http2.empty_data_flood";
      }
      break;
    }
    default: break;
  }
  if (flood) Fail(NGHTTP2_ENHANCE_YOUR_CALM, why);
}

int Http2Codec::OnFrame(const nghttp2_frame* frame) {
  if (broken_) return 0;
  CountFrame(frame);
  if (broken_) return 0;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS: {
      Stream* s = ByWire(frame->hd.stream_id);
      if (s) FinishHeaders(s, frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
      block_ = nullptr;
      break;
    }
    case NGHTTP2_DATA: {
      if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) break;
      Stream* s = ByWire(frame->hd.stream_id);
      if (!s) break;
      s->received_end = true;
      if (s->inbound && !s->discard && FinishBody(s)) {
        s->inbound->bits |= Inbound::kEnd;
        List(s);
      }
      break;
    }
    case NGHTTP2_SETTINGS:
      if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) OnSettings();
      break;
    case NGHTTP2_PING:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && pings_ > 0) --pings_;
      break;
    case NGHTTP2_GOAWAY:
      goaway_received_ = true;
      goaway_last_ = frame->goaway.last_stream_id;
      streams_.ForEach([&](Stream* s) {
        if (s->wire != 0 || !s->inbound) return;
        MarkReset(s, ResetCode::kRefused, "http2.goaway");
        s->inbound->bits |= Inbound::kGoaway;
      });
      break;  // nghttp2 now closes the streams above goaway_last_
    default: break;
  }
  return 0;
}

void Http2Codec::OnInvalidFrame(const nghttp2_frame* frame, int) {
  if (broken_) return;
  Glitch();
  Stream* s = frame->hd.stream_id > 0 ? ByWire(frame->hd.stream_id) : nullptr;
  if (!s) return;
  s->discard = true;
  MarkReset(s, ResetCode::kProtocol, kMessagingViolation);
  block_ = nullptr;
}

void Http2Codec::OnClose(int32_t wire, uint32_t code) {
  Stream* s = ByWire(wire);
  if (!s) return;
  SetByWire(wire, nullptr);
  s->closed = true;
  s->held_head.reset();
  --open_;
  const bool complete = s->received_end && s->sent_end;
  if (complete) resets_.Earn(1);
  // A full answer stands even if the server then stops our upload (RFC 9113 8.1).
  const bool answered = !server_ && s->received_end && code == NGHTTP2_NO_ERROR;
  if (!complete && !answered) {
    // A request whose head never left cannot have been processed.
    const bool unsent = !server_ && !s->head_on_wire;
    const ResetCode reason = unsent ? ResetCode::kRefused : server_ && code == 0 ? ResetCode::kCancel : FromWire(code);
    MarkReset(s, reason, "");
  }
  s->send.Clear();
  s->end = true;
  if (!s->inbound) Delete(s);
}

}  // namespace weft::codec
