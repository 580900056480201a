// The process: wires bootstrap, snapshot builder, workers, discovery, mesh membership, telemetry and admin; owns the main
// loop and its signals.
//
//   Sidecar s(options);
//   return s.Run();     // 0 after a clean stop, 1 with a message on standard error when it cannot start
//
// SIGTERM drains (--drain-time-s), SIGINT stops at once, SIGUSR1 reopens access logs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/admin/endpoints.h"
#include "sidecar/admin/http_server.h"
#include "sidecar/dns/resolver.h"
#include "sidecar/dns/server.h"
#include "sidecar/proxy/plane.h"
#include "sidecar/server/options.h"
#include "sidecar/telemetry/access_log_files.h"
#include "sidecar/telemetry/event_stream.h"
#include "sidecar/telemetry/grpc_log.h"
#include "sidecar/telemetry/portion.h"
#include "sidecar/xds/ads_client.h"
#include "sidecar/xds/bootstrap.h"
#include "sidecar/xds/mesh_client.h"
#include "sidecar/xds/snapshot_builder.h"

namespace weft::server {

class Sidecar {
 public:
  explicit Sidecar(Options options);
  ~Sidecar();
  int Run();

 private:
  base::Status Load();
  base::Status StartPlane();
  base::Status StartAdmin();
  base::Status StartPrometheus();
  void StartDiscovery();
  void ResolveMeshServer();
  void StartMesh(const std::string& server_address);
  void UpdateAdsChannel();
  telemetry::LogTarget FindCluster(const std::string& name) const;  // where its endpoints are now
  void OnDns(const model::Listener& listener, bool added);
  std::string StaticErrors() const;
  void TakePortions();   // what workers hand over goes to files, log servers and the event stream
  void OnTick();         // every kTickNs: logs, gauges, shutdown
  void OnSignal();
  void OnSettled();
  void BeginDrain();
  void Quit();
  bool Initialized();
  admin::AdminState::Phase Phase();
  std::string WhyNotReady();

  static constexpr uint64_t kTickNs = 100'000'000;
  static constexpr uint32_t kMark = 0x539;

  const Options options_;
  io::Loop loop_;
  xds::Bootstrap bootstrap_;
  uint32_t mark_ = 0;
  telemetry::Handover handover_{[this] { loop_.Post([this] { TakePortions(); }); }};
  std::unique_ptr<proxy::DataPlane> plane_;
  std::unique_ptr<dns::Resolver> resolver_;
  std::unique_ptr<xds::SnapshotBuilder> builder_;
  std::unique_ptr<xds::GrpcChannel> ads_channel_;   // without mesh
  std::unique_ptr<xds::MeshClient> mesh_;
  std::unique_ptr<xds::AdsClient> ads_;
  std::unique_ptr<telemetry::EventStream> events_;
  std::map<std::string, std::unique_ptr<dns::Server>> dns_;
  std::unique_ptr<telemetry::GrpcLogs> log_servers_;
  telemetry::AccessLogFiles log_files_;
  admin::ConfigStats config_stats_;
  admin::AdminState admin_state_;
  std::unique_ptr<admin::HttpServer> admin_, prometheus_;

  std::string resolve_error_;
  bool told_health_ = false;  // by the admin, since the start
  bool healthy_ = true, initialized_ = false, draining_ = false, drain_started_ = false, quitting_ = false;
  uint64_t started_ns_ = 0, drain_at_ns_ = 0, deadline_ns_ = 0, exit_by_ns_ = 0, last_flush_ns_ = 0, last_gauges_ns_ = 0;
  std::vector<std::string> ads_addresses_;
  int signal_fd_ = -1;
  struct SignalHandler : io::Handler {
    explicit SignalHandler(Sidecar* s) : sidecar(s) {}
    void OnReady(uint32_t) override { sidecar->OnSignal(); }
    Sidecar* sidecar;
  } signals_{this};
  struct Tick : io::Timer {
    explicit Tick(Sidecar* s) : io::Timer([](io::Timer* t) { static_cast<Tick*>(t)->sidecar->OnTick(); }), sidecar(s) {}
    Sidecar* sidecar;
  } tick_{this};
  struct Settle : io::Timer {
    explicit Settle(Sidecar* s) : io::Timer([](io::Timer* t) { static_cast<Settle*>(t)->sidecar->OnSettled(); }), sidecar(s) {}
    Sidecar* sidecar;
  } settle_{this};
  uint64_t settle_ns_ = 500 * base::kMs;  // from a new configuration to giving back what building it took
  struct MeshRetry : io::Timer {
    explicit MeshRetry(Sidecar* s) : io::Timer([](io::Timer* t) { static_cast<MeshRetry*>(t)->sidecar->ResolveMeshServer(); }), sidecar(s) {}
    Sidecar* sidecar;
  } mesh_retry_{this};
  struct Ids {
    base::StatId live, uptime, state, concurrency, connections, memory, heap, physical, cert_days, initialization;
  } ids_;
};

}  // namespace weft::server
