// Route tables as data (Envoy's RouteConfiguration). sidecar/route compiles and matches them.
// Times are nanoseconds. Strings that name headers are lower case.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sidecar/model/filters.h"
#include "sidecar/model/log_format.h"
#include "sidecar/model/match.h"

namespace weft::model {

struct HeaderOption {
  enum Action : uint8_t { kAppend, kAddIfAbsent, kOverwrite, kOverwriteIfExists } action = kAppend;
  std::string name, value;
  std::shared_ptr<const LogFormat> format;  // what stands for the value, where it holds operators
  bool keep_empty_value = false;
};
struct HeaderMutations {
  std::vector<HeaderOption> request_add, response_add;
  std::vector<std::string> request_remove, response_remove;
  bool empty() const { return request_add.empty() && response_add.empty() && request_remove.empty() && response_remove.empty(); }
};

enum RetryOn : uint32_t {
  kRetry5xx = 1, kRetryGatewayError = 2, kRetryReset = 4, kRetryConnectFailure = 8, kRetryEnvoyRatelimited = 16,
  kRetryRetriable4xx = 32, kRetryRefusedStream = 64, kRetryStatusCodes = 128, kRetryHeaders = 256,
  kRetryGrpcCancelled = 512, kRetryGrpcDeadline = 1024, kRetryGrpcExhausted = 2048, kRetryGrpcInternal = 4096,
  kRetryGrpcUnavailable = 8192, kRetryResetBeforeRequest = 16384, kRetryHttp3PostConnectFailure = 32768,
};

struct RetryPolicy {
  uint32_t on = 0;  // RetryOn bits
  uint32_t num_retries = 1;
  uint64_t per_try_timeout_ns = 0, per_try_idle_timeout_ns = 0;  // 0: none (the route's timeout only)
  uint64_t backoff_base_ns = 25'000'000, backoff_max_ns = 250'000'000;
  std::vector<uint32_t> status_codes;          // kRetryStatusCodes
  std::vector<HeaderMatcher> retriable_headers;          // on the response
  std::vector<HeaderMatcher> retriable_request_headers;  // must match when not empty
  bool previous_hosts_predicate = false;       // do not pick a host that was tried
  bool omit_canary_predicate = false;
  uint32_t host_selection_attempts = 1;
  // Upstream-told back-off: response headers with seconds or a Unix time.
  std::vector<std::pair<std::string, bool>> reset_headers;  // name, is_unix_timestamp
  uint64_t reset_max_interval_ns = 300'000'000'000;
};

struct RouteMatch {
  enum Path : uint8_t { kPrefix, kExact, kRegex, kSeparatedPrefix, kConnect } path = kPrefix;
  std::string value;   // kSeparatedPrefix: without a trailing slash
  Regex regex;
  bool case_sensitive = true;
  std::vector<HeaderMatcher> headers;
  std::vector<QueryMatcher> query;
  std::optional<Percent> runtime_fraction;
  bool grpc_only = false;
};

struct ClusterWeight {
  std::string cluster;        // or
  std::string cluster_header; // the request header that names it
  uint32_t weight = 0;
  HeaderMutations headers;
  std::string host_rewrite;
  std::vector<PerFilterConfig> per_filter;
  std::vector<std::pair<std::string, std::string>> subset;  // metadata_match envoy.lb
};

struct RegexRewrite {
  Regex regex;
  std::string substitution;
};

struct HashPolicy {
  enum Kind : uint8_t { kHeader, kCookie, kSourceIp, kQuery } kind = kHeader;
  std::string name;
  bool terminal = false;
};

struct Forward {  // Route.route
  std::string cluster;                   // exactly one of cluster, cluster_header, weighted is set
  std::string cluster_header;
  std::vector<ClusterWeight> weighted;
  uint64_t total_weight = 0;
  uint16_t cluster_not_found_status = 503;
  std::string prefix_rewrite;
  RegexRewrite regex_rewrite;
  std::string host_rewrite;
  bool auto_host_rewrite = false;
  std::string host_rewrite_header;
  bool append_x_forwarded_host = false;
  // Unset: Envoy's 15 s (from the end of the request to the end of the response). 0: none.
  uint64_t timeout_ns = 15'000'000'000;
  bool timeout_set = false;
  std::optional<uint64_t> idle_timeout_ns;         // overrides the connection manager's stream_idle_timeout; 0: none
  std::optional<uint64_t> max_stream_duration_ns;  // 0: none
  std::optional<uint64_t> grpc_timeout_header_max_ns;  // honour grpc-timeout up to this (0: no cap)
  std::shared_ptr<const RetryPolicy> retry;        // null: the virtual host's, or none
  std::vector<std::pair<std::string, bool>> upgrades;  // per-route type -> enabled ("websocket", "CONNECT")
  bool connect_terminate = false;                  // CONNECT: payload is proxied as plain TCP
  std::vector<HashPolicy> hash;
  std::vector<std::pair<std::string, std::string>> subset;
  bool high_priority = false;                      // which breaker thresholds count
  struct Mirror { std::string cluster; Percent fraction; };
  std::vector<Mirror> mirrors;
};

struct DirectResponse {
  uint16_t status = 200;
  std::string body;
};

struct Redirect {
  std::string scheme;   // "" keeps; https_redirect sets "https"
  std::string host;     // "" keeps
  std::optional<uint32_t> port;
  std::string path;          // replaces the whole path (may hold a query)
  std::string prefix_rewrite;
  RegexRewrite regex_rewrite;
  uint16_t status = 301;
  bool strip_query = false;
};

struct Route {
  std::string name;
  RouteMatch match;
  enum Action : uint8_t { kForward, kDirectResponse, kRedirect, kNonForwarding } action = kForward;
  Forward forward;
  DirectResponse direct;
  Redirect redirect;
  HeaderMutations headers;
  std::vector<PerFilterConfig> per_filter;
  Provenance weft;
  std::string decorator_operation;  // span name
  std::string stat_prefix;
};

struct VirtualHost {
  std::string name;
  std::vector<std::string> domains;  // lower case; "*", "*.suffix", "prefix.*" or exact
  std::vector<std::shared_ptr<const Route>> routes;
  enum RequireTls : uint8_t { kNoTls, kExternalOnly, kAllTls } require_tls = kNoTls;
  HeaderMutations headers;
  std::vector<PerFilterConfig> per_filter;
  std::shared_ptr<const RetryPolicy> retry;
  bool include_request_attempt_count = false;   // x-envoy-attempt-count to the upstream
  bool include_attempt_count_in_response = false;
  std::optional<uint64_t> per_request_buffer_limit;
};

struct RouteConfig {
  std::string name;
  std::vector<VirtualHost> virtual_hosts;
  HeaderMutations headers;
  std::vector<std::string> internal_only_headers;
  std::vector<PerFilterConfig> per_filter;
  bool most_specific_header_mutations_wins = false;
  bool ignore_port_in_host = false;
  bool ignore_path_parameters = false;
  uint32_t max_direct_response_body = 4096;
  bool validate_clusters = false;
};

}  // namespace weft::model
