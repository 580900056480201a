// checkout: quotes a cart. HTTP in; HTTP to cart, gRPC to pricing. Knows nothing of the mesh beyond forwarding the
// caller's trace headers, as any traced application does.
//   checkout [--port 8000] [--cart http://cart] [--pricing pricing:50051]
#include <grpcpp/grpcpp.h>
#include <httplib.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "examples/shop/pricing.grpc.pb.h"

namespace {

constexpr const char* kTraceHeaders[] = {"traceparent", "tracestate", "x-request-id"};

void Quote(const httplib::Request& in, httplib::Response& out, const std::string& cart, shop::Pricing::Stub* pricing) {
  httplib::Headers headers;
  for (const char* name : kTraceHeaders) {
    if (in.has_header(name)) headers.emplace(name, in.get_header_value(name));
  }
  thread_local std::unique_ptr<httplib::Client> client;
  if (!client) {
    client = std::make_unique<httplib::Client>(cart);
    client->set_keep_alive(true);
    client->set_tcp_nodelay(true);
  }
  const std::string user = in.has_param("user") ? in.get_param_value("user") : "guest";
  auto got = client->Get(("/cart/" + user).c_str(), headers);
  if (!got || got->status != 200) {
    out.status = got ? got->status : 502;
    out.set_content("cart: " + std::string(got ? got->body : httplib::to_string(got.error())) + "\n", "text/plain");
    return;
  }
  const auto items = nlohmann::json::parse(got->body, nullptr, false);
  uint64_t total = 0;
  for (const auto& item : items.value("items", nlohmann::json::array())) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    for (const char* name : kTraceHeaders) {
      if (in.has_header(name)) context.AddMetadata(name, in.get_header_value(name));
    }
    shop::PriceRequest request;
    shop::PriceReply reply;
    request.set_item(item.get<std::string>());
    const grpc::Status status = pricing->GetPrice(&context, request, &reply);
    if (!status.ok()) {
      out.status = 502;
      out.set_content("pricing: " + status.error_message() + "\n", "text/plain");
      return;
    }
    total += reply.cents();
  }
  out.set_content(nlohmann::json{{"user", user}, {"cents", total}}.dump() + "\n", "application/json");
}

}  // namespace

int main(int argc, char** argv) {
  int port = 8000;
  std::string cart = "http://cart", pricing = "pricing:50051";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--port") port = std::atoi(argv[i + 1]);
    if (flag == "--cart") cart = argv[i + 1];
    if (flag == "--pricing") pricing = argv[i + 1];
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  auto stub = shop::Pricing::NewStub(grpc::CreateChannel(pricing, grpc::InsecureChannelCredentials()));
  httplib::Server server;
  server.new_task_queue = [] { return new httplib::ThreadPool(64); };
  server.set_keep_alive_max_count(1u << 30);
  server.set_tcp_nodelay(true);  // head and body are two writes
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& out) { out.set_content("ok\n", "text/plain"); });
  server.Get("/quote", [&](const httplib::Request& in, httplib::Response& out) { Quote(in, out, cart, stub.get()); });
  std::thread serving([&] {
    printf("checkout listens on %d\n", port);
    fflush(stdout);
    if (!server.listen("0.0.0.0", port)) exit(1);
  });
  int sig = 0;
  sigwait(&stop, &sig);
  server.stop();
  serving.join();
}
