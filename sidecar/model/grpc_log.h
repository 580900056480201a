// An access log that goes to a server over gRPC instead of into a file: Envoy's access log service (ALS) or OTLP logs.
// Values only; telemetry/grpc_log.h sends. Durations are nanoseconds, sizes bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace weft::model {

// A value of an OTLP record: a format string, or a list or map of such.
struct LogValue {
  enum Kind : uint8_t { kFormat, kList, kMap } kind = kFormat;
  std::string key, format;           // key: in a map
  std::vector<LogValue> children;    // in the order they were written
};

// A custom tag: a text, or a request header with what stands in for it ("": the tag is left out).
struct LogTag {
  std::string name, text, header;    // header: lower case, "" when text is the value
};

struct GrpcLog {
  enum Kind : uint8_t { kHttp, kTcp, kOtlp } kind = kHttp;
  std::string key;                   // logs with equal keys share one stream
  std::string name;                  // log_name
  std::string cluster, authority;    // authority "": the cluster's name
  std::vector<std::pair<std::string, std::string>> metadata;  // of the calls, names in lower case
  uint64_t timeout_ns = 10'000'000'000;         // of an Export; streams have none
  uint64_t flush_interval_ns = 1'000'000'000;
  uint32_t buffer_bytes = 16384;     // a batch leaves when it is this long; 0: each entry on its own
  std::vector<LogTag> tags;

  // kHttp: headers to log besides those that have fields of their own, in lower case.
  std::vector<std::string> request_headers, response_headers, response_trailers;

  // kOtlp
  std::optional<LogValue> body;
  std::vector<LogValue> attributes;
  bool builtin_labels = true;        // log_name, zone_name, cluster_name, node_name
  std::vector<std::pair<std::string, std::string>> resource;  // key -> encoded opentelemetry AnyValue
  std::string stat_prefix;
};

}  // namespace weft::model
