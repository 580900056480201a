#include "sidecar/proxy/stats.h"

#include <algorithm>

#include "sidecar/base/str.h"

namespace weft::proxy {
namespace {

// Defines stats below one prefix whose variable part became a tag.
struct Scope {
  std::string full, base, tag, value;
  base::StatId C(const char* n) const {
    return base::Stats::Get().Counter(base::Cat(full, n), base::Cat(base, n), {{tag, value}});
  }
  base::StatId G(const char* n) const {
    return base::Stats::Get().Gauge(base::Cat(full, n), base::Cat(base, n), {{tag, value}});
  }
  base::StatId H(const char* n) const {
    return base::Stats::Get().Histogram(base::Cat(full, n), base::Cat(base, n), {{tag, value}});
  }
};

}  // namespace

CodeStats::CodeStats(std::string name, std::string base, std::string tag_name, std::string tag_value, bool exact)
    : name_(std::move(name)), base_(std::move(base)), tag_name_(std::move(tag_name)), tag_value_(std::move(tag_value)), exact_(exact) {
  base::Stats& stats = base::Stats::Get();
  for (int c = 1; c <= 5; ++c) {
    std::string code_class(1, static_cast<char>('0' + c));
    // Envoy's tag extraction: upstream_rq_2xx is upstream_rq_xx{response_code_class="2"}.
    classes_[c - 1] = stats.Counter(base::Cat(name_, "_", c, "xx"), base::Cat(base_, "_xx"),
                                    {{"envoy_response_code_class", code_class}, {tag_name_, tag_value_}});
  }
  completed_ = stats.Counter(base::Cat(name_, "_completed"), base::Cat(base_, "_completed"), {{tag_name_, tag_value_}});
}

void CodeStats::Count(uint32_t status) {
  if (status < 100 || status > 599) return;
  base::Cells& cells = base::Cells::Local();
  cells.Add(completed_);
  cells.Add(classes_[status / 100 - 1]);
  if (!exact_) return;
  auto it = codes_.find(status);
  if (it == codes_.end()) {
    std::string code = std::to_string(status);
    base::StatId id = base::Stats::Get().Counter(base::Cat(name_, "_", code), base_,
                                                 {{"envoy_response_code", code}, {tag_name_, tag_value_}});
    it = codes_.emplace(status, id).first;
  }
  cells.Add(it->second);
}

HttpStats::HttpStats(const std::string& prefix, const std::string& listener) {
  Scope s{base::Cat("http.", prefix, "."), "http.", "envoy_http_conn_manager_prefix", prefix};
  cx_total = s.C("downstream_cx_total"), cx_active = s.G("downstream_cx_active");
  cx_http1_total = s.C("downstream_cx_http1_total"), cx_http2_total = s.C("downstream_cx_http2_total");
  cx_destroy = s.C("downstream_cx_destroy"), cx_protocol_error = s.C("downstream_cx_protocol_error");
  cx_max_duration = s.C("downstream_cx_max_duration_reached"), cx_max_requests = s.C("downstream_cx_max_requests_reached");
  cx_idle_timeout = s.C("downstream_cx_idle_timeout"), cx_ssl_total = s.C("downstream_cx_ssl_total");
  cx_rx_bytes = s.C("downstream_cx_rx_bytes_total"), cx_tx_bytes = s.C("downstream_cx_tx_bytes_total");
  cx_drain_close = s.C("downstream_cx_drain_close"), cx_overload = s.C("downstream_cx_overload_disable_keepalive");
  cx_upgrades_total = s.C("downstream_cx_upgrades_total"), cx_upgrades_active = s.G("downstream_cx_upgrades_active");
  rq_total = s.C("downstream_rq_total"), rq_active = s.G("downstream_rq_active"), rq_time = s.H("downstream_rq_time");
  rq_http1_total = s.C("downstream_rq_http1_total"), rq_http2_total = s.C("downstream_rq_http2_total");
  rq_timeout = s.C("downstream_rq_timeout"), rq_idle_timeout = s.C("downstream_rq_idle_timeout");
  rq_rx_reset = s.C("downstream_rq_rx_reset"), rq_tx_reset = s.C("downstream_rq_tx_reset");
  rq_header_timeout = s.C("downstream_rq_header_timeout"), rq_too_large = s.C("downstream_rq_too_large");
  routed = s.C("rq_total"), direct_response = s.C("rq_direct_response");
  no_route = s.C("no_route"), no_cluster = s.C("no_cluster");
  rbac_allowed = s.C("rbac.allowed"), rbac_denied = s.C("rbac.denied");
  rbac_shadow_allowed = s.C("rbac.shadow_allowed"), rbac_shadow_denied = s.C("rbac.shadow_denied");
  fault_delays = s.C("fault.delays_injected"), fault_aborts = s.C("fault.aborts_injected");
  fault_active = s.G("fault.active_faults"), fault_overflow = s.C("fault.faults_overflow");
  codes = CodeStats(base::Cat("http.", prefix, ".downstream_rq"), "http.downstream_rq", "envoy_http_conn_manager_prefix", prefix, false);
  base::Stats& stats = base::Stats::Get();
  const std::string name = base::Cat("listener.", listener, ".http.", prefix, ".downstream_rq_");
  listener_completed = stats.Counter(name + "completed", "listener.http.downstream_rq_completed",
                                     {{"envoy_http_conn_manager_prefix", prefix}, {"envoy_listener_address", listener}});
  for (int c = 1; c <= 5; ++c) {
    const std::string code_class(1, static_cast<char>('0' + c));
    listener_classes[c - 1] = stats.Counter(
        base::Cat(name, c, "xx"), "listener.http.downstream_rq_xx",
        {{"envoy_response_code_class", code_class}, {"envoy_http_conn_manager_prefix", prefix}, {"envoy_listener_address", listener}});
  }
}

void HttpStats::CountAnswer(uint32_t status) {
  codes.Count(status);
  if (status < 100 || status > 599) return;
  base::Cells::Local().Add(listener_completed);
  base::Cells::Local().Add(listener_classes[status / 100 - 1]);
}

RateLimitStats::RateLimitStats(const std::string& prefix) {
  Scope s{base::Cat(prefix, ".http_local_rate_limit."), "http_local_rate_limit.", "envoy_local_http_ratelimit_prefix", prefix};
  enabled = s.C("enabled"), enforced = s.C("enforced"), limited = s.C("rate_limited"), ok = s.C("ok");
}

TcpStats::TcpStats(const std::string& prefix) {
  Scope s{base::Cat("tcp.", prefix, "."), "tcp.", "envoy_tcp_prefix", prefix};
  cx_total = s.C("downstream_cx_total"), cx_active = s.G("downstream_cx_active"), cx_no_route = s.C("downstream_cx_no_route");
  rx_bytes = s.C("downstream_cx_rx_bytes_total"), tx_bytes = s.C("downstream_cx_tx_bytes_total");
  idle_timeout = s.C("idle_timeout");
  rbac_allowed = s.C("rbac.allowed"), rbac_denied = s.C("rbac.denied");
  rbac_shadow_allowed = s.C("rbac.shadow_allowed"), rbac_shadow_denied = s.C("rbac.shadow_denied");
}

ListenerStats::ListenerStats(const std::string& address) {
  name_ = address;
  std::replace(name_.begin(), name_.end(), ':', '_');
  Scope s{base::Cat("listener.", name_, "."), "listener.", "envoy_listener_address", name_};
  cx_total = s.C("downstream_cx_total"), cx_active = s.G("downstream_cx_active"), cx_destroy = s.C("downstream_cx_destroy");
  cx_overflow = s.C("downstream_cx_overflow"), pre_cx_timeout = s.C("downstream_pre_cx_timeout");
  no_filter_chain_match = s.C("no_filter_chain_match");
  ssl_handshake = s.C("ssl.handshake"), ssl_connection_error = s.C("ssl.connection_error");
  ssl_fail_verify_no_cert = s.C("ssl.fail_verify_no_cert"), ssl_fail_verify_error = s.C("ssl.fail_verify_error");
  ssl_fail_verify_san = s.C("ssl.fail_verify_san");
  rbac_allowed = s.C("rbac.allowed"), rbac_denied = s.C("rbac.denied");
}

HttpStats& ListenerStats::Http(const std::string& prefix) {
  auto& s = http_[prefix];
  if (!s) s = std::make_unique<HttpStats>(prefix, name_);
  return *s;
}

ProxyProtocolStats::ProxyProtocolStats(const std::string& prefix) {
  base::Stats& stats = base::Stats::Get();
  const std::string full = prefix.empty() ? "proxy_proto." : base::Cat("proxy_proto.", prefix, ".");
  const auto counter = [&](const std::string& name) {
    return prefix.empty() ? stats.Counter(full + name) : stats.Counter(full + name, "proxy_proto." + name, {{"envoy_proxy_protocol_prefix", prefix}});
  };
  not_found_allowed = counter("not_found_allowed"), not_found_disallowed = counter("not_found_disallowed");
  for (int v : {0, 1}) {
    const std::string version = base::Cat("versions.v", v + 1, ".");
    versions[v] = {counter(version + "found"), counter(version + "disallowed"), counter(version + "error")};
  }
}

ClusterStats::ClusterStats(const std::string& name) {
  Scope s{base::Cat("cluster.", name, "."), "cluster.", "envoy_cluster_name", name};
  pool.cx_total = s.C("upstream_cx_total"), pool.cx_active = s.G("upstream_cx_active");
  pool.cx_http1_total = s.C("upstream_cx_http1_total"), pool.cx_http2_total = s.C("upstream_cx_http2_total");
  pool.cx_connect_fail = s.C("upstream_cx_connect_fail"), pool.cx_connect_timeout = s.C("upstream_cx_connect_timeout");
  pool.cx_connect_ms = s.H("upstream_cx_connect_ms"), pool.cx_destroy = s.C("upstream_cx_destroy");
  pool.cx_destroy_remote_with_active_rq = s.C("upstream_cx_destroy_remote_with_active_rq");
  pool.cx_idle_timeout = s.C("upstream_cx_idle_timeout"), pool.cx_overflow = s.C("upstream_cx_overflow");
  pool.cx_max_requests = s.C("upstream_cx_max_requests"), pool.cx_max_duration = s.C("upstream_cx_max_duration_reached");
  pool.cx_protocol_error = s.C("upstream_cx_protocol_error");
  pool.cx_rx_bytes = s.C("upstream_cx_rx_bytes_total"), pool.cx_tx_bytes = s.C("upstream_cx_tx_bytes_total");
  pool.rq_pending_total = s.C("upstream_rq_pending_total"), pool.rq_pending_active = s.G("upstream_rq_pending_active");
  pool.rq_pending_overflow = s.C("upstream_rq_pending_overflow");
  pool.rq_pending_failure_eject = s.C("upstream_rq_pending_failure_eject"), pool.rq_cancelled = s.C("upstream_rq_cancelled");
  pool.ssl_session_reused = s.C("ssl.session_reused");
  pool.ssl_handshake = s.C("ssl.handshake"), pool.ssl_connection_error = s.C("ssl.connection_error");
  pool.ssl_fail_verify_san = s.C("ssl.fail_verify_san"), pool.ssl_fail_verify_error = s.C("ssl.fail_verify_error");
  pool.ssl_fail_verify_no_cert = s.C("ssl.fail_verify_no_cert");
  rq_total = s.C("upstream_rq_total"), rq_active = s.G("upstream_rq_active"), rq_time = s.H("upstream_rq_time");
  rq_timeout = s.C("upstream_rq_timeout"), rq_per_try_timeout = s.C("upstream_rq_per_try_timeout");
  rq_retry = s.C("upstream_rq_retry"), rq_retry_success = s.C("upstream_rq_retry_success");
  rq_retry_overflow = s.C("upstream_rq_retry_overflow"), rq_retry_limit_exceeded = s.C("upstream_rq_retry_limit_exceeded");
  rq_rx_reset = s.C("upstream_rq_rx_reset"), rq_tx_reset = s.C("upstream_rq_tx_reset");
  rq_overflow = pool.rq_pending_overflow;  // Envoy counts both overflows there
  cx_none_healthy = s.C("upstream_cx_none_healthy"), lb_healthy_panic = s.C("lb_healthy_panic");
  drop_overload = s.C("upstream_rq_drop_overload");
  cx_connect_attempts_exceeded = s.C("upstream_cx_connect_attempts_exceeded");
  codes = CodeStats(base::Cat("cluster.", name, ".upstream_rq"), "cluster.upstream_rq", "envoy_cluster_name", name, true);
}

}  // namespace weft::proxy
