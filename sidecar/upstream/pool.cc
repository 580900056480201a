#include "sidecar/upstream/pool.h"

#include <algorithm>

namespace weft::upstream {
namespace {
constexpr size_t kAssumedHttp2Room = 100;
constexpr int kAheadAtOnce = 3;            // as Envoy
}

void Stream::Clear() {
  in.bits = 0, in.reset = codec::ResetCode::kNoError, in.error_status = 0, in.error_detail = "";
  in.head.Clear(), in.trailers.Clear(), in.interim.Clear(), in.body.Clear();
  in.body_bytes = in.head_bytes = 0;
  failure = Failure::kNone, failure_detail.clear(), local_address.clear();
  reused = false, connect_ns = 0, id = -1;
}

void Stream::Close(codec::ResetCode code) {
  switch (state) {
    case State::kIdle:
    case State::kFailed:
      break;
    case State::kWaiting:
      pool->StopWaiting(this);
      base::Cells::Local().Add(pool->config().stats.rq_cancelled);
      break;
    case State::kOpen:
      conn->codec().Reset(id, code);
      conn->MarkDirty();
      conn->Detach(this);
      break;
  }
  state = State::kIdle;
  pool = nullptr;
}

void Stream::Finish() {
  if (state == State::kOpen) {
    conn->codec().Release(id);
    conn->MarkDirty();
    conn->Detach(this);
  }
  state = State::kIdle;
  pool = nullptr;
}

size_t Pool::PerConnection() const { return config_.mode == HttpMode::kHttp1 ? 1 : kAssumedHttp2Room; }

Pool::Pool(io::Loop* loop, PoolConfig config) : loop_(loop), config_(std::move(config)) {}

Pool::~Pool() {
  FailWaiting(SIZE_MAX, Failure::kPoolClosed, "pool closed", "");
  for (auto* list : {&idle_, &usable_, &full_, &connecting_}) {
    while (HttpConnection* c = list->front()) {
      c->Fail(Failure::kPoolClosed, "pool closed");
      delete c;  // its reap task unlinks itself
    }
  }
}

void Pool::Acquire(Stream* s) {
  s->pool = this, s->loop = loop_, s->in.owner = s;
  while (HttpConnection* c = !usable_.empty() ? usable_.front() : idle_.front()) {
    if (OpenOn(c, s)) return ConnectAhead();
    Sort(c);  // it was full after all
    if (c == usable_.front() || c == idle_.front()) break;
  }
  base::Cells& cells = base::Cells::Local();
  if (config_.breaker.acquire_pending && !config_.breaker.acquire_pending(config_.breaker.cell)) {
    cells.Add(config_.stats.rq_pending_overflow);
    s->state = Stream::State::kFailed, s->failure = Failure::kOverflow, s->failure_detail = "pending requests";
    return;
  }
  bool need = waiting_count_ >= connecting_count_ * PerConnection();
  s->state = Stream::State::kWaiting;
  waiting_.PushBack(s);
  ++waiting_count_;
  cells.Add(config_.stats.rq_pending_total);
  cells.Add(config_.stats.rq_pending_active);
  if (need && !StartConnection() && connections_ == 0) {
    if (s->state != Stream::State::kWaiting) return;  // the dial failed at once and told us
    StopWaiting(s);
    cells.Add(config_.stats.rq_pending_overflow);
    s->state = Stream::State::kFailed, s->failure = Failure::kOverflow, s->failure_detail = "connections";
    return;
  }
  ConnectAhead();
}

// So that those there are and those under way serve preconnect_ratio times the requests there are; a few at a time.
void Pool::ConnectAhead() {
  if (config_.preconnect_ratio <= 1) return;
  const double wanted = static_cast<double>(streams_ + waiting_count_) * config_.preconnect_ratio;
  for (int i = 0; i < kAheadAtOnce && wanted > static_cast<double>(connections_ * PerConnection()); ++i) {
    if (!StartConnection()) return;
  }
}

void Pool::Preconnect() {
  if (connections_ == 0) StartConnection();
}

bool Pool::StartConnection() {
  base::Cells& cells = base::Cells::Local();
  if (config_.breaker.acquire_connection && !config_.breaker.acquire_connection(config_.breaker.cell)) {
    cells.Add(config_.stats.cx_overflow);
    return false;
  }
  auto* c = new HttpConnection(this, loop_);
  ++connections_, ++connecting_count_;
  connecting_.PushBack(c);
  cells.Add(config_.stats.cx_total);
  cells.Add(config_.stats.cx_active);
  c->Connect();
  return true;
}

bool Pool::OpenOn(HttpConnection* c, Stream* s) {
  if (c->room() == 0) return false;
  codec::StreamId id = c->codec().Open(&s->in);
  if (id < 0) return false;
  s->state = Stream::State::kOpen, s->id = id, s->conn = c;
  s->reused = c->served_, s->connect_ns = c->served_ ? 0 : c->connect_ns_;
  c->served_ = true;
  if (c->streams_ == 0 && c->codec().pings_outstanding() == 0) {
    c->last_rx_ns_ = loop_->now();  // silence counts from the request on
    // Not for each request anew: under load the watch just goes on.
    if (!c->ping_timer_.armed() || c->watch_due_ns_ > loop_->now() + HttpConnection::kWatchNs) c->Watch(HttpConnection::kWatchNs);
  }
  c->open_.PushBack(s);
  ++c->streams_, ++streams_;
  if (config_.max_requests_per_connection && ++c->requests_ == config_.max_requests_per_connection) {
    c->draining_ = true;
    base::Cells::Local().Add(config_.stats.cx_max_requests);
  }
  Sort(c);
  return true;
}

// Most recently used first: few warm connections instead of many that go stale.
void Pool::Sort(HttpConnection* c) {
  if (c->state_ != HttpConnection::State::kReady) return;
  c->Unlink();
  if (c->room() == 0) {
    full_.PushFront(c);
  } else if (c->streams_ == 0) {
    idle_.PushFront(c);
  } else {
    usable_.PushFront(c);
  }
}

void Pool::OnStreamDone(HttpConnection* c) {
  if (c->state_ != HttpConnection::State::kReady) return;
  Sort(c);
  ServeWaiting();
  if (c->streams_ != 0) return;
  if (!c->usable() || (!c->http2() && (c->room() == 0 || !c->transport_.in.empty()))) {
    // Not reusable: closed once what is still to be said (RST, GOAWAY) is out.
    if (c->codec_->wants_emit()) c->codec_->Emit(c->transport_.out);
    c->transport_.Write();
    return c->Fail(Failure::kTerminated, "not reusable");
  }
  c->BeginIdle();
}

void Pool::ServeWaiting() {
  base::Cells& cells = base::Cells::Local();
  while (!waiting_.empty()) {
    HttpConnection* c = !usable_.empty() ? usable_.front() : idle_.front();
    if (!c) break;
    Stream* s = waiting_.front();
    StopWaiting(s);
    if (!OpenOn(c, s)) {
      // Cannot be: the lists hold only connections with room. Refuse rather than spin.
      s->state = Stream::State::kFailed, s->failure = Failure::kTerminated, s->failure_detail = "no stream";
    }
    loop_->Schedule(io::Beat::kAdvance, s->task);
  }
  if (waiting_count_ > connecting_count_ * PerConnection() && !StartConnection() && connections_ == 0) {
    cells.Add(config_.stats.rq_pending_overflow, waiting_count_);
    FailWaiting(SIZE_MAX, Failure::kOverflow, "connections", "");
  }
}

void Pool::StopWaiting(Stream* s) {
  s->Unlink();
  --waiting_count_;
  base::Cells::Local().Sub(config_.stats.rq_pending_active);
  if (config_.breaker.release_pending) config_.breaker.release_pending(config_.breaker.cell);
}

void Pool::FailWaiting(size_t n, Failure failure, const std::string& detail, const std::string& local_address) {
  for (; n > 0 && !waiting_.empty(); --n) {
    Stream* s = waiting_.front();
    StopWaiting(s);
    s->state = Stream::State::kFailed, s->failure = failure, s->failure_detail = detail, s->local_address = local_address;
    base::Cells::Local().Add(config_.stats.rq_pending_failure_eject);
    loop_->Schedule(io::Beat::kAdvance, s->task);
  }
}

void Pool::Drain() {
  while (HttpConnection* c = idle_.front()) c->Fail(Failure::kTerminated, "drained");
  for (auto* list : {&usable_, &full_, &connecting_}) {
    for (HttpConnection* c = list->front(); c; c = list->Next(c)) c->draining_ = true;
  }
  while (HttpConnection* c = usable_.front()) Sort(c);
}

}  // namespace weft::upstream
