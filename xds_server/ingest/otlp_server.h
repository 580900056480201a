// Where applications and foreign proxies send spans: OTLP over gRPC and over HTTP (protobuf or JSON, plain or gzip).
// Own listeners with own threads, apart from configuration. Without authentication: for loopback and trusted links;
// what arrives is shown as the application's claim beside the sidecars' proven hops.
#pragma once

#include <memory>
#include <string>

#include "sidecar/base/result.h"
#include "xds_server/ingest/pipeline.h"
#include "xds_server/ingest/service.h"

namespace weft::insight {

class OtlpServer {
 public:
  virtual ~OtlpServer() = default;  // stops both listeners
  // "" starts no listener; port 0 takes a free one.
  static base::Result<std::unique_ptr<OtlpServer>> Start(const std::string& grpc_address, const std::string& http_address,
                                                         Pipeline* pipeline, IngestCounters* counters);
  virtual int grpc_port() const = 0;
  virtual int http_port() const = 0;
};

}  // namespace weft::insight
