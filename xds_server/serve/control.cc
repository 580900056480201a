#include "xds_server/serve/control.h"

#include <arpa/inet.h>

#include <algorithm>
#include <future>
#include <sstream>

#include "sidecar/base/log.h"
#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

constexpr size_t kMaxStreams = 10'000, kMaxWorkloads = 20'000;
constexpr int kPermissionDenied = 7, kInvalidArgument = 3, kResourceExhausted = 8;

// "" or what is wrong with what a sidecar says about itself.
std::string CheckWorkload(const Workload& w, const Name& identity) {
  if (w.service != identity) return "the certificate is for " + identity.ToString() + ", the workload says " + w.service.ToString();
  if (w.id.empty() || w.id.size() > 128 || !std::all_of(w.id.begin(), w.id.end(), [](unsigned char c) { return isalnum(c) || c == '-' || c == '.' || c == '_'; })) {
    return "workload id: 1..128 letters, digits, '-', '.', '_'";
  }
  if (!w.version.empty() && !IsDnsLabel(w.version)) return "version must be a DNS label";
  unsigned char buf[16];
  if (inet_pton(AF_INET, w.address.c_str(), buf) != 1 && inet_pton(AF_INET6, w.address.c_str(), buf) != 1) return "address is not an IP address";
  if (w.ports.size() > 64) return "more than 64 ports";
  for (const Port& p : w.ports) {
    if (p.target_port == 0 || p.service_port == 0) return "port 0";
  }
  size_t bytes = w.sidecar_version.size();
  for (const auto& [k, v] : w.labels) bytes += k.size() + v.size();
  if (w.labels.size() > 64 || bytes > 8192) return "labels: at most 64, 8 KiB";
  return "";
}

}  // namespace

Control::Control(Options options) : options_(std::move(options)) {}
Control::~Control() { Stop(); }

void Control::Start() {
  LoadStored();
  Rebuild();
  started_ = true;
  thread_ = std::thread([this] { Run(); });
}

void Control::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (!started_ || stopping_) return;
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Control::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

std::shared_ptr<const World> Control::world() const {
  std::lock_guard lock(mutex_);
  return world_;
}

void Control::LoadStored() {
  LoadPolicies();
  const uint64_t now = options_.clock->MonotonicNs();
  for (Workload& w : options_.store->Workloads()) {
    Registration r;
    r.deadline_ns = now + options_.restart_grace_ns;
    r.last_seen_unix_ms = UnixMs();
    std::string id = w.id;
    r.workload = std::move(w);
    registrations_[id] = std::move(r);
  }
  for (Store::KnownService& k : options_.store->Services()) known_[k.name] = std::move(k);
}

void Control::Remember() {
  const int64_t now = UnixMs();
  std::map<Name, std::vector<Port>> present;
  for (const auto& [id, r] : registrations_) {
    auto& ports = present[r.workload.service];
    for (const Port& p : r.workload.ports) {
      if (std::none_of(ports.begin(), ports.end(), [&](const Port& x) { return x.service_port == p.service_port; })) ports.push_back(p);
    }
  }
  for (auto& [name, ports] : present) {
    Store::KnownService& k = known_[name];
    // Written when something changed, and once an hour so that its age stays true.
    const bool write = k.ports != ports || now - k.seen_unix_ms > 3'600'000;
    k.name = name, k.ports = std::move(ports);
    if (write) {
      k.seen_unix_ms = now;
      after_push_.push_back([this, k] { options_.store->PutService(k); });
    }
  }
  for (auto it = known_.begin(); it != known_.end();) {
    if (present.count(it->first) || now - it->second.seen_unix_ms < options_.remember_service_ms) {
      ++it;
      continue;
    }
    after_push_.push_back([this, name = it->first] { options_.store->RemoveService(name); });
    it = known_.erase(it);
  }
}

void Control::LoadPolicies() {
  std::vector<PolicyObject> fresh;
  revision_ = options_.store->revision();
  for (const StoredObject& o : options_.store->Objects()) {
    auto parsed = ParseStored(o.content);
    if (!parsed) {
      // Written by a later version, or damaged: the rest still holds.
      WEFT_LOG(kConfig, kError, "stored object ", o.kind, "/", o.name.ns, "/", o.name.name, " cannot be read and is left out");
      continue;
    }
    fresh.push_back({o.kind, o.name, o.revision, parsed});
  }
  policies_ = std::move(fresh);
  dirty_ = true;
}

void Control::PoliciesChanged() {
  Post([this] {
    LoadPolicies();
    rebuild_not_before_ns_ = 0;  // an operator is waiting
  });
}

void Control::Run() {
  uint64_t due = 0;
  while (true) {
    std::deque<std::function<void()>> batch;
    {
      std::unique_lock lock(mutex_);
      auto ready = [&] { return stopping_ || !tasks_.empty(); };
      if (due == 0) {
        wake_.wait(lock, ready);
      } else {
        const uint64_t now = options_.clock->MonotonicNs();
        if (due > now) wake_.wait_for(lock, std::chrono::nanoseconds(due - now), ready);
      }
      if (stopping_) break;
      batch.swap(tasks_);
    }
    for (auto& task : batch) task();
    uint64_t now = options_.clock->MonotonicNs();
    due = Expire(now);
    auto earlier = [&](uint64_t at) {
      if (at && (due == 0 || at < due)) due = at;
    };
    if (dirty_) {
      if (now >= rebuild_not_before_ns_) {
        Rebuild();
        PushAll();
        now = options_.clock->MonotonicNs();
        rebuild_not_before_ns_ = now + std::min<uint64_t>(2 * rebuild_cost_ns_, 200 * base::kMs);
      } else {
        earlier(rebuild_not_before_ns_);
      }
    }
    if (!dirty_) {
      auto done = std::move(after_push_);
      after_push_.clear();
      for (auto& f : done) f();
    }
    for (auto& [id, n] : nodes_) {
      if (n->stream.WakeAt() && n->stream.WakeAt() <= now) Push(*n, now);
      earlier(n->stream.WakeAt());
    }
  }
  for (auto& [id, n] : nodes_) n->sink->Close(14, "the server is stopping");
  nodes_.clear();
  for (auto& f : after_push_) f();
  after_push_.clear();
}

void Control::Rebuild() {
  const uint64_t begin = options_.clock->MonotonicNs();
  dirty_ = false;
  WorldInput in;
  in.trust_domain = options_.trust_domain;
  in.revision = revision_;
  in.policies = policies_;
  uint64_t active = 0;
  for (const auto& [id, r] : registrations_) {
    in.workloads.push_back(std::make_shared<const Workload>(r.workload));
    active += r.workload.active();
  }
  Remember();
  for (const auto& [name, k] : known_) in.remembered[name] = k.ports;
  // An address never changes once given, so the store is asked once a service.
  in.vip = [this](const Name& n) {
    std::string& vip = vips_[n];
    if (vip.empty()) vip = options_.store->Vip(n);
    return vip;
  };
  auto world = BuildWorld(in);
  compiler_ = std::make_unique<Compiler>(world, compiler_.get());
  snapshots_.clear();
  {
    std::lock_guard lock(mutex_);
    world_ = world;
  }
  rebuild_cost_ns_ = options_.clock->MonotonicNs() - begin;
  workloads_ = registrations_.size(), active_ = active;
  ++rebuilds_;
}

std::shared_ptr<const Snapshot> Control::SnapshotFor(const Node& n) {
  ProxyClass c;
  c.service = n.service;
  c.sds_dir = n.info.sds_dir, c.ipv6 = n.info.ipv6;
  auto it = registrations_.find(n.info.id);
  if (it != registrations_.end()) {
    c.ports = it->second.workload.ports;
  } else if (c.sds_dir.empty()) {
    // Connected before it registered: the ports its service is known to have.
    if (const Service* s = world_->FindService(n.service); s && !s->external()) c.ports = s->ports;
  }
  std::sort(c.ports.begin(), c.ports.end());
  auto& s = snapshots_[c];
  if (!s) s = compiler_->For(c);
  return s;
}

void Control::PushAll() {
  const uint64_t begin = options_.clock->MonotonicNs();
  for (auto& [id, n] : nodes_) {
    if (n->identified) Push(*n, begin);
  }
  const uint64_t cost = options_.clock->MonotonicNs() - begin;
  rebuild_cost_ns_ += cost;
  last_rebuild_us_ = rebuild_cost_ns_ / 1000;
}

void Control::Push(Node& n, uint64_t now_ns) {
  n.stream.SetSnapshot(SnapshotFor(n));
  for (Reply& r : n.stream.Take(now_ns)) {
    ++pushes_;
    n.sink->Push(std::move(r));
  }
}

uint64_t Control::OpenStream(std::shared_ptr<ReplySink> sink, Stream::Variant variant, Peer peer) {
  const uint64_t id = next_id_++;
  Post([this, id, sink = std::move(sink), variant, peer = std::move(peer)] {
    if (nodes_.size() >= kMaxStreams) return sink->Close(kResourceExhausted, "too many xDS streams");
    auto n = std::make_unique<Node>(variant);
    n->id = id, n->sink = sink, n->peer = peer;
    n->connected_unix_ms = n->last_seen_unix_ms = UnixMs();
    nodes_[id] = std::move(n);
    streams_ = nodes_.size();
  });
  return id;
}

bool Control::Identify(Node& n, const NodeInfo& info) {
  std::string refusal;
  if (n.peer.plaintext) {
    n.service = {info.ns.empty() ? "default" : info.ns, info.cluster.empty() ? info.id : info.cluster};
  } else if (!ParseSpiffeId(n.peer.spiffe_id, options_.trust_domain, n.service)) {
    refusal = "the client certificate names no workload of this mesh";
  }
  if (refusal.empty() && info.id.empty()) refusal = "node.id is missing";
  if (refusal.empty() && !n.peer.plaintext) {
    if (!info.cluster.empty() && info.cluster != n.service.name && info.cluster != n.service.ToString()) {
      refusal = "node.cluster is " + info.cluster + ", the certificate is for " + n.service.ToString();
    } else if (!info.ns.empty() && info.ns != n.service.ns) {
      refusal = "node metadata NAMESPACE is " + info.ns + ", the certificate is for " + n.service.ToString();
    } else if (auto it = registrations_.find(info.id); it != registrations_.end() && it->second.workload.service != n.service) {
      refusal = "node.id " + info.id + " is a workload of " + it->second.workload.service.ToString();
    }
  }
  if (!refusal.empty()) {
    ++refused_nodes_;
    WEFT_LOG(kXds, kWarn, "xDS stream from ", n.peer.address, " refused: ", refusal);
    n.sink->Close(kPermissionDenied, refusal);
    return false;
  }
  n.info = info;
  n.identified = true;
  WEFT_LOG(kXds, kInfo, "xDS stream of ", info.id, " (", n.service.ToString(), ") from ", n.peer.address);
  return true;
}

void Control::Request(uint64_t stream, std::optional<NodeInfo> node, StreamRequest request) {
  Post([this, stream, node = std::move(node), request = std::move(request)] {
    auto it = nodes_.find(stream);
    if (it == nodes_.end()) return;
    Node& n = *it->second;
    n.last_seen_unix_ms = UnixMs();
    if (!n.identified) {
      if (!node) return n.sink->Close(kInvalidArgument, "the first request must carry the node");
      if (!Identify(n, *node)) return;
    }
    const uint64_t now = options_.clock->MonotonicNs();
    if (request.type == kTypeCount) {
      // A type that is not served here (runtime, extension config): no resources, said by silence as Envoy expects.
      n.sink->Ready();
      return;
    }
    if (request.nack) {
      ++nacks_;
      WEFT_LOG(kXds, kWarn, n.info.id, " rejected ", TypeName(request.type), ": ", request.error);
    }
    n.stream.OnRequest(request, now);
    Push(n, now);
    n.sink->Ready();
  });
}

void Control::CloseStream(uint64_t stream) {
  Post([this, stream] {
    nodes_.erase(stream);
    streams_ = nodes_.size();
  });
}

uint64_t Control::OpenReport(Name identity, int64_t certificate_not_after_unix_s) {
  const uint64_t id = next_id_++;
  Post([this, id, identity = std::move(identity), certificate_not_after_unix_s] { sessions_[id] = {identity, certificate_not_after_unix_s, ""}; });
  return id;
}

std::string Control::ApplyReport(ReportSession& s, uint64_t session, Report& report) {
  if (report.workload) {
    Workload& w = *report.workload;
    if (std::string error = CheckWorkload(w, s.identity); !error.empty()) return error;
    if (!s.workload_id.empty() && s.workload_id != w.id) return "the workload id cannot change";
    auto it = registrations_.find(w.id);
    if (it != registrations_.end() && it->second.workload.service != w.service) return "workload id " + w.id + " belongs to another service";
    if (it == registrations_.end() && registrations_.size() >= kMaxWorkloads) return "too many workloads";
    s.workload_id = w.id;
  }
  if (s.workload_id.empty()) return "the first report must carry the workload";
  Registration& r = registrations_[s.workload_id];
  Workload next = report.workload ? *report.workload : r.workload;
  if (next.id.empty()) return "the workload was removed; report it again in full";
  next.ready = report.ready, next.draining = report.draining;
  r.session = session;
  r.deadline_ns = options_.clock->MonotonicNs() + options_.silence_ns;
  r.last_seen_unix_ms = UnixMs();
  r.certificate_not_after_unix_s = s.certificate_not_after_unix_s;
  if (next != r.workload) {
    const bool was = r.workload.active();
    r.workload = std::move(next);
    dirty_ = true;
    rebuild_not_before_ns_ = std::min(rebuild_not_before_ns_, options_.clock->MonotonicNs() + 20 * base::kMs);
    // On disk after the push: sidecars do not wait for it.
    after_push_.push_back([this, w = r.workload] { options_.store->PutWorkload(w, UnixMs()); });
    if (was != r.workload.active()) {
      WEFT_LOG(kXds, kInfo, "workload ", r.workload.id, " of ", r.workload.service.ToString(), " at ", r.workload.address,
               r.workload.active() ? " is ready" : r.workload.draining ? " is draining" : " is not ready");
    }
  }
  return "";
}

void Control::OnReport(uint64_t session, Report report, std::function<void(bool, std::string)> reply) {
  Post([this, session, report = std::move(report), reply = std::move(reply)]() mutable {
    auto it = sessions_.find(session);
    if (it == sessions_.end()) return reply(false, "the session is closed");
    if (std::string error = ApplyReport(it->second, session, report); !error.empty()) return reply(false, error);
    after_push_.push_back([this, id = it->second.workload_id, reply = std::move(reply)] {
      auto r = registrations_.find(id);
      reply(r != registrations_.end() && r->second.workload.active(), "");
    });
  });
}

void Control::CloseReport(uint64_t session) {
  Post([this, session] {
    auto it = sessions_.find(session);
    if (it == sessions_.end()) return;
    auto r = registrations_.find(it->second.workload_id);
    if (r != registrations_.end() && r->second.session == session) {
      r->second.session = 0;
      if (r->second.workload.draining) {
        Remove(it->second.workload_id, "left");
      } else {
        r->second.deadline_ns = options_.clock->MonotonicNs() + options_.stream_end_grace_ns;
      }
    }
    sessions_.erase(it);
  });
}

void Control::Remove(const std::string& workload_id, const char* why) {
  auto it = registrations_.find(workload_id);
  if (it == registrations_.end()) return;
  WEFT_LOG(kXds, kInfo, "workload ", workload_id, " of ", it->second.workload.service.ToString(), " is removed: ", why);
  registrations_.erase(it);
  after_push_.push_back([this, workload_id] { options_.store->RemoveWorkload(workload_id); });
  dirty_ = true;
}

uint64_t Control::Expire(uint64_t now_ns) {
  std::vector<std::string> gone;
  uint64_t next = 0;
  for (const auto& [id, r] : registrations_) {
    if (r.deadline_ns <= now_ns) gone.push_back(id);
    else if (next == 0 || r.deadline_ns < next) next = r.deadline_ns;
  }
  for (const std::string& id : gone) Remove(id, registrations_[id].session ? "silent" : "its sidecar is gone");
  return next;
}

std::optional<std::vector<SidecarStatus>> Control::Status() {
  auto promise = std::make_shared<std::promise<std::vector<SidecarStatus>>>();
  auto future = promise->get_future();
  Post([this, promise] {
    std::map<std::string, SidecarStatus> out;
    for (const auto& [id, r] : registrations_) {
      SidecarStatus& s = out[id];
      const Workload& w = r.workload;
      s.node = id, s.service = w.service, s.version = w.version, s.address = w.address, s.sidecar_version = w.sidecar_version;
      s.ready = w.ready, s.draining = w.draining, s.active = w.active(), s.reporting = r.session != 0;
      s.last_seen_unix_ms = r.last_seen_unix_ms;
      s.certificate_not_after_unix_s = r.certificate_not_after_unix_s;
    }
    const uint64_t now = options_.clock->MonotonicNs();
    const int64_t now_ms = UnixMs();
    for (const auto& [id, n] : nodes_) {
      if (!n->identified) continue;
      SidecarStatus& s = out[n->info.id];
      s.node = n->info.id, s.service = n->service, s.connected = true;
      s.protocol = n->stream.variant() == Stream::kDelta ? "delta" : "sotw";
      s.synced = n->stream.Synced();
      s.connected_since_unix_ms = n->connected_unix_ms;
      s.last_seen_unix_ms = std::max(s.last_seen_unix_ms, n->last_seen_unix_ms);
      if (n->peer.not_after_unix_s) s.certificate_not_after_unix_s = n->peer.not_after_unix_s;
      if (s.sidecar_version.empty()) s.sidecar_version = n->info.version;
      s.revision = revision_;
      for (int t = 0; t < kTypeCount; ++t) {
        s.types[t] = n->stream.Status(static_cast<Type>(t));
        if (!s.types[t].subscribed) continue;
        // A type that lacks nothing is at the newest revision, whether or not that revision touched it.
        if (!s.types[t].pending && !s.types[t].nack) s.types[t].acked_revision = revision_;
        s.revision = std::min(s.revision, s.types[t].acked_revision);
        if (s.types[t].nack) s.nack_unix_ms[t] = now_ms - static_cast<int64_t>((now - s.types[t].nack->at_ns) / base::kMs);
      }
    }
    std::vector<SidecarStatus> list;
    for (auto& [id, s] : out) list.push_back(std::move(s));
    promise->set_value(std::move(list));
  });
  if (future.wait_for(std::chrono::seconds(5)) != std::future_status::ready) return std::nullopt;
  return future.get();
}

std::string Control::ForgetService(const Name& name) {
  auto promise = std::make_shared<std::promise<std::string>>();
  auto future = promise->get_future();
  Post([this, promise, name] {
    for (const auto& [id, r] : registrations_) {
      if (r.workload.service == name) return promise->set_value("service " + name.ToString() + " has instances: " + id);
    }
    if (known_.erase(name) == 0) return promise->set_value("no such service");
    options_.store->RemoveService(name);
    dirty_ = true;
    promise->set_value("");
  });
  if (future.wait_for(std::chrono::seconds(5)) != std::future_status::ready) return "the control thread does not answer";
  return future.get();
}

std::optional<std::vector<WorkloadStatus>> Control::Workloads() {
  auto promise = std::make_shared<std::promise<std::vector<WorkloadStatus>>>();
  auto future = promise->get_future();
  Post([this, promise] {
    std::vector<WorkloadStatus> out;
    for (const auto& [id, r] : registrations_) out.push_back({r.workload, r.session != 0, r.last_seen_unix_ms});
    promise->set_value(std::move(out));
  });
  if (future.wait_for(std::chrono::seconds(5)) != std::future_status::ready) return std::nullopt;
  return future.get();
}

std::string Control::MetricsText() {
  std::ostringstream o;
  auto line = [&](const char* name, const char* type, const char* help, uint64_t v) {
    o << "# HELP " << name << " " << help << "\n# TYPE " << name << " " << type << "\n" << name << " " << v << "\n";
  };
  line("weft_xds_streams", "gauge", "Open ADS streams.", streams_);
  line("weft_xds_pushes_total", "counter", "Replies sent on ADS streams.", pushes_);
  line("weft_xds_rejects_total", "counter", "Replies that a sidecar rejected.", nacks_);
  line("weft_xds_refused_nodes_total", "counter", "ADS streams refused because node and certificate did not fit.", refused_nodes_);
  line("weft_world_rebuilds_total", "counter", "Times the configuration was compiled.", rebuilds_);
  line("weft_world_last_rebuild_microseconds", "gauge", "Cost of the last compile and push.", last_rebuild_us_);
  line("weft_workloads", "gauge", "Registered workloads.", workloads_);
  line("weft_workloads_active", "gauge", "Workloads that callers are sent to.", active_);
  line("weft_joins_total", "counter", "Identities issued for a join token.", joins);
  line("weft_joins_refused_total", "counter", "Joins refused.", joins_refused);
  line("weft_renewals_total", "counter", "Identities renewed.", renewals);
  return o.str();
}

}  // namespace weft::server
