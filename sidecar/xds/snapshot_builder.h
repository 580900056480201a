// From resources (static ones, and those that arrive by ADS) to the ConfigSnapshot the workers serve: warming, sharing,
// removal. The only place that decides what is in force.
//
//   SnapshotBuilder builder(loop, {.publish = [&](auto s) { return plane.Publish(std::move(s)); }, .resolve = ...});
//   builder.AddStatic(bootstrap);  builder.Start();
//   builder.OnResources(Type::kCluster, ...)        // from the Ads state machine; returns what was refused
//   builder.Names(Type::kEndpoint)                  // what to subscribe to; on_names says when it changed
//
// Warming: a new version of a cluster waits for its endpoints and secrets, a listener for its route tables and secrets;
// the old version serves meanwhile. Endpoints and routes that do not come within kFetchTimeout count as empty (Envoy's
// initial_fetch_timeout). Secrets have no timeout: without them nothing would be encrypted, so the resource stays warming.
// Snapshots are built once per loop turn at most, and share every entry that did not change.
// The secrets "default" and "ROOTCA" come from SetIdentity() once ExpectIdentity() was called; the key never leaves here.
// Secrets named by path_config_source are read from their files, which are looked at once a second.
// Threads: main.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/base/stats.h"
#include "sidecar/cluster/cells.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/xds/ads.h"

namespace weft::xds {

// Answers of a name; called once per lookup. ttl_s 0: unknown.
struct ResolveAnswer {
  bool ok = false;
  std::vector<model::Ip> addresses;
  uint32_t ttl_s = 0;
  std::string error;
};
using ResolveFn = std::function<void(const std::string& name, model::Cluster::DnsFamily family,
                                     std::function<void(const ResolveAnswer&)> done)>;

// A resource as it is known here, for /config_dump and status.
struct ResourceView {
  std::string name, version;
  std::shared_ptr<const std::string> body;  // the encoded message; null when refused before it could be read
  bool is_static = false, warming = false, active = false;
  uint64_t updated_unix_ns = 0;
  std::string error;                        // the last refusal
  std::shared_ptr<const std::string> refused_body;
  std::string refused_version;
  uint64_t refused_unix_ns = 0;
};

// A certificate in use, for /certs.
struct CertificateView {
  std::string where, chain_pem, roots_pem;
};

class SnapshotBuilder final : public AdsSink {
 public:
  struct Hooks {
    std::function<base::Status(model::SnapshotPtr)> publish;
    ResolveFn resolve;
    std::function<void()> on_names;                                  // Names() of some type changed
    std::function<void(const model::Listener&, bool added)> on_dns;  // a UDP listener with dns_filter came or went
  };
  static constexpr uint64_t kFetchTimeoutNs = 15'000'000'000;

  SnapshotBuilder(io::Loop* loop, Hooks hooks);
  ~SnapshotBuilder();

  // Static resources, before Start(). body: the encoded message, for dumps.
  void AddStaticCluster(std::shared_ptr<const model::Cluster> cluster, std::string body);
  void AddStaticListener(std::shared_ptr<const model::Listener> listener, std::string body);
  void AddStaticSecret(std::shared_ptr<const model::Secret> secret, std::string body);
  // Builds and publishes the first snapshot. An error (an address in use, a bad certificate) names the resource.
  base::Status Start();

  // "default" and "ROOTCA" are ours: what needs them warms until SetIdentity.
  void ExpectIdentity() { expect_identity_ = true; }
  void SetIdentity(const std::string& chain_pem, const std::string& key_pem, const std::string& roots_pem);

  std::vector<Refused> OnResources(Type type, const std::vector<AdsResource>& updated, const std::vector<std::string>& removed,
                                   bool full) override;
  std::set<std::string> Names(Type type) const;  // endpoints, routes, secrets

  model::SnapshotPtr current() const { return current_; }
  std::vector<ResourceView> View(Type type) const;
  std::vector<CertificateView> Certificates() const;
  // Everything that is known is in force (readiness: initialised).
  bool warming() const;
  std::string WarmingText() const;  // what waits for what, for logs and /ready
  // The newest weft revision among the applied resources, from their metadata; set by the ADS client from the version.
  void SetRevision(const std::string& revision) { revision_ = revision; }
  void SetVersion(Type type, const std::string& version);

 private:
  struct Raw {
    std::string version;
    std::shared_ptr<const std::string> body;
    uint64_t updated_unix_ns = 0;
  };
  struct Refusal {
    std::string error, version;
    std::shared_ptr<const std::string> body;
    uint64_t unix_ns = 0;
  };
  // Addresses behind the names of one STRICT_DNS / LOGICAL_DNS cluster.
  struct Dns;
  template <typename Config>
  struct Generation {
    std::shared_ptr<const Config> config;
    Raw raw;
    uint64_t since_ns = 0;
  };
  struct ClusterSlot {
    bool is_static = false, dirty = true;
    std::optional<Generation<model::Cluster>> active, warming;
    std::shared_ptr<const model::ClusterEntry> entry;
    std::shared_ptr<Dns> dns;  // of the newest generation
    Refusal refused;
  };
  struct ListenerSlot {
    bool is_static = false, dirty = true;
    std::optional<Generation<model::Listener>> active, warming;
    std::optional<Generation<model::Listener>> previous;  // while the publication of `active` may still fail
    std::shared_ptr<const model::ListenerEntry> entry, previous_entry;
    Refusal refused;
  };
  struct RouteSlot {
    std::shared_ptr<const route::RouteTable> table;  // null: the server says that there is none
    Raw raw;
    Refusal refused;
  };
  struct EndpointSlot {
    std::shared_ptr<const model::Endpoints> endpoints;
    Raw raw;
    Refusal refused;
  };
  struct SecretSlot {
    std::shared_ptr<const model::Secret> secret;
    uint64_t generation = 0;  // differs between any two contents
    Raw raw;                  // without private keys
    Refusal refused;
  };

  std::string ApplyOne(Type type, const AdsResource& resource);  // "" or why it is refused
  void RemoveOne(Type type, const std::string& name);
  void Changed();                // schedules Rebuild
  base::Status Rebuild();        // promotes what is warm, builds, publishes
  void Settle(std::vector<Refused>* refused);
  std::string ProbeBind(const model::Listener& listener) const;
  bool PromoteCluster(ClusterSlot& slot);
  bool PromoteListener(ListenerSlot& slot);
  bool Expired(uint64_t since_ns) const;
  std::shared_ptr<const model::Endpoints> EndpointsOf(const model::Cluster& cluster, const ClusterSlot& slot) const;
  void StartDns(ClusterSlot& slot, const std::shared_ptr<const model::Cluster>& cluster);
  void Resolve(const std::weak_ptr<Dns>& dns, size_t target);
  // The secret behind a reference; null: not there (yet).
  const SecretSlot* Find(const model::SdsRef& ref) const;
  bool Local(const model::SdsRef& ref) const;
  // A TLS context for this configuration and the secrets of now. waiting: a secret is missing.
  base::Result<std::shared_ptr<const tls::Context>> ContextFor(const model::TlsConfig& tls, bool server, bool* waiting);
  void MarkSecretUsers();
  void UpdateNames();
  void ReadFiles();              // secret files that are new or have changed
  void ArmWarming();
  void UpdateGauges();

  io::Loop* const loop_;
  Hooks hooks_;
  cluster::CellRegistry cells_;
  std::map<std::string, ClusterSlot> clusters_;
  std::map<std::string, ListenerSlot> listeners_;
  std::map<std::string, RouteSlot> routes_;
  std::map<std::string, EndpointSlot> endpoints_;
  std::map<std::string, SecretSlot> secrets_, static_secrets_;
  std::map<std::string, std::shared_ptr<const tls::Context>> contexts_;  // by key; swept when unused
  std::set<std::string> names_[kTypes];
  std::string revision_;
  model::ConfigSnapshot::Versions versions_;
  model::SnapshotPtr current_;
  uint64_t sequence_ = 0, secret_generation_ = 0;
  bool expect_identity_ = false, started_ = false, routes_changed_ = true, names_dirty_ = true;
  // Secrets by file; the stamp tells whether it has changed. A file that turned bad keeps the last good content.
  struct SecretFile {
    std::string stamp, error;
    std::map<std::string, SecretSlot> secrets;
  };
  std::map<std::string, SecretFile> files_;
  std::string last_publish_error_;

  struct RebuildTask : io::Task {
    explicit RebuildTask(SnapshotBuilder* b);
    SnapshotBuilder* builder;
  } rebuild_{this};
  struct WarmTimer : io::Timer {
    explicit WarmTimer(SnapshotBuilder* b);
    SnapshotBuilder* builder;
  } warm_timer_{this};
  struct FileTimer : io::Timer {
    explicit FileTimer(SnapshotBuilder* b) : io::Timer([](io::Timer* t) { static_cast<FileTimer*>(t)->builder->ReadFiles(); }), builder(b) {}
    SnapshotBuilder* builder;
  } file_timer_{this};
  struct Ids {
    base::StatId cluster_added, cluster_modified, cluster_removed, active_clusters, warming_clusters, listener_added,
        listener_modified, listener_removed, listeners_active, listeners_warming, create_success, create_failure, snapshots;
  } ids_;
};

}  // namespace weft::xds
