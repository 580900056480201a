// Against real servers: cpp-httplib's and grpc++'s.
#include "tools/weft/run/health.h"

#include <gtest/gtest.h>
#include <grpcpp/grpcpp.h>
#include <httplib.h>

#include <atomic>
#include <thread>

#include "tools/weft/run/health.grpc.pb.h"

namespace weft::run {
namespace {

struct Http {
  Http() {
    server.Get("/healthz", [this](const httplib::Request& r, httplib::Response& w) {
      w.status = well ? 200 : 500;
      w.set_content("host " + r.get_header_value("Host"), "text/plain");
      host = r.get_header_value("X-Probe");
    });
    port = server.bind_to_any_port("127.0.0.1");
    thread = std::thread([this] { server.listen_after_bind(); });
    while (!server.is_running()) std::this_thread::yield();
  }
  ~Http() {
    server.stop();
    thread.join();
  }
  httplib::Server server;
  int port = 0;
  std::atomic<bool> well{true};
  std::string host;
  std::thread thread;
};

HealthProbes Parsed(const std::string& json) {
  std::string error;
  HealthProbes out = ParseProbes(json, error);
  EXPECT_EQ(error, "");
  return out;
}

TEST(Health, TheVerdictIsTheApplications) {
  Http app;
  const std::string port = std::to_string(app.port);
  HealthServer health(0, Parsed(R"({"/app-health/c/readyz": {"httpGet": {"path": "/healthz", "port": )" + port +
                                R"(, "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}},
                                   "/app-health/c/livez": {"tcpSocket": {"port": )" + port + R"(}},
                                   "/app-health/c/startupz": {"httpGet": {"path": "/none", "port": )" + port + "}}}"), "");
  httplib::Client kubelet("127.0.0.1", health.port());
  EXPECT_EQ(kubelet.Get("/app-health/c/readyz")->status, 200);
  EXPECT_EQ(app.host, "yes");
  EXPECT_EQ(kubelet.Get("/app-health/c/livez")->status, 200);
  EXPECT_EQ(kubelet.Get("/app-health/c/startupz")->status, 503);
  EXPECT_EQ(kubelet.Get("/app-health/other/readyz")->status, 404);
  EXPECT_EQ(kubelet.Get("/healthz")->status, 404);
  app.well = false;
  const auto r = kubelet.Get("/app-health/c/readyz");
  EXPECT_EQ(r->status, 503);
  EXPECT_EQ(r->body, "HTTP 500\n");
}

struct Checked final : grpc::health::v1::Health::Service {
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* in, grpc::health::v1::HealthCheckResponse* out) override {
    if (in->service() == "nobody") return {grpc::StatusCode::NOT_FOUND, "unknown service"};
    out->set_status(in->service() == "cart" ? grpc::health::v1::HealthCheckResponse::NOT_SERVING : grpc::health::v1::HealthCheckResponse::SERVING);
    return grpc::Status::OK;
  }
};

TEST(Health, Grpc) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "gRPC is not instrumented: what it carries from thread to thread looks like a race";
#endif
  Checked service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  auto server = builder.BuildAndStart();
  HealthProbe p{.kind = HealthProbe::Kind::kGrpc, .port = static_cast<uint16_t>(port)};
  EXPECT_EQ(Ask(p, "127.0.0.1"), "");
  p.service = "cart";
  EXPECT_EQ(Ask(p, "127.0.0.1"), "gRPC health status 2");
  p.service = "nobody";
  EXPECT_NE(Ask(p, "127.0.0.1").find("gRPC 5"), std::string::npos);
  server->Shutdown();
  EXPECT_NE(Ask(p, "127.0.0.1"), "");
}

TEST(Health, WhatIsNotAProbeIsNamed) {
  for (const auto& [json, want] : std::initializer_list<std::pair<const char*, const char*>>{
           {"{", "parse error"}, {R"({"/a": {}})", "/a: httpGet, tcpSocket or grpc"}, {R"({"/a": {"grpc": {"port": 0}}})", "/a: port"},
           {R"({"/a": {"httpGet": {}}})", "/a: "}}) {
    std::string error;
    EXPECT_TRUE(ParseProbes(json, error).empty());
    EXPECT_NE(error.find(want), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace weft::run
