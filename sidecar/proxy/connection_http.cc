// The HTTP part of a downstream connection: which codec, feeding it, and the exchanges.
#include "sidecar/proxy/connection.h"

#include <algorithm>

#include "sidecar/proxy/exchange.h"
#include "sidecar/proxy/relay.h"

namespace weft::proxy {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr uint64_t kIdleNs = 3600 * base::kSecond;
constexpr uint64_t kHeadNs = 10 * base::kSecond;

codec::Limits LimitsOf(const model::HttpConnectionManager& h) {
  codec::Limits l;
  l.max_header_bytes = h.max_request_headers_kb * 1024;
  if (h.common.max_headers_count) l.max_header_count = h.common.max_headers_count;
  if (h.http2.max_concurrent_streams) l.max_concurrent_streams = h.http2.max_concurrent_streams;
  if (h.http2.initial_stream_window) l.stream_window = h.http2.initial_stream_window;
  if (h.http2.initial_connection_window) l.connection_window = h.http2.initial_connection_window;
  l.accept_http_10 = h.http1.accept_http_10;
  l.header_case = static_cast<codec::Limits::HeaderCase>(h.http1.header_case);
  l.answer_expect = !h.proxy_100_continue;
  bool websocket = std::find(h.upgrades.begin(), h.upgrades.end(), "websocket") != h.upgrades.end();
  l.allow_connect_protocol = h.http2.allow_connect || websocket;
  return l;
}

}  // namespace

bool Connection::PickCodec() {
  if (state_ != State::kPickCodec) return true;
  using Codec = model::HttpConnectionManager::Codec;
  std::string_view alpn = tls() ? tls()->alpn() : std::string_view();
  if (hcm().codec == Codec::kHttp1) return StartHttp(false), true;
  if (hcm().codec == Codec::kHttp2 || alpn == "h2") return StartHttp(true), true;
  if (alpn == "http/1.1" || alpn == "http/1.0") return StartHttp(false), true;
  size_t n = std::min(transport_.in.size(), kPreface.size());
  if (n == 0) return false;
  bool prefix = transport_.in.Linearize(n) == kPreface.substr(0, n);
  if (prefix && n < 4) return false;
  StartHttp(prefix);
  return true;
}

void Connection::StartHttp(bool h2) {
  state_ = State::kHttp;
  base::Cells& cells = base::Cells::Local();
  cells.Add(h2 ? http_stats_->cx_http2_total : http_stats_->cx_http1_total);
  if (tls()) cells.Add(http_stats_->cx_ssl_total);
  if (h2) codec_ = codec::NewHttp2Server(LimitsOf(hcm()), this, core_->options().clock);
  else TakeHttp1();
  if (draining_ || core_->draining()) {
    codec_->StartDrain();
    core_->loop()->Arm(&rare().second_goaway, base::kSecond);
  }
  timer_.Cancel();
  BeginIdle();
  MarkDirty();
}

// One to three bytes that HTTP/2's preface begins with: a request has begun, whatever it will be.
void Connection::AwaitCodec() {
  timer_.Cancel();
  if (uint64_t limit = HeadTimeout()) core_->loop()->Arm(&timer_, limit);
}

// It was none of HTTP/2: answered as any other head that did not come in time.
void Connection::CodecOverdue() {
  StartHttp(false);
  HttpInput(true);
  if (Exchange* e = exchanges_.front()) e->HeadOverdue();
}

uint64_t Connection::HeadTimeout() const {
  return hcm().request_headers_timeout_set ? hcm().request_headers_timeout_ns : kHeadNs;
}

void Connection::TakeHttp1() {
  codec::Limits limits = LimitsOf(hcm());
  limits.max_buffered_per_stream = upstream::Transport::kPortion;
  codec_ = core_->Http1Server(limits, this);
}

// Between requests HTTP/1.1 needs no codec; the next connection with something to read takes it, warm.
void Connection::RestCodec() {
  if (exchange_count_ != 0 || draining_ || codec_->is_http2()) return;
  if (transport_.in.empty() && !transport_.more_to_read() && !transport_.eof() && codec::Http1ServerRests(*codec_)) core_->Rest(std::move(codec_));
}

// Requests come and go under an armed timer; when it fires, it sees since when there is none.
void Connection::BeginIdle() {
  idle_since_ns_ = core_->loop()->now();
  uint64_t idle = hcm().common.idle_timeout_ns.value_or(kIdleNs);
  if (idle && !timer_.armed()) core_->loop()->Arm(&timer_, idle);
}

void Connection::OnIdle() {
  if (exchange_count_ != 0) return;
  uint64_t now = core_->loop()->now(), due = idle_since_ns_ + hcm().common.idle_timeout_ns.value_or(kIdleNs);
  if (now < due) return core_->loop()->Arm(&timer_, due - now);
  base::Cells::Local().Add(http_stats_->cx_idle_timeout);
  if (codec_) codec_->StartDrain(), codec_->StartDrain();
  MarkDirty();
  CloseAfterFlush();
}

codec::Inbound* Connection::OnNewStream(codec::StreamId id) {
  Exchange* e = core_->NewExchange();
  exchanges_.PushBack(e);
  ++exchange_count_;
  // Scheduled, not done here: we are inside the codec.
  uint32_t most = hcm().common.max_requests_per_connection;
  if (most && ++requests_ == most) core_->loop()->Arm(&rare().age_timer, 0);
  return e->Begin(this, id);
}

void Connection::HttpInput(bool changed) {
  if (!codec_) TakeHttp1();
  if (codec_->closed()) {  // nothing more is wanted: Flush closes when the last answer is out
    transport_.in.Clear();
    if (transport_.broken()) return CloseNow();
    return MarkDirty();
  }
  for (int rounds = 0; rounds < 4; ++rounds) {
    if (!transport_.in.empty()) {
      size_t before = transport_.in.size();
      bool ok = codec_->Feed(transport_.in);
      Dispatch();
      if (!ok) {
        base::Cells::Local().Add(http_stats_->cx_protocol_error);
        MarkDirty();
        if (exchange_count_ == 0) CloseAfterFlush();
        return;  // closed() holds: Flush closes when the last answer is out
      }
      changed |= transport_.in.size() != before;
    }
    if (codec_->wants_emit()) MarkDirty();
    if (transport_.broken()) return CloseNow();
    if (codec_->is_http2() && !transport_.in.empty()) break;  // a portion of many requests: these go first
    if (transport_.eof() && transport_.in.empty()) {
      bool stays = codec_->FeedEof();
      Dispatch();
      if (!stays || exchange_count_ == 0) {
        if (exchange_count_ != 0 && !codec_->wants_emit() && transport_.unsent() == 0) return CloseNow();
        return CloseAfterFlush();
      }
      return;
    }
    if (!changed || !transport_.more_to_read() || transport_.in.size() >= ReadLimit()) break;
    changed = transport_.Read(ReadLimit());
  }
  // The rounds are over, not the bytes: those read last have not been fed yet. (Without progress nothing is scheduled.)
  bool unfed = changed && !transport_.in.empty();
  bool unread = transport_.more_to_read() && transport_.in.size() < ReadLimit();
  if (unfed || unread) core_->loop()->Schedule(io::Beat::kAdvance, &input_);
  if (codec_->closed()) MarkDirty();
}

void Connection::Dispatch() {
  for (codec::Inbound* in : codec_->ready()) static_cast<Exchange*>(in->owner)->Wake();
  codec_->ready().clear();
  for (codec::Inbound* in : codec_->writable()) static_cast<Exchange*>(in->owner)->Wake();
  codec_->writable().clear();
}

void Connection::Consumed(codec::StreamId id, size_t n) {
  if (gone()) return;
  codec_->Consumed(id, n);
  if (codec_->wants_emit()) MarkDirty();
  if (!transport_.in.empty() || transport_.more_to_read()) core_->loop()->Schedule(io::Beat::kAdvance, &input_);
}

void Connection::ExchangeDone(Exchange* e, codec::StreamId id) {
  e->Unlink();
  --exchange_count_;
  if (gone()) {
    if (exchange_count_ == 0) core_->Reap(this);
    return;
  }
  codec_->Release(id);
  MarkDirty();
  if (!transport_.in.empty() || transport_.more_to_read() || transport_.eof()) core_->loop()->Schedule(io::Beat::kAdvance, &input_);
  if (exchange_count_ == 0 && state_ == State::kHttp) BeginIdle();
}

void Connection::StartDrain() {
  constexpr uint64_t kBetweenGoawaysNs = base::kSecond;
  if (draining_) {
    // Asked for again, now for all: what only waited for its next answer has waited long enough.
    if (core_->draining() && !rare().second_goaway.armed()) core_->loop()->Arm(&rare().second_goaway, kBetweenGoawaysNs);
    return;
  }
  draining_ = true;
  if (state_ == State::kPickCodec && core_->draining()) core_->loop()->Arm(&rare().second_goaway, kBetweenGoawaysNs);
  if (state_ != State::kHttp) return;  // StartHttp asks
  base::Cells::Local().Add(http_stats_->cx_drain_close);
  if (!codec_) TakeHttp1();
  codec_->StartDrain();
  MarkDirty();
  core_->loop()->Arm(&rare().second_goaway, kBetweenGoawaysNs);
}

// As old as it may be, or its last request has come. One that does nothing has no answer left that could say so, and closes.
void Connection::OnAge() {
  const bool last = requests_ && requests_ == hcm().common.max_requests_per_connection;
  base::Cells::Local().Add(last ? http_stats_->cx_max_requests : http_stats_->cx_max_duration);
  StartDrain();
  if (!http2() && exchange_count_ == 0) CloseAfterFlush();
}

void Connection::OnSecondGoaway() {
  if (state_ == State::kPickCodec) return CloseAfterFlush();
  if (state_ != State::kHttp) return;
  if (http2()) {
    codec_->StartDrain();
    MarkDirty();
  } else if (exchange_count_ == 0 && core_->draining()) {
    CloseAfterFlush();
  }
}

}  // namespace weft::proxy
