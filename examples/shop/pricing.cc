// pricing: the shop's gRPC service. Knows nothing of the mesh.
//   pricing [--port 50051] [--fail-percent N]
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "examples/shop/pricing.grpc.pb.h"

namespace {

uint32_t Cents(const std::string& item) { return 100 + static_cast<uint32_t>(std::hash<std::string>{}(item) % 9900); }

class Service final : public shop::Pricing::Service {
 public:
  explicit Service(int fail_percent) : fail_percent_(fail_percent) {}

  grpc::Status GetPrice(grpc::ServerContext*, const shop::PriceRequest* in, shop::PriceReply* out) override {
    if (in->item().empty()) return {grpc::StatusCode::INVALID_ARGUMENT, "item is empty"};
    if (static_cast<int>(calls_++ % 100) < fail_percent_) return {grpc::StatusCode::UNAVAILABLE, "pricing is overloaded"};
    out->set_item(in->item());
    out->set_cents(Cents(in->item()));
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const shop::WatchRequest* in,
                     grpc::ServerWriter<shop::PriceReply>* out) override {
    shop::PriceReply reply;
    reply.set_item(in->item());
    for (uint32_t n = 1; !context->IsCancelled() && (in->count() == 0 || n <= in->count()); ++n) {
      reply.set_cents(Cents(in->item()) + n % 10);
      reply.set_sequence(n);
      if (!out->Write(reply)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(in->interval_ms() ? in->interval_ms() : 1000));
    }
    return grpc::Status::OK;
  }

 private:
  const int fail_percent_;
  std::atomic<uint64_t> calls_{0};
};

}  // namespace

int main(int argc, char** argv) {
  std::string port = "50051";
  int fail_percent = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--port") port = argv[i + 1];
    if (flag == "--fail-percent") fail_percent = std::atoi(argv[i + 1]);
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);  // every thread inherits it; main waits for the signal below

  Service service(fail_percent);
  grpc::ServerBuilder builder;
  // A listening stream holds one thread; a hundred watchers must not starve unary calls.
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 4);
  builder.AddListeningPort("0.0.0.0:" + port, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (!server) return 1;
  printf("pricing listens on %s\n", port.c_str());
  fflush(stdout);
  int sig = 0;
  sigwait(&stop, &sig);
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
}
