// Envoy's admin paths over our state. JSON answers are Envoy's admin messages, so that tools written for Envoy parse them;
// whatever the API marks as sensitive is redacted.
//
//   AdminState state{...};  RegisterEndpoints(&server, &state);
//
// Threads: main. state outlives the server.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "sidecar/admin/config_stats.h"
#include "sidecar/admin/http_server.h"
#include "sidecar/proxy/plane.h"
#include "sidecar/xds/ads_client.h"
#include "sidecar/xds/bootstrap.h"
#include "sidecar/xds/mesh_client.h"
#include "sidecar/xds/snapshot_builder.h"

namespace weft::admin {

struct AdminState {
  enum Phase { kLive, kDraining, kPreInitializing, kInitializing };  // the numbers of Envoy's ServerInfo.State
  std::function<Phase()> phase;
  std::function<std::string()> why_not_ready;   // one line for /ready
  std::function<void(bool)> set_health;         // /healthcheck/ok, /healthcheck/fail
  std::function<bool()> healthy;
  std::function<void()> drain_listeners, quit, reopen_logs;
  std::function<uint64_t()> uptime_s;
  std::string version;                          // "0.1.0"
  std::string options;                          // encoded envoy.admin.v3.CommandLineOptions
  const xds::Bootstrap* bootstrap = nullptr;
  const xds::SnapshotBuilder* builder = nullptr;
  const proxy::DataPlane* plane = nullptr;
  std::function<const xds::AdsClient*()> ads;   // null: none
  std::function<const xds::MeshClient*()> mesh;
  uint64_t started_unix_ns = 0;
  ConfigStats* config_stats = nullptr;
};

void RegisterEndpoints(HttpServer* server, const AdminState* state);
// /stats/prometheus alone, for a server that anyone may ask.
void RegisterPrometheus(HttpServer* server, const AdminState* state);

// Parts of the above, in files of their own.
Response ConfigDump(const AdminState& state, const Request& request);   // config_dump.cc
Response Clusters(const AdminState& state, const Request& request);     // views.cc
Response Listeners(const AdminState& state, const Request& request);
Response Certs(const AdminState& state, const Request& request);
Response ServerInfo(const AdminState& state);
Response Memory();
Response WeftStatus(const AdminState& state);

}  // namespace weft::admin
