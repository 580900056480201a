// One HTTP connection to a host. Life: kConnecting -> (kHandshake) -> kReady -> kClosed -> reaped. Events only read and
// feed the codec and schedule the streams that were touched; sending is the flush beat's, deleting the reap beat's.

#include "sidecar/upstream/pool.h"

#include <algorithm>
#include <utility>

namespace weft::upstream {
namespace {
constexpr size_t kWriteAhead = 128 * 1024;  // emitted and not yet sent
constexpr uint64_t kUnreachableNs = 3 * base::kSecond;
constexpr uint64_t kKeepAliveMarginNs = base::kSecond;
}  // namespace

HttpConnection::HttpConnection(Pool* pool, io::Loop* loop) : pool_(pool), loop_(loop) {}

HttpConnection::~HttpConnection() {
  if (transport_.open()) loop_->Unwatch(transport_.fd(), this);
}

bool HttpConnection::usable() const {
  return state_ == State::kReady && !draining_ && !codec_->closed() && !codec_->peer_going_away() && !transport_.eof();
}

size_t HttpConnection::room() const { return usable() ? codec_->OpenRoom() : 0; }

void HttpConnection::Connect() {
  started_ = loop_->now();
  loop_->Arm(&timer_, pool_->config_.dial.connect_timeout_ns);
  int error = 0;
  int fd = Dial(pool_->config_.dial, &error);
  if (fd < 0) return Fail(FailureOf(error), ErrnoText(error));
  transport_.Open(fd);
  loop_->Watch(fd, this);
}

void HttpConnection::OnReady(uint32_t events) {
  if (state_ == State::kClosed) return;
  const bool was_full = !transport_.can_send_now();
  transport_.OnReady(events);
  if (state_ == State::kConnecting) {
    if (!(events & (io::kWritable | io::kHangup))) return;
    int error = ConnectResult(transport_.fd());
    if (error == EINPROGRESS) return;
    if (error) return Fail(FailureOf(error), ErrnoText(error));
    local_address_ = LocalAddress(transport_.fd());
    const DialConfig& dial = pool_->config_.dial;
    if (dial.tls) transport_.StartTls(dial.tls, tls::Engine::kClient, dial.address.ToString());
    transport_.SendFirst(dial.first_bytes);
    if (dial.tls) {
      state_ = State::kHandshake;
      MarkDirty();
    } else {
      Ready();
    }
  } else if (was_full && (events & io::kWritable)) {
    MarkDirty();
  }
  Input();
}

void HttpConnection::OnTimer() {
  base::Cells& cells = base::Cells::Local();
  const PoolStats& stats = pool_->config_.stats;
  if (state_ == State::kConnecting || state_ == State::kHandshake) {
    cells.Add(stats.cx_connect_timeout);
    return Fail(Failure::kConnectTimeout, state_ == State::kConnecting ? "connect timeout" : "TLS handshake timeout");
  }
  if (streams_ == 0) {
    const uint64_t now = loop_->now(), due = idle_since_ + IdleTimeout();
    if (now < due) return idle_due_ns_ = due, loop_->Arm(&timer_, due - now);
    cells.Add(stats.cx_idle_timeout);
    Fail(Failure::kTerminated, "idle timeout");
  }
}

uint64_t HttpConnection::PingInterval() const {
  const PoolConfig& config = pool_->config_;
  return streams_ ? std::min(config.ping_interval_ns, config.ping_active_ns) : config.ping_interval_ns;
}

void HttpConnection::Watch(uint64_t delay) {
  watch_due_ns_ = loop_->now() + delay;
  loop_->Arm(&ping_timer_, delay);
}

// A peer that is gone without a word is found in two ways. The kernel knows that nothing is acknowledged any more (a cut
// link, a host without power): seconds matter, so it is asked often while requests wait. A host that is stopped
// acknowledges all the same: with HTTP/2 it is asked itself.
void HttpConnection::OnPing() {
  const PoolConfig& config = pool_->config_;
  const uint64_t now = loop_->now(), silent = now - last_rx_ns_;
  if (streams_ && silent >= kWatchNs && PeerUnreachable(transport_.fd(), kUnreachableNs)) {
    return Fail(Failure::kTerminated, "peer unreachable");
  }
  const auto again = [&](uint64_t delay) { Watch(streams_ ? std::min(delay, kWatchNs) : delay); };
  if (!http2() || config.ping_interval_ns == 0) {
    if (streams_) again(kWatchNs);
    return;
  }
  if (codec_->pings_outstanding() > 0) {
    const uint64_t waited = now - std::max(asked_ns_, last_rx_ns_);
    if (waited >= config.ping_timeout_ns) return Fail(Failure::kTerminated, "keepalive timeout");
    return again(config.ping_timeout_ns - waited);
  }
  if (silent < PingInterval()) return again(PingInterval() - silent);
  asked_ns_ = now;
  codec_->Ping();
  MarkDirty();
  again(config.ping_timeout_ns);
}

void HttpConnection::Ready() {
  const PoolConfig& config = pool_->config_;
  state_ = State::kReady;
  connect_ns_ = loop_->now() - started_;
  timer_.Cancel();
  if (config.max_connection_duration_ns) loop_->Arm(&age_timer_, config.max_connection_duration_ns);
  bool h2 = config.mode == HttpMode::kHttp2;
  if (config.mode == HttpMode::kAlpn && transport_.tls()) h2 = transport_.tls()->alpn() == "h2";
  codec::Limits limits = config.limits;
  if (!h2) limits.max_buffered_per_stream = Transport::kPortion;
  codec_ = h2 ? codec::NewHttp2Client(limits) : codec::NewHttp1Client(limits);
  base::Cells& cells = base::Cells::Local();
  cells.Record(config.stats.cx_connect_ms, connect_ns_ / 1000);
  cells.Add(h2 ? config.stats.cx_http2_total : config.stats.cx_http1_total);
  if (transport_.tls()) cells.Add(config.stats.ssl_handshake);
  if (transport_.tls() && transport_.tls()->resumed()) cells.Add(config.stats.ssl_session_reused);
  --pool_->connecting_count_;
  last_rx_ns_ = loop_->now();
  if (h2 && config.ping_interval_ns) Watch(config.ping_interval_ns);
  pool_->Sort(this);
  MarkDirty();  // HTTP/2: the preface
  pool_->ServeWaiting();
  if (streams_ == 0) BeginIdle();
}

void HttpConnection::Input() {
  if (state_ == State::kClosed || state_ == State::kConnecting) return;
  for (int rounds = 0; rounds < 4; ++rounds) {
    bool changed = transport_.Read(ReadLimit());
    if (transport_.tls_failed()) {
      const tls::Engine& e = *transport_.tls();
      transport_.Write();  // the alert
      return Fail(state_ == State::kHandshake ? Failure::kTls : Failure::kTerminated,
                  std::string(tls::FailureName(e.failure())) + ": " + std::string(e.failure_detail()));
    }
    if (state_ == State::kHandshake) {
      if (changed) MarkDirty();
      if (transport_.error()) return Fail(Failure::kConnectError, ErrnoText(transport_.error()));
      if (!transport_.handshaking()) {
        Ready();
      } else if (transport_.eof()) {
        return Fail(Failure::kTls, "peer_closed: the peer closed the connection during the TLS handshake");
      } else {
        return;
      }
    }
    if (!transport_.in.empty()) {
      last_rx_ns_ = loop_->now();
      if (streams_ == 0 && !http2()) {  // bytes nobody asked for: the connection cannot be trusted any more
        base::Cells::Local().Add(pool_->config_.stats.cx_protocol_error);
        return Fail(Failure::kTerminated, "bytes on an idle connection");
      }
      size_t before = transport_.in.size();
      bool ok = codec_->Feed(transport_.in);
      if (ok && !http2() && *codec_->error()) base::Cells::Local().Add(pool_->config_.stats.cx_protocol_error);
      Dispatch();
      if (!ok) {
        base::Cells::Local().Add(pool_->config_.stats.cx_protocol_error);
        if (codec_->wants_emit()) {  // GOAWAY with the reason
          codec_->Emit(transport_.out);
          transport_.Write();
        }
        return Fail(Failure::kTerminated, codec_->error());
      }
      changed |= transport_.in.size() != before;
    }
    if (codec_->wants_emit()) MarkDirty();
    if (transport_.error()) return Fail(Failure::kTerminated, ErrnoText(transport_.error()));
    if (transport_.eof() && transport_.in.empty()) {
      codec_->FeedEof();
      Dispatch();
      return Fail(Failure::kTerminated, "remote close");
    }
    if (!changed || !transport_.more_to_read()) break;
  }
  CountBytes();
  // Left over for fairness: another turn. (A stream that does not consume stops us until Consumed().)
  if (transport_.more_to_read() && transport_.in.size() < ReadLimit()) loop_->Schedule(io::Beat::kAdvance, &input_);
  if (http2()) pool_->Sort(this);  // its limit of streams may have changed
  if (codec_ && (codec_->peer_going_away() || codec_->closed()) && streams_ == 0) Fail(Failure::kTerminated, "peer going away");
}

void HttpConnection::Dispatch() {
  for (codec::Inbound* in : codec_->ready()) loop_->Schedule(io::Beat::kAdvance, static_cast<Stream*>(in->owner)->task);
  codec_->ready().clear();
  for (codec::Inbound* in : codec_->writable()) loop_->Schedule(io::Beat::kAdvance, static_cast<Stream*>(in->owner)->task);
  codec_->writable().clear();
}

void HttpConnection::Flush() {
  if (state_ == State::kClosed || state_ == State::kConnecting) return;
  for (;;) {
    if (codec_ && transport_.unsent() < kWriteAhead && codec_->wants_emit()) codec_->Emit(transport_.out);
    if (!transport_.Write()) return Fail(Failure::kTerminated, ErrnoText(transport_.error()));
    if (codec_ && codec_->write_closed() && transport_.unsent() == 0 && !transport_.write_shut()) {
      transport_.ShutdownWrite();  // a tunnel whose downstream has finished sending
      transport_.Write();
    }
    if (!codec_ || !codec_->wants_emit() || transport_.unsent() >= kWriteAhead || !transport_.can_send_now()) break;
  }
  CountBytes();
  if (codec_) Dispatch();
}

void HttpConnection::CountBytes() {
  base::Cells& cells = base::Cells::Local();
  cells.Add(pool_->config_.stats.cx_tx_bytes, std::exchange(transport_.tx, 0));
  cells.Add(pool_->config_.stats.cx_rx_bytes, std::exchange(transport_.rx, 0));
}

void HttpConnection::Consumed(codec::StreamId id, size_t n) {
  codec_->Consumed(id, n);
  if (codec_->wants_emit()) MarkDirty();
  if (!transport_.in.empty() || transport_.more_to_read()) loop_->Schedule(io::Beat::kAdvance, &input_);
}

// Ours, and less than the peer's where it told: a request on a connection that the peer is just closing would be lost.
uint64_t HttpConnection::IdleTimeout() const {
  const uint64_t ours = pool_->config_.idle_timeout_ns;
  const int keep_alive_s = codec_->keep_alive_s();
  if (keep_alive_s < 0) return ours;
  const uint64_t theirs = static_cast<uint64_t>(keep_alive_s) * base::kSecond;
  const uint64_t safe = std::max(theirs - std::min(theirs / 5, kKeepAliveMarginNs), base::kMs);
  return ours ? std::min(ours, safe) : safe;
}

// Streams come and go under an armed timer; when it fires, it sees since when there is none.
void HttpConnection::BeginIdle() {
  idle_since_ = loop_->now();
  const uint64_t t = IdleTimeout();
  if (!t || (timer_.armed() && idle_due_ns_ <= idle_since_ + t)) return;
  idle_due_ns_ = idle_since_ + t;
  loop_->Arm(&timer_, t);
}

void HttpConnection::OnAge() {
  base::Cells::Local().Add(pool_->config_.stats.cx_max_duration);
  draining_ = true;
  if (streams_ == 0) Fail(Failure::kTerminated, "max connection duration");
  else pool_->Sort(this);
}

void HttpConnection::Fail(Failure failure, std::string detail) {
  if (state_ == State::kClosed) return;
  State was = state_;
  state_ = State::kClosed;
  CountBytes();
  base::Cells& cells = base::Cells::Local();
  const PoolStats& stats = pool_->config_.stats;
  timer_.Cancel(), ping_timer_.Cancel(), age_timer_.Cancel();
  flush_.Unlink(), input_.Unlink();
  if (streams_ != 0) cells.Add(stats.cx_destroy_remote_with_active_rq);
  while (Stream* s = open_.PopFront()) {
    s->conn = nullptr, s->state = Stream::State::kFailed;
    if (!(s->in.bits & (codec::Inbound::kEnd | codec::Inbound::kReset))) {
      s->in.bits |= codec::Inbound::kReset;
      s->in.reset = codec::ResetCode::kConnectionLost;
    }
    s->failure = failure, s->failure_detail = detail;
    --streams_, --pool_->streams_;
    loop_->Schedule(io::Beat::kAdvance, s->task);
  }
  if (transport_.open()) {
    loop_->Unwatch(transport_.fd(), this);
    transport_.Close();
  }
  Unlink();
  --pool_->connections_;
  cells.Sub(stats.cx_active);
  cells.Add(stats.cx_destroy);
  if (pool_->config_.breaker.release_connection) pool_->config_.breaker.release_connection(pool_->config_.breaker.cell);
  loop_->Schedule(io::Beat::kReap, &reap_);
  if (was != State::kReady) {
    --pool_->connecting_count_;
    cells.Add(stats.cx_connect_fail);
    cells.Add(stats.host_cx_connect_fail);
    if (failure == Failure::kTls) cells.Add(stats.ssl_connection_error);
    // The last hope of those waiting, or one connection of several: who waits beyond what the others will carry.
    const size_t others = pool_->connecting_count_ * pool_->PerConnection(), waiting = pool_->waiting_count_;
    pool_->FailWaiting(others == 0 ? SIZE_MAX : waiting - std::min(waiting, others), failure, detail, local_address_);
  } else {
    pool_->ServeWaiting();
  }
}

void HttpConnection::Detach(Stream* s) {
  s->Unlink();
  s->conn = nullptr;
  --streams_, --pool_->streams_;
  pool_->OnStreamDone(this);
}

}  // namespace weft::upstream
