// A log server for tests: Envoy's access log service and OTLP's logs service, over grpc++. What it gets is a JSON line
// on standard output; it is driven by lines on standard input.
//
//   fake_als [--port N] [--tls CERT KEY CA]  -> {"port": 4711}
//   drop                                     ends every stream with UNAVAILABLE
//   reject N                                 the next N Exports are answered with UNAVAILABLE
//   partial N                                later Exports are answered with N records rejected
//
//   {"open": 3}  {"stream": 3, "message": 1, "identifier": {...}}  {"stream": 3, "message": 1, "http": {...}}
//   {"stream": 3, "message": 1, "tcp": {...}}  {"closed": 3}       of stream 3; "message" counts within it
//   {"export": 7, "resource": {...}, "scope": {...}, "log": {...}}  {"metadata": {...}} before the first of each
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <fstream>
#include <iostream>
#include <mutex>
#include <set>
#include <sstream>

#include "envoy/service/accesslog/v3/als.grpc.pb.h"
#include "opentelemetry/proto/collector/logs/v1/logs_service.grpc.pb.h"

namespace {

namespace als = envoy::service::accesslog::v3;
namespace otlp = opentelemetry::proto::collector::logs::v1;

std::mutex g_mutex, g_out;
std::set<grpc::ServerContext*> g_streams;
std::atomic<int> g_next{0}, g_reject{0}, g_partial{0};

std::string Json(const google::protobuf::Message& m) {
  std::string json;
  google::protobuf::util::JsonPrintOptions o;
  o.preserve_proto_field_names = true;
  (void)google::protobuf::util::MessageToJsonString(m, &json, o);
  return json;
}

void Say(const std::string& line) {
  std::lock_guard lock(g_out);
  std::cout << line << std::endl;
}

void SayMetadata(const grpc::ServerContext& context) {
  std::string out;
  for (const auto& [k, v] : context.client_metadata()) {
    out += (out.empty() ? "\"" : ", \"") + std::string(k.data(), k.size()) + "\": \"" + std::string(v.data(), v.size()) + "\"";
  }
  Say("{\"metadata\": {" + out + "}}");
}

class AccessLogs final : public als::AccessLogService::Service {
  grpc::Status StreamAccessLogs(grpc::ServerContext* context, grpc::ServerReader<als::StreamAccessLogsMessage>* in,
                                als::StreamAccessLogsResponse*) override {
    const std::string id = std::to_string(++g_next);
    {
      std::lock_guard lock(g_mutex);
      g_streams.insert(context);
    }
    SayMetadata(*context);
    Say("{\"open\": " + id + "}");
    als::StreamAccessLogsMessage m;
    for (int n = 1; in->Read(&m); ++n) {
      const std::string head = "{\"stream\": " + id + ", \"message\": " + std::to_string(n);
      if (m.has_identifier()) Say(head + ", \"identifier\": " + Json(m.identifier()) + "}");
      for (const auto& e : m.http_logs().log_entry()) Say(head + ", \"http\": " + Json(e) + "}");
      for (const auto& e : m.tcp_logs().log_entry()) Say(head + ", \"tcp\": " + Json(e) + "}");
    }
    std::lock_guard lock(g_mutex);
    g_streams.erase(context);
    Say("{\"closed\": " + id + "}");
    return context->IsCancelled() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "dropped by the test") : grpc::Status::OK;
  }
};

class Logs final : public otlp::LogsService::Service {
  grpc::Status Export(grpc::ServerContext* context, const otlp::ExportLogsServiceRequest* q, otlp::ExportLogsServiceResponse* reply) override {
    const std::string id = std::to_string(++g_next);
    if (g_reject > 0) {
      --g_reject;
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "rejected by the test");
    }
    SayMetadata(*context);
    for (const auto& r : q->resource_logs()) {
      for (const auto& s : r.scope_logs()) {
        for (const auto& l : s.log_records()) {
          Say("{\"export\": " + id + ", \"resource\": " + Json(r.resource()) + ", \"scope\": " + Json(s.scope()) + ", \"log\": " + Json(l) + "}");
        }
      }
    }
    if (g_partial > 0) reply->mutable_partial_success()->set_rejected_log_records(g_partial);
    return grpc::Status::OK;
  }
};

std::string Read(const char* path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

}  // namespace

int main(int argc, char** argv) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  std::string port_wanted = "0";
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--port" && i + 1 < argc) port_wanted = argv[++i];
    if (std::string(argv[i]) == "--tls" && i + 3 < argc) {
      grpc::SslServerCredentialsOptions o(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
      o.pem_root_certs = Read(argv[i + 3]);
      o.pem_key_cert_pairs.push_back({Read(argv[i + 2]), Read(argv[i + 1])});
      credentials = grpc::SslServerCredentials(o);
      i += 3;
    }
  }
  AccessLogs access_logs;
  Logs logs;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + port_wanted, credentials, &port);
  builder.RegisterService(&access_logs);
  builder.RegisterService(&logs);
  auto server = builder.BuildAndStart();
  if (!server || port == 0) return 1;
  Say("{\"port\": " + std::to_string(port) + "}");
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb;
    int n = 0;
    words >> verb >> n;
    if (verb == "reject") g_reject = n;
    if (verb == "partial") g_partial = n;
    if (verb == "drop") {
      std::lock_guard lock(g_mutex);
      for (auto* context : g_streams) context->TryCancel();
    }
  }
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}
