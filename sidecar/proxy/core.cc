#include "sidecar/proxy/core.h"

#include <unistd.h>

#include <algorithm>

#include "sidecar/base/log.h"
#include "sidecar/proxy/connection.h"
#include "sidecar/proxy/exchange.h"
#include "sidecar/proxy/open_report.h"
#include "sidecar/proxy/listener.h"
#include "sidecar/proxy/relay.h"
#include "sidecar/proxy/worker.h"

namespace weft::proxy {
namespace {
constexpr uint64_t kSweepNs = 5 * base::kSecond;
constexpr size_t kKeepExchanges = 1024, kKeepBuckets = 4096, kKeepCodecs = 64;

bool CountsForIstio(const model::ConfigSnapshot& snapshot) {
  const auto asks = [](const std::shared_ptr<const model::FilterChain>& c) { return c && (c->istio_stats || (c->http() && c->http()->istio_stats)); };
  return std::any_of(snapshot.listeners.begin(), snapshot.listeners.end(), [&](const auto& l) {
    return asks(l->config->default_chain) || std::any_of(l->config->chains.begin(), l->config->chains.end(), asks);
  });
}
}  // namespace

WorkerCore::WorkerCore(Worker* worker, io::Loop* loop, const PlaneOptions& options, uint32_t index)
    : worker_(worker), loop_(loop), options_(options), index_(index), clusters_(loop), istio_stats_(&options_.istio) {
  loop_->Arm(&sweep_, kSweepNs);
  if (options_.report_open) loop_->Arm(&open_sweep_, kOpenSweepNs);
  if (options_.sink) sink_ = options_.sink(loop_, index_);
}

WorkerCore::~WorkerCore() {
  acceptors_.clear();
  while (Connection* c = connections_.front()) {
    c->CloseNow();
    delete c;
  }
  OnReap();
  for (Exchange* e : free_exchanges_) delete e;
}

void WorkerCore::Swap(model::SnapshotPtr snapshot, ListenSockets sockets) {
  Pin next(new LocalSnapshot(std::move(snapshot)));
  current_ = std::move(next);
  next.Reset();
  clusters_.Update(*current_);
  if (buckets_.size() > kKeepBuckets) buckets_.clear();
  if (CountsForIstio(*current_)) IstioStats::TellBuild(options_.istio);
  if (draining_) return;
  for (auto it = acceptors_.begin(); it != acceptors_.end();) {
    auto s = sockets.find(it->first);
    it = s == sockets.end() || s->second.get() != it->second->socket() ? acceptors_.erase(it) : std::next(it);
  }
  for (auto& [name, socket] : sockets) {
    auto& acceptor = acceptors_[name];
    if (!acceptor) acceptor = std::make_unique<Acceptor>(this, name.substr(0, name.find('\n')), socket);
  }
  // Connections of listeners that left or changed finish what they do. A new certificate alone is no change.
  for (Connection *c = connections_.front(), *following; c; c = following) {
    following = connections_.Next(c);
    const model::ListenerEntry* now = current_->FindListener(c->listener().config->name);
    if (now && (now->config == c->listener().config || now->config->key == c->listener().config->key)) continue;
    if (now) c->Reconsider(*now);
    c->StartDrain();
  }
}

bool WorkerCore::Place(int fd, const std::string& listener, const model::Address& peer) {
  uint64_t total = 0;
  Worker* least = worker_;
  for (const auto& w : worker_->peers()) {
    total += w->active_connections();
    if (w->active_connections() < least->active_connections()) least = w.get();
  }
  if (options_.max_connections && total >= options_.max_connections) {
    auto snapshot = Snapshot();
    if (snapshot) {
      if (const auto* l = snapshot->FindListener(listener)) base::Cells::Local().Add(ListenerStatsOf(*l->config).cx_overflow);
    }
    close(fd);
    return false;
  }
  if (least == worker_) {
    Adopt(fd, listener, peer);
  } else {
    least->HandOver(fd, listener, peer);
  }
  return true;
}

void WorkerCore::Adopt(int fd, const std::string& listener, const model::Address& peer) {
  auto snapshot = Snapshot();
  if (snapshot && !draining_) {
    for (const auto& l : snapshot->listeners) {
      if (l->config->name != listener) continue;
      // Each worker takes its share of the listener's limit; placement keeps them even.
      if (l->config->max_connections) {
        ListenerStats& stats = ListenerStatsOf(*l->config);
        if (stats.open * worker_->peers().size() >= *l->config->max_connections) {
          base::Cells::Local().Add(stats.cx_overflow);
          break;
        }
      }
      (new Connection(this, fd, l, peer))->Start();
      return;
    }
  }
  close(fd);
}

void WorkerCore::StartDrain(uint64_t deadline_ns) {
  if (draining_) return;
  draining_ = true;
  acceptors_.clear();
  for (Connection *c = connections_.front(), *following; c; c = following) {
    following = connections_.Next(c);
    c->StartDrain();
  }
  loop_->Arm(&drain_deadline_, deadline_ns);
}

void WorkerCore::CloseAll() {
  for (Connection *c = connections_.front(), *following; c; c = following) {
    following = connections_.Next(c);
    c->CloseNow();
  }
}

void WorkerCore::OnSweep() {
  clusters_.Sweep();
  for (Relay* r = counted_relays_.front(); r; r = counted_relays_.Next(r)) r->CountIstioBytes();
  loop_->Arm(&sweep_, kSweepNs);
}

void WorkerCore::CountWhileOpen(Relay* relay) { counted_relays_.PushBack(relay); }

void WorkerCore::OnOpenSweep() {
  for (Connection* c = connections_.front(); c; c = connections_.Next(c)) c->ReportOpen();
  loop_->Arm(&open_sweep_, kOpenSweepNs);
}

RateLimitStats& WorkerCore::RateLimit(const std::string& prefix) {
  auto& s = rate_limit_stats_[prefix];
  if (!s) s = std::make_unique<RateLimitStats>(prefix);
  return *s;
}

TcpStats& WorkerCore::Tcp(const std::string& prefix) {
  auto& s = tcp_stats_[prefix];
  if (!s) s = std::make_unique<TcpStats>(prefix);
  return *s;
}

ProxyProtocolStats& WorkerCore::ProxyProtocol(const std::string& prefix) { return proxy_protocol_stats_.try_emplace(prefix, prefix).first->second; }

ListenerStats& WorkerCore::ListenerStatsOf(const model::Listener& listener) {
  auto& s = listener_stats_[listener.name];
  if (!s) {
    std::string prefix = listener.stat_prefix;
    if (prefix.empty()) prefix = listener.addresses.empty() ? listener.name : listener.addresses[0].ToString();
    s = std::make_unique<ListenerStats>(prefix);
  }
  return *s;
}

filters::local_ratelimit::Bucket* WorkerCore::BucketOf(const model::LocalRateLimitConfig& config) {
  auto [it, fresh] = buckets_.try_emplace(config.key);
  if (fresh) it->second = options_.buckets->Get(config);
  return it->second.get();
}

std::unique_ptr<codec::Codec> WorkerCore::Http1Server(const codec::Limits& limits, codec::StreamHost* host) {
  if (resting_codecs_.empty()) return codec::NewHttp1Server(limits, host);
  std::unique_ptr<codec::Codec> c = std::move(resting_codecs_.back());
  resting_codecs_.pop_back();
  codec::LendHttp1Server(*c, limits, host);
  return c;
}

void WorkerCore::Rest(std::unique_ptr<codec::Codec> http1) {
  if (resting_codecs_.size() < kKeepCodecs) resting_codecs_.push_back(std::move(http1));
}

Exchange* WorkerCore::NewExchange() {
  if (free_exchanges_.empty()) return new Exchange(this);
  Exchange* e = free_exchanges_.back();
  free_exchanges_.pop_back();
  return e;
}

void WorkerCore::FreeExchange(Exchange* e) {
  if (free_exchanges_.size() < kKeepExchanges) {
    free_exchanges_.push_back(e);
  } else {
    delete e;
  }
}

std::unique_ptr<Record> WorkerCore::NewRecord() {
  if (spare_records_.empty()) return std::make_unique<Record>();
  std::unique_ptr<Record> r = std::move(spare_records_.back());
  spare_records_.pop_back();
  return r;
}

void WorkerCore::Finish(std::unique_ptr<Record> record) {
  if (sink_ && (options_.all_records || record->access_logs)) {
    if (current_) record->config_revision = current_.get()->revision;
    sink_->Take(*record);
  }
  if (spare_records_.size() >= kKeepExchanges) return;
  record->Reset();
  spare_records_.push_back(std::move(record));
}

void WorkerCore::ListEjected(const model::ClusterEntry& entry, AttemptRecord& attempt) {
  if (!entry.hosts) return;
  const uint64_t now = loop_->now(), wall = loop_->wall_now();
  for (const cluster::Host& h : entry.hosts->hosts()) {
    auto why = cluster::WhyEjected(*h.cell);
    if (!why || attempt.ejections.size() >= 16) continue;
    EjectionRecord& e = attempt.ejections.emplace_back();
    e.endpoint = h.address, e.workload = h.endpoint.workload, e.version = h.endpoint.version;
    e.rule = why->rule, e.kinds = std::move(why->kinds), e.errors = why->errors;
    e.at_unix_ns = wall - (now - why->at_ns), e.until_unix_ns = wall + (why->until_ns - now);
  }
}

void WorkerCore::OnConnectionOpen(Connection* c) {
  connections_.PushBack(c);
  worker_->CountConnection(1);
}

void WorkerCore::OnConnectionClosed(Connection* c) {
  c->Unlink();
  worker_->CountConnection(-1);
}

void WorkerCore::Reap(Connection* c) {
  dead_.PushBack(c);
  loop_->Schedule(io::Beat::kReap, &reap_);
}

void WorkerCore::OnReap() {
  while (Connection* c = dead_.PopFront()) delete c;
}

void WorkerCore::OnRequest(int delta) { worker_->CountRequest(delta); }

uint64_t WorkerCore::NextConnectionId() { return ++next_connection_ * 64 + index_; }

const char* WorkerCore::Intern(const std::string& text) { return interned_.insert(text).first->c_str(); }

}  // namespace weft::proxy
