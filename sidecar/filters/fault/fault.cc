#include "sidecar/filters/fault/fault.h"

#include <charconv>
#include <optional>

namespace weft::filters::fault {
namespace {

std::optional<uint64_t> Number(const http::HeaderMap& headers, std::string_view name) {
  auto v = headers.Get(name);
  uint64_t n = 0;
  if (!v || v->empty()) return std::nullopt;
  auto r = std::from_chars(v->data(), v->data() + v->size(), n);
  if (r.ec != std::errc() || r.ptr != v->data() + v->size()) return std::nullopt;
  return n;
}

// A percentage header lowers the configured one, it cannot raise it.
model::Percent Cap(model::Percent configured, const http::HeaderMap& headers, std::string_view name) {
  auto n = Number(headers, name);
  if (!n || *n >= configured.numerator) return configured;
  return {static_cast<uint32_t>(*n), configured.denominator};
}

constexpr uint64_t kMaxDelayNs = 3600ull * 1'000'000'000;

}  // namespace

Plan Decide(const model::FaultConfig& config, const http::HeaderMap& headers, std::string_view cluster, uint64_t delay_random,
            uint64_t abort_random, uint32_t active_faults) {
  Plan plan;
  if (!config.upstream_cluster.empty() && config.upstream_cluster != cluster) return plan;
  if (!config.headers.empty() && !model::MatchAll(config.headers, headers)) return plan;
  if (active_faults >= config.max_active_faults) return plan;
  if (config.has_delay) {
    uint64_t delay = config.delay_ns;
    model::Percent percent = config.delay_percent;
    if (config.header_delay) {
      auto ms = Number(headers, "x-envoy-fault-delay-request");
      delay = ms ? *ms * 1'000'000 : 0;
      if (ms && *ms > kMaxDelayNs / 1'000'000) delay = kMaxDelayNs;
      percent = Cap(percent, headers, "x-envoy-fault-delay-request-percentage");
    }
    if (delay && percent.Sample(delay_random)) plan.delay_ns = delay;
  }
  if (config.has_abort) {
    uint32_t status = config.http_status;
    int32_t grpc = config.grpc_status;
    model::Percent percent = config.abort_percent;
    if (config.header_abort) {
      auto code = Number(headers, "x-envoy-fault-abort-request");
      auto grpc_code = Number(headers, "x-envoy-fault-abort-grpc-request");
      status = code && *code >= 200 && *code < 600 ? static_cast<uint32_t>(*code) : 0;
      grpc = grpc_code && *grpc_code <= 16 ? static_cast<int32_t>(*grpc_code) : -1;
      percent = Cap(percent, headers, "x-envoy-fault-abort-request-percentage");
    }
    if ((status || grpc >= 0) && percent.Sample(abort_random)) {
      plan.abort = true;
      plan.http_status = status ? status : 200;
      plan.grpc_status = grpc;
    }
  }
  return plan;
}

}  // namespace weft::filters::fault
