// The life of a downstream connection once its filter chain is known, and its end. connection_arrival.cc has what comes
// before, connection_http.cc the HTTP part.
#include "sidecar/proxy/connection.h"

#include <utility>

#include "sidecar/base/log.h"
#include "sidecar/filters/proxy_protocol/proxy_protocol.h"
#include "sidecar/filters/rbac/rbac.h"
#include "sidecar/io/socket.h"
#include "sidecar/proxy/exchange.h"
#include "sidecar/proxy/relay.h"

namespace weft::proxy {
namespace {

constexpr uint64_t kHandshakeNs = 10 * base::kSecond;
constexpr uint64_t kLingerNs = base::kSecond;
constexpr size_t kSniffLimit = 64 * 1024;

// All the memory of an idle plaintext connection is here (RestCodec, DropRare), and there are thousands.
static_assert(sizeof(Connection) <= 464);

void AddTlsFailure(const ListenerStats& s, tls::Failure f) {
  base::Cells& cells = base::Cells::Local();
  cells.Add(s.ssl_connection_error);
  if (f == tls::Failure::kNoCertificate) cells.Add(s.ssl_fail_verify_no_cert);
  if (f == tls::Failure::kSanMismatch || f == tls::Failure::kBadSvid) cells.Add(s.ssl_fail_verify_san);
  if (f == tls::Failure::kUnknownCa || f == tls::Failure::kExpired || f == tls::Failure::kNotYetValid) {
    cells.Add(s.ssl_fail_verify_error);
  }
}

}  // namespace

Connection::Connection(WorkerCore* core, int fd, std::shared_ptr<const model::ListenerEntry> listener, const model::Address& peer)
    : core_(core), listener_(std::move(listener)), peer_(model::IpPort::Of(peer)), id_(core->NextConnectionId()),
      started_ns_(core->loop()->now()) {
  transport_.Open(fd);
  const model::Address local = model::Address::FromSockaddr(io::LocalAddress(fd).storage);
  local_ = model::IpPort::Of(local);
  if (local.kind == model::Address::kPipe) rare().local = local;
  if (peer.kind == model::Address::kPipe) rare().peer = peer;
}

Connection::~Connection() {
  if (transport_.open()) core_->loop()->Unwatch(transport_.fd(), this);
}

void Connection::OnChain() {
  const auto& contexts = listener_->tls;
  auto context = chain_->index < contexts.size() ? contexts[chain_->index] : nullptr;
  if (!chain_->tls) return AfterTransport();
  if (!context) {  // never warm: the snapshot would not hold it; refuse rather than speak plaintext
    base::Cells::Local().Add(listener_stats_->ssl_connection_error);
    return AbortNow();
  }
  state_ = State::kHandshake;
  transport_.StartTls(context, tls::Engine::kServer);
  core_->loop()->Arm(&timer_, chain_->transport_connect_timeout_ns ? chain_->transport_connect_timeout_ns : kHandshakeNs);
  core_->loop()->Schedule(io::Beat::kAdvance, &input_);
}

void Connection::HandshakeFailed() {
  const tls::Engine* e = tls();
  bool lost = !transport_.tls_failed();
  tls::Failure failure = lost ? tls::Failure::kPeerClosed : e->failure();
  AddTlsFailure(*listener_stats_, failure);
  WEFT_LOG(kConnection, kDebug, "TLS handshake with ", peer().ToString(), " failed: ", tls::FailureName(failure), " ", e->failure_detail());
  RecordRefusal(ResponseFlag::kDownstreamConnectionTermination, "downstream_tls_handshake_failed", "", tls::FailureName(failure),
                e->failure_detail());
  CloseNow();
}

// The byte stream stands: decide who may use it, and as what.
void Connection::AfterTransport() {
  timer_.Cancel();
  if (tls()) base::Cells::Local().Add(listener_stats_->ssl_handshake);
  if (!NetworkAllowed()) return;
  if (const model::TcpProxy* tcp = chain_->tcp()) {
    state_ = State::kTcp;
    relay_ = std::make_unique<Relay>(this, *tcp);
    return relay_->Start();
  }
  DropRare();
  http_stats_ = &listener_stats_->Http(hcm().stat_prefix);
  counted_http_ = true;
  base::Cells::Local().Add(http_stats_->cx_total);
  base::Cells::Local().Add(http_stats_->cx_active);
  state_ = State::kPickCodec;
  if (uint64_t age = hcm().common.max_connection_duration_ns) core_->loop()->Arm(&rare().age_timer, age);
  BeginIdle();
  // The peer's end may have come in one read with the last handshake bytes: no event will tell of it again.
  if (PickCodec() || !transport_.in.empty() || transport_.eof() || transport_.broken()) core_->loop()->Schedule(io::Beat::kAdvance, &input_);
}

// HTTP begins (so no timer of it runs yet): what was sniffed has done its work, but for a server's name.
void Connection::DropRare() {
  if (rare_ && rare_->sni.empty() && !rare_->peer.kind && !rare_->local.kind && !rare_->introduction) rare_.reset();
}

filters::rbac::Verdict Connection::NetworkVerdict(const model::FilterChain& chain) {
  filters::rbac::Verdict verdict;
  verdict.allowed = true;
  if (chain.network_rbac.empty()) return verdict;
  const model::Address to = destination(), from = peer(), direct = direct_peer();
  for (const auto& config : chain.network_rbac) {
    filters::rbac::Input in;
    in.peer = peer_info(), in.destination = &to, in.direct_remote = &direct, in.remote = &from, in.server_name = server_name();
    verdict = filters::rbac::Evaluate(*config, in);
    base::Cells::Local().Add(verdict.allowed ? listener_stats_->rbac_allowed : listener_stats_->rbac_denied);
    if (!verdict.allowed) break;
  }
  return verdict;
}

static std::string DeniedDetail(const filters::rbac::Verdict& v) {
  return "rbac_access_denied_matched_policy[" + std::string(v.policy.empty() ? "none" : v.policy) + "]";
}

bool Connection::NetworkAllowed() {
  const filters::rbac::Verdict v = NetworkVerdict(*chain_);
  if (v.allowed) return true;
  RecordRefusal(ResponseFlag::kUnauthorizedExternalService, DeniedDetail(v).c_str(), v.policy, "", "");
  AbortNow();
  return false;
}

void Connection::Reconsider(const model::ListenerEntry& now) {
  if (state_ != State::kTcp || !relay_) return;
  const model::FilterChain* chain = model::Match(*now.config, Info());
  if (!chain) return;  // the listener knows this destination no more: what is open may finish
  const filters::rbac::Verdict v = NetworkVerdict(*chain);
  if (!v.allowed) relay_->Refuse(v.policy, DeniedDetail(v));
}

bool Connection::OriginalTarget(const model::Cluster& cluster, model::Address* to) const {
  *to = destination();
  if (cluster.original_dst_port) to->port = static_cast<uint16_t>(*cluster.original_dst_port);
  return listener_->config->transparent || !(*to == local());
}

void Connection::Place(Record& r) const {
  switch (listener_->config->direction) {
    case model::Listener::kInbound: r.direction = Direction::kInbound; break;
    case model::Listener::kOutbound: r.direction = Direction::kOutbound; break;
    default: r.direction = Direction::kUnspecified;
  }
  r.connection_id = id_;
  r.downstream_remote = peer(), r.downstream_direct_remote = direct_peer(), r.downstream_local = destination();
}

void Connection::Describe(Record& r) const {
  r.listener = listener_->config->name;
  r.requested_server_name = server_name();
  if (chain_) {
    r.filter_chain = chain_->name;
    r.destination_service = chain_->service, r.destination_namespace = chain_->service_namespace;
  }
  if (const tls::Engine* e = tls()) {
    r.tls_version = e->version(), r.tls_cipher = e->cipher();
    if (const tls::PeerInfo* p = e->peer().get()) r.peer_identity = p->identity(), r.peer_subject = p->subject;
  }
  r.local_identity = core_->options().sidecar_identity;
  const tls::Engine* e = tls();
  if (!e) return;
  const tls::LocalNames& ours = e->local_names();
  if (r.local_identity.empty() && !ours.uri_sans.empty()) r.local_identity = ours.uri_sans[0];
  if (!r.access_logs || !r.access_logs->certificates) return;
  r.local_subject = ours.subject, r.tls_session_id = e->session_id();
  if (e->peer()) r.peer_issuer = e->peer()->issuer;
}

void Connection::RecordRefusal(ResponseFlag flag, const char* detail, std::string_view policy, std::string_view tls_failure,
                               std::string_view tls_detail) {
  auto owned = core_->NewRecord();
  Record& r = *owned;
  if (chain_ && chain_->tcp()) r.access_logs = chain_->tcp()->access_logs;
  if (chain_ && chain_->http()) r.access_logs = chain_->http()->access_logs;
  if (!r.access_logs) r.access_logs = listener_->config->access_logs;
  Place(r), Describe(r);
  const uint64_t took = core_->loop()->now() - started_ns_;
  r.start_unix_ns = core_->loop()->wall_now() - took;
  r.duration_ns = static_cast<int64_t>(took);
  r.flags.Set(flag);
  r.detail = r.connection_termination = detail;
  r.transport_failure = tls_failure, r.transport_failure_detail = tls_detail;
  r.policy = policy;
  // Who asked for a proven identity: the TLS mode the chain was made by.
  if (!tls_failure.empty() && chain_) r.policy = chain_->weft.policy, r.policy_revision = chain_->weft.revision;
  if (core_->options().all_records) MintTrace(r);
  if (chain_ && chain_->istio_stats) {
    IstioSubject s = SubjectOf(*this, *chain_->istio_stats);
    s.protocol = IstioSubject::kTcp, s.flags = r.flags;
    base::Cells::Local().Add(core_->istio_stats().Opened(s).closed);
  }
  core_->Finish(std::move(owned));
}

void Connection::OnReady(uint32_t events) {
  if (state_ == State::kClosed) return;
  const bool was_full = !transport_.can_send_now();
  transport_.OnReady(events);
  if (state_ == State::kTcp) return relay_->OnDownstream(events);
  if (was_full && (events & io::kWritable)) MarkDirty();
  if (events & (io::kReadable | io::kHangup)) Input();
}

void Connection::Input() {
  switch (state_) {
    case State::kClosed:
      return;
    case State::kProxyHeader:
      transport_.Read(filters::kMaxProxyHeader);
      return ProxyHeader(false);
    case State::kSniff:
      transport_.Read(kSniffLimit);
      return Sniff(false);
    case State::kHandshake: {
      if (transport_.Read(kSniffLimit)) MarkDirty();
      if (transport_.tls_failed() || transport_.broken() || (transport_.eof() && transport_.handshaking())) return HandshakeFailed();
      if (transport_.handshaking()) return;
      AfterTransport();
      return;
    }
    case State::kTcp:
      return relay_->OnDownstream(io::kReadable);
    case State::kClosing:
      // What still comes is thrown away; its end, or the timer, ends us.
      do transport_.in.Clear();
      while (transport_.Read(kSniffLimit) && !transport_.in.empty());
      if (transport_.eof() || transport_.broken()) CloseNow();
      return;
    case State::kPickCodec:
    case State::kHttp: {
      const bool silent = transport_.in.empty();
      bool changed = transport_.Read(ReadLimit());
      if (state_ == State::kPickCodec && !PickCodec()) {
        if (transport_.eof() || transport_.broken()) CloseNow();
        else if (silent && changed) AwaitCodec();
        return;
      }
      HttpInput(changed);
      if (state_ == State::kHttp) CountBytes();
    }
  }
}

void Connection::Flush() {
  if (state_ == State::kClosed) return;
  constexpr size_t kWriteAhead = 256 * 1024;
  for (;;) {
    if (codec_ && transport_.unsent() < kWriteAhead && codec_->wants_emit()) codec_->Emit(transport_.out);
    if (!transport_.Write()) return CloseNow();
    if (!codec_ || !codec_->wants_emit() || transport_.unsent() >= kWriteAhead || !transport_.can_send_now()) break;
  }
  if (relay_) return relay_->AfterFlush();
  if (state_ == State::kClosing) {
    if (transport_.unsent() == 0 && transport_.write_shut() && transport_.eof()) CloseNow();
    return;
  }
  if (!codec_) return;
  CountBytes();
  Dispatch();
  if (codec_->wants_emit() || transport_.unsent()) return;
  if (codec_->closed()) return CloseAfterFlush();
  if (codec_->write_closed() && !transport_.write_shut()) {
    transport_.ShutdownWrite();
    transport_.Write();
    return;
  }
  RestCodec();
}

void Connection::CountBytes() {
  base::Cells& cells = base::Cells::Local();
  cells.Add(http_stats_->cx_tx_bytes, std::exchange(transport_.tx, 0));
  cells.Add(http_stats_->cx_rx_bytes, std::exchange(transport_.rx, 0));
}

void Connection::CloseAfterFlush() {
  if (state_ == State::kClosed || state_ == State::kClosing) return;
  state_ = State::kClosing;
  transport_.ShutdownWrite();
  if (transport_.eof()) {
    transport_.Write();
    if (transport_.unsent() == 0) return CloseNow();
  }
  core_->loop()->Arm(&timer_, kLingerNs);
  MarkDirty();
  core_->loop()->Schedule(io::Beat::kAdvance, &input_);
}

void Connection::AbortNow() {
  if (state_ == State::kClosed) return;
  core_->loop()->Unwatch(transport_.fd(), this);
  transport_.Abort();
  CloseNow();
}

void Connection::ReportOpen() {
  if (relay_) relay_->ReportOpen();
  for (Exchange* e = exchanges_.front(); e; e = exchanges_.Next(e)) e->ReportOpen();
}

void Connection::CloseNow() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  timer_.Cancel();
  if (rare_) rare_->second_goaway.Cancel(), rare_->age_timer.Cancel();
  flush_.Unlink(), input_.Unlink();
  if (transport_.open()) {
    if (transport_.tls_failed()) transport_.Write();  // the alert that says why
    core_->loop()->Unwatch(transport_.fd(), this);
    transport_.Close();
  }
  base::Cells& cells = base::Cells::Local();
  Leave();
  if (counted_http_) {
    CountBytes();
    cells.Add(http_stats_->cx_destroy);
    cells.Sub(http_stats_->cx_active);
  }
  if (relay_) relay_->OnDownstreamGone();
  for (Exchange* e = exchanges_.front(); e; e = exchanges_.Next(e)) e->Wake();
  core_->OnConnectionClosed(this);
  if (exchange_count_ == 0) core_->Reap(this);
}

void Connection::OnTimer() {
  switch (state_) {
    case State::kProxyHeader:
      return ProxyHeader(true);
    case State::kSniff:
      return Sniff(true);
    case State::kHandshake:
      base::Cells::Local().Add(listener_stats_->ssl_connection_error);
      RecordRefusal(ResponseFlag::kDownstreamConnectionTermination, "transport_socket_connect_timeout", "", "handshake_timeout", "");
      return CloseNow();
    case State::kClosing:
      return CloseNow();
    case State::kPickCodec:
      if (!transport_.in.empty()) return CodecOverdue();
      [[fallthrough]];
    case State::kHttp:
      return OnIdle();
    case State::kTcp:
    case State::kClosed:
      return;
  }
}

}  // namespace weft::proxy
