// The telemetry half of the server in one object: store, live counts, ingest, OTLP listeners, the read API, the page.
//
//   auto insight = Insight::Start({.directory = data_dir + "/telemetry", .otlp_grpc_address = "127.0.0.1:4317", ...});
//   xds_builder.RegisterService((*insight)->telemetry_service());   // on the mTLS port, beside ADS
//   (*insight)->RegisterRoutes(router);                             // /api/v1/topology … and the page at "/"
//   metrics += (*insight)->Metrics();                               // Prometheus text
//   ... xds_server->Shutdown(); http.Stop(); insight->reset();      // servers first: they call into it
//
// Threads: everything may be called from any thread once started. Its own threads (writer, DuckDB, OTLP) run at low priority.
#pragma once

#include <memory>
#include <string>

#include "sidecar/base/result.h"
#include "xds_server/telemetry/why.h"

namespace grpc {
class Service;
}
namespace weft::server {
class Router;
}

namespace weft::insight {

struct InsightOptions {
  std::string directory;
  std::string otlp_grpc_address, otlp_http_address;  // "" none; port 0: any
  PolicyLookup policy;                               // thread-safe; may be empty
  std::function<std::string(const std::string& ip)> workload_at;  // the same; see Sources in why.h
  int64_t retain_hours = 72;
};

class Insight {
 public:
  virtual ~Insight() = default;
  static base::Result<std::unique_ptr<Insight>> Start(const InsightOptions& options);
  virtual grpc::Service* telemetry_service() = 0;
  virtual void RegisterRoutes(server::Router& router) = 0;
  virtual std::string Metrics() = 0;
  virtual int otlp_grpc_port() const = 0;
  virtual int otlp_http_port() const = 0;
};

// {"/api/v1/topology": {"get": …}, …}: members of the "paths" object of openapi.json.
std::string InsightOpenApiPaths();

}  // namespace weft::insight
