// Configuration of the HTTP and network filters, as plain data; the code that runs them is in sidecar/filters/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "sidecar/model/address.h"
#include "sidecar/model/match.h"

namespace weft::model {

// Where a piece of configuration came from (metadata.filter_metadata["weft"]); empty for foreign servers.
struct Provenance {
  std::string policy;     // "Route/default/cart"
  uint64_t revision = 0;
};

// One node of a permission or principal tree. Children are in `children`; which fields count depends on kind.
struct RbacNode {
  enum Kind : uint8_t {
    kUnknown,        // not understood: fails the whole evaluation closed
    kAny, kAnd, kOr, kNot,
    kHeader, kUrlPath, kMetadata,
    kDestinationIp, kDestinationPort, kDestinationPortRange, kRequestedServerName,  // permissions
    kAuthenticated,                                                                // principal: mTLS identity
    kDirectRemoteIp, kRemoteIp,  // kDirectRemoteIp: the socket's peer (also source_ip); kRemoteIp: after x-forwarded-for
  } kind = kUnknown;
  std::vector<RbacNode> children;
  HeaderMatcher header;
  StringMatcher string;               // kUrlPath (path without query), kRequestedServerName, kAuthenticated, kMetadata
  bool any_identity = false;          // kAuthenticated without a name: any verified certificate
  Cidr cidr;
  uint32_t port = 0, port_end = 0;    // kDestinationPortRange: [port, port_end)
  std::string metadata_filter;        // kMetadata: filter name, path within, string value
  std::vector<std::string> metadata_path;
  bool invert = false;                // kMetadata
  std::string what;                   // kUnknown: the field that was not understood
};

struct RbacPolicy {
  std::string name;  // Authorization/<ns>/<name>/<rule>@<revision> when our server compiled it
  std::vector<RbacNode> permissions, principals;  // any of each must match
};

struct RbacRules {
  enum Action : uint8_t { kAllow, kDeny, kLog } action = kAllow;
  std::vector<RbacPolicy> policies;  // sorted by name
};

// Null rules: that half is off (every request allowed).
struct RbacConfig {
  std::shared_ptr<const RbacRules> rules, shadow_rules;
  std::string stat_prefix, shadow_stat_prefix;
  uint32_t delay_deny_ms = 0;  // network filter
};

struct FaultConfig {
  bool has_delay = false, has_abort = false;
  bool header_delay = false, header_abort = false;  // x-envoy-fault-* request headers decide, the percentage is a cap
  uint64_t delay_ns = 0;
  Percent delay_percent, abort_percent;
  uint32_t http_status = 0;            // 200..599, or 0
  int32_t grpc_status = -1;            // abort as gRPC status when >= 0
  std::vector<HeaderMatcher> headers;  // all must match, else no fault
  std::string upstream_cluster;        // only for this cluster when set
  uint32_t max_active_faults = UINT32_MAX;
  Provenance weft;                     // the policy that ordered the fault (HTTPFault.filter_metadata)
};

struct LocalRateLimitConfig {
  std::string stat_prefix;
  uint32_t max_tokens = 0, tokens_per_fill = 1;  // max_tokens 0: no limit configured (only typed per-route ones count)
  uint64_t fill_interval_ns = 0;
  uint16_t status = 429;
  Percent enabled, enforced;           // default 0%, as Envoy
  bool per_connection = false;
  std::vector<std::pair<std::string, std::string>> response_headers_to_add;
  bool rate_limited_as_resource_exhausted = false;  // gRPC: RESOURCE_EXHAUSTED instead of UNAVAILABLE
  // The bucket's key: configurations with the same key share one bucket across snapshots and workers.
  std::string key;
};

// The whole request before anything of it goes on; more is refused.
struct BufferConfig {
  uint32_t max_request_bytes = 0;
};

struct RouterConfig {
  bool suppress_envoy_headers = false;
  bool start_child_span = false;
};

// Istio's standard metrics are counted for this connection manager or TCP chain (filter istio.stats).
struct IstioStats {
  enum Reporter : uint8_t { kByDirection, kWaypoint } reporter = kByDirection;
  bool host_header_fallback = true;  // destination_service of what no cluster describes: the request's authority
  struct Change {
    std::string metric;              // "requests_total"; empty: all
    bool drop = false;
    std::vector<std::string> without;  // labels
  };
  std::vector<Change> changes;
  std::string key;                   // equal key, equal configuration; empty: the usual one
};

// The filters of one connection manager run in this order; router is always the last.
struct HttpFilter {
  std::string name;  // instance name: the key of typed_per_filter_config
  std::variant<std::shared_ptr<const RbacConfig>, std::shared_ptr<const FaultConfig>,
               std::shared_ptr<const LocalRateLimitConfig>, std::shared_ptr<const BufferConfig>, std::shared_ptr<const RouterConfig>> config;
  bool disabled = false;  // off unless a route turns it on
  uint8_t index = 0;      // place in the chain
};

// One entry of typed_per_filter_config of a route, virtual host, weighted cluster or route table.
struct PerFilterConfig {
  std::string name;
  bool disabled = false;
  std::variant<std::monostate, std::shared_ptr<const RbacConfig>, std::shared_ptr<const FaultConfig>,
               std::shared_ptr<const LocalRateLimitConfig>, std::shared_ptr<const BufferConfig>> config;  // monostate with disabled = false: enable as configured
};

// Finds the entry for a filter instance; null when there is none. Scopes are asked innermost first.
inline const PerFilterConfig* FindPerFilter(const std::vector<PerFilterConfig>& list, const std::string& name) {
  for (const auto& e : list)
    if (e.name == name) return &e;
  return nullptr;
}

}  // namespace weft::model
