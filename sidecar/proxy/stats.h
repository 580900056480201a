// The stat ids of listeners, connection managers, TCP proxies and clusters, defined once and used by number.
// Names are Envoy's ("http.<prefix>.downstream_rq_2xx", "cluster.<name>.upstream_rq_total", "listener.<addr>...").
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "sidecar/base/stats.h"
#include "sidecar/upstream/pool.h"

namespace weft::proxy {

// Counts by class and by exact code; codes are defined when first seen (any worker: definitions are idempotent).
class CodeStats {
 public:
  CodeStats() = default;
  // name: "cluster.cart.upstream_rq", tag: {"envoy_cluster_name", "cart"}
  CodeStats(std::string name, std::string base, std::string tag_name, std::string tag_value, bool exact);
  void Count(uint32_t status);

 private:
  std::string name_, base_, tag_name_, tag_value_;
  bool exact_ = false;
  base::StatId completed_ = 0, classes_[5] = {};
  std::unordered_map<uint32_t, base::StatId> codes_;
};

struct HttpStats {  // http.<stat_prefix>., and listener.<address>.http.<stat_prefix>. of one listener
  HttpStats(const std::string& prefix, const std::string& listener);
  void CountAnswer(uint32_t status);
  base::StatId cx_total, cx_active, cx_http1_total, cx_http2_total, cx_destroy, cx_protocol_error, cx_idle_timeout, cx_max_duration, cx_max_requests,
      cx_rx_bytes, cx_tx_bytes, cx_drain_close, cx_ssl_total, cx_upgrades_total, cx_upgrades_active, cx_overload,
      rq_total, rq_active, rq_http1_total, rq_http2_total, rq_time, rq_timeout, rq_idle_timeout, rq_rx_reset, rq_tx_reset,
      rq_header_timeout, rq_too_large, routed, direct_response, no_route, no_cluster, rbac_allowed, rbac_denied, rbac_shadow_allowed,
      rbac_shadow_denied, fault_delays, fault_aborts, fault_active, fault_overflow;
  CodeStats codes;
  base::StatId listener_completed, listener_classes[5];
};

struct RateLimitStats {  // <stat_prefix of the filter>.http_local_rate_limit.
  explicit RateLimitStats(const std::string& prefix);
  base::StatId enabled, enforced, limited, ok;
};

struct TcpStats {  // tcp.<stat_prefix>.
  explicit TcpStats(const std::string& prefix);
  base::StatId cx_total, cx_active, cx_no_route, rx_bytes, tx_bytes, idle_timeout, rbac_allowed, rbac_denied,
      rbac_shadow_allowed, rbac_shadow_denied;
};

struct ListenerStats {  // listener.<address>.
  explicit ListenerStats(const std::string& address);
  base::StatId cx_total, cx_active, cx_destroy, cx_overflow, pre_cx_timeout, no_filter_chain_match, ssl_handshake,
      ssl_connection_error, ssl_fail_verify_no_cert, ssl_fail_verify_error, ssl_fail_verify_san, rbac_denied, rbac_allowed;
  HttpStats& Http(const std::string& prefix);
  uint64_t open = 0;  // this worker's connections

 private:
  std::string name_;
  std::unordered_map<std::string, std::unique_ptr<HttpStats>> http_;
};

struct ProxyProtocolStats {  // proxy_proto.[<stat_prefix>.]
  explicit ProxyProtocolStats(const std::string& prefix);
  base::StatId not_found_allowed, not_found_disallowed;
  struct { base::StatId found, disallowed, error; } versions[2];  // v1, v2
};

struct ClusterStats {  // cluster.<name>.
  explicit ClusterStats(const std::string& name);
  upstream::PoolStats pool;
  base::StatId rq_total, rq_active, rq_time, rq_timeout, rq_per_try_timeout, rq_retry, rq_retry_success, rq_retry_overflow,
      rq_retry_limit_exceeded, rq_rx_reset, rq_tx_reset, rq_overflow, cx_none_healthy, lb_healthy_panic, drop_overload,
      cx_connect_attempts_exceeded;
  CodeStats codes;
};

}  // namespace weft::proxy
