#include "sidecar/proxy/relay.h"

#include "sidecar/http/ids.h"
#include "sidecar/proxy/open_report.h"
#include "sidecar/upstream/dial.h"

namespace weft::proxy {
namespace {
constexpr size_t kWindow = 2 * upstream::Transport::kPortion;  // unsent bytes of one direction
constexpr size_t kBeforeOpen = 64 * 1024;  // taken from the client before there is somebody to send to
}  // namespace

using upstream::Failure;

Relay::Relay(Connection* connection, const model::TcpProxy& config)
    : conn_(connection), core_(connection->core()), config_(config), stats_(core_->Tcp(config.stat_prefix)),
      started_ns_(core_->loop()->now()), last_activity_ns_(started_ns_) {}

Relay::~Relay() {
  if (!finished_) End(false);
}

void Relay::Start() {
  base::Cells& cells = base::Cells::Local();
  cells.Add(stats_.cx_total);
  cells.Add(stats_.cx_active);
  record_ = core_->NewRecord();
  record_->access_logs = config_.access_logs ? config_.access_logs : conn_->listener().config->access_logs;
  conn_->Place(*record_), conn_->Describe(*record_);
  record_->start_unix_ns = core_->loop()->wall_now();
  record_->stat_prefix = config_.stat_prefix;
  if (config_.max_duration_ns) core_->loop()->Arm(&duration_timer_, config_.max_duration_ns);
  if (config_.idle_timeout_ns) core_->loop()->Arm(&idle_timer_, config_.idle_timeout_ns);
  snapshot_ = core_->Snapshot();
  std::string_view name = config_.cluster;
  if (conn_->chain().sni_cluster && !conn_->server_name().empty()) {
    name = conn_->server_name();
  } else if (!config_.weighted.empty() && config_.total_weight) {
    uint64_t r = core_->random().Below(config_.total_weight);
    for (const auto& w : config_.weighted) {
      name = w.cluster;
      if (r < w.weight) break;
      r -= w.weight;
    }
  }
  record_->cluster = name;
  using NameIndex = model::NameMap<uint32_t>;
  const NameIndex* index = snapshot_->cluster_index.get();
  auto it = index ? index->find(name) : NameIndex::const_iterator();
  if (!index || it == index->end()) {
    cells.Add(stats_.cx_no_route);
    return Fail(ResponseFlag::kNoClusterFound, "cluster_not_found");
  }
  entry_ = snapshot_->clusters[it->second];
  cluster_ = core_->clusters().Get(entry_);
  ++cluster_->refs;
  record_->policy = entry_->config->weft.policy, record_->policy_revision = entry_->config->weft.revision;
  if (!entry_->config->service.empty()) {
    record_->destination_service = entry_->config->service, record_->destination_namespace = entry_->config->service_namespace;
  }
  Connect();
  Wake();
}

void Relay::Connect() {
  base::Cells& cells = base::Cells::Local();
  auto& attempts = record_->attempts;
  if (record_->attempt_count == attempts.size()) attempts.emplace_back();
  AttemptRecord& a = attempts[record_->attempt_count++];
  a = {};
  attempt_ns_ = core_->loop()->now();
  a.start_offset_ns = static_cast<int64_t>(attempt_ns_ - started_ns_);
  const auto& limits = entry_->config->breakers[0];
  a.active_requests = entry_->cells->breakers[0].connections.load(std::memory_order_relaxed), a.max_requests = limits.max_connections;
  if (entry_->config->type == model::Cluster::kOriginalDst) {
    model::Address to;
    if (!conn_->OriginalTarget(*entry_->config, &to)) {
      a.outcome = "no_healthy_host", a.detail = "no_original_destination";
      cells.Add(cluster_->stats.cx_none_healthy);
      return Fail(ResponseFlag::kNoHealthyUpstream, "no_original_destination");
    }
    pseudo_host_ = cluster_->OriginalHost(to);
    host_ = pseudo_host_.get();
  } else {
    cluster::PickInput in;
    in.random = core_->random().Next(), in.now_ns = core_->loop()->now();
    in.excluded = {tried_.data(), tried_.size()};
    cluster::Choice c = cluster_->picker.Pick(*entry_, in);
    a.healthy_hosts = c.healthy, a.total_hosts = c.total;
    host_ = c.host;
    if (!host_) {
      a.outcome = "no_healthy_host", a.detail = c.why;
      core_->ListEjected(*entry_, a);
      cells.Add(cluster_->stats.cx_none_healthy);
      return Fail(ResponseFlag::kNoHealthyUpstream, "no_healthy_upstream");
    }
  }
  a.endpoint = host_->address, a.workload = host_->endpoint.workload, a.version = host_->endpoint.version;
  a.host_ejected = host_->cell->ejected.load(std::memory_order_relaxed);
  record_->upstream_host = host_->address;
  tried_.push_back(host_->cell.get());
  if (!cluster_->AcquireConnection()) {
    a.outcome = "overflow", a.detail = "max_connections";
    cells.Add(cluster_->stats.pool.cx_overflow);
    return Fail(ResponseFlag::kUpstreamOverflow, "upstream_overflow");
  }
  holds_connection_ = true;
  host_->cell->active_connections.fetch_add(1, std::memory_order_relaxed);
  host_->cell->cx_total.fetch_add(1, std::memory_order_relaxed);
  cells.Add(cluster_->stats.pool.cx_total);
  cells.Add(cluster_->stats.pool.cx_active);
  upstream::DialConfig dial = cluster_->DialTo(*host_, core_->options().mark);
  core_->loop()->Arm(&timer_, dial.connect_timeout_ns);
  state_ = State::kConnecting;
  int error = 0;
  int fd = upstream::Dial(dial, &error);
  if (fd < 0) return ConnectFailed(upstream::FailureOf(error), upstream::ErrnoText(error));
  up_.Open(fd);
  core_->loop()->Watch(fd, this);
}

void Relay::DropUpstream(bool abort) {
  timer_.Cancel();
  flush_.Unlink();
  if (up_.open()) {
    core_->loop()->Unwatch(up_.fd(), this);
    if (abort) up_.Abort();
    up_.Close();
  }
  if (!holds_connection_) return;
  holds_connection_ = false;
  cluster_->ReleaseConnection();
  host_->cell->active_connections.fetch_sub(1, std::memory_order_relaxed);
  base::Cells::Local().Sub(cluster_->stats.pool.cx_active);
  base::Cells::Local().Add(cluster_->stats.pool.cx_destroy);
}

void Relay::ConnectFailed(Failure failure, const std::string& detail) {
  base::Cells& cells = base::Cells::Local();
  AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
  a.duration_ns = static_cast<int64_t>(core_->loop()->now() - attempt_ns_);
  a.outcome = upstream::FailureOutcome(failure);
  if (failure == Failure::kTls) {
    a.outcome = core_->Intern("tls_" + detail.substr(0, detail.find(':')));
    record_->upstream_transport_failure = detail;
  }
  a.detail = detail;
  cells.Add(failure == Failure::kConnectTimeout ? cluster_->stats.pool.cx_connect_timeout : cluster_->stats.pool.cx_connect_fail);
  host_->cell->cx_connect_fail.fetch_add(1, std::memory_order_relaxed);
  DropUpstream(false);
  state_ = State::kIdle;
  if (entry_->config->type != model::Cluster::kOriginalDst) {
    cluster::Outcome o{failure == Failure::kConnectTimeout ? cluster::Outcome::kConnectTimeout : cluster::Outcome::kConnectFailure, 0};
    cluster::Report(*entry_, *host_, o, core_->loop()->now());
    // Nothing has been said to the host: another one may be tried, as with requests, two times unless more is configured.
    uint32_t most = config_.max_connect_attempts > 1 ? config_.max_connect_attempts : 3;
    if (record_->attempt_count < most && entry_->hosts && entry_->hosts->hosts().size() > 1) {
      ++record_->retries;
      return Connect();
    }
    if (record_->attempt_count > 1) record_->flags.Set(ResponseFlag::kUpstreamRetryLimitExceeded);
    cells.Add(cluster_->stats.cx_connect_attempts_exceeded);
  }
  Fail(ResponseFlag::kUpstreamConnectionFailure, "upstream_connection_failure");
}

void Relay::OnReady(uint32_t events) {
  if (finished_) return;
  up_.OnReady(events);
  if (state_ == State::kConnecting) {
    if (!(events & (io::kWritable | io::kHangup))) return;
    int error = upstream::ConnectResult(up_.fd());
    if (error == EINPROGRESS) return;
    if (error) return ConnectFailed(upstream::FailureOf(error), upstream::ErrnoText(error));
    record_->upstream_local = upstream::LocalAddress(up_.fd());
    record_->attempts[record_->attempt_count - 1].local_address = record_->upstream_local;
    if (entry_->tls) up_.StartTls(entry_->tls, tls::Engine::kClient, host_->address);
    up_.SendFirst(conn_->FirstBytes(*entry_->config));
    if (entry_->tls) {
      state_ = State::kHandshake;
      core_->loop()->Schedule(io::Beat::kFlush, &flush_);
    } else {
      Connected();
    }
  }
  if (state_ == State::kHandshake) {
    if (up_.Read(kWindow)) core_->loop()->Schedule(io::Beat::kFlush, &flush_);
    if (up_.tls_failed()) {
      up_.Write();
      const tls::Engine& e = *up_.tls();
      return ConnectFailed(Failure::kTls, std::string(tls::FailureName(e.failure())) + ": " + std::string(e.failure_detail()));
    }
    if (up_.error()) return ConnectFailed(upstream::FailureOf(up_.error()), upstream::ErrnoText(up_.error()));
    if (up_.handshaking()) {
      if (up_.eof()) ConnectFailed(Failure::kTls, "peer_closed: the peer closed the connection during the TLS handshake");
      return;
    }
    base::Cells::Local().Add(cluster_->stats.pool.ssl_handshake);
    if (up_.tls()->resumed()) base::Cells::Local().Add(cluster_->stats.pool.ssl_session_reused);
    record_->upstream_tls_version = up_.tls()->version();
    if (up_.tls()->peer()) record_->upstream_peer_identity = up_.tls()->peer()->spiffe_id;
    if (const auto& ours = up_.tls()->local_names().uri_sans; !ours.empty()) upstream_own_identity_ = ours[0];
    Connected();
  }
  if (events & io::kWritable) core_->loop()->Schedule(io::Beat::kFlush, &flush_);
  Wake();
}

void Relay::Connected() {
  state_ = State::kOpen;
  timer_.Cancel();
  AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
  a.connect_ns = static_cast<int64_t>(core_->loop()->now() - attempt_ns_);
  a.outcome = "ok";
  base::Cells::Local().Record(cluster_->stats.pool.cx_connect_ms, static_cast<uint64_t>(a.connect_ns) / 1000);
  if (entry_->config->type != model::Cluster::kOriginalDst) {
    cluster::Report(*entry_, *host_, {cluster::Outcome::kResponse, 200}, core_->loop()->now());
  }
  if (conn_->chain().istio_stats) {
    CountIstioOpened();
    core_->CountWhileOpen(this);
  }
}

// As Istio's filter: once it is known who the other side is, or at the end.
void Relay::CountIstioOpened() {
  IstioSubject s = SubjectOf(*conn_, *conn_->chain().istio_stats);
  SetCallee(entry_.get(), host_, "", "", &s);
  if (s.reporter != IstioSubject::kDestination) s.server_id = record_->upstream_peer_identity;
  if (s.reporter == IstioSubject::kSource) s.client_id = upstream_own_identity_;
  s.protocol = IstioSubject::kTcp;
  s.flags = record_->flags;
  istio_ = core_->istio_stats().Opened(s);
}

void Relay::CountIstioBytes() {
  base::Cells& cells = base::Cells::Local();
  cells.Add(istio_->sent, record_->response_bytes - istio_sent_);
  cells.Add(istio_->received, record_->request_bytes - istio_received_);
  istio_sent_ = record_->response_bytes, istio_received_ = record_->request_bytes;
}

void Relay::OnDownstream(uint32_t events) {
  if (events & io::kWritable) conn_->MarkDirty();
  if (!finished_) Wake();
}

void Relay::AfterFlush() {
  if (finished_) return;
  // Room again, or the last byte before the end is out.
  if (up_.more_to_read() || up_.eof() || !up_.in.empty()) Wake();
}

void Relay::Pump() {
  if (finished_) return;
  upstream::Transport& down = conn_->transport();
  base::Cells& cells = base::Cells::Local();
  bool open = state_ == State::kOpen, moved = false;
  if (up_.unsent() + down.in.size() < (open ? kWindow : kBeforeOpen)) {
    down.Read(open ? kWindow : kBeforeOpen);
    if (size_t n = down.in.size()) {
      if (record_->request_bytes == 0) conn_->NoteFirstBytes();
      record_->request_bytes += n;
      cells.Add(stats_.rx_bytes, n);
      up_.out.Move(down.in);
      moved = true;
    }
  }
  if (down.broken()) {
    record_->flags.Set(ResponseFlag::kDownstreamConnectionTermination);
    record_->connection_termination = record_->detail = "downstream_reset";
    DropUpstream(true);
    return End(true);
  }
  if (!open) {
    if (down.more_to_read() && up_.unsent() < kBeforeOpen) Wake();
    return;
  }
  if (down.unsent() < kWindow) {
    up_.Read(kWindow);
    if (size_t n = up_.in.size()) {
      if (record_->upstream_first_rx_ns < 0) record_->upstream_first_rx_ns = static_cast<int64_t>(core_->loop()->now() - started_ns_);
      if (record_->response_bytes == 0 && record_->request_bytes == 0) conn_->NoteServerSpoke();
      record_->response_bytes += n;
      cells.Add(stats_.tx_bytes, n);
      down.out.Move(up_.in);
      conn_->MarkDirty();
      moved = true;
    }
  }
  if (up_.broken()) {
    // What came before the reset may still be read by the client; then it sees a reset too.
    record_->flags.Set(ResponseFlag::kUpstreamConnectionTermination);
    record_->connection_termination = record_->detail = "upstream_reset";
    down.Write();
    return End(true);
  }
  if (moved) last_activity_ns_ = core_->loop()->now();
  if (down.eof() && down.in.empty()) up_.ShutdownWrite();
  if (up_.eof() && up_.in.empty() && !down.write_shut()) {
    down.ShutdownWrite();
    conn_->MarkDirty();
  }
  core_->loop()->Schedule(io::Beat::kFlush, &flush_);
  if (down.eof() && up_.eof() && up_.write_shut() && down.write_shut()) return End(false);
  if ((down.more_to_read() && up_.unsent() < kWindow) || (up_.more_to_read() && down.unsent() < kWindow)) Wake();
}

void Relay::FlushUpstream() {
  if (finished_ || !up_.open() || state_ == State::kConnecting) return;
  bool was_shut = up_.write_shut();
  size_t before = up_.unsent();
  up_.Write();
  if (up_.broken()) return Wake();
  bool room = before >= kWindow / 2 && up_.unsent() < kWindow / 2;
  if (room || was_shut != up_.write_shut()) Wake();
  if (up_.write_shut() && conn_->transport().write_shut()) Wake();
}

void Relay::Fail(ResponseFlag flag, const char* detail) {
  record_->flags.Set(flag);
  record_->detail = detail;
  End(true);
}

void Relay::Refuse(std::string_view policy, const std::string& detail) {
  if (finished_) return;
  record_->policy = policy;
  record_->connection_termination = detail;
  Fail(ResponseFlag::kUnauthorizedExternalService, detail.c_str());
}

void Relay::OnTimer() {
  ConnectFailed(Failure::kConnectTimeout, state_ == State::kHandshake ? "TLS handshake timeout" : "connect timeout");
}

void Relay::OnIdle() {
  uint64_t now = core_->loop()->now(), due = last_activity_ns_ + config_.idle_timeout_ns;
  if (now < due) return core_->loop()->Arm(&idle_timer_, due - now);
  base::Cells::Local().Add(stats_.idle_timeout);
  record_->flags.Set(ResponseFlag::kStreamIdleTimeout);
  record_->detail = record_->connection_termination = "idle_timeout";
  End(false);
}

void Relay::OnDuration() {
  record_->flags.Set(ResponseFlag::kDurationTimeout);
  record_->detail = record_->connection_termination = "max_downstream_connection_duration";
  End(false);
}

void Relay::OnDownstreamGone() {
  if (finished_) return;
  if (record_->flags.empty() && !conn_->transport().eof()) {
    record_->flags.Set(ResponseFlag::kDownstreamConnectionTermination);
    if (record_->detail.empty()) record_->detail = "downstream_closed";
  }
  End(false);
}

void Relay::ReportOpen() {
  if (state_ == State::kOpen) proxy::ReportOpen(*core_, *record_, started_ns_, record_->request_bytes, record_->response_bytes);
}

// Everything goes; the record is written.
void Relay::End(bool abort_downstream) {
  if (finished_) return;
  finished_ = true;
  state_ = State::kDone;
  idle_timer_.Cancel(), duration_timer_.Cancel();
  pump_.Unlink();
  if (record_->attempt_count) {
    AttemptRecord& a = record_->attempts[record_->attempt_count - 1];
    if (a.duration_ns == 0) a.duration_ns = static_cast<int64_t>(core_->loop()->now() - attempt_ns_);
    if (*a.outcome == 0) a.outcome = "cancelled";
  }
  if (conn_->chain().istio_stats) {
    if (!istio_) CountIstioOpened();
    CountIstioBytes();
    base::Cells::Local().Add(istio_->closed);
    base::ListNode::Unlink();
  }
  DropUpstream(abort_downstream);
  if (cluster_) --cluster_->refs;
  cluster_ = nullptr;
  base::Cells::Local().Sub(stats_.cx_active);
  record_->duration_ns = static_cast<int64_t>(core_->loop()->now() - started_ns_);
  if (record_->access_logs) {  // its id in logs, as requests have one
    char id[http::kUuidLength];
    record_->request_id = http::NewUuid4(id);
  }
  record_->upstream_tx_bytes = record_->request_bytes, record_->upstream_rx_bytes = record_->response_bytes;
  // A connection that went wrong can be asked about: it gets the name that requests have from their headers.
  ResponseFlags left;
  left.Set(ResponseFlag::kDownstreamConnectionTermination);
  if (core_->options().all_records && (record_->flags.bits & ~left.bits)) MintTrace(*record_);
  core_->Finish(std::move(record_));
  snapshot_.Reset();
  if (conn_->gone()) return;
  if (abort_downstream) conn_->AbortNow();
  else conn_->CloseNow();
}

}  // namespace weft::proxy
