// Phases, relaying both bodies, timers, and the end of an exchange. The map of the files is in exchange.h.
#include "sidecar/proxy/exchange.h"

#include <algorithm>

#include "sidecar/http/path.h"
#include "sidecar/http/status.h"
#include "sidecar/proxy/open_report.h"

namespace weft::proxy {
namespace {
constexpr size_t kKeepHead = 16 * 1024;

void ClearInbound(codec::Inbound& in) {
  in.bits = 0, in.reset = codec::ResetCode::kNoError, in.error_status = 0, in.error_detail = "";
  for (http::HeaderMap* map : {&in.head, &in.trailers, &in.interim}) {
    if (map->memory() > kKeepHead) *map = http::HeaderMap();  // a few big ones must not make all of them big
    map->Clear();
  }
  in.body.Clear();
  in.body_bytes = in.head_bytes = 0;
}
}  // namespace

using In = codec::Inbound;
using http::Token;

Exchange::Exchange(WorkerCore* core) : core_(core) { stream_.task = &advance_; }

void Exchange::Wake() {
  if (phase_ != Phase::kDone) core_->loop()->Schedule(io::Beat::kAdvance, &advance_);
}

codec::Inbound* Exchange::Begin(Connection* c, codec::StreamId id) {
  conn_ = c, id_ = id;
  phase_ = Phase::kHead;
  timers_ = 0, next_filter_ = 0;
  head_seen_ = counted_active_ = told_ = counts_messages_ = false;
  grpc_ = head_request_ = upgrade_ = overloaded_ = false;
  request_sent_ = request_end_seen_ = request_abandoned_ = false;
  response_begun_ = response_ended_ = cluster_limits_ = false;
  holds_request_ = holds_retry_ = holds_host_ = fault_counted_ = fault_abort_due_ = false;
  attempt_open_ = head_sent_ = false;
  replayable_ = true;
  started_ns_ = last_activity_ns_ = core_->loop()->now();
  idle_ns_ = route_timeout_ns_ = grpc_timeout_ns_ = 0, replay_limit_ = 64 * 1024;
  local_status_ = 0;
  table_ = nullptr, found_ = {}, entry_ = nullptr, cluster_ = nullptr, thresholds_ = nullptr, breakers_ = nullptr;
  host_ = nullptr, source_ = nullptr, reply_headers_ = nullptr, reset_reason_ = "";
  location_.clear(), upstream_own_identity_.clear();
  tried_.clear();
  retry_ = {};
  down_.owner = this;
  record_ = core_->NewRecord();
  record_->start_unix_ns = core_->loop()->wall_now();
  core_->OnRequest(1);
  Wake();
  return &down_;
}

// The usual head is complete within the turn it began in, and costs no timer.
void Exchange::AwaitHead() {
  const uint64_t limit = conn_->HeadTimeout();
  if (limit && !head_timer_.armed()) core_->loop()->Arm(&head_timer_, limit);
}

void Exchange::Advance() {
  if (phase_ == Phase::kDone) return;
  TouchIdle();
  if (conn_->gone() || (down_.bits & In::kReset)) return DownstreamGone();
  if (timers_) {
    HandleTimers();
    if (phase_ == Phase::kDone) return;
  }
  if (phase_ == Phase::kHead) {
    if (!(down_.bits & (In::kHead | In::kMalformed))) return AwaitHead();
    OnHead();
  } else if ((down_.bits & In::kMalformed) && phase_ != Phase::kReply) {
    // The head was good, what followed was not: no more of it goes anywhere.
    record_->flags.Set(ResponseFlag::kDownstreamProtocolError);
    if (response_begun_) return ResponseBroken();
    ReleaseStream();
    LocalReply(down_.error_status ? down_.error_status : 400, down_.error_detail, "");
  }
  if (RequestEnded() && !request_end_seen_) {
    request_end_seen_ = true;
    head_timer_.Cancel();
    record_->request_rx_ns = Since();
    if (cluster_) ArmRouteTimeout();
  }
  if (phase_ == Phase::kBuffer && Gather() && RunFilters()) Route();
  if (phase_ == Phase::kAttempt) AdvanceAttempt();
  if (phase_ == Phase::kReply) PumpResponse();
  if (phase_ != Phase::kDone) MaybeFinish();
}

void Exchange::OnHead() {
  head_timer_.Cancel();
  const auto& hcm = conn_->hcm();
  HttpStats& stats = conn_->http_stats();
  base::Cells& cells = base::Cells::Local();
  head_seen_ = counted_active_ = true;
  cells.Add(stats.rq_total);
  cells.Add(stats.rq_active);
  cells.Add(conn_->http2() ? stats.rq_http2_total : stats.rq_http1_total);
  snapshot_ = core_->Snapshot();
  BeginRecord();
  http::HeaderMap& head = down_.head;
  const std::string_view method = head.Value(Token::kMethod);
  head_request_ = method == "HEAD";
  grpc_ = head.Value(Token::kContentType).starts_with("application/grpc");
  record_->grpc = grpc_;
  counts_messages_ = grpc_ && hcm.istio_stats;
  if (counts_messages_) request_messages_ = response_messages_ = {};
  if (down_.bits & In::kMalformed) {
    record_->flags.Set(ResponseFlag::kDownstreamProtocolError);
    if (down_.error_status == 431) cells.Add(stats.rq_too_large);
    if (!conn_->http2()) cells.Add(stats.cx_protocol_error);
    const uint32_t status = down_.error_status ? down_.error_status : 400;
    return LocalReply(status, down_.error_detail, http::ReasonPhrase(static_cast<int>(status)));
  }
  if (hcm.common.underscores != model::HttpCommonOptions::kAllow && !UnderscoresAllowed()) return LocalReply(400, "unexpected_underscore", "");
  upgrade_ = method == "CONNECT";
  if (hcm.request_timeout_ns && !upgrade_ && !RequestEnded()) core_->loop()->Arm(&head_timer_, hcm.request_timeout_ns);
  record_->websocket = upgrade_ && head.Value(Token::kProtocol) == "websocket";
  SetIdle(hcm.stream_idle_timeout_ns);
  if (!upgrade_ && head.Value(Token::kPath).starts_with('/')) {
    http::PathOptions options;
    options.merge_slashes = hcm.merge_slashes;
    using Hcm = model::HttpConnectionManager;
    options.reject_encoded_slash = hcm.escaped_slashes == Hcm::kReject;
    options.unescape_slash = hcm.escaped_slashes == Hcm::kUnescapeForward || hcm.escaped_slashes == Hcm::kUnescapeRedirect;
    switch (http::NormalizePath(head.Value(Token::kPath), options, scratch_)) {
      case http::PathOutcome::kUnchanged: break;
      case http::PathOutcome::kUnescaped:
        if (hcm.escaped_slashes == Hcm::kUnescapeRedirect) {
          location_ = scratch_;
          return LocalReply(307, "path_normalization_failed", "");
        }
        [[fallthrough]];
      case http::PathOutcome::kChanged: head.Set(Token::kPath, scratch_); break;
      default:
        if (!conn_->http2()) conn_->codec().StartDrain();  // a malformed request ends its connection
        return LocalReply(400, "path_normalization_failed", "");
    }
  }
  PrepareRequestHead();
  FindRoute();
  if (RunFilters()) Route();
}

// Names with "_" are taken out or refuse the request, because some servers read them as "-".
bool Exchange::UnderscoresAllowed() {
  http::HeaderMap& head = down_.head;
  for (bool again = true; again;) {
    again = false;
    for (const auto& e : head) {
      if (e.token() != Token::kCustom || e.name().find('_') == std::string_view::npos) continue;
      if (conn_->hcm().common.underscores == model::HttpCommonOptions::kRejectRequest) return false;
      scratch_ = e.name();
      head.Remove(scratch_);
      again = true;
      break;
    }
  }
  return true;
}

void Exchange::HandleTimers() {
  uint8_t fired = timers_;
  timers_ = 0;
  HttpStats& stats = conn_->http_stats();
  base::Cells& cells = base::Cells::Local();
  if (fired & kHeadTimer && phase_ == Phase::kHead) {
    cells.Add(stats.rq_header_timeout);
    snapshot_ = core_->Snapshot();
    BeginRecord();
    LocalReply(408, "request_header_timeout", "request header timeout");
    return;
  }
  if ((fired & kHeadTimer) && phase_ != Phase::kDone && phase_ != Phase::kReply && !request_end_seen_) {
    // request_timeout: the rest of the request did not come in time.
    cells.Add(stats.rq_header_timeout);
    if (attempt_open_) EndAttempt("timeout", "request_overall_timeout", nullptr);
    ReleaseStream();
    record_->detail = "request_overall_timeout";
    if (response_begun_) return ResponseBroken();
    return LocalReply(408, "request_overall_timeout", "request timeout");
  }
  if (fired & kWaitTimer) {
    if (phase_ == Phase::kDelay) {
      EndFault();
      phase_ = Phase::kHead;
      if (!AbortByFault() && RunFilters()) Route();
    } else if (phase_ == Phase::kBackoff) {
      ++record_->retries;
      StartAttempt();
    }
  }
  if ((fired & kTryTimer) && phase_ == Phase::kAttempt && !response_begun_) {
    cells.Add(cluster_->stats.rq_per_try_timeout);
    cluster::TryResult r;
    r.kind = cluster::TryResult::kPerTryTimeout;
    AttemptFailed(r, ResponseFlag::kUpstreamRequestTimeout, "per_try_timeout", "per try timeout");
  }
  if ((fired & kRouteTimer) && (phase_ == Phase::kAttempt || phase_ == Phase::kBackoff)) {
    cells.Add(cluster_->stats.rq_timeout);
    record_->flags.Set(ResponseFlag::kUpstreamRequestTimeout);
    cluster::Outcome timeout{cluster::Outcome::kTimeout, 0};
    if (attempt_open_) EndAttempt("timeout", "route timeout", response_begun_ ? nullptr : &timeout);
    ReleaseStream();
    record_->detail = "response_timeout";
    if (response_begun_) return ResponseTimedOut();
    LocalReply(504, "response_timeout", "upstream request timeout");
  }
  if ((fired & (kIdleTimer | kDurationTimer)) && phase_ != Phase::kDone) {
    bool idle = fired & kIdleTimer;
    if (idle) cells.Add(stats.rq_idle_timeout);
    const bool of_cluster = !idle && cluster_limits_;
    if (idle) record_->flags.Set(ResponseFlag::kStreamIdleTimeout);
    if (of_cluster) record_->flags.Set(ResponseFlag::kUpstreamMaxStreamDurationReached);
    const char* detail = idle ? "stream_idle_timeout" : of_cluster ? "upstream_max_stream_duration_reached" : "max_duration_timeout";
    if (attempt_open_) EndAttempt("timeout", detail, nullptr);
    ReleaseStream();
    record_->detail = detail;
    if (response_begun_) return ResponseTimedOut();
    if (of_cluster) return LocalReply(504, detail, "upstream max stream duration reached");
    LocalReply(request_end_seen_ ? 504 : 408, detail, "stream timeout");
  }
}

// The timer outlives its request: armed a few times an hour, not for each. When it fires the deadline has usually moved.
void Exchange::SetIdle(uint64_t idle_ns) {
  idle_ns_ = idle_ns;
  const uint64_t due = core_->loop()->now() + idle_ns_;
  if (!idle_ns_ || (idle_timer_.armed() && idle_due_ns_ <= due)) return;
  idle_due_ns_ = due;
  core_->loop()->Arm(&idle_timer_, idle_ns_);
}

void Exchange::OnIdleTimer() {
  if (phase_ == Phase::kDone || !idle_ns_) return;
  uint64_t now = core_->loop()->now(), due = last_activity_ns_ + idle_ns_;
  if (now < due) {
    idle_due_ns_ = due;
    return core_->loop()->Arm(&idle_timer_, due - now);
  }
  timers_ |= kIdleTimer;
  Wake();
}

void Exchange::SendInterim() {
  stream_.in.bits &= ~In::kInterim;
  std::string_view status = stream_.in.interim.Value(Token::kStatus);
  // 100 has been answered by us already, unless it is to be passed on; hints go to those who asked for HTTP/2 or later.
  bool pass = status == "100" ? conn_->hcm().proxy_100_continue : status == "103" && conn_->http2();
  if (pass && !response_begun_) {
    conn_->codec().SendHead(id_, stream_.in.interim, false);
    conn_->MarkDirty();
  }
  stream_.in.interim.Clear();
}

void Exchange::SendResponseHead(http::HeaderMap& head, bool end) {
  response_begun_ = true;
  response_ended_ = end;
  record_->status = static_cast<uint32_t>(http::ParseStatus(head.Value(Token::kStatus)));
  record_->response_header_bytes = head.bytes();
  record_->response_tx_first_ns = Since();
  if (end && source_ == &stream_.in) record_->upstream_rx_last_ns = record_->response_tx_first_ns;
  if (auto g = head.Get(Token::kGrpcStatus)) record_->grpc_status = atoi(std::string(*g).c_str());
  if (const auto* logs = record_->access_logs.get()) Capture(head, logs->all_response_headers, logs->response_headers, record_->response_headers);
  replay_.Clear(), again_.Clear();
  conn_->codec().SendHead(id_, head, end);
  conn_->MarkDirty();
  if (upgrade_) conn_->Consumed(id_, 0);  // bytes that waited for the tunnel are read now
}

void Exchange::PumpResponse() {
  if (!response_begun_ || response_ended_) return;
  In& up = *source_;
  codec::Codec& down = conn_->codec();
  bool upstream = source_ == &stream_.in;
  if (upstream && (up.bits & In::kEnd) && record_->upstream_rx_last_ns < 0) record_->upstream_rx_last_ns = Since();
  while (!up.body.empty()) {
    size_t room = down.SendRoom(id_);
    if (room == 0) return;
    size_t n = std::min(room, up.body.size());
    bool last = n == up.body.size() && (up.bits & In::kEnd) && !(up.bits & In::kTrailers);
    if (counts_messages_) response_messages_.See(up.body, n);
    down.SendBody(id_, up.body, n, last);
    conn_->MarkDirty();
    record_->response_bytes += n;
    response_ended_ = last;
    if (upstream) {
      record_->upstream_rx_bytes += n;
      if (stream_.state == upstream::Stream::State::kOpen) stream_.conn->Consumed(stream_.id, n);
    }
  }
  if (!response_ended_ && (up.bits & In::kEnd)) {
    if (up.bits & In::kTrailers) {
      if (auto g = up.trailers.Get(Token::kGrpcStatus)) record_->grpc_status = atoi(std::string(*g).c_str());
      if (const auto* logs = record_->access_logs.get()) Capture(up.trailers, logs->all_response_trailers, logs->response_trailers, record_->response_trailers);
      down.SendTrailers(id_, up.trailers);
    } else {
      down.SendBody(id_, up.body, 0, true);
    }
    conn_->MarkDirty();
    response_ended_ = true;
  }
  if (!response_ended_ && upstream && (up.bits & In::kReset)) ResponseBroken();
}

void Exchange::MaybeFinish() {
  if (!response_ended_) return;
  if (record_->response_tx_last_ns < 0) record_->response_tx_last_ns = Since();
  // A tunnel ends when both directions have; anything else with its response.
  bool tunnel = upgrade_ && source_ == &stream_.in && record_->status >= 200 && record_->status < 300;
  if (tunnel && !(request_sent_ || (stream_.in.bits & In::kReset) || stream_.state != upstream::Stream::State::kOpen)) return;
  Finish();
}

// The response cannot be completed: whoever reads it must see that it was cut.
void Exchange::ResponseBroken() {
  if (source_ == &stream_.in && (stream_.in.bits & In::kReset)) {
    using Code = codec::ResetCode;
    Code code = stream_.in.reset;
    bool lost = code == Code::kConnectionLost || code == Code::kTruncated;
    // What HTTP/1 sent could not be read. (HTTP/2: the peer's own word for a reset.)
    bool unreadable = code == Code::kProtocol && record_->upstream_protocol != Protocol::kHttp2;
    record_->flags.Set(lost         ? ResponseFlag::kUpstreamConnectionTermination
                       : unreadable ? ResponseFlag::kUpstreamProtocolError
                                    : ResponseFlag::kUpstreamRemoteReset);
    if (record_->detail.empty() || record_->detail == "via_upstream") {
      record_->detail = lost         ? "upstream_reset_after_response_started{connection_termination}"
                        : unreadable ? "upstream_reset_after_response_started{protocol_error}"
                                     : "upstream_reset_after_response_started{remote_reset}";
    }
    if (!lost) base::Cells::Local().Add(cluster_->stats.rq_rx_reset);
    cluster::Outcome reset{cluster::Outcome::kReset, 0};
    if (attempt_open_) EndAttempt("reset", "the response was cut", &reset);
  }
  base::Cells::Local().Add(conn_->http_stats().rq_tx_reset);
  if (!conn_->gone()) {
    conn_->codec().Reset(id_, codec::ResetCode::kInternal);
    conn_->MarkDirty();
  }
  Finish();
}

// A gRPC response ends with a status even now: its caller, whose own deadline this usually is, must not read a reset as an
// internal error.
void Exchange::ResponseTimedOut() {
  if (!grpc_ || conn_->gone()) return ResponseBroken();
  http::HeaderMap trailers;
  trailers.Add(Token::kGrpcStatus, "4");
  trailers.Add(Token::kGrpcMessage, "upstream request timeout");
  record_->grpc_status = 4;
  conn_->codec().SendTrailers(id_, trailers);
  conn_->MarkDirty();
  response_ended_ = true;
  Finish();
}

void Exchange::DownstreamGone() {
  bool stream_reset = !conn_->gone() && down_.reset != codec::ResetCode::kConnectionLost && down_.reset != codec::ResetCode::kTruncated;
  if (!response_ended_) {
    const bool wrong = stream_reset && *down_.error_detail;  // we reset it, for what the peer sent
    record_->flags.Set(wrong           ? ResponseFlag::kDownstreamProtocolError
                       : stream_reset ? ResponseFlag::kDownstreamRemoteReset
                                      : ResponseFlag::kDownstreamConnectionTermination);
    record_->detail = wrong ? down_.error_detail : stream_reset ? "http2.remote_reset" : "downstream_remote_disconnect";
    base::Cells::Local().Add(conn_->http_stats().rq_rx_reset);
  }
  Finish();
}

void Exchange::Finish() {
  if (phase_ == Phase::kDone) return;
  head_timer_.Cancel(), route_timer_.Cancel(), try_timer_.Cancel(), wait_timer_.Cancel(), duration_timer_.Cancel();
  base::Cells& cells = base::Cells::Local();
  HttpStats& stats = conn_->http_stats();
  if (attempt_open_) {
    bool complete = (stream_.in.bits & In::kEnd) && response_begun_;
    if (!complete && record_->upstream_protocol == Protocol::kHttp2) cells.Add(cluster_->stats.rq_tx_reset);
    int grpc = record_->grpc ? record_->grpc_status : -1;
    uint16_t status = grpc >= 0 ? cluster::GrpcToHttpStatus(grpc) : static_cast<uint16_t>(record_->status);
    cluster::Outcome outcome{cluster::Outcome::kResponse, status};
    bool answered = response_begun_ && source_ == &stream_.in;
    EndAttempt(answered ? "ok" : "cancelled", answered && complete ? "" : "the caller left", answered ? &outcome : nullptr);
  }
  ReleaseStream();
  EndFault();
  if (holds_request_) cluster::Breakers::Release(breakers_->requests);
  if (holds_retry_) cluster::Breakers::Release(breakers_->retries);
  holds_request_ = holds_retry_ = false;
  if (cluster_) {
    cells.Sub(cluster_->stats.rq_active);
    cells.Record(cluster_->stats.rq_time, static_cast<uint64_t>(Since()) / 1000);
    if (record_->status) cluster_->stats.codes.Count(source_ == &reply_ ? local_status_ : record_->status);
    --cluster_->refs;
    cluster_ = nullptr;
  }
  if (counted_active_) {
    cells.Sub(stats.rq_active);
    cells.Record(stats.rq_time, static_cast<uint64_t>(Since()) / 1000);
    stats.CountAnswer(record_->status);
    if (record_->websocket && source_ == &stream_.in && record_->status / 100 == 2) cells.Sub(stats.cx_upgrades_active);
  }
  if (head_seen_ || record_->status) {
    FillRecord();
    if (const auto& istio = conn_->hcm().istio_stats) CountIstio(*istio);
  } else {
    record_.reset();
  }
  phase_ = Phase::kDone;
  advance_.Unlink();
  core_->OnRequest(-1);
  conn_->ExchangeDone(this, id_);
  conn_ = nullptr;
  core_->loop()->Schedule(io::Beat::kReap, &reap_);
}

void Exchange::ReportOpen() {
  // Only with an answer on its way: what waits for an upstream may yet go elsewhere.
  if (phase_ == Phase::kAttempt && attempt_open_) proxy::ReportOpen(*core_, *record_, started_ns_, down_.body_bytes, record_->response_bytes);
}

// The record is read here, behind the writes of the turn: the caller has its answer before anybody is told of it.
void Exchange::Reap() {
  if (record_) core_->Finish(std::move(record_));
  ClearInbound(down_), ClearInbound(reply_);
  stream_.Clear();
  replay_.Clear(), again_.Clear();
  snapshot_.Reset();
  pseudo_host_.reset();
  newest_.reset();
  core_->FreeExchange(this);
}

// What the connection and the request say, as it came. Texts cost a copy each: where nobody reads the record it does without.
void Exchange::BeginRecord() {
  const auto& hcm = conn_->hcm();
  record_->access_logs = hcm.access_logs ? hcm.access_logs : conn_->listener().config->access_logs;
  told_ = core_->options().all_records || record_->access_logs;
  conn_->Place(*record_);
  record_->protocol = conn_->http2() ? Protocol::kHttp2 : Protocol::kHttp11;
  record_->request_header_bytes = down_.head_bytes;
  if (told_) DescribeRecord();
}

void Exchange::DescribeRecord() {
  conn_->Describe(*record_);
  record_->stat_prefix = conn_->hcm().stat_prefix;
  if (!(down_.bits & (In::kHead | In::kMalformed))) return;  // it never came
  const http::HeaderMap& head = down_.head;
  record_->method = head.Value(Token::kMethod), record_->path = head.Value(Token::kPath);
  record_->authority = head.Value(Token::kAuthority), record_->user_agent = head.Value(Token::kUserAgent);
}

void Exchange::FillRecord() {
  record_->duration_ns = Since();
  record_->request_bytes = down_.body_bytes;
  record_->grpc = grpc_;
  if (!told_) return;
  if (record_->detail.empty()) record_->detail = "via_upstream";
  if (const auto* logs = record_->access_logs.get()) Capture(down_.head, logs->all_request_headers, logs->request_headers, record_->request_headers);
  if (record_->authority.empty()) record_->authority = down_.head.Value(Token::kAuthority);
}

void Exchange::CountIstio(const model::IstioStats& config) {
  IstioSubject s = SubjectOf(*conn_, config);
  SetCallee(entry_, host_, found_.route ? std::string_view(found_.route->name) : std::string_view(),
            config.host_header_fallback ? down_.head.Value(Token::kAuthority) : std::string_view(), &s);
  if (s.reporter != IstioSubject::kDestination) s.server_id = record_->upstream_peer_identity;
  if (s.reporter == IstioSubject::kSource) s.client_id = upstream_own_identity_;
  s.protocol = grpc_ ? IstioSubject::kGrpc : IstioSubject::kHttp;
  s.status = record_->status, s.grpc_status = grpc_ ? record_->grpc_status : -1, s.flags = record_->flags;
  core_->istio_stats().CountRequest(s, {static_cast<uint64_t>(record_->duration_ns) / 1000, record_->request_header_bytes + record_->request_bytes,
                                        record_->response_header_bytes + record_->response_bytes,
                                        counts_messages_ ? request_messages_.count() : 0, counts_messages_ ? response_messages_.count() : 0});
}

}  // namespace weft::proxy
