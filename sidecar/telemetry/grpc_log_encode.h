// A finished record as what its log's server wants: an entry of ALS or an OTLP record, encoded.
//
//   GrpcLogEncoder encoder(config);
//   encoder.Append(record, &bytes);
//
// Threads: one.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "sidecar/model/grpc_log.h"
#include "sidecar/telemetry/als_encode.h"
#include "sidecar/telemetry/otlp_encode.h"

namespace weft::telemetry {

class GrpcLogEncoder {
 public:
  explicit GrpcLogEncoder(std::shared_ptr<const model::GrpcLog> config) : config_(std::move(config)), otlp_(*config_) {}
  void Append(const proxy::Record& record, std::string* out) const {
    switch (config_->kind) {
      case model::GrpcLog::kHttp: *out += EncodeHttpEntry(record, *config_); break;
      case model::GrpcLog::kTcp: *out += EncodeTcpEntry(record, *config_); break;
      case model::GrpcLog::kOtlp: *out += otlp_.Encode(record); break;
    }
  }

 private:
  const std::shared_ptr<const model::GrpcLog> config_;
  const OtlpEncoder otlp_;           // kOtlp
};

}  // namespace weft::telemetry
