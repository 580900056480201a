// Istio's standard metrics, as its filter istio.stats counts them: istio_requests_total, istio_request_duration_milliseconds,
// istio_request_bytes, istio_response_bytes, istio_request_messages_total and istio_response_messages_total of gRPC, and the
// istio_tcp_* of connections; labels as Istio documents them.
//
//   IstioSubject s = SubjectOf(connection, config);            // who and what; only borrows texts
//   s.host = ..., s.status = 200;
//   core->istio_stats().CountRequest(s, {.duration_us = 1500, .request_bytes = 120, .response_bytes = 90});
//
// What tells one series from another is put into a key in memory of its own and looked up in this worker's table: in the
// steady state neither allocation nor lock. A new key makes (or finds) the series in the process's registry.
// Bounded: kMaxSeries in the process, twice as many keys a worker; what comes after counts in one series for each
// reporter and protocol whose other labels are "unknown", and in the counter stats.istio_overflow. Series are never
// forgotten, because a counter that starts again looks like a restart.
// Threads: one object a worker.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sidecar/base/stats.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/proxy/record.h"

namespace weft::cluster {
struct Host;
}

namespace weft::proxy {

class Connection;

// Our own end, from the bootstrap. Empty: not known.
struct IstioOwn {
  std::string workload, ns, app, version, canonical_service, canonical_revision, cluster;
  std::string build;              // tag of istio_build
  bool names_in_identity = false;  // spiffe://td/ns/NS/sa/X: X is the peer's service and app (Weft's own mesh)
};

struct IstioSubject {
  enum Reporter : uint8_t { kSource, kDestination, kWaypoint } reporter = kSource;
  enum Protocol : uint8_t { kHttp, kGrpc, kTcp } protocol = kHttp;
  const model::IstioStats* config = nullptr;
  bool mutual_tls = false;        // known by the receiving side only
  uint32_t status = 0;
  int32_t grpc_status = -1;
  ResponseFlags flags;
  std::string_view client_id, server_id;                    // names in the certificates of both ends
  std::string_view istio_workload;                          // of the endpoint: model::Endpoint::istio_workload
  std::string_view service, service_namespace, version;     // metadata weft of cluster and endpoint
  std::string_view host, name;                              // destination_service, destination_service_name; empty: from the above
};

// Who called, and whom when that is us. Texts belong to the connection and its configuration.
IstioSubject SubjectOf(const Connection& connection, const model::IstioStats& config);
// Whom it went to (either may be null), and what it was called; authority: of the request, "" for TCP.
void SetCallee(const model::ClusterEntry* entry, const cluster::Host* host, std::string_view route, std::string_view authority, IstioSubject* s);

// The labels of a series in Istio's order.
base::TagList IstioLabels(const IstioSubject& s, const IstioOwn& own);

class IstioStats {
 public:
  static constexpr size_t kMaxSeries = 1024;

  explicit IstioStats(const IstioOwn* own, size_t max_series = kMaxSeries);

  struct Request {
    uint64_t duration_us = 0, request_bytes = 0, response_bytes = 0;
    uint64_t request_messages = 0, response_messages = 0;  // gRPC
  };
  void CountRequest(const IstioSubject& s, const Request& request);

  struct Connections {  // of one series
    base::StatId opened = 0, closed = 0, sent = 0, received = 0;
  };
  Connections Opened(const IstioSubject& s);  // one more; the rest is counted by the caller

  // The gauge istio_build, once.
  static void TellBuild(const IstioOwn& own);
  static size_t series();  // of the process

 private:
  using Series = std::array<base::StatId, 6>;  // the last two: gRPC only
  const Series& Find(const IstioSubject& s);
  std::optional<Series> Make(const IstioSubject& s, bool always);

  const IstioOwn* const own_;
  const size_t max_series_;
  base::StatId overflow_;
  std::string key_;
  model::NameMap<Series> known_;
};

}  // namespace weft::proxy
