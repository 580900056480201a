// What the telemetry half of the server keeps: request events of sidecars and spans of applications, as plain values.
//
// Ingest translates protobuf into these once, storage and the pure functions (topology, traces, why) see nothing else.
// Names of services are node names: "cart" in namespace "default", "cart.shop" elsewhere (see NodeName); a peer that proved
// no identity is "(no identity)". Ids are lower-case hex. Times are Unix nanoseconds, durations microseconds.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace weft::insight {

enum class Direction : uint8_t { kUnknown = 0, kInbound = 1, kOutbound = 2 };

// Exactly one per event, so that the counts of an edge always add up to its requests.
enum class Outcome : uint8_t {
  kOk = 0,
  kClientError = 1,  // 4xx of the application
  kServerError = 2,  // 5xx, whoever made it
  kGrpcError = 3,    // grpc-status other than 0 and 1 on a 200
  kReset = 4,        // no complete response: reset, connection cut
  kCancelled = 5,    // the caller left first
  kDenied = 6,       // refused by a policy
  kRefused = 7,      // TLS handshake refused: no or wrong identity, plaintext under STRICT
};
constexpr int kOutcomes = 8;
std::string_view OutcomeName(Outcome o);  // "ok", "client_error", ...
inline bool IsError(Outcome o) { return o == Outcome::kServerError || o == Outcome::kGrpcError || o == Outcome::kReset; }
inline bool IsDenial(Outcome o) { return o == Outcome::kDenied || o == Outcome::kRefused; }

// A host outlier detection had taken out; fields as in weft.telemetry.v1.Ejection.
struct Ejection {
  std::string endpoint, workload, version, rule, kinds;
  uint32_t errors = 0;
  int64_t at_ms = 0, until_ms = 0;  // Unix
};

// One try at one host; fields as in weft.telemetry.v1.Attempt.
struct Attempt {
  std::string endpoint, workload, version, outcome, detail;
  int64_t start_us = 0, duration_us = 0, connect_us = 0;
  int32_t status = 0;
  bool ejected = false, reused = false;
  uint32_t healthy_hosts = 0, total_hosts = 0;
  uint64_t active_requests = 0, max_requests = 0;
  std::string local_address, not_retried;
  uint32_t active_retries = 0, max_retries = 0;
  double retry_budget_percent = 0;
  std::vector<Ejection> ejections;
};

// One sidecar's view of one request or connection; fields as in weft.telemetry.v1.RequestEvent.
struct Event {
  std::string workload, epoch;  // (workload, epoch, number) is unique
  uint64_t number = 0;
  std::string service, ns, version;  // of the reporting sidecar, from its certificate (version: as it says)
  Direction direction = Direction::kUnknown;
  std::string request_id, trace_id, span_id, parent_span_id;
  int64_t start_ns = 0, duration_us = 0;
  std::string protocol, method, path, authority;
  int32_t status = 0, grpc_status = -1;
  std::string response_flags, response_detail, route, cluster;
  std::string source_service, source_identity, destination_service, destination_identity, tls_version;
  std::string policy;
  uint64_t policy_revision = 0, config_revision = 0;
  std::vector<Attempt> attempts;
  uint64_t request_bytes = 0, response_bytes = 0;
  std::string downstream_address, original_destination;
  uint32_t retries = 0;
  std::string fault, tls_failure;
  // Requests it stands for: of a rollup many alike, whose details nobody kept (RequestEvent.count).
  uint64_t count = 1;
  bool without_detail = false;  // a rollup
  // What is open yet: no request, only the number and the bytes moved lately (RequestEvent.interim). Not stored.
  bool interim = false;
  uint64_t open = 0;
  uint64_t told_request_bytes = 0, told_response_bytes = 0;  // of the bytes, what interim events told before. Not stored.
  // Derived by Derive().
  std::string source, destination, destination_version;  // node names; version that answered (or was tried last; a rollup's is told)
  Outcome outcome = Outcome::kOk;
  uint16_t bucket = 0;  // of duration_us
  int64_t end_ns = 0;
  int64_t committed_ms = 0;  // set by the store
};

// A span received by OTLP.
struct Span {
  std::string trace_id, span_id, parent_span_id, name, kind;  // kind: "server", "client", "internal", "producer", "consumer"
  std::string service, workload;                              // workload: from resource attributes, "" unknown
  int64_t start_ns = 0, end_ns = 0;
  bool error = false;
  std::string status_message;
  std::string attributes;  // JSON object text
  int64_t committed_ms = 0;
};

// "cart" for default, "cart.shop" otherwise.
std::string NodeName(std::string_view service, std::string_view ns);
// Node name of spiffe://<trust domain>/ns/<ns>/sa/<service>; "" when it has not that form.
std::string NodeOfSpiffe(std::string_view id);
// Service part of "outbound|80|v2|cart.default" as a node name; "" otherwise.
std::string NodeOfCluster(std::string_view cluster);
// Version part of "outbound|80|v2|cart.default".
std::string VersionOfCluster(std::string_view cluster);
// Fills the derived fields. The reporter's own end is always taken from its certificate (service, ns).
void Derive(Event& e);
// True when `flags` ("UF,URX") holds `flag`.
bool HasFlag(std::string_view flags, std::string_view flag);

// Latency histogram shared by memory and SQL: 16 steps per power of two, error of a quantile at most 3 %.
constexpr int kBuckets = 16 * 40;
uint16_t BucketOf(int64_t us);
double BucketMiddleUs(uint16_t bucket);

// Attempts as the JSON array kept in the event table, and back ([] when the text is not one).
std::string AttemptsJson(const std::vector<Attempt>& attempts);
std::vector<Attempt> AttemptsFromJson(std::string_view text);
// Valid UTF-8 of at most `max` bytes: bad bytes become U+FFFD, what is cut ends in "…".
std::string CleanText(std::string_view s, size_t max);

}  // namespace weft::insight
