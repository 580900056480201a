// A finished record as an entry of Envoy's access log service: pure functions, encoded protobuf out.
//
//   std::string entry = EncodeHttpEntry(record, config);    // envoy.data.accesslog.v3.HTTPAccessLogEntry
//
// Of several URI names of a certificate the first is told; filter state is absent. Threads: any.
#pragma once

#include <string>
#include <string_view>

#include "sidecar/model/grpc_log.h"
#include "sidecar/proxy/record.h"

namespace weft::telemetry {

std::string EncodeHttpEntry(const proxy::Record& record, const model::GrpcLog& config);
std::string EncodeTcpEntry(const proxy::Record& record, const model::GrpcLog& config);

// The value of a custom tag for this record; "": the tag is left out.
std::string_view TagValue(const model::LogTag& tag, const proxy::Record& record);

}  // namespace weft::telemetry
