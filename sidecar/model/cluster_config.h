// Clusters and endpoints as data (Envoy's Cluster and ClusterLoadAssignment). sidecar/cluster runs them.
// Times are nanoseconds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sidecar/model/address.h"
#include "sidecar/model/match.h"
#include "sidecar/model/proxy_protocol.h"
#include "sidecar/model/route_config.h"
#include "sidecar/model/tls_config.h"

namespace weft::model {

struct Http2Options {  // 0 / unset: our codec's default
  uint32_t max_concurrent_streams = 0, initial_stream_window = 0, initial_connection_window = 0;
  bool allow_connect = false;               // RFC 8441
  bool allow_metadata = false;
  uint64_t keepalive_interval_ns = 0, keepalive_timeout_ns = 0;  // 0: off
  uint64_t connection_idle_interval_ns = 0;
};
struct Http1Options {
  bool accept_http_10 = false;
  std::string default_host_for_http_10;
  bool allow_absolute_url = true;
  bool enable_trailers = false;
  bool allow_chunked_length = false;
  enum HeaderCase : uint8_t { kLower, kProper, kKeep, kKeepProper } header_case = kLower;  // as codec::Limits
};
struct HttpCommonOptions {
  std::optional<uint64_t> idle_timeout_ns;     // 0: none
  uint64_t max_connection_duration_ns = 0;     // 0: none
  uint32_t max_headers_count = 0;              // 0: default
  uint32_t max_response_headers_kb = 0;
  uint64_t max_stream_duration_ns = 0;
  uint32_t max_requests_per_connection = 0;    // 0: no limit
  enum UnderscoreAction : uint8_t { kAllow, kRejectRequest, kDropHeader } underscores = kAllow;
};

struct BreakerThresholds {  // one routing priority
  uint32_t max_connections = 1024, max_pending = 1024, max_requests = 1024, max_retries = 3;
  uint32_t max_connection_pools = UINT32_MAX;
  bool max_retries_set = false;           // an explicit max_retries without a budget keeps Envoy's meaning
  bool budget = true;                     // our default when neither is set: 20 %, at least 3
  double budget_percent = 20;
  uint32_t min_retry_concurrency = 3;
  bool track_remaining = false;
};

struct OutlierConfig {  // present only when the cluster sets outlier_detection (Envoy's meaning and defaults)
  uint32_t consecutive_5xx = 5, consecutive_gateway = 5, consecutive_local = 5;  // 0: off
  uint32_t enforce_5xx = 100, enforce_gateway = 0, enforce_local = 100;          // percent
  uint64_t interval_ns = 10'000'000'000, base_ejection_ns = 30'000'000'000, max_ejection_ns = 300'000'000'000;
  uint64_t max_ejection_jitter_ns = 0;
  uint32_t max_ejection_percent = 10;
  bool split_local_errors = false;
  bool always_eject_one = false;
  uint32_t enforce_success_rate = 0, success_rate_min_hosts = 5, success_rate_volume = 100, success_rate_stdev = 1900;
  uint32_t enforce_failure_percent = 0, failure_percent_threshold = 85, failure_percent_min_hosts = 5, failure_percent_volume = 50;
};

struct HealthCheckConfig {
  uint64_t timeout_ns = 0, interval_ns = 0;
  uint32_t unhealthy_threshold = 0, healthy_threshold = 0;
  enum Kind : uint8_t { kHttp, kTcp, kGrpc } kind = kTcp;
  std::string host, path, grpc_service;
};

enum class EndpointHealth : uint8_t { kUnknown, kHealthy, kUnhealthy, kDraining, kTimeout, kDegraded };

struct Endpoint {
  Address address;
  std::string hostname;
  EndpointHealth health = EndpointHealth::kUnknown;  // unknown counts as healthy
  uint32_t weight = 1;
  uint32_t priority = 0;       // of its locality
  uint32_t locality = 0;       // index into Endpoints::localities
  std::string workload, version;  // metadata weft
  std::string istio_workload;     // metadata istio: "name;namespace;canonical name;canonical revision;cluster"
  bool canary = false;
  std::vector<std::pair<std::string, std::string>> lb_metadata;  // envoy.lb
  std::vector<std::pair<std::string, std::string>> transport_match;  // envoy.transport_socket_match
};

struct Locality {
  std::string region, zone, sub_zone;
  uint32_t weight = 0;   // 0: unset
  uint32_t priority = 0;
};

struct Endpoints {
  std::string cluster;
  std::vector<Locality> localities;
  std::vector<Endpoint> endpoints;   // grouped by locality; priorities ascending
  uint32_t priorities = 0;           // how many there are (max + 1)
  uint32_t overprovisioning_percent = 140;
  uint32_t drop_per_million = 0;     // policy.drop_overloads, summed
};

enum class LbPolicy : uint8_t { kRoundRobin, kLeastRequest, kRandom, kRingHash, kMaglev, kClusterProvided };

struct Cluster {
  std::string name;
  enum Type : uint8_t { kStatic, kStrictDns, kLogicalDns, kEds, kOriginalDst } type = kStatic;
  std::string eds_service_name;          // resource name of its endpoints (the cluster's when unset)
  std::shared_ptr<const Endpoints> inline_endpoints;  // STATIC: all; DNS: addresses of Kind kName
  std::string alt_stat_name;
  LbPolicy lb = LbPolicy::kRoundRobin;
  uint32_t least_request_choices = 2;
  double healthy_panic_percent = 50;
  bool fail_traffic_on_panic = false;
  bool locality_weighted = false;
  uint64_t connect_timeout_ns = 5'000'000'000;
  uint32_t per_connection_buffer_limit = 1024 * 1024;
  BreakerThresholds breakers[2];         // default, high
  std::shared_ptr<const OutlierConfig> outlier;
  std::vector<HealthCheckConfig> health_checks;
  bool ignore_health_on_host_removal = false;
  // HTTP connections made ahead: so many times the requests there are, at the host in use, and at the hosts expected next.
  double preconnect_ratio = 1, predictive_preconnect_ratio = 1;

  std::shared_ptr<const TlsConfig> tls;  // null: plain
  std::optional<ProxyProtocolHeader> proxy_protocol;  // what a connection begins with
  enum Protocol : uint8_t { kHttp1, kHttp2, kAuto, kUseDownstream } protocol = kHttp1;  // kAuto: by ALPN
  Http1Options http1;
  Http2Options http2;
  HttpCommonOptions common;
  bool auto_sni = false, auto_san_validation = false;

  // STRICT_DNS / LOGICAL_DNS
  uint64_t dns_refresh_ns = 5'000'000'000;
  bool respect_dns_ttl = false;
  enum DnsFamily : uint8_t { kDnsAuto, kDnsV4Only, kDnsV6Only, kDnsV4Preferred, kDnsAll } dns_family = kDnsAuto;

  // ORIGINAL_DST
  std::optional<uint32_t> original_dst_port;

  // upstream_bind_config and socket options
  Address bind_source;                   // kNone: any
  struct SocketOption { int level, name; std::string bytes; };  // raw value
  std::vector<SocketOption> socket_options;
  bool tcp_keepalive = false;
  uint32_t keepalive_probes = 0, keepalive_time_s = 0, keepalive_interval_s = 0;
  bool close_connections_on_host_health_failure = false;

  // metadata weft
  Provenance weft;
  std::string service, service_namespace;
  std::string istio_host, istio_name;    // metadata istio, of the first of its services
};

}  // namespace weft::model
