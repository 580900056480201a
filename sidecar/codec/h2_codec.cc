#include "sidecar/codec/h2_codec.h"

#include <ctime>

#include <algorithm>

#include "sidecar/base/check.h"
#include "sidecar/codec/h2_memory.h"
#include "sidecar/http/status.h"

namespace weft::codec {

using http::Token;

namespace {

constexpr size_t kEmitAtOnce = 256 * 1024;
constexpr size_t kPumpWhileFeeding = 16 * 1024;
constexpr size_t kSpareStreams = 64;  // kept for reuse, about 15 KiB

// nghttp2 copies the value, and the name unless it is one of ours, which are static text; the casts only satisfy its C types.
nghttp2_nv Nv(const http::HeaderMap::Entry& e, std::string_view value, bool never_index) {
  const std::string_view name = e.name();
  const int flags = (never_index ? NGHTTP2_NV_FLAG_NO_INDEX : 0) | (e.token() != Token::kCustom ? NGHTTP2_NV_FLAG_NO_COPY_NAME : 0);
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())), reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())),
          name.size(), value.size(), static_cast<uint8_t>(flags)};
}

}  // namespace

// The one place where C calls us.
struct H2Callbacks {
  static Http2Codec* Self(void* user) { return static_cast<Http2Codec*>(user); }

  static nghttp2_session_callbacks* Make() {
    nghttp2_session_callbacks* c = nullptr;
    WEFT_CHECK(nghttp2_session_callbacks_new(&c) == 0, "out of memory");
    nghttp2_session_callbacks_set_on_begin_headers_callback(
        c, [](nghttp2_session*, const nghttp2_frame* f, void* u) { return Self(u)->OnBeginHeaders(f); });
    nghttp2_session_callbacks_set_on_header_callback(
        c, [](nghttp2_session*, const nghttp2_frame*, const uint8_t* n, size_t nl, const uint8_t* v, size_t vl, uint8_t, void* u) {
          return Self(u)->OnHeader({reinterpret_cast<const char*>(n), nl}, {reinterpret_cast<const char*>(v), vl});
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        c, [](nghttp2_session*, const nghttp2_frame* f, void* u) { return Self(u)->OnFrame(f); });
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, [](nghttp2_session*, const nghttp2_frame* f, int code, void* u) {
      Self(u)->OnInvalidFrame(f, code);
      return 0;
    });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        c, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* d, size_t n, void* u) {
          Self(u)->OnData(id, {reinterpret_cast<const char*>(d), n});
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(c, [](nghttp2_session*, int32_t id, uint32_t code, void* u) {
      Self(u)->OnClose(id, code);
      return 0;
    });
    nghttp2_session_callbacks_set_on_frame_send_callback(c, [](nghttp2_session*, const nghttp2_frame* f, void* u) {
      Self(u)->OnFrameSent(f);
      return 0;
    });
    nghttp2_session_callbacks_set_send_data_callback(
        c, [](nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t n, nghttp2_data_source* source, void* u) {
          return Self(u)->SendData(static_cast<Http2Codec::Stream*>(source->ptr), head, n);
        });
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, [](nghttp2_session*, const nghttp2_frame_hd* hd, void* u) {
      Self(u)->OnFrameHead(hd);
      return 0;
    });
    return c;
  }

  static ssize_t ReadData(nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags, nghttp2_data_source* source, void* u) {
    return Self(u)->ReadData(static_cast<Http2Codec::Stream*>(source->ptr), length, flags);
  }
};

bool Http2Codec::Bucket::Take(uint64_t now_ns) {
  if (last != 0 && now_ns > last) tokens = std::min(burst, tokens + static_cast<double>(now_ns - last) * 1e-9 * rate);
  last = now_ns;
  if (tokens < 1) return false;
  tokens -= 1;
  return true;
}

Http2Codec::Http2Codec(const Limits& limits, StreamHost* host, base::Clock* clock, bool server)
    : limits_(limits), host_(host), clock_(clock), server_(server), tap_(server) {
  static nghttp2_session_callbacks* const callbacks = H2Callbacks::Make();
  static nghttp2_option* const option = [] {
    nghttp2_option* o = nullptr;
    WEFT_CHECK(nghttp2_option_new(&o) == 0, "out of memory");
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_http_messaging(o, 1);  // h2_rules.h judges
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, 1000);
    nghttp2_option_set_max_continuations(o, 10);
    nghttp2_option_set_stream_reset_rate_limit(o, UINT32_MAX, UINT32_MAX);  // ours come first
    nghttp2_option_set_glitch_rate_limit(o, UINT32_MAX, UINT32_MAX);
    return o;
  }();
  const int rc = server ? nghttp2_session_server_new3(&session_, callbacks, this, option, Http2Memory())
                        : nghttp2_session_client_new3(&session_, callbacks, this, option, Http2Memory());
  WEFT_CHECK(rc == 0, "nghttp2 session: ", nghttp2_strerror(rc));

  nghttp2_settings_entry settings[6];
  size_t n = 0;
  settings[n++] = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits.stream_window};
  settings[n++] = {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.max_header_bytes};
  if (server) {
    settings[n++] = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_INITIAL_MAX_CONCURRENT_STREAMS};  // AdvertisedSettings
    settings[n++] = {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
    if (limits.allow_connect_protocol) settings[n++] = {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
  } else {
    settings[n++] = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  }
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, n);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(limits.connection_window));
}

Http2Codec::~Http2Codec() {
  nghttp2_session_del(session_);  // calls nothing back
  streams_.ForEach([](Stream* s) { delete s; });
  for (Stream* s : spare_) delete s;
}

uint64_t Http2Codec::Now() const {
  if (clock_) return clock_->MonotonicNs();
  timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return static_cast<uint64_t>(t.tv_sec) * base::kSecond + static_cast<uint64_t>(t.tv_nsec);
}

// ---------------------------------------------------------------- streams

// Callbacks come in rows for the same stream.
Http2Codec::Stream* Http2Codec::ByWire(int32_t wire) {
  if (wire == last_wire_) return last_;
  auto* s = static_cast<Stream*>(nghttp2_session_get_stream_user_data(session_, wire));
  if (s) last_wire_ = wire, last_ = s;  // what is not there may come: nghttp2 opens a submitted stream when it sends its head
  return s;
}

void Http2Codec::SetByWire(int32_t wire, Stream* s) {
  nghttp2_session_set_stream_user_data(session_, wire, s);
  last_wire_ = s ? wire : 0, last_ = s;
}

Http2Codec::Stream* Http2Codec::New(StreamId id, int32_t wire, Inbound* inbound) {
  Stream* s;
  if (spare_.empty()) {
    s = new Stream;
  } else {
    s = spare_.back();
    spare_.pop_back();
  }
  s->id = id, s->wire = wire, s->inbound = inbound;
  streams_.Insert(s);
  ++counters_.streams;
  return s;
}

void Http2Codec::Delete(Stream* s) {
  streams_.Erase(s->id);
  if (spare_.size() < kSpareStreams) {
    s->Reuse();
    spare_.push_back(s);
  } else {
    delete s;
  }
}

void Http2Codec::List(Stream* s) {
  if (!s->inbound) return;
  for (size_t i = ready_.size(), n = 0; i > 0 && n < 4; --i, ++n) {
    if (ready_[i - 1] == s->inbound) return;  // the usual repeat; a rare double entry is harmless
  }
  ready_.push_back(s->inbound);
}

void Http2Codec::ListWritable(Stream* s) {
  if (s->inbound) writable_.push_back(s->inbound);
}

// The owner lets go: the codec must not touch the Inbound any more, and its credit goes back to the connection.
void Http2Codec::Detach(Stream* s) {
  if (!s->inbound) return;
  std::erase(ready_, s->inbound);
  std::erase(writable_, s->inbound);
  if (block_ == &s->inbound->head || block_ == &s->inbound->trailers) block_ = nullptr;
  s->inbound = nullptr;
  GiveBack(s->unconsumed);
  s->unconsumed = 0;
}

void Http2Codec::GiveBack(size_t n) {
  held_ -= n;
  const size_t pay = std::min(n, owed_);
  owed_ -= pay;
  if (pay > 0) nghttp2_session_consume_connection(session_, pay);
}

void Http2Codec::MarkReset(Stream* s, ResetCode code, const char* detail) {
  s->send.Clear();
  s->end = true;
  if (!s->inbound || (s->inbound->bits & Inbound::kReset)) return;
  s->inbound->bits |= Inbound::kReset;
  s->inbound->reset = code;
  if (*detail) s->inbound->error_detail = detail;
  if (!server_ && goaway_received_ && s->wire > goaway_last_) s->inbound->bits |= Inbound::kGoaway;
  List(s);
}

void Http2Codec::ResetWire(Stream* s, ResetCode code) {
  if (s->closed || s->wire == 0) return;
  if (!s->inbound) s->own_reset = true;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s->wire, static_cast<uint32_t>(code));
}

void Http2Codec::Fail(uint32_t code, const char* why) {
  if (broken_) return;
  broken_ = true;
  error_ = why;
  if (code == NGHTTP2_ENHANCE_YOUR_CALM) ++counters_.flood_errors; else ++counters_.protocol_errors;
  nghttp2_session_terminate_session(session_, code);
}

void Http2Codec::Glitch() {
  ++counters_.glitches;
  if (counters_.glitches == 75 && server_ && drain_ == 0) StartDrain();
  if (counters_.glitches >= 100) Fail(NGHTTP2_ENHANCE_YOUR_CALM, "http2.too_many_glitches");
}

void Http2Codec::AbortAll(ResetCode code) {
  streams_.ForEach([&](Stream* s) {
    const bool complete = s->received_end && (server_ ? s->sent_end : true);
    if (!complete) MarkReset(s, code, error_);
  });
}

// ---------------------------------------------------------------- connection

bool Http2Codec::Feed(io::Buffer& in) {
  tap_.Begin();
  while (!in.empty() && !broken_ && !tap_.full()) {
    const std::string_view v = in.Front();
    const size_t n = tap_.Scan(const_cast<char*>(v.data()), v.size());  // received bytes: nobody shares them yet
    if (n > 0) {
      const ssize_t rc = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(v.data()), n);
      if (rc < 0) {
        const bool flood = rc == NGHTTP2_ERR_FLOODED || rc == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS;
        const char* why = rc == NGHTTP2_ERR_BAD_CLIENT_MAGIC         ? "http2.bad_preface"
                          : rc == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS ? "http2.continuation_flood"
                          : flood                                    ? "http2.control_frame_flood"
                                                                     : "http2.protocol_error";
        Fail(flood ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR, why);
        break;
      }
    }
    if (n < v.size() && !broken_ && !tap_.full()) {
      OnSuspect(tap_.frame());
      tap_.Judged();
    }
    in.Consume(n);
  }
  // Answers of the protocol itself (acks, resets of malformed streams) are made now, so that a stream that died by them
  // is in ready() with this Feed, not with the next.
  if (pending_.size() < kPumpWhileFeeding) Pump(pending_, kPumpWhileFeeding);
  if (broken_) {
    in.Clear();
    AbortAll(ResetCode::kConnectionLost);
  }
  return !broken_;
}

bool Http2Codec::FeedEof() {
  eof_ = true;
  AbortAll(ResetCode::kConnectionLost);
  return false;
}

void Http2Codec::Pump(io::Buffer& out, size_t limit) {
  sink_ = &out, sink_limit_ = limit;
  while (out.size() < limit) {
    const uint8_t* data;
    const ssize_t n = nghttp2_session_mem_send(session_, &data);
    if (n < 0) {
      if (!broken_) broken_ = true, error_ = "http2.internal_error";
      break;
    }
    if (n == 0) break;
    if (server_ && !settings_sent_) {  // the first frame of all
      settings_sent_ = true;
      out.Append(AdvertisedSettings(data, static_cast<size_t>(n)));
      continue;
    }
    out.Append(std::string_view(reinterpret_cast<const char*>(data), static_cast<size_t>(n)));
  }
  sink_ = nullptr;
}

// nghttp2 would end the connection over one stream too many, and with it every other stream. It is told of no limit; the
// peer is told ours, and what comes above is refused stream by stream.
std::string Http2Codec::AdvertisedSettings(const uint8_t* frame, size_t n) const {
  std::string s(reinterpret_cast<const char*>(frame), n);
  for (size_t i = 9; i + 6 <= n; i += 6) {
    if (s[i] != 0 || s[i + 1] != NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) continue;
    for (size_t k = 0; k < 4; ++k) s[i + 2 + k] = static_cast<char>(limits_.max_concurrent_streams >> (24 - 8 * k));
  }
  return s;
}

void Http2Codec::Emit(io::Buffer& out) {
  out.Move(pending_);
  Pump(out, kEmitAtOnce);
  if (broken_) AbortAll(ResetCode::kConnectionLost);
}

bool Http2Codec::wants_emit() const { return !pending_.empty() || nghttp2_session_want_write(session_) != 0; }

bool Http2Codec::peer_going_away() const {
  return goaway_received_ || broken_ || eof_ || (!server_ && nghttp2_session_get_next_stream_id(session_) > 0x7fff0000u);
}

bool Http2Codec::closed() const {
  if (eof_) return true;
  if (!pending_.empty() || nghttp2_session_want_write(session_) != 0) return false;
  // After the first GOAWAY of a drain requests may still be on their way here; the second ends it.
  return broken_ || (streams_.empty() && drain_ != 1 && nghttp2_session_want_read(session_) == 0);
}

void Http2Codec::StartDrain() {
  ++drain_;
  if (!server_) {
    draining_ = true;
  } else if (drain_ == 1) {
    nghttp2_submit_shutdown_notice(session_);
  } else if (!draining_) {
    draining_ = true;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR, nullptr, 0);
  }
}

void Http2Codec::Ping() {
  if (nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr) == 0) ++pings_;
}

StreamId Http2Codec::Open(Inbound* inbound) {
  if (server_ || OpenRoom() == 0) return -1;
  Stream* s = New(next_id_, 0, inbound);
  next_id_ += 2;
  ++open_;
  return s->id;
}

size_t Http2Codec::OpenRoom() const {
  if (server_ || draining_ || peer_going_away()) return 0;
  const size_t peer = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  const size_t most = std::min<size_t>(peer, limits_.max_concurrent_streams);
  return most > open_ ? most - open_ : 0;
}

// ---------------------------------------------------------------- sending

void Http2Codec::FillHead(const http::HeaderMap& head, bool trailers) {
  nva_.clear();
  if (!trailers) {
    for (const auto& e : head) {
      if (http::TokenPolicyBits(e.token()) & http::kPseudo) nva_.push_back(Nv(e, e.value(), false));
    }
  }
  const bool drop_host = !trailers && (head.Has(Token::kAuthority) || head.Has(Token::kStatus));
  for (const auto& e : head) {
    const Token t = e.token();
    const uint8_t policy = http::TokenPolicyBits(t);
    if (!trailers && (policy & http::kPseudo)) continue;
    if (t == Token::kHost && drop_host) continue;
    if (t == Token::kTe && !trailers && e.value() == "trailers") {
      nva_.push_back(Nv(e, e.value(), false));
    } else if (trailers ? SendableTrailer(e) : Sendable(e)) {
      nva_.push_back(Nv(e, TrimBlanks(e.value()), policy & http::kNeverIndex));
    } else if (!(policy & http::kHop)) {
      ++counters_.dropped_fields;
    }
  }
}

bool Http2Codec::Submit(Stream* s, const http::HeaderMap& head, bool end) {
  FillHead(head, false);
  s->head_sent = true;
  s->provider = !end;
  if (end) s->end = true;
  nghttp2_data_provider provider{};
  provider.source.ptr = s;
  provider.read_callback = &H2Callbacks::ReadData;
  const nghttp2_data_provider* p = end ? nullptr : &provider;
  if (server_) return nghttp2_submit_response(session_, s->wire, nva_.data(), nva_.size(), p) == 0;
  const int32_t wire = nghttp2_submit_request(session_, nullptr, nva_.data(), nva_.size(), p, s);
  if (wire < 0) return false;
  s->wire = wire;
  return true;
}

void Http2Codec::SendHead(StreamId id, const http::HeaderMap& head, bool end) {
  Stream* s = Find(id);
  if (!s || s->closed || s->head_sent) return;
  if (server_) {
    const int status = http::ParseStatus(head.Value(Token::kStatus));
    if (status >= 100 && status < 200) {
      FillHead(head, false);
      nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, s->wire, nullptr, nva_.data(), nva_.size(), nullptr);
      return;
    }
    s->tunnel = s->connect && status >= 200 && status < 300;
    if (!Submit(s, head, end)) ResetWire(s, ResetCode::kInternal);
    return;
  }
  s->connect = head.Value(Token::kMethod) == "CONNECT";
  s->head_only = head.Value(Token::kMethod) == "HEAD";
  if (s->connect && head.Has(Token::kProtocol)) {
    if (!settings_received_) {
      s->held_head = std::make_unique<http::HeaderMap>();
      head.CopyTo(*s->held_head);
      if (end) s->end = true;
      return;
    }
    if (nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 1) {
      MarkReset(s, ResetCode::kHttp11Required, "http2.extended_connect_not_supported");
      return;
    }
  }
  if (!Submit(s, head, end)) MarkReset(s, ResetCode::kRefused, "http2.submit_failed");
}

void Http2Codec::SendBody(StreamId id, io::Buffer& body, size_t n, bool end) {
  Stream* s = Find(id);
  n = std::min(n, body.size());
  if (!s || s->closed || s->end) return body.Consume(n);
  s->send.Move(body, n);
  if (end) s->end = true;
  if (s->provider && (n > 0 || end)) nghttp2_session_resume_data(session_, s->wire);
}

void Http2Codec::SendTrailers(StreamId id, const http::HeaderMap& trailers) {
  Stream* s = Find(id);
  if (!s || s->closed || s->end) return;
  if (limits_.enable_trailers && !trailers.empty()) {
    s->trailers = std::make_unique<http::HeaderMap>();
    trailers.CopyTo(*s->trailers);
  }
  s->end = true;
  if (s->provider) nghttp2_session_resume_data(session_, s->wire);
}

ssize_t Http2Codec::ReadData(Stream* s, size_t length, uint32_t* flags) {
  const size_t n = std::min(length, s->send.size());
  if (n == 0 && !s->end) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (s->end && n == s->send.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->trailers) {
      FillHead(*s->trailers, true);
      if (!nva_.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session_, s->wire, nva_.data(), nva_.size());
      }
    }
  }
  return static_cast<ssize_t>(n);
}

int Http2Codec::SendData(Stream* s, const uint8_t* frame_head, size_t length) {
  sink_->Append(std::string_view(reinterpret_cast<const char*>(frame_head), 9));
  const size_t before = s->send.size(), half = limits_.max_buffered_per_stream / 2;
  sink_->Move(s->send, length);
  if (before >= half && s->send.size() < half && !s->end) ListWritable(s);
  return sink_->size() < sink_limit_ ? 0 : NGHTTP2_ERR_PAUSE;
}

void Http2Codec::OnFrameSent(const nghttp2_frame* frame) {
  switch (frame->hd.type) {
    case NGHTTP2_GOAWAY:
      // nghttp2 found a connection error by itself.
      if (frame->goaway.error_code != NGHTTP2_NO_ERROR && !broken_) {
        broken_ = true;
        ++counters_.protocol_errors;
        error_ = frame->goaway.error_code == NGHTTP2_COMPRESSION_ERROR    ? "http2.compression_error"
                 : frame->goaway.error_code == NGHTTP2_FLOW_CONTROL_ERROR ? "http2.flow_control_error"
                 : frame->goaway.error_code == NGHTTP2_FRAME_SIZE_ERROR   ? "http2.frame_size_error"
                                                                          : "http2.protocol_error";
      }
      break;
    case NGHTTP2_RST_STREAM: CountReset(frame->hd.stream_id); break;
    case NGHTTP2_DATA:
      ++data_sent_;
      ping_rate_.Earn(1), settings_rate_.Earn(0.1);  // peers probe the path while data flows
      [[fallthrough]];
    case NGHTTP2_HEADERS: {
      Stream* s = ByWire(frame->hd.stream_id);
      if (!s) break;
      s->head_on_wire = true;
      if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) break;
      s->sent_end = true;
      // The answer is complete and nobody reads the rest of the request (RFC 9113 8.1).
      if (server_ && !s->inbound && !s->received_end) ResetWire(s, ResetCode::kNoError);
      break;
    }
    default: break;
  }
}

// Resets that a client provokes cost as much as its own (CVE-2025-8671); those our owner wanted are not its fault.
void Http2Codec::CountReset(int32_t wire) {
  ++counters_.tx_reset;
  if (!server_) return;
  past_.Reset(wire);
  const Stream* s = ByWire(wire);
  if (!(s && s->own_reset) && !resets_.Take(Now())) Fail(NGHTTP2_ENHANCE_YOUR_CALM, "http2.reset_flood");
}

void Http2Codec::Reset(StreamId id, ResetCode code) {
  Stream* s = Find(id);
  if (!s) return;
  Detach(s);
  s->send.Clear();
  s->end = true;
  if (s->closed || s->wire == 0) {
    if (!server_ && s->wire == 0) --open_;
    return Delete(s);
  }
  if (static_cast<uint8_t>(code) >= 14) code = ResetCode::kCancel;
  ResetWire(s, code);
}

void Http2Codec::Release(StreamId id) {
  Stream* s = Find(id);
  if (!s) return;
  Detach(s);
  if (s->closed || s->wire == 0) {
    if (!server_ && s->wire == 0) --open_;
    return Delete(s);
  }
  if (!s->end || !s->head_sent) {
    ResetWire(s, s->received_end && !server_ ? ResetCode::kNoError : ResetCode::kCancel);  // half a message
    s->send.Clear();
    s->end = true;
  } else if (!s->received_end && (!server_ || s->sent_end)) {
    ResetWire(s, server_ ? ResetCode::kNoError : ResetCode::kCancel);
  }
}

size_t Http2Codec::SendRoom(StreamId id) const {
  const Stream* s = Find(id);
  if (!s || s->closed || s->end) return 0;
  const size_t held = s->send.size();
  return held >= limits_.max_buffered_per_stream ? 0 : limits_.max_buffered_per_stream - held;
}

void Http2Codec::Consumed(StreamId id, size_t n) {
  Stream* s = Find(id);
  if (!s) return;
  n = std::min(n, s->unconsumed);
  s->unconsumed -= n;
  if (n == 0) return;
  if (!s->closed) nghttp2_session_consume_stream(session_, s->wire, n);
  GiveBack(n);
}

std::unique_ptr<Codec> NewHttp2Server(const Limits& limits, StreamHost* host, base::Clock* clock) {
  return std::make_unique<Http2Codec>(limits, host, clock, true);
}
std::unique_ptr<Codec> NewHttp2Client(const Limits& limits, base::Clock* clock) {
  return std::make_unique<Http2Codec>(limits, nullptr, clock, false);
}

}  // namespace weft::codec
