// What is remembered of one finished request or TCP connection: input of the access log, the wide request event, spans.
//
// Plain values. A worker fills a record while the exchange runs, shows it to its RecordSink once the answer is on its way,
// and uses its memory again. Times are Unix or monotonic nanoseconds, durations are nanoseconds from `start`; -1 means
// "did not happen". Sizes are bytes on the wire of the message (head and body).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/http/headers.h"
#include "sidecar/model/address.h"

namespace weft::model {
struct AccessLogs;  // where the record is to be logged; sidecar/model
}

namespace weft::proxy {

// Envoy's response flags: bit, short name, long name.
#define WEFT_RESPONSE_FLAGS(X)                                                                                   \
  X(kFailedLocalHealthCheck, "LH", "FailedLocalHealthCheck") X(kNoHealthyUpstream, "UH", "NoHealthyUpstream")    \
  X(kUpstreamRequestTimeout, "UT", "UpstreamRequestTimeout") X(kLocalReset, "LR", "LocalReset")                  \
  X(kUpstreamRemoteReset, "UR", "UpstreamRemoteReset")                                                           \
  X(kUpstreamConnectionFailure, "UF", "UpstreamConnectionFailure")                                               \
  X(kUpstreamConnectionTermination, "UC", "UpstreamConnectionTermination")                                       \
  X(kUpstreamOverflow, "UO", "UpstreamOverflow") X(kNoRouteFound, "NR", "NoRouteFound")                          \
  X(kDelayInjected, "DI", "DelayInjected") X(kFaultInjected, "FI", "FaultInjected")                              \
  X(kRateLimited, "RL", "RateLimited") X(kUnauthorizedExternalService, "UAEX", "UnauthorizedExternalService")    \
  X(kRateLimitServiceError, "RLSE", "RateLimitServiceError")                                                     \
  X(kDownstreamConnectionTermination, "DC", "DownstreamConnectionTermination")                                   \
  X(kUpstreamRetryLimitExceeded, "URX", "UpstreamRetryLimitExceeded") X(kStreamIdleTimeout, "SI", "StreamIdleTimeout") \
  X(kInvalidEnvoyRequestHeaders, "IH", "InvalidEnvoyRequestHeaders")                                             \
  X(kDownstreamProtocolError, "DPE", "DownstreamProtocolError")                                                  \
  X(kUpstreamMaxStreamDurationReached, "UMSDR", "UpstreamMaxStreamDurationReached")                              \
  X(kDurationTimeout, "DT", "DurationTimeout") X(kUpstreamProtocolError, "UPE", "UpstreamProtocolError")         \
  X(kNoClusterFound, "NC", "NoClusterFound") X(kOverloadManager, "OM", "OverloadManagerTerminated")              \
  X(kDnsResolutionFailed, "DF", "DnsResolutionFailed") X(kDropOverload, "DO", "DropOverload")                    \
  X(kDownstreamRemoteReset, "DR", "DownstreamRemoteReset")                                                       \
  X(kUnconditionalDropOverload, "UDO", "UnconditionalDropOverload")

enum class ResponseFlag : uint8_t {
#define X(id, short_name, long_name) id,
  WEFT_RESPONSE_FLAGS(X)
#undef X
  kCount
};
std::string_view ShortName(ResponseFlag flag);
std::string_view LongName(ResponseFlag flag);

// A set of response flags.
struct ResponseFlags {
  uint32_t bits = 0;
  uint8_t count = 0, order[6] = {};  // the first of them in the order they came, as Envoy prints them
  void Set(ResponseFlag f) {
    if (!Has(f) && count < sizeof order) order[count++] = static_cast<uint8_t>(f);
    bits |= 1u << static_cast<int>(f);
  }
  bool Has(ResponseFlag f) const { return bits & (1u << static_cast<int>(f)); }
  bool empty() const { return bits == 0; }
  std::string ToString() const;      // "UF,URX"; "" when empty (the access log prints "-")
  std::string ToLongString() const;  // "UpstreamConnectionFailure,..."
};

enum class Protocol : uint8_t { kTcp, kHttp10, kHttp11, kHttp2 };
std::string_view ProtocolText(Protocol p);  // "HTTP/1.1", "HTTP/2", "" for TCP: Envoy's %PROTOCOL%

enum class Direction : uint8_t { kUnspecified, kInbound, kOutbound };  // the listener's traffic_direction

// A host that outlier detection had taken out when no host was left to pick. Times are Unix nanoseconds.
struct EjectionRecord {
  std::string endpoint, workload, version;
  const char* rule = "";        // static: "consecutive_gateway_failure" ... (cluster::EjectionInfo)
  std::string kinds;            // "timeout,connect_failure"
  uint32_t errors = 0;          // in a row; 0: a rule that compares rates
  uint64_t at_unix_ns = 0, until_unix_ns = 0;
};

// One try of the request at one host.
struct AttemptRecord {
  std::string endpoint;         // "10.77.0.4:8000", "" when no host was picked
  std::string workload, version;  // from the endpoint's weft metadata
  int64_t start_offset_ns = 0, duration_ns = 0, connect_ns = 0;
  uint32_t status = 0;          // response code, 0 when none came
  const char* outcome = "";     // static: see telemetry.proto Attempt.outcome
  std::string detail;
  bool host_ejected = false, connection_reused = false;
  uint32_t healthy_hosts = 0, total_hosts = 0;
  uint64_t active_requests = 0, max_requests = 0;
  std::string local_address;    // our end of an attempt's connection, where the other end's record is to be found by it:
                                // TCP, and attempts that failed
  const char* not_retried = ""; // static; a retry was due and did not happen: "attempts", "retry_budget", "max_retries"
  uint32_t active_retries = 0, max_retries = 0;  // of the cluster, when not_retried is set
  double retry_budget_percent = 0;
  std::vector<EjectionRecord> ejections;         // when no host was picked
};

// The part of a record that is figures, and goes back to its initial state in one piece.
struct RecordFigures {
  Direction direction = Direction::kUnspecified;
  Protocol protocol = Protocol::kTcp, upstream_protocol = Protocol::kTcp;
  bool grpc = false, websocket = false;
  bool sampled = false;                     // trace: recorded flag of traceparent
  uint64_t start_unix_ns = 0;
  int64_t duration_ns = 0;                  // to the last byte of the response
  int64_t request_rx_ns = -1;               // last request byte received: Envoy's %REQUEST_DURATION%
  int64_t upstream_tx_first_ns = -1;        // first request byte handed to the upstream
  int64_t upstream_tx_ns = -1;              // last request byte handed to the upstream
  int64_t upstream_first_rx_ns = -1;        // first response byte: %RESPONSE_DURATION%
  int64_t upstream_rx_last_ns = -1;         // last response byte received
  int64_t response_tx_first_ns = -1;        // first response byte handed to the downstream
  int64_t response_tx_last_ns = -1;         // last response byte handed to the downstream; -1: cut before
  int64_t upstream_service_ns = -1;         // value of x-envoy-upstream-service-time
  uint64_t request_bytes = 0, response_bytes = 0;            // body bytes: %BYTES_RECEIVED%, %BYTES_SENT%
  uint64_t request_header_bytes = 0, response_header_bytes = 0;
  uint64_t upstream_tx_bytes = 0, upstream_rx_bytes = 0;     // body bytes on the upstream side, all attempts
  uint64_t upstream_tx_header_bytes = 0, upstream_rx_header_bytes = 0;  // of the heads there; 0: TCP
  uint8_t trace_id[16] = {}, span_id[8] = {}, parent_span_id[8] = {};
  uint32_t status = 0;                      // sent downstream; 0: TCP, or none was sent
  int32_t grpc_status = -1;                 // -1: none seen
  ResponseFlags flags;
  model::Address downstream_remote;         // the peer, after x-forwarded-for rules: %DOWNSTREAM_REMOTE_ADDRESS%
  model::Address downstream_direct_remote;  // the socket's peer
  model::Address downstream_local;          // original destination when restored
  uint64_t connection_id = 0;
  uint64_t policy_revision = 0, config_revision = 0;
  uint64_t open_id = 0;                     // not 0: interim records told that it was open (open_report.h)
  bool interim = false;                     // such a record: of what is open yet; no request of its own, never logged
  uint64_t told_request_bytes = 0, told_response_bytes = 0, told_ns = 0;  // by interim records, and when (monotonic)
  uint32_t retries = 0;
  uint32_t attempt_count = 0;               // attempts[0..attempt_count) are valid; the rest is memory kept for reuse
};

struct Record : RecordFigures {
  std::string request_id;                   // of a TCP connection: made for its access logs
  std::string method, path, authority, user_agent;  // path: with query, as the client sent it
  std::string detail;                       // Envoy's %RESPONSE_CODE_DETAILS%
  std::string transport_failure;            // downstream TLS failure name ("" none): a handshake that was refused
  std::string transport_failure_detail;     // what was wrong with it, in the engine's words
  std::string upstream_transport_failure;   // of the last attempt that failed in TLS: %UPSTREAM_TRANSPORT_FAILURE_REASON%
  std::string connection_termination;       // %CONNECTION_TERMINATION_DETAILS%
  std::string listener, filter_chain, route, virtual_host, cluster;
  std::string stat_prefix;
  std::string upstream_host;                // "10.77.0.4:8000": %UPSTREAM_HOST%
  std::string upstream_local;               // our address of the upstream connection
  std::string requested_server_name;        // SNI the client sent
  std::string tls_version, tls_cipher;      // downstream; "" plaintext
  std::string peer_identity, peer_subject;  // SPIFFE id / subject of the client's certificate
  std::string local_identity;               // our own URI SAN on the downstream side when known
  std::string peer_issuer, local_subject, tls_session_id;  // of the downstream connection, where access logs ask for them
  std::string upstream_tls_version, upstream_peer_identity;
  std::string policy;                       // RBAC policy name or weft metadata policy that decided
  std::string destination_service, destination_namespace;  // from the cluster's weft metadata
  std::string fault;                        // "delay 100ms", "abort 503"
  std::vector<AttemptRecord> attempts;      // the first attempt_count of them
  // Only the headers the listener's access logs name, plus nothing else.
  http::HeaderMap request_headers, response_headers, response_trailers;
  // Dynamic metadata that filters wrote, "namespace:key" -> text; kept where there are access logs.
  http::HeaderMap metadata;
  std::shared_ptr<const model::AccessLogs> access_logs;  // null: not logged

  // Back to the initial state; strings and vectors keep their memory.
  void Reset();
};

// Reads a worker's finished records, on that worker's thread and after the writes of their turn: what it makes of them
// (lines, events) is its own affair. It is made and destroyed there, too.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  // The record may be taken apart; its memory goes back to the worker.
  virtual void Take(Record& record) = 0;
};

// Names for what no header named: a fresh trace and span, by which a refused or failed connection can be asked about.
void MintTrace(Record& record);

}  // namespace weft::proxy
