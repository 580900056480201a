#include "tools/weft/run/health.h"

#include <grpcpp/grpcpp.h>
#include <httplib.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "tools/weft/cli/error.h"
#include "tools/weft/run/health.grpc.pb.h"
#include "tools/weft/run/probe.h"

namespace weft::run {
namespace {

using Json = nlohmann::json;

HealthProbe ParseOne(const Json& j) {
  HealthProbe p;
  const auto port = [&](const Json& from) {
    const int n = from.at("port").get<int>();
    if (n < 1 || n > 65535) throw std::runtime_error("port: must be 1..65535");
    p.port = static_cast<uint16_t>(n);
  };
  if (j.contains("httpGet")) {
    const Json& http = j["httpGet"];
    port(http);
    p.path = http.value("path", "/");
    if (p.path.empty() || p.path[0] != '/') p.path = "/" + p.path;
    if (http.contains("httpHeaders")) {
      for (const Json& h : http["httpHeaders"]) p.headers.emplace_back(h.at("name").get<std::string>(), h.at("value").get<std::string>());
    }
  } else if (j.contains("tcpSocket")) {
    p.kind = HealthProbe::Kind::kTcp;
    port(j["tcpSocket"]);
  } else if (j.contains("grpc")) {
    p.kind = HealthProbe::Kind::kGrpc;
    port(j["grpc"]);
    p.service = j["grpc"].value("service", "");
  } else {
    throw std::runtime_error("httpGet, tcpSocket or grpc is required");
  }
  p.timeout_ms = j.value("timeoutSeconds", 1) * 1000;
  return p;
}

std::string AskHttp(const HealthProbe& p, const std::string& address) {
  httplib::Client client(address, p.port);
  const std::chrono::milliseconds patience(p.timeout_ms);
  client.set_connection_timeout(patience);
  client.set_read_timeout(patience);
  httplib::Headers headers(p.headers.begin(), p.headers.end());
  if (!headers.count("User-Agent")) headers.emplace("User-Agent", "weft-probe");
  // Only the verdict counts: of a long body nothing is kept.
  const auto r = client.Get(p.path, headers, [](const char*, size_t) { return true; });
  if (!r) return "HTTP " + httplib::to_string(r.error());
  return r->status >= 200 && r->status < 400 ? "" : "HTTP " + std::to_string(r->status);
}

std::string AskGrpc(const HealthProbe& p, const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // each probe tries for itself
  auto channel = grpc::CreateCustomChannel(address + ":" + std::to_string(p.port), grpc::InsecureChannelCredentials(), args);
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  request.set_service(p.service);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(p.timeout_ms));
  const grpc::Status status = grpc::health::v1::Health::NewStub(channel)->Check(&context, request, &response);
  if (!status.ok()) return "gRPC " + std::to_string(status.error_code()) + " " + status.error_message();
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING ? "" : "gRPC health status " + std::to_string(response.status());
}

}  // namespace

HealthProbes ParseProbes(const std::string& json, std::string& error) {
  HealthProbes out;
  std::string path;
  try {
    const Json all = Json::parse(json);
    for (const auto& [key, value] : all.items()) {
      path = key + ": ";
      out[key] = ParseOne(value);
    }
  } catch (const std::exception& e) {
    error = path + e.what();
    return {};
  }
  return out;
}

std::string Ask(const HealthProbe& p, const std::string& address) {
  switch (p.kind) {
    case HealthProbe::Kind::kHttp: return AskHttp(p, address);
    case HealthProbe::Kind::kGrpc: return AskGrpc(p, address);
    case HealthProbe::Kind::kTcp: break;
  }
  ReadySpec tcp;
  tcp.kind = ReadySpec::Kind::kTcp;
  tcp.port = p.port;
  return Probe(tcp, address, p.timeout_ms) ? "" : "TCP connection refused";
}

struct HealthServer::Impl {
  httplib::Server server;
  std::thread thread;
  int port = 0;
};

HealthServer::HealthServer(uint16_t port, HealthProbes probes, std::string address) : impl_(std::make_unique<Impl>()) {
  impl_->server.set_payload_max_length(4096);
  impl_->server.Get("/app-health/.*", [probes = std::move(probes), address = std::move(address)](const httplib::Request& request, httplib::Response& response) {
    const auto it = probes.find(request.path);
    if (it == probes.end()) {
      response.status = 404;
      return response.set_content("no such probe\n", "text/plain");
    }
    std::string why = Ask(it->second, "127.0.0.1");
    if (!why.empty() && !address.empty()) why = Ask(it->second, address);
    response.status = why.empty() ? 200 : 503;
    response.set_content((why.empty() ? "ok" : why) + "\n", "text/plain");
  });
  for (const char* any : {"::", "0.0.0.0"}) {
    impl_->port = port == 0 ? impl_->server.bind_to_any_port(any) : impl_->server.bind_to_port(any, port) ? port : -1;
    if (impl_->port > 0) break;
  }
  if (impl_->port <= 0) throw cli::Failure("cannot listen for probes on port " + std::to_string(port));
  // Signals are the main thread's business; the server's workers inherit the mask.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  impl_->thread = std::thread([this] { impl_->server.listen_after_bind(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  while (!impl_->server.is_running()) std::this_thread::yield();  // a stop before that would be lost
}

HealthServer::~HealthServer() {
  impl_->server.stop();
  impl_->thread.join();
}

uint16_t HealthServer::port() const { return static_cast<uint16_t>(impl_->port); }

}  // namespace weft::run
