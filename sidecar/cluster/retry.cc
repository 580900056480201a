#include "sidecar/cluster/retry.h"

#include <algorithm>
#include <charconv>

namespace weft::cluster {
namespace {

using http::Token;

struct Word { std::string_view name; uint32_t bit; };
constexpr Word kWords[] = {
    {"5xx", model::kRetry5xx}, {"gateway-error", model::kRetryGatewayError}, {"reset", model::kRetryReset},
    {"reset-before-request", model::kRetryResetBeforeRequest}, {"connect-failure", model::kRetryConnectFailure},
    {"envoy-ratelimited", model::kRetryEnvoyRatelimited}, {"retriable-4xx", model::kRetryRetriable4xx},
    {"refused-stream", model::kRetryRefusedStream}, {"retriable-status-codes", model::kRetryStatusCodes},
    {"retriable-headers", model::kRetryHeaders}, {"http3-post-connect-failure", model::kRetryHttp3PostConnectFailure},
    {"cancelled", model::kRetryGrpcCancelled}, {"deadline-exceeded", model::kRetryGrpcDeadline},
    {"resource-exhausted", model::kRetryGrpcExhausted}, {"internal", model::kRetryGrpcInternal},
    {"unavailable", model::kRetryGrpcUnavailable},
};

bool SafeMethod(std::string_view m) { return m == "GET" || m == "HEAD" || m == "OPTIONS" || m == "TRACE"; }

int GrpcStatus(const TryResult& r) {
  if (r.grpc_status >= 0) return r.grpc_status;
  if (!r.headers) return -1;
  auto v = r.headers->Get(Token::kGrpcStatus);
  int n = -1;
  if (v && std::from_chars(v->data(), v->data() + v->size(), n).ec != std::errc()) return -1;
  return n;
}

// How long the upstream asks to wait (rate_limited_retry_back_off); 0: it does not.
uint64_t ToldBackoff(const model::RetryPolicy& p, const http::HeaderMap* headers, uint64_t unix_now_s) {
  if (!headers) return 0;
  for (const auto& [name, is_unix] : p.reset_headers) {
    auto v = headers->Get(name);
    uint64_t n = 0;
    if (!v || std::from_chars(v->data(), v->data() + v->size(), n).ec != std::errc()) continue;
    if (is_unix) n = n > unix_now_s ? n - unix_now_s : 0;
    if (n == 0 || n > p.reset_max_interval_ns / 1'000'000'000) continue;
    return n * 1'000'000'000;
  }
  return 0;
}

}  // namespace

uint32_t ParseRetryOn(std::string_view words, std::string* unknown) {
  uint32_t bits = 0;
  while (!words.empty()) {
    std::string_view w = words.substr(0, words.find(','));
    words.remove_prefix(std::min(words.size(), w.size() + 1));
    while (!w.empty() && w.front() == ' ') w.remove_prefix(1);
    while (!w.empty() && w.back() == ' ') w.remove_suffix(1);
    if (w.empty()) continue;
    auto it = std::find_if(std::begin(kWords), std::end(kWords), [&](const Word& x) { return x.name == w; });
    if (it != std::end(kWords)) bits |= it->bit;
    else if (unknown) *unknown += (unknown->empty() ? "" : ",") + std::string(w);
  }
  return bits;
}

RetryState::RetryState(const model::RetryPolicy* policy, const http::HeaderMap& headers, bool has_body)
    : policy_(policy), safe_method_(SafeMethod(headers.Value(Token::kMethod))), has_body_(has_body) {
  if (!policy_) return;
  max_retries_ = policy_->num_retries;
  policy_applies_ = policy_->on != 0;
  if (policy_applies_ && !policy_->retriable_request_headers.empty()) {
    policy_applies_ = std::any_of(policy_->retriable_request_headers.begin(), policy_->retriable_request_headers.end(),
                                  [&](const auto& m) { return m.Match(headers); });
  }
}

const char* RetryState::BuiltInWord(const TryResult& r) const {
  switch (r.kind) {
    case TryResult::kConnectFailure: case TryResult::kConnectTimeout: return "connect-failure";
    case TryResult::kRefusedStream: return "refused-stream";
    case TryResult::kResetBeforeRequest: return "reset-before-request";
    case TryResult::kReset: return safe_method_ && !has_body_ ? "reset" : nullptr;
    default: return nullptr;
  }
}

const char* RetryState::PolicyWord(const TryResult& r) const {
  const uint32_t on = policy_->on;
  if (r.kind != TryResult::kResponse) {
    bool reset_like = r.kind == TryResult::kReset || r.kind == TryResult::kPerTryTimeout || r.kind == TryResult::kResetBeforeRequest;
    if ((on & model::kRetryConnectFailure) && (r.kind == TryResult::kConnectFailure || r.kind == TryResult::kConnectTimeout)) return "connect-failure";
    if ((on & model::kRetryRefusedStream) && r.kind == TryResult::kRefusedStream) return "refused-stream";
    if ((on & model::kRetryResetBeforeRequest) && r.kind == TryResult::kResetBeforeRequest) return "reset-before-request";
    if ((on & model::kRetryReset) && reset_like) return "reset";
    // As Envoy: an attempt without any answer counts as 5xx and as gateway error.
    if (on & model::kRetry5xx) return "5xx";
    if (on & model::kRetryGatewayError) return "gateway-error";
    return nullptr;
  }
  if (r.headers && r.headers->Get("x-envoy-ratelimited")) {
    // An answer of a rate limiter is retried only when asked for explicitly.
    return on & model::kRetryEnvoyRatelimited ? "envoy-ratelimited" : nullptr;
  }
  if ((on & model::kRetry5xx) && r.status >= 500 && r.status <= 599) return "5xx";
  if ((on & model::kRetryGatewayError) && r.status >= 502 && r.status <= 504) return "gateway-error";
  if ((on & model::kRetryRetriable4xx) && r.status == 409) return "retriable-4xx";
  if ((on & model::kRetryStatusCodes) && std::find(policy_->status_codes.begin(), policy_->status_codes.end(), r.status) != policy_->status_codes.end())
    return "retriable-status-codes";
  if ((on & model::kRetryHeaders) && r.headers)
    for (const auto& m : policy_->retriable_headers)
      if (m.Match(*r.headers)) return "retriable-headers";
  switch (GrpcStatus(r)) {
    case 1: return on & model::kRetryGrpcCancelled ? "cancelled" : nullptr;
    case 4: return on & model::kRetryGrpcDeadline ? "deadline-exceeded" : nullptr;
    case 8: return on & model::kRetryGrpcExhausted ? "resource-exhausted" : nullptr;
    case 13: return on & model::kRetryGrpcInternal ? "internal" : nullptr;
    case 14: return on & model::kRetryGrpcUnavailable ? "unavailable" : nullptr;
    default: return nullptr;
  }
}

RetryDecision RetryState::Decide(const TryResult& result, uint64_t random, uint64_t unix_now_s) {
  RetryDecision d;
  bool by_policy = false;
  const char* word = nullptr;
  if (policy_ && policy_applies_) word = PolicyWord(result), by_policy = word != nullptr;
  if (!word) word = BuiltInWord(result);
  if (!word) return d;
  d.reason = word;
  if (retries_ >= max_retries_) {
    d.exhausted = true;
    return d;
  }
  d.retry = true;
  avoid_previous_ = !by_policy || policy_->previous_hosts_predicate || result.kind != TryResult::kResponse;
  uint64_t base = policy_ ? policy_->backoff_base_ns : 25'000'000, most = policy_ ? policy_->backoff_max_ns : 250'000'000;
  if (by_policy && result.kind == TryResult::kResponse) d.backoff_ns = ToldBackoff(*policy_, result.headers, unix_now_s);
  // Nothing reached a host: another one may be asked at once, the first time.
  bool at_once = retries_ == 0 && (result.kind == TryResult::kConnectFailure || result.kind == TryResult::kRefusedStream ||
                                   result.kind == TryResult::kResetBeforeRequest || (!by_policy && result.kind == TryResult::kReset));
  if (d.backoff_ns == 0 && !at_once) {
    // Full jitter, as Envoy: uniform below base × (2^n − 1), capped.
    uint64_t ceiling = std::min(most, base * ((uint64_t{2} << std::min<uint32_t>(retries_, 20)) - 1));
    d.backoff_ns = ceiling ? static_cast<uint64_t>((static_cast<unsigned __int128>(random) * ceiling) >> 64) + 1 : 0;
  }
  ++retries_;
  return d;
}

}  // namespace weft::cluster
