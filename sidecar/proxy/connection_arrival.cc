// How a connection arrives: where it wanted to go, what a balancer says of it, what its first bytes are, and so its filter
// chain.
#include <algorithm>

#include "sidecar/base/log.h"
#include "sidecar/base/str.h"
#include "sidecar/filters/proxy_protocol/proxy_protocol.h"
#include "sidecar/io/socket.h"
#include "sidecar/proxy/connection.h"
#include "sidecar/proxy/server_first.h"

namespace weft::proxy {
namespace {
constexpr uint64_t kSilenceNs = 300 * base::kMs;  // a client of a server-first protocol says nothing this long
constexpr uint64_t kKnownSilenceNs = 3 * base::kMs;  // where servers are known to speak first
}

void Connection::Start() {
  if (listener_->config->filters & model::kOriginalDst) {
    if (auto original = io::OriginalDestination(transport_.fd())) {
      destination_ = model::IpPort::Of(model::Address::FromSockaddr(original->storage));
      restored_ = true;
    }
  }
  const bool introduced = listener_->config->proxy_protocol.has_value();
  if (!introduced) HandOver();
  Enter(listener_);
  core_->OnConnectionOpen(this);
  core_->loop()->Watch(transport_.fd(), this);
  if (!introduced) return BeginSniff();
  const uint64_t limit = listener_->config->listener_filters_timeout_ns;
  core_->loop()->Arm(&timer_, limit && limit < kSilenceNs ? limit : kSilenceNs);
}

// The connection belongs to this listener now: its statistics, its limit.
void Connection::Enter(std::shared_ptr<const model::ListenerEntry> listener) {
  listener_ = std::move(listener);
  listener_stats_ = &core_->ListenerStatsOf(*listener_->config);
  base::Cells::Local().Add(listener_stats_->cx_total);
  base::Cells::Local().Add(listener_stats_->cx_active);
  ++listener_stats_->open;
}

void Connection::Leave() {
  base::Cells::Local().Add(listener_stats_->cx_destroy);
  base::Cells::Local().Sub(listener_stats_->cx_active);
  --listener_stats_->open;
}

// use_original_dst: to the listener that is bound to the restored address itself, or to its port on any address.
void Connection::HandOver() {
  if (!listener_->config->use_original_dst || !restored_) return;
  auto snapshot = core_->Snapshot();
  std::shared_ptr<const model::ListenerEntry> any;
  for (const auto& l : snapshot->listeners) {
    for (const auto& a : l->config->addresses) {
      if (a.udp || a.port != destination_.port || l == listener_) continue;
      if (a.ip == destination_.ip) listener_ = l, any = nullptr;
      else if (a.ip.is_any() && !any) any = l;
    }
  }
  if (any) listener_ = any;
}

void Connection::ProxyHeader(bool timed_out) {
  const model::ProxyProtocolFilter& rules = *listener_->config->proxy_protocol;
  filters::ProxyHeader header;
  using filters::Verdict;
  const Verdict v = filters::ReadProxyHeader(transport_.in, rules, &header);
  ProxyProtocolStats& stats = core_->ProxyProtocol(rules.stat_prefix);
  base::Cells& cells = base::Cells::Local();
  if (v == Verdict::kNeedMore) {
    if (transport_.eof() || transport_.broken()) return CloseNow();
    if (!timed_out) return;
    const bool silent = rules.optional && ServerFirst();
    if (!silent && WaitLonger()) return;
    if (!silent && !listener_->config->continue_on_listener_filters_timeout) {
      cells.Add(listener_stats_->pre_cx_timeout);
      return CloseNow();
    }
    cells.Add(stats.not_found_allowed);
  } else if (v == Verdict::kReject) {
    const bool allowed = header.version && (header.version == 1 ? rules.v1 : rules.v2);
    if (!header.version) cells.Add(stats.not_found_disallowed);
    else cells.Add(allowed ? stats.versions[header.version - 1].error : stats.versions[header.version - 1].disallowed);
    RecordRefusal(ResponseFlag::kDownstreamProtocolError, core_->Intern(base::Cat("proxy_protocol_error: ", header.error)), "", "", "");
    return AbortNow();
  } else if (v == Verdict::kNo) {
    cells.Add(stats.not_found_allowed);
  } else {
    cells.Add(stats.versions[header.version - 1].found);
    transport_.in.Consume(header.size);
    if (header.known) {
      auto introduction = std::make_unique<Rare::Introduction>();
      introduction->direct_peer = peer(), introduction->tlvs = std::move(header.tlvs);
      rare().introduction = std::move(introduction);
      rare().peer = {}, peer_ = model::IpPort::Of(header.source);
      destination_ = model::IpPort::Of(header.destination), restored_ = true;
    }
  }
  timer_.Cancel();
  long_wait_ = false;
  if (const auto before = listener_; listener_->config->use_original_dst) {
    HandOver();
    if (listener_ != before) Leave(), Enter(listener_);
  }
  BeginSniff();
}

std::string Connection::FirstBytes(const model::Cluster& cluster) const {
  if (!cluster.proxy_protocol) return {};
  const bool introduced = rare_ && rare_->introduction;
  return filters::WriteProxyHeader(*cluster.proxy_protocol, peer(), destination(), introduced ? rare_->introduction->tlvs : "");
}

void Connection::BeginSniff() {
  if (!SniffNeeded()) return Match();
  state_ = State::kSniff;
  rare().sniffed = true;
  if (listener_->config->filters & model::kTlsInspector) rare().tls_inspector = std::make_unique<filters::TlsInspector>();
  if (listener_->config->filters & model::kHttpInspector) rare().http_inspector = std::make_unique<filters::HttpInspector>();
  const uint64_t limit = listener_->config->listener_filters_timeout_ns;
  const uint64_t silence = core_->options().server_first->Known(destination()) ? kKnownSilenceNs : kSilenceNs;
  core_->loop()->Arm(&timer_, limit && limit < silence ? limit : silence);
  // What came with a PROXY header: no event will tell of it again.
  if (!transport_.in.empty() || transport_.eof()) Sniff(false);
}

bool Connection::ServerFirst() const {
  if (!transport_.in.empty()) return false;
  const model::FilterChain* silent = model::Match(*listener_->config, Info());
  return silent && silent->tcp() && !silent->tls;
}

void Connection::NoteServerSpoke() const {
  if (rare_ && rare_->sniffed) core_->options().server_first->Spoke(destination());
}

void Connection::NoteFirstBytes() {
  const std::string_view first = transport_.in.Front();
  if (rare_ && rare_->sniffed && !hello() && first.size() > 1 && first[0] == 0x16 && first[1] == 3) core_->options().server_first->UsesTls(destination());
}

// The first wait was the short one for server-first protocols; false: the listener's own is over too.
bool Connection::WaitLonger() {
  const uint64_t limit = listener_->config->listener_filters_timeout_ns;
  if (long_wait_ || limit <= kSilenceNs) return false;
  long_wait_ = true;
  core_->loop()->Arm(&timer_, limit - kSilenceNs);
  return true;
}

model::ConnInfo Connection::Info() const {
  model::ConnInfo info;
  info.destination = destination(), info.source = peer(), info.direct_source = direct_peer();
  info.server_name = server_name();
  if (!rare_) return info;
  if (rare_->hello) info.transport_protocol = "tls";
  for (const auto& a : rare_->alpn) info.application_protocols.push_back(a);
  return info;
}

// Only when what the client says first can change the chain, or the cluster.
bool Connection::SniffNeeded() {
  const model::Listener& l = *listener_->config;
  if (!(l.filters & (model::kTlsInspector | model::kHttpInspector))) return false;
  const auto by_name = [](const auto& c) { return !c->match.server_names.empty() || !c->match.application_protocols.empty() || c->sni_cluster; };
  if (std::any_of(l.chains.begin(), l.chains.end(), by_name) || (l.default_chain && by_name(l.default_chain))) return true;
  model::ConnInfo info = Info();
  const model::FilterChain* raw = model::Match(l, info);
  info.transport_protocol = "tls";
  return model::Match(l, info) != raw;
}

void Connection::Sniff(bool timed_out) {
  using filters::Verdict;
  Verdict v = Verdict::kNo;
  Rare& seen = rare();
  if (seen.tls_inspector) {
    v = seen.tls_inspector->Inspect(transport_.in);
    if (v == Verdict::kFound) {
      core_->options().server_first->UsesTls(destination());
      seen.hello = true, seen.sni = seen.tls_inspector->sni(), seen.alpn = seen.tls_inspector->alpn();
    } else if (v == Verdict::kReject) {
      WEFT_LOG(kConnHandler, kDebug, "closing ", peer().ToString(), ": ", seen.tls_inspector->detail());
      base::Cells::Local().Add(listener_stats_->ssl_connection_error);
      return AbortNow();
    }
  }
  if (v == Verdict::kNo && seen.http_inspector) {
    v = seen.http_inspector->Inspect(transport_.in);
    if (v == Verdict::kFound) seen.alpn.assign(1, std::string(seen.http_inspector->protocol()));
  }
  if (v == Verdict::kNeedMore) {
    if (transport_.eof() || transport_.broken()) return CloseNow();
    if (!timed_out) return;
    const bool server_first = ServerFirst();
    if (!server_first && WaitLonger()) return;
    if (!server_first && !listener_->config->continue_on_listener_filters_timeout) {
      base::Cells::Local().Add(listener_stats_->pre_cx_timeout);
      return CloseNow();
    }
  }
  timer_.Cancel();
  seen.tls_inspector.reset(), seen.http_inspector.reset();
  Match();
}

void Connection::Match() {
  chain_ = model::Match(*listener_->config, Info());
  if (!chain_ || chain_->end.index() == 0) {
    base::Cells::Local().Add(listener_stats_->no_filter_chain_match);
    // Plaintext where only TLS is taken is another refusal than a port that nobody serves: the chain that a TLS client
    // would have found says who asked for TLS.
    model::ConnInfo info = Info();
    info.transport_protocol = "tls";
    const model::FilterChain* secure = hello() ? nullptr : model::Match(*listener_->config, info);
    const bool plaintext = !chain_ && secure && secure->tls;
    if (plaintext) chain_ = secure;
    RecordRefusal(ResponseFlag::kNoRouteFound, "filter_chain_not_found", "", plaintext ? "plaintext" : "", "");
    return AbortNow();
  }
  OnChain();
}

}  // namespace weft::proxy
