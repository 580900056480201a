// The loop, the World and the streams. Registrations are in control_workloads.cc, what others ask in control_status.cc.
#include "xds_server/serve/control.h"

#include <algorithm>

#include "sidecar/base/log.h"
#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

constexpr size_t kMaxStreams = 10'000;
constexpr int kPermissionDenied = 7, kInvalidArgument = 3, kResourceExhausted = 8;

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

}  // namespace weft::server
