// The control thread: owns the World, every xDS stream's state and every registration, and turns changes into pushes.
//
//   Control control({.store = &store, .trust_domain = "weft.local", .clock = base::Clock::Real()});
//   control.Start();
//   control.PoliciesChanged();                    // any thread, after the store was written
//   control.Stop();
//
// Everything that changes something is a task posted to one thread; after each turn, when anything did change, the World
// is built once, compiled once a class, and every stream is handed what it lacks. Endpoint changes are served in the turn
// they arrive in; when a rebuild is expensive, changes gather for twice its cost (at most 200 ms) before the next one.
// gRPC's threads only parse, post and write. Bounds: 10,000 streams, 20,000 workloads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sidecar/base/clock.h"
#include "xds_server/compile/compile.h"
#include "xds_server/delta/stream.h"
#include "xds_server/model/world.h"
#include "xds_server/serve/peer.h"
#include "xds_server/store/store.h"

namespace weft::server {

// The other end of one ADS stream. Any thread; never blocks.
class ReplySink {
 public:
  virtual ~ReplySink() = default;
  virtual void Push(Reply reply) = 0;
  // The last request was taken in: the next may be read.
  virtual void Ready() = 0;
  // Ends the stream with a gRPC status code.
  virtual void Close(int code, const std::string& reason) = 0;
};

// What a node says about itself in its first request.
struct NodeInfo {
  std::string id, cluster, ns;     // ns: metadata NAMESPACE
  std::string version;             // user agent
  std::string sds_dir;             // metadata WEFT_SDS_DIR
  bool ipv6 = false;               // metadata WEFT_IPV6
};

struct SidecarStatus {
  std::string node;
  Name service;
  std::string version, address, sidecar_version;
  bool connected = false, synced = false, ready = false, draining = false, active = false, reporting = false;
  std::string protocol;            // "delta" | "sotw" | ""
  uint64_t revision = 0;           // of the policies: everything the sidecar has is of this revision
  int64_t last_seen_unix_ms = 0, connected_since_unix_ms = 0, certificate_not_after_unix_s = 0;
  TypeStatus types[kTypeCount];
  int64_t nack_unix_ms[kTypeCount] = {};
};

struct WorkloadStatus {
  Workload workload;
  bool connected = false;          // its Report stream is open
  int64_t last_seen_unix_ms = 0;
};

class Control {
 public:
  struct Options {
    Store* store = nullptr;
    std::string trust_domain;
    base::Clock* clock = nullptr;
    uint64_t silence_ns = 15 * base::kSecond;        // without a report: out of the endpoints
    uint64_t stream_end_grace_ns = 3 * base::kSecond;  // report stream ended without draining
    // Workloads known from before this server's start: twice the longest pause of a sidecar that tries to reconnect.
    uint64_t restart_grace_ns = 60 * base::kSecond;
    int64_t remember_service_ms = 24 * 3600 * 1000;  // a service without instances keeps its name and address this long
  };
  explicit Control(Options options);
  ~Control();
  void Start();
  void Stop();

  // --- any thread ---
  void Post(std::function<void()> task);
  void PoliciesChanged();
  std::shared_ptr<const World> world() const;
  // Answered by the control thread; nothing when it does not answer within 5 s (a loaded or stopping server).
  std::optional<std::vector<SidecarStatus>> Status();
  std::optional<std::vector<WorkloadStatus>> Workloads();
  // Drops a remembered service that has no instance; "" or why not.
  std::string ForgetService(const Name& name);
  std::string MetricsText();

  // --- ADS (any thread; handled in order) ---
  uint64_t OpenStream(std::shared_ptr<ReplySink> sink, Stream::Variant variant, Peer peer);
  // node: in the first request.
  void Request(uint64_t stream, std::optional<NodeInfo> node, StreamRequest request);
  void CloseStream(uint64_t stream);

  // --- registration (any thread) ---
  // `reply` is called after the change was pushed: active says whether callers are being sent here.
  uint64_t OpenReport(Name identity, int64_t certificate_not_after_unix_s);
  struct Report {
    std::optional<Workload> workload;
    bool ready = false, draining = false;
  };
  void OnReport(uint64_t session, Report report, std::function<void(bool active, std::string error)> reply);
  void CloseReport(uint64_t session);

  // Counters of the gRPC services (any thread).
  std::atomic<uint64_t> joins{0}, joins_refused{0}, renewals{0};

 private:
  struct Node {
    uint64_t id = 0;
    std::shared_ptr<ReplySink> sink;
    Peer peer;
    Stream stream;
    bool identified = false;
    Name service;
    NodeInfo info;
    int64_t connected_unix_ms = 0, last_seen_unix_ms = 0;
    explicit Node(Stream::Variant v) : stream(v) {}
  };
  struct Registration {
    Workload workload;
    uint64_t session = 0;          // 0: no report stream
    uint64_t deadline_ns = 0;      // when it is taken out unless something is heard
    int64_t last_seen_unix_ms = 0, certificate_not_after_unix_s = 0;
  };
  struct ReportSession {
    Name identity;
    int64_t certificate_not_after_unix_s = 0;
    std::string workload_id;
  };

  void Run();
  void LoadStored();
  void LoadPolicies();
  bool Identify(Node& n, const NodeInfo& info);
  void Rebuild();
  void PushAll();
  void Push(Node& n, uint64_t now_ns);
  std::shared_ptr<const Snapshot> SnapshotFor(const Node& n);
  void Remove(const std::string& workload_id, const char* why);
  void Remember();  // services of the registrations into known_; forgets old ones
  uint64_t Expire(uint64_t now_ns);  // the next moment something is due, 0: none
  SidecarStatus StatusOf(const std::string& id, const Registration& r) const;
  void AddStream(const Node& n, SidecarStatus& s) const;
  std::string ApplyReport(ReportSession& s, uint64_t session, Report& report);
  int64_t UnixMs() const { return static_cast<int64_t>(options_.clock->UnixNs() / base::kMs); }

  Options options_;
  std::thread thread_;
  mutable std::mutex mutex_;  // tasks_, stopping_, world_
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false, started_ = false;
  std::shared_ptr<const World> world_;
  std::atomic<uint64_t> next_id_{1};

  // Control thread only from here on.
  std::vector<PolicyObject> policies_;
  uint64_t revision_ = 0;
  bool dirty_ = true;
  uint64_t rebuild_not_before_ns_ = 0, rebuild_cost_ns_ = 0;
  std::map<std::string, Registration> registrations_;
  std::map<uint64_t, ReportSession> sessions_;
  std::map<Name, Store::KnownService> known_;
  std::map<Name, std::string> vips_;
  std::map<uint64_t, std::unique_ptr<Node>> nodes_;
  std::unique_ptr<Compiler> compiler_;
  std::map<ProxyClass, std::shared_ptr<const Snapshot>> snapshots_;
  std::vector<std::function<void()>> after_push_;
  // Kept as atomics, for MetricsText.
  std::atomic<uint64_t> pushes_{0}, rebuilds_{0}, nacks_{0}, last_rebuild_us_{0}, refused_nodes_{0};
  std::atomic<uint64_t> streams_{0}, workloads_{0}, active_{0};
};

}  // namespace weft::server
