// Attempts: a host, a stream, the request to it, its answer; and whether to try again.
#include <algorithm>
#include <cmath>

#include "sidecar/http/status.h"
#include "sidecar/proxy/exchange.h"

namespace weft::proxy {

using In = codec::Inbound;
using StreamState = upstream::Stream::State;
using http::Token;
using upstream::Failure;

AttemptRecord& Exchange::NextAttemptRecord() {
  if (record_->attempt_count == record_->attempts.size()) record_->attempts.emplace_back();
  AttemptRecord& a = record_->attempts[record_->attempt_count++];
  a.endpoint.clear(), a.workload.clear(), a.version.clear(), a.detail.clear();
  a.start_offset_ns = Since(), a.duration_ns = a.connect_ns = 0, a.status = 0, a.outcome = "";
  a.host_ejected = a.connection_reused = false;
  a.healthy_hosts = a.total_hosts = 0, a.active_requests = a.max_requests = 0;
  a.local_address.clear(), a.not_retried = "", a.active_retries = a.max_retries = 0, a.ejections.clear();
  return a;
}

void Exchange::FillBreaker(AttemptRecord& a, const char* outcome, std::string_view detail) {
  a.active_requests = breakers_->requests.load(std::memory_order_relaxed), a.max_requests = thresholds_->max_requests;
  a.outcome = outcome;
  a.detail = detail;
}

// What answered was a limit of the cluster: its policy decided, not the route's.
void Exchange::DecidedByCluster() {
  record_->policy = entry_->config->weft.policy, record_->policy_revision = entry_->config->weft.revision;
}

void Exchange::StartAttempt() {
  base::Cells& cells = base::Cells::Local();
  ClusterStats& stats = cluster_->stats;
  phase_ = Phase::kAttempt;
  stream_.Clear();
  head_sent_ = request_sent_ = false;
  again_.Clear();
  if (!replay_.empty()) replay_.ShareTo(again_, replay_.size());
  if (record_->retries != 0 && cluster_->entry.get() != entry_) {
    // A retry goes to the hosts there are now, not to those there were when the request came.
    host_ = nullptr, newest_ = cluster_->entry;
    entry_ = newest_.get();
    int priority = found_.route->forward.high_priority ? 1 : 0;
    thresholds_ = &entry_->config->breakers[priority];
  }
  AttemptRecord& a = NextAttemptRecord();
  FillBreaker(a, "", "");
  if (entry_->config->type == model::Cluster::kOriginalDst) {
    model::Address to;
    if (!conn_->OriginalTarget(*entry_->config, &to)) {
      a.outcome = "no_healthy_host", a.detail = "no_original_destination";
      cells.Add(stats.cx_none_healthy);
      record_->flags.Set(ResponseFlag::kNoHealthyUpstream);
      return LocalReply(503, "no_original_destination", "no healthy upstream");
    }
    pseudo_host_ = cluster_->OriginalHost(to);
    host_ = pseudo_host_.get();
    a.healthy_hosts = a.total_hosts = 1;
  } else {
    cluster::PickInput in;
    in.random = core_->random().Next(), in.now_ns = core_->loop()->now();
    if (retry_.avoid_previous_hosts()) {
      in.excluded = {tried_.data(), tried_.size()};
      in.excluded_attempts = retry_.host_selection_attempts() + 1;
    }
    const auto& subset = found_.weighted && !found_.weighted->subset.empty() ? found_.weighted->subset : found_.route->forward.subset;
    if (!subset.empty()) in.subset = &subset;
    cluster::Choice c = cluster_->picker.Pick(*entry_, in);
    host_ = c.host;
    a.healthy_hosts = c.healthy, a.total_hosts = c.total;
    if (c.panic || c.total == 0) cells.Add(stats.lb_healthy_panic);
    if (!host_) {
      a.outcome = "no_healthy_host", a.detail = c.why;
      const std::string_view why = c.why;
      if (why.ends_with("drop_overload")) {
        cells.Add(stats.drop_overload);
        record_->flags.Set(why == "drop_overload" ? ResponseFlag::kDropOverload : ResponseFlag::kUnconditionalDropOverload);
        overloaded_ = true;
        return LocalReply(503, why, "drop overload");
      }
      cells.Add(stats.cx_none_healthy);
      record_->flags.Set(ResponseFlag::kNoHealthyUpstream);
      core_->ListEjected(*entry_, a);
      DecidedByCluster();
      return LocalReply(503, "no_healthy_upstream", "no healthy upstream");
    }
  }
  a.host_ejected = host_->cell->ejected.load(std::memory_order_relaxed);
  if (told_) {
    a.endpoint = host_->address, a.workload = host_->endpoint.workload, a.version = host_->endpoint.version;
    record_->upstream_host = host_->address;
  }
  attempt_open_ = holds_host_ = true;
  attempt_started_ns_ = core_->loop()->now();
  tried_.push_back(host_->cell.get());
  host_->cell->active_requests.fetch_add(1, std::memory_order_relaxed);
  host_->cell->rq_total.fetch_add(1, std::memory_order_relaxed);
  if (found_.route->forward.auto_host_rewrite) route::RewriteRequest(found_, down_.head, host_->endpoint.hostname);
  if (uint64_t t = retry_.per_try_timeout_ns()) core_->loop()->Arm(&try_timer_, t);
  if (request_end_seen_ || RequestEnded()) ArmRouteTimeout();
  upstream::HttpMode mode = upstream::HttpMode::kHttp1;
  switch (entry_->config->protocol) {
    case model::Cluster::kHttp1: break;
    case model::Cluster::kHttp2: mode = upstream::HttpMode::kHttp2; break;
    case model::Cluster::kAuto: mode = upstream::HttpMode::kAlpn; break;
    case model::Cluster::kUseDownstream:
      if (conn_->http2()) mode = upstream::HttpMode::kHttp2;
      break;
  }
  cluster_->PoolOf(*host_, mode, core_->loop(), core_->options().mark, conn_->FirstBytes(*entry_->config))->Acquire(&stream_);
  if (entry_->config->predictive_preconnect_ratio > 1) ConnectAhead(mode);
}

// To the hosts whose turn is next, where there is no connection yet.
void Exchange::ConnectAhead(upstream::HttpMode mode) {
  const auto expected = static_cast<uint32_t>(std::ceil(entry_->config->predictive_preconnect_ratio)) - 1;
  for (uint32_t i = 0; i < expected; ++i) {
    cluster::PickInput in;
    in.random = core_->random().Next(), in.now_ns = core_->loop()->now();
    const cluster::Host* next = cluster_->picker.Peek(*entry_, in, i).host;
    if (next && next != host_) cluster_->PoolOf(*next, mode, core_->loop(), core_->options().mark, conn_->FirstBytes(*entry_->config))->Preconnect();
  }
}

void Exchange::AdvanceAttempt() {
  if (stream_.state == StreamState::kWaiting || !attempt_open_) return;
  In& in = stream_.in;
  if (stream_.state == StreamState::kOpen && !head_sent_) SendRequestHead();
  if (in.bits & In::kInterim) SendInterim();
  if (!response_begun_) {
    if (in.bits & In::kHead) {
      OnResponseHead();
      if (phase_ != Phase::kAttempt) return;
    } else if (stream_.state == StreamState::kFailed || (in.bits & In::kReset)) {
      return NoResponse();
    }
  }
  PumpRequest();
  if (response_begun_ && source_ == &in) PumpResponse();
}

// The attempt ended before a response head: name the reason as Envoy does.
void Exchange::NoResponse() {
  In& in = stream_.in;
  cluster::TryResult r;
  base::Cells& cells = base::Cells::Local();
  switch (stream_.failure) {
    case Failure::kOverflow:
      record_->flags.Set(ResponseFlag::kUpstreamOverflow);
      overloaded_ = true;
      reset_reason_ = "overflow";
      EndAttempt("overflow", stream_.failure_detail, nullptr);
      DecidedByCluster();
      ReleaseStream();
      return LocalReply(503, "upstream_reset_before_response_started{overflow}",
                        "upstream connect error or disconnect/reset before headers. reset reason: overflow");
    case Failure::kConnectRefused:
    case Failure::kConnectError:
    case Failure::kTls:
      r.kind = cluster::TryResult::kConnectFailure;
      reset_reason_ = "remote connection failure";
      if (stream_.failure == Failure::kTls) record_->upstream_transport_failure = stream_.failure_detail;
      host_->cell->cx_connect_fail.fetch_add(1, std::memory_order_relaxed);
      if (stream_.failure == Failure::kTls) {
        scratch_ = "tls_";
        scratch_ += std::string_view(stream_.failure_detail).substr(0, stream_.failure_detail.find(':'));
        return AttemptFailed(r, ResponseFlag::kUpstreamConnectionFailure, core_->Intern(scratch_), stream_.failure_detail);
      }
      return AttemptFailed(r, ResponseFlag::kUpstreamConnectionFailure, upstream::FailureOutcome(stream_.failure),
                           "delayed connect error: " + stream_.failure_detail);
    case Failure::kConnectTimeout:
      r.kind = cluster::TryResult::kConnectTimeout;
      reset_reason_ = "connection timeout";
      host_->cell->cx_connect_fail.fetch_add(1, std::memory_order_relaxed);
      return AttemptFailed(r, ResponseFlag::kUpstreamConnectionFailure, "connect_timeout", "");
    case Failure::kNone:
    case Failure::kTerminated:
    case Failure::kPoolClosed:
      break;
  }
  std::string detail = stream_.failure_detail;
  if ((in.bits & In::kGoaway) || in.reset == codec::ResetCode::kRefused) {
    r.kind = cluster::TryResult::kRefusedStream;
    cells.Add(cluster_->stats.rq_rx_reset);
    reset_reason_ = "remote refused stream reset";
    return AttemptFailed(r, ResponseFlag::kUpstreamRemoteReset, "refused_stream", std::move(detail));
  }
  r.kind = head_sent_ ? cluster::TryResult::kReset : cluster::TryResult::kResetBeforeRequest;
  switch (in.reset) {
    case codec::ResetCode::kConnectionLost:
    case codec::ResetCode::kTruncated:
    case codec::ResetCode::kNoError:
      reset_reason_ = "connection termination";
      return AttemptFailed(r, ResponseFlag::kUpstreamConnectionTermination, "reset", detail.empty() ? "connection termination" : detail);
    case codec::ResetCode::kProtocol:
    case codec::ResetCode::kFrameSize:
    case codec::ResetCode::kCompression:
      // Ours to say, unless the peer used this code for a reset of its own.
      if (stream_.state != StreamState::kOpen || !stream_.conn->http2() || *in.error_detail) {
        reset_reason_ = "protocol error";
        return AttemptFailed(r, ResponseFlag::kUpstreamProtocolError, "protocol_error", std::move(detail));
      }
      [[fallthrough]];
    default:
      cells.Add(cluster_->stats.rq_rx_reset);
      reset_reason_ = "remote reset";
      return AttemptFailed(r, ResponseFlag::kUpstreamRemoteReset, "reset", detail.empty() ? "remote reset" : detail);
  }
}

void Exchange::SendRequestHead() {
  head_sent_ = true;
  base::Cells::Local().Add(cluster_->stats.rq_total);
  AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
  a.connection_reused = stream_.reused, a.connect_ns = static_cast<int64_t>(stream_.connect_ns);
  record_->upstream_protocol = stream_.conn->http2() ? Protocol::kHttp2 : Protocol::kHttp11;
  const tls::Engine* e = stream_.conn->transport().tls();
  if (told_) {
    record_->upstream_local = stream_.conn->local_address();
    if (e) record_->upstream_tls_version = e->version();
  }
  const bool istio = conn_->hcm().istio_stats != nullptr;
  if (e && e->peer() && (told_ || istio)) record_->upstream_peer_identity = e->peer()->spiffe_id;
  if (e && istio && !e->local_names().uri_sans.empty()) upstream_own_identity_ = e->local_names().uri_sans[0];
  if (found_.vhost->include_request_attempt_count) {
    down_.head.Set(Token::kEnvoyAttemptCount, std::to_string(record_->attempt_count));
  }
  bool end = RequestEnded() && down_.body.empty() && again_.empty() && !(down_.bits & In::kTrailers) && !upgrade_;
  stream_.conn->codec().SendHead(stream_.id, down_.head, end);
  stream_.conn->MarkDirty();
  request_sent_ = end;
  record_->upstream_tx_header_bytes += down_.head.bytes();
  record_->upstream_tx_first_ns = Since();
  if (end) record_->upstream_tx_ns = record_->upstream_tx_first_ns;
}

void Exchange::PumpRequest() {
  if (stream_.state != StreamState::kOpen || !head_sent_ || request_sent_) return;
  if (upgrade_ && !response_begun_) return;  // a tunnel's bytes wait until it stands
  codec::Codec& up = stream_.conn->codec();
  bool ended = RequestEnded(), trailers = down_.bits & In::kTrailers;
  while (!again_.empty()) {
    size_t n = std::min(up.SendRoom(stream_.id), again_.size());
    if (n == 0) return;
    bool last = n == again_.size() && ended && !trailers && down_.body.empty();
    up.SendBody(stream_.id, again_, n, last);
    record_->upstream_tx_bytes += n;
    request_sent_ = last;
    stream_.conn->MarkDirty();
  }
  while (!down_.body.empty()) {
    size_t n = std::min(up.SendRoom(stream_.id), down_.body.size());
    if (n == 0) return;
    if (replayable_ && !response_begun_ && !upgrade_) {
      if (retry_.max_retries() == 0 || replay_.size() + n > replay_limit_) {
        replayable_ = false;
        replay_.Clear();
      } else {
        down_.body.ShareTo(replay_, n);
      }
    }
    bool last = n == down_.body.size() && ended && !trailers;
    if (counts_messages_) request_messages_.See(down_.body, n);
    up.SendBody(stream_.id, down_.body, n, last);
    record_->upstream_tx_bytes += n;
    request_sent_ = last;
    stream_.conn->MarkDirty();
    conn_->Consumed(id_, n);
  }
  if (ended && !request_sent_) {
    if (trailers) {
      up.SendTrailers(stream_.id, down_.trailers);
    } else {
      up.SendBody(stream_.id, down_.body, 0, true);
    }
    stream_.conn->MarkDirty();
    request_sent_ = true;
  }
  if (request_sent_) record_->upstream_tx_ns = Since();
}

void Exchange::OnResponseHead() {
  In& in = stream_.in;
  try_timer_.Cancel();
  auto status = static_cast<uint16_t>(http::ParseStatus(in.head.Value(Token::kStatus)));
  AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
  a.status = status;
  record_->upstream_first_rx_ns = Since();
  record_->upstream_rx_header_bytes += in.head_bytes;
  record_->upstream_service_ns = static_cast<int64_t>(core_->loop()->now() - attempt_started_ns_);
  if (replayable_ && !upgrade_) {
    cluster::TryResult r;
    r.status = status, r.headers = &in.head;
    int grpc = -1;
    if (auto g = in.head.Get(Token::kGrpcStatus)) grpc = atoi(std::string(*g).c_str());
    cluster::Outcome outcome{cluster::Outcome::kResponse, grpc >= 0 ? cluster::GrpcToHttpStatus(grpc) : status};
    if (Retry(r)) {
      EndAttempt("retriable_status", "", &outcome);
      ReleaseStream();
      return;
    }
    if (record_->attempt_count > 1 && status < 500 && grpc <= 0) {
      base::Cells::Local().Add(cluster_->stats.rq_retry_success);
      entry_->cells->retry_success.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (holds_retry_) {
    cluster::Breakers::Release(breakers_->retries);
    holds_retry_ = false;
  }
  source_ = &in;
  if (!TimeoutCoversResponse()) route_timer_.Cancel();
  record_->status = status;
  PrepareResponseHead(in.head);
  bool end = (in.bits & In::kEnd) && in.body.empty() && !(in.bits & In::kTrailers) && !(upgrade_ && status / 100 == 2);
  SendResponseHead(in.head, end);
  if (record_->websocket && status / 100 == 2) {
    base::Cells::Local().Add(conn_->http_stats().cx_upgrades_total);
    base::Cells::Local().Add(conn_->http_stats().cx_upgrades_active);
  }
}

bool Exchange::Retry(const cluster::TryResult& result) {
  base::Cells& cells = base::Cells::Local();
  ClusterStats& stats = cluster_->stats;
  if (holds_retry_) {
    cluster::Breakers::Release(breakers_->retries);
    holds_retry_ = false;
  }
  cluster::RetryDecision d = retry_.Decide(result, core_->random().Next(), core_->loop()->wall_now() / base::kSecond);
  if (!d.retry) {
    if (d.exhausted) {
      cells.Add(stats.rq_retry_limit_exceeded);
      entry_->cells->retry_limit_exceeded.fetch_add(1, std::memory_order_relaxed);
      record_->flags.Set(ResponseFlag::kUpstreamRetryLimitExceeded);
      record_->attempts[record_->attempt_count - 1].not_retried = "attempts";
    }
    return false;
  }
  if (!breakers_->TryRetry(*thresholds_)) {
    cells.Add(stats.rq_retry_overflow);
    record_->flags.Set(ResponseFlag::kUpstreamOverflow);
    AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
    a.not_retried = thresholds_->budget ? "retry_budget" : "max_retries";
    a.active_retries = breakers_->retries.load(std::memory_order_relaxed), a.max_retries = breakers_->RetryLimit(*thresholds_);
    a.retry_budget_percent = thresholds_->budget ? thresholds_->budget_percent : 0;
    DecidedByCluster();
    return false;
  }
  // Waiting helps a host that is busy. One that is not there is left at once when another has not been tried yet.
  using Kind = cluster::TryResult;
  bool absent = result.kind == Kind::kConnectFailure || result.kind == Kind::kResetBeforeRequest ||
                (retry_.policy() == nullptr && result.kind == Kind::kReset);
  if (absent && tried_.size() < record_->attempts[record_->attempt_count - 1].total_hosts) d.backoff_ns = 0;
  holds_retry_ = true;
  cells.Add(stats.rq_retry);
  phase_ = Phase::kBackoff;
  core_->loop()->Arm(&wait_timer_, d.backoff_ns);
  return true;
}

void Exchange::AttemptFailed(cluster::TryResult result, ResponseFlag flag, const char* outcome, std::string detail) {
  try_timer_.Cancel();
  cluster::Outcome report;
  switch (result.kind) {
    case cluster::TryResult::kConnectFailure: report.kind = cluster::Outcome::kConnectFailure; break;
    case cluster::TryResult::kConnectTimeout: report.kind = cluster::Outcome::kConnectTimeout; break;
    case cluster::TryResult::kRefusedStream: report.kind = cluster::Outcome::kRefusedStream; break;
    case cluster::TryResult::kPerTryTimeout: report.kind = cluster::Outcome::kTimeout; break;
    default: report.kind = cluster::Outcome::kReset;
  }
  EndAttempt(outcome, detail, &report);
  ReleaseStream();
  if (replayable_ && !upgrade_ && Retry(result)) return;
  FinalFailure(flag, result.kind, detail);
}

void Exchange::FinalFailure(ResponseFlag flag, cluster::TryResult::Kind kind, const std::string& detail) {
  record_->flags.Set(flag);
  if (kind == cluster::TryResult::kConnectTimeout) DecidedByCluster();
  if (kind == cluster::TryResult::kPerTryTimeout) {
    return LocalReply(504, "upstream_per_try_timeout", "upstream request timeout");
  }
  std::string body = "upstream connect error or disconnect/reset before headers. ";
  if (record_->attempt_count > 1) body += "retried and the latest ";
  body += "reset reason: ";
  body += reset_reason_;
  std::string details = "upstream_reset_before_response_started{";
  details += reset_reason_;
  bool transport = kind == cluster::TryResult::kConnectFailure && !detail.empty();
  if (transport) {
    details += "|" + detail;
  }
  details += "}";
  for (char& c : details)
    if (c == ' ') c = '_';
  LocalReply(flag == ResponseFlag::kUpstreamProtocolError ? 502 : 503, details, body);
}

void Exchange::EndAttempt(const char* outcome, const std::string& detail, const cluster::Outcome* report) {
  if (!attempt_open_) return;
  attempt_open_ = false;
  AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
  a.duration_ns = static_cast<int64_t>(core_->loop()->now() - attempt_started_ns_);
  a.outcome = outcome;
  a.detail = detail;
  if (!head_sent_) a.local_address = stream_.local_address;
  else if (std::string_view(outcome) != "ok") a.local_address = record_->upstream_local;
  if (holds_host_) {
    holds_host_ = false;
    cluster::HostCell& cell = *host_->cell;
    cell.active_requests.fetch_sub(1, std::memory_order_relaxed);
    if (report) {
      bool good = report->kind == cluster::Outcome::kResponse && report->status < 500;
      (good ? cell.rq_success : cell.rq_error).fetch_add(1, std::memory_order_relaxed);
      if (report->kind == cluster::Outcome::kTimeout) cell.rq_timeout.fetch_add(1, std::memory_order_relaxed);
    }
  }
  if (report && entry_->config->type != model::Cluster::kOriginalDst) cluster::Report(*entry_, *host_, *report, core_->loop()->now());
}

// Leaves the stream: complete exchanges give the connection back, others are reset.
void Exchange::ReleaseStream() {
  try_timer_.Cancel();
  if (stream_.state == StreamState::kOpen && ((stream_.in.bits & In::kReset) || ((stream_.in.bits & In::kEnd) && request_sent_))) {
    stream_.Finish();
  } else {
    stream_.Close(codec::ResetCode::kCancel);
  }
}

}  // namespace weft::proxy
