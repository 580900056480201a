// Listeners as data: listener filters, filter chains, and what stands at the end of a chain.
// Times are nanoseconds. A chain is shared (shared_ptr<const>) so that connections keep the one they began with.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "sidecar/model/address.h"
#include "sidecar/model/cluster_config.h"
#include "sidecar/model/filters.h"
#include "sidecar/model/grpc_log.h"
#include "sidecar/model/log_filter.h"
#include "sidecar/model/proxy_protocol.h"
#include "sidecar/model/route_config.h"
#include "sidecar/model/tls_config.h"

namespace weft::route {
class RouteTable;
}

namespace weft::model {

// One member of a JSON log format.
struct JsonNode {
  enum Kind : uint8_t { kFormat, kObject, kRaw } kind = kFormat;  // kRaw: a number or bool as it stands
  std::string key, format;
  std::vector<JsonNode> children;  // kObject, sorted by key
};

struct AccessLog {
  std::shared_ptr<const GrpcLog> grpc;  // set: goes there, and path and formats mean nothing
  std::string path;                 // "/dev/stdout" and "/dev/stderr" are what they say
  bool json = false;
  std::string text_format;          // "" : Envoy's default format
  std::vector<JsonNode> json_format;  // sorted by key
  bool omit_empty_values = false;
  std::optional<LogFilter> filter;  // none: every record
};

// All access logs of one place, shared with finished records.
struct AccessLogs {
  std::vector<AccessLog> logs;
  // Lower-case names of the headers that formats and filters of `logs` refer to: only these are kept in records.
  std::vector<std::string> request_headers, response_headers, response_trailers;
  // An expression computes a name or looks at them as a whole: all are kept.
  bool all_request_headers = false, all_response_headers = false, all_response_trailers = false;
  bool certificates = false;  // who issued the client's, what ours says and the TLS session id are kept as well
};

struct Tracing {
  double client_sampling = 100, random_sampling = 100, overall_sampling = 100;  // percent
  bool verbose = false;
  uint32_t max_path_tag_length = 256;
};

struct HttpConnectionManager {
  enum Codec : uint8_t { kAuto, kHttp1, kHttp2 } codec = kAuto;
  std::string stat_prefix;

  // Exactly one: a table of its own, or a name looked up in the snapshot for each request.
  std::shared_ptr<const route::RouteTable> route_table;
  std::string rds_name;

  std::vector<HttpFilter> filters;  // router last
  // Enabled upgrade types, lower case ("websocket", "connect").
  std::vector<std::string> upgrades;

  uint64_t stream_idle_timeout_ns = 300'000'000'000;  // 0: none
  uint64_t request_timeout_ns = 0;                    // whole request received; 0: none
  uint64_t request_headers_timeout_ns = 0;            // 0: our default (10 s) unless set
  bool request_headers_timeout_set = false;
  uint64_t drain_timeout_ns = 5'000'000'000;
  uint64_t delayed_close_timeout_ns = 1'000'000'000;
  HttpCommonOptions common;                           // idle_timeout unset: 1 h
  Http1Options http1;
  Http2Options http2;
  uint32_t max_request_headers_kb = 60;

  std::string server_name = "envoy";
  enum ServerHeader : uint8_t { kOverwrite, kAppendIfAbsent, kPassThrough } server_header = kOverwrite;
  std::string via;

  bool use_remote_address = false;
  uint32_t xff_num_trusted_hops = 0;
  bool skip_xff_append = false;
  enum ForwardClientCert : uint8_t { kSanitize, kForwardOnly, kAppendForward, kSanitizeSet, kAlwaysForwardOnly };
  ForwardClientCert xfcc = kSanitize;
  bool xfcc_subject = false, xfcc_cert = false, xfcc_chain = false, xfcc_dns = false, xfcc_uri = false;
  std::string scheme_override;

  bool generate_request_id = true;
  bool preserve_external_request_id = false;
  bool always_set_request_id_in_response = false;

  bool normalize_path = false, merge_slashes = false;
  enum EscapedSlashes : uint8_t { kKeep, kReject, kUnescapeRedirect, kUnescapeForward } escaped_slashes = kKeep;
  bool strip_any_host_port = false, strip_matching_host_port = false, strip_trailing_host_dot = false;
  bool add_user_agent = false;
  bool proxy_100_continue = false;
  bool stream_error_on_invalid_http = false;

  std::optional<Tracing> tracing;
  std::shared_ptr<const AccessLogs> access_logs;  // null: none
  std::shared_ptr<const IstioStats> istio_stats;  // null: not counted
};

struct TcpProxy {
  std::string stat_prefix;
  std::string cluster;                   // or
  std::vector<ClusterWeight> weighted;
  uint64_t total_weight = 0;
  uint64_t idle_timeout_ns = 3'600'000'000'000;  // 0: none
  uint64_t max_duration_ns = 0;                  // 0: none
  uint32_t max_connect_attempts = 1;
  std::shared_ptr<const AccessLogs> access_logs;  // null: none
};

// What must hold for a connection to take a chain (Envoy's FilterChainMatch); empty lists match anything.
struct ChainMatch {
  std::optional<uint32_t> destination_port;
  std::vector<Cidr> prefix_ranges;        // of the (restored) destination
  std::vector<std::string> server_names;  // lower case; exact or "*.suffix"
  std::string transport_protocol;         // "tls", "raw_buffer" or ""
  std::vector<std::string> application_protocols;
  std::vector<Cidr> direct_source_prefix_ranges;
  enum SourceType : uint8_t { kAny, kSameIpOrLoopback, kExternal } source_type = kAny;
  std::vector<Cidr> source_prefix_ranges;
  std::vector<uint32_t> source_ports;
};

struct FilterChain {
  std::string name;
  uint32_t index = 0;  // in its listener; the default chain has index filter_chains.size()
  ChainMatch match;
  std::shared_ptr<const TlsConfig> tls;          // null: plain
  uint64_t transport_connect_timeout_ns = 0;     // TLS handshake limit; 0: default (10 s)
  std::vector<std::shared_ptr<const RbacConfig>> network_rbac;  // in order, before the last filter
  std::shared_ptr<const IstioStats> istio_stats;  // of TCP connections; null: not counted
  bool sni_cluster = false;  // tcp_proxy goes to the cluster that the server name (SNI) names, when there is one
  // The terminal filter; monostate: the connection is closed (a chain without filters).
  std::variant<std::monostate, std::shared_ptr<const HttpConnectionManager>, std::shared_ptr<const TcpProxy>> end;
  const HttpConnectionManager* http() const {
    auto* p = std::get_if<std::shared_ptr<const HttpConnectionManager>>(&end);
    return p ? p->get() : nullptr;
  }
  const TcpProxy* tcp() const {
    auto* p = std::get_if<std::shared_ptr<const TcpProxy>>(&end);
    return p ? p->get() : nullptr;
  }
  Provenance weft;
  std::string service, service_namespace;        // metadata weft of the chain, when there
};

// Inline answers of the DNS listener (envoy.filters.udp.dns_filter).
struct DnsFilter {
  std::string stat_prefix;
  struct Name {
    std::string name;                // lower case, without the trailing dot; "*.suffix" is a wildcard
    std::vector<Ip> addresses;
    uint32_t ttl_s = 0;              // 0: default
  };
  std::vector<Name> names;
  std::vector<std::string> known_suffixes;  // names below these are ours: unknown ones are NXDOMAIN
  bool forward = false;                     // other names go to resolvers
  std::vector<Address> resolvers;           // empty with forward: the system's (/etc/resolv.conf)
  uint64_t resolver_timeout_ns = 5'000'000'000;
  uint32_t max_pending_lookups = 256;
};

enum ListenerFilter : uint32_t { kOriginalDst = 1, kTlsInspector = 2, kHttpInspector = 4 };

class ChainIndex;

struct Listener {
  std::string name;
  std::vector<Address> addresses;      // at least one
  uint32_t filters = 0;                // ListenerFilter bits
  std::optional<ProxyProtocolFilter> proxy_protocol;  // read before anything else
  std::vector<std::shared_ptr<const FilterChain>> chains;
  std::shared_ptr<const FilterChain> default_chain;  // may be null
  std::shared_ptr<const ChainIndex> index;           // of chains (chain_match.h)
  enum Direction : uint8_t { kUnspecified, kInbound, kOutbound } direction = kUnspecified;
  uint32_t per_connection_buffer_limit = 1024 * 1024;
  bool bind_to_port = true;
  bool use_original_dst = false;       // hand the connection to the listener of the restored address
  bool reuse_port = true;
  bool transparent = false, freebind = false;
  uint32_t backlog = 0;                // 0: default
  uint64_t listener_filters_timeout_ns = 15'000'000'000;  // 0: none
  bool continue_on_listener_filters_timeout = false;
  std::optional<uint32_t> max_connections;
  std::string stat_prefix;
  std::shared_ptr<const AccessLogs> access_logs;  // null: none
  std::optional<DnsFilter> dns;        // UDP listener
  std::vector<Cluster::SocketOption> socket_options;
  std::string version;                 // of the resource that made it
  std::string key;                     // fingerprint: equal key, equal listener
};

}  // namespace weft::model
