// Spike: our HeaderMap against the two obvious others, at 10, 30 and 60 fields. Build one head, look up five names that
// every request asks for (three present), walk it once as an encoder does.
//   bazel run --config=opt //test/spikes:header_map
#include <benchmark/benchmark.h>

#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/http/headers.h"

namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

Fields Sample(int n) {
  Fields f{{":method", "GET"}, {":path", "/svc4/items"}, {":authority", "cart.default.mesh"}, {":scheme", "http"},
           {"user-agent", "curl/7.88"}, {"accept", "*/*"}, {"x-request-id", "0b1f6f0e-7d5f-4b3c-9d5e-000000000001"}};
  while (static_cast<int>(f.size()) < n) f.push_back({"x-custom-" + std::to_string(f.size()), "some value of ordinary length"});
  return f;
}

void Arrays(benchmark::State& state) {
  const Fields fields = Sample(state.range(0));
  weft::http::HeaderMap map;
  for (auto _ : state) {
    map.Clear();
    for (const auto& [k, v] : fields) map.Add(k, v);
    using T = weft::http::Token;
    for (T t : {T::kPath, T::kAuthority, T::kXRequestId, T::kGrpcTimeout, T::kExpect}) benchmark::DoNotOptimize(map.Get(t));
    size_t bytes = 0;
    for (const auto& e : map) bytes += e.name().size() + e.value().size();
    benchmark::DoNotOptimize(bytes);
  }
}

// Envoy's shape: a list of owned pairs, with pointers to the known ones.
void LinkedList(benchmark::State& state) {
  const Fields fields = Sample(state.range(0));
  for (auto _ : state) {
    std::list<std::pair<std::string, std::string>> map;
    const std::string* known[5] = {};
    static const std::string names[5] = {":path", ":authority", "x-request-id", "grpc-timeout", "expect"};
    for (const auto& [k, v] : fields) {
      map.emplace_back(k, v);
      for (int i = 0; i < 5; ++i) {
        if (k == names[i]) known[i] = &map.back().second;
      }
    }
    benchmark::DoNotOptimize(known);
    size_t bytes = 0;
    for (const auto& [k, v] : map) bytes += k.size() + v.size();
    benchmark::DoNotOptimize(bytes);
  }
}

void HashMap(benchmark::State& state) {
  const Fields fields = Sample(state.range(0));
  for (auto _ : state) {
    std::unordered_multimap<std::string, std::string> map;
    for (const auto& [k, v] : fields) map.emplace(k, v);
    for (const char* n : {":path", ":authority", "x-request-id", "grpc-timeout", "expect"}) benchmark::DoNotOptimize(map.find(n));
    size_t bytes = 0;
    for (const auto& [k, v] : map) bytes += k.size() + v.size();
    benchmark::DoNotOptimize(bytes);
  }
}

BENCHMARK(Arrays)->Arg(10)->Arg(30)->Arg(60);
BENCHMARK(LinkedList)->Arg(10)->Arg(30)->Arg(60);
BENCHMARK(HashMap)->Arg(10)->Arg(30)->Arg(60);

}  // namespace
