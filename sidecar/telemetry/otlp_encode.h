// A finished record as an OpenTelemetry log record: encoded protobuf out. Formats are compiled once.
//
//   OtlpEncoder encoder(config);
//   std::string entry = encoder.Encode(record);   // opentelemetry.proto.logs.v1.LogRecord
//
// Every format gives a string, "-" where there is no value, as Envoy's do. Threads: one.
#pragma once

#include <string>
#include <vector>

#include "sidecar/model/grpc_log.h"
#include "sidecar/proxy/record.h"
#include "sidecar/proxy/format.h"

namespace weft::telemetry {

class OtlpEncoder {
 public:
  explicit OtlpEncoder(const model::GrpcLog& config);
  std::string Encode(const proxy::Record& record) const;

  struct Value {
    model::LogValue::Kind kind;
    std::string key;
    proxy::Format format;
    std::vector<Value> children;
  };

 private:
  std::vector<Value> body_, attributes_;  // body: one or none
  std::vector<model::LogTag> tags_;
};

// The encoded Resource of a log: the built-in labels, then the configured attributes, which take the place of labels with
// the same key.
struct LogOrigin {
  std::string node;                  // encoded envoy.config.core.v3.Node
  std::string id, cluster, zone;     // of it
};
std::string EncodeResource(const model::GrpcLog& config, const LogOrigin& origin);

// How many records of an encoded ExportLogsServiceResponse were rejected.
uint64_t RejectedRecords(std::string_view reply);

}  // namespace weft::telemetry
