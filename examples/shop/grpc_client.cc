// grpc_client: calls pricing as an ordinary grpc++ application; counts by status code.
//   grpc_client unary  --target pricing:50051 --requests N [--rate R per second] [--threads T] [--item tea] [--bad-percent P]
//   grpc_client stream --target pricing:50051 --streams N --seconds S
// Bad requests carry an empty item (INVALID_ARGUMENT).
// Prints one line of JSON. A stream counts as broken when it ends before its time.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "examples/shop/pricing.grpc.pb.h"

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags{{"target", "pricing:50051"}, {"requests", "100"}, {"threads", "4"},
                                           {"rate", "0"}, {"item", "tea"}, {"bad-percent", "0"}, {"streams", "10"}, {"seconds", "5"}};
  const std::string mode = argc > 1 ? argv[1] : "";
  for (int i = 2; i + 1 < argc; i += 2) flags[std::string(argv[i]).substr(2)] = argv[i + 1];
  auto channel = grpc::CreateChannel(flags["target"], grpc::InsecureChannelCredentials());
  auto stub = shop::Pricing::NewStub(channel);
  std::mutex mutex;
  std::map<std::string, uint64_t> codes;
  std::vector<std::thread> threads;
  if (mode == "unary") {
    const int64_t total = std::stoll(flags["requests"]), bad = std::stoll(flags["bad-percent"]);
    const double rate = std::stod(flags["rate"]);  // 0: as fast as it goes
    const auto start = std::chrono::steady_clock::now();
    std::atomic<int64_t> tickets{0};
    for (int t = 0; t < std::stoi(flags["threads"]); ++t) {
      threads.emplace_back([&] {
        std::map<std::string, uint64_t> mine;
        for (int64_t n; (n = tickets++) < total;) {
          if (rate > 0) std::this_thread::sleep_until(start + std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(static_cast<double>(n) / rate)));
          grpc::ClientContext context;
          context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
          shop::PriceRequest request;
          shop::PriceReply reply;
          if (n % 100 >= bad) request.set_item(flags["item"]);
          ++mine[std::to_string(stub->GetPrice(&context, request, &reply).error_code())];
        }
        std::lock_guard lock(mutex);
        for (auto& [k, v] : mine) codes[k] += v;
      });
    }
    for (auto& t : threads) t.join();
    printf("%s\n", nlohmann::json{{"requests", total}, {"codes", codes}}.dump().c_str());
    return 0;
  }
  if (mode == "stream") {
    const auto end = std::chrono::system_clock::now() + std::chrono::seconds(std::stoi(flags["seconds"]));
    std::atomic<uint64_t> messages{0}, broken{0}, gaps{0};
    for (int t = 0; t < std::stoi(flags["streams"]); ++t) {
      threads.emplace_back([&] {
        grpc::ClientContext context;
        context.set_deadline(end);
        shop::WatchRequest request;
        request.set_item(flags["item"]);
        request.set_interval_ms(200);
        auto reader = stub->Watch(&context, request);
        shop::PriceReply reply;
        for (uint32_t expected = 1; reader->Read(&reply); ++expected) {
          ++messages;
          if (reply.sequence() != expected) ++gaps;
        }
        const auto status = reader->Finish();
        if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
          ++broken;
          std::lock_guard lock(mutex);
          ++codes[std::to_string(status.error_code()) + " " + status.error_message()];
        }
      });
    }
    for (auto& t : threads) t.join();
    printf("%s\n", nlohmann::json{{"streams", threads.size()}, {"messages", messages.load()}, {"broken", broken.load()}, {"gaps", gaps.load()}, {"codes", codes}}.dump().c_str());
    return broken || gaps ? 1 : 0;
  }
  fprintf(stderr, "usage: grpc_client unary|stream [--flag value]...\n");
  return 2;
}
