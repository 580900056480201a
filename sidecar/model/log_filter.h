// Which records an access log is for: Envoy's AccessLogFilter as a tree of values. Evaluated by telemetry/log_filter.h.
//
//   LogFilter f{.kind = LogFilter::kStatus, .op = LogFilter::kGe, .value = 400};
//   LogFilter both{.kind = LogFilter::kAnd, .filters = {f, g}};
//
// Immutable after translation; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sidecar/cel/expression.h"
#include "sidecar/model/match.h"

namespace weft::model {

struct LogFilter {
  enum Kind : uint8_t {
    kAnd,             // all of filters
    kOr,              // one of filters
    kStatus,          // response code (0: none came) op value
    kDuration,        // whole milliseconds op value
    kGrpcStatus,      // gRPC status is in mask
    kResponseFlag,    // one of flags; any at all when flags is empty
    kHeader,          // of the request
    kSample,          // by x-request-id unless independent
    kLogType,         // type of the record is in mask
    kTraceable,       // the trace was forced by the caller
    kNotHealthCheck,  // no filter here marks health checks: always
    kExpression,      // CEL over the record's attributes; an error or no bool: not logged
    kMetadata,        // dynamic metadata name matches strings, or is there when present; value != 0 where it is not there
  } kind = kAnd;
  enum Op : uint8_t { kEq, kGe, kLe, kNe } op = kEq;
  bool exclude = false;            // of kGrpcStatus and kLogType: those that are not in mask
  bool independent = false;        // of kSample
  bool tracing = false;            // of kTraceable: the listener traces
  uint32_t mask = 0;               // bit n: gRPC status n, or Envoy's AccessLogType n
  uint64_t value = 0;              // of kStatus; milliseconds of kDuration; see kMetadata
  Percent sample{0, 100};
  std::vector<std::string> flags;  // short names: "UF"
  HeaderMatcher header;
  std::string name;                // of kMetadata, as records have it: "namespace:key"
  std::vector<StringMatcher> strings;
  bool present = false;
  std::optional<cel::Expression> expression;
  std::vector<LogFilter> filters;
};

}  // namespace weft::model
