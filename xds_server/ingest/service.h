// The gRPC faces of ingest: weft.telemetry.v1.Telemetry (served beside ADS on the mTLS port) and OTLP's TraceService.
//
// Both use the callback API and only move messages into the pipeline: decoding and storing happen on its writer thread,
// so nothing here delays ADS. A full queue stops reading from a sidecar's stream (the sidecar then counts its drops);
// an OTLP caller gets RESOURCE_EXHAUSTED. The pipeline must outlive the servers these are registered with.
#pragma once

#include <grpcpp/impl/codegen/service_type.h>

#include <atomic>
#include <memory>

#include "xds_server/ingest/pipeline.h"

namespace weft::insight {

struct IngestCounters {
  std::atomic<uint64_t> streams{0}, batches{0}, unauthenticated{0}, claims_overridden{0}, stalls{0};
  std::atomic<uint64_t> otlp_requests{0}, otlp_refused{0}, otlp_left_out{0};
};

std::unique_ptr<grpc::Service> MakeTelemetryService(Pipeline* pipeline, DropBook* drops, IngestCounters* counters);
std::unique_ptr<grpc::Service> MakeOtlpService(Pipeline* pipeline, IngestCounters* counters);

}  // namespace weft::insight
