// Whether a failed attempt may be tried again, and when. Pure; the budget is the breakers' (cells.h, TryRetry).
//
//   RetryState retry(route::Retry(found), request_headers, body_is_empty_or_buffered);
//   auto d = retry.Decide({.kind = TryResult::kResponse, .status = 503, .headers = &response});
//   if (d.retry && breakers.TryRetry(t)) arm timer d.backoff_ns ...
//
// Two sources: the configured policy (Envoy's retry_on words and meaning) and, always, the built-in rule: a request of
// which the host has seen nothing (connect failure, REFUSED_STREAM, GOAWAY, reset before a byte was sent) goes to another
// host, any method; one that was reset before its response began is tried again when the method is safe and there is no
// body. The built-in rule allows 2 retries when no policy is configured, and none when one with num_retries 0 is.
// Timeouts and answers are tried again only when configured.
#pragma once

#include <cstdint>
#include <string_view>

#include "sidecar/http/headers.h"
#include "sidecar/model/route_config.h"

namespace weft::cluster {

struct TryResult {
  enum Kind : uint8_t {
    kResponse,             // a response head arrived: status, headers
    kConnectFailure, kConnectTimeout,
    kRefusedStream,        // REFUSED_STREAM or above GOAWAY's last id: not processed
    kResetBeforeRequest,   // the connection died before a byte of the request was sent
    kReset,                // after that, before the response head
    kPerTryTimeout,
  } kind = kResponse;
  uint16_t status = 0;
  const http::HeaderMap* headers = nullptr;   // response head (may carry grpc-status of a trailers-only answer)
  int grpc_status = -1;                       // -1: look into headers
};

struct RetryDecision {
  bool retry = false;
  uint64_t backoff_ns = 0;       // before the next attempt
  bool exhausted = false;        // would retry, but the number of retries is used up (flag URX)
  const char* reason = "";       // static: the word that decided, e.g. "connect-failure", "5xx"
};

class RetryState {
 public:
  // policy may be null. headers: the request's. has_body: the request has or will have a body.
  RetryState(const model::RetryPolicy* policy, const http::HeaderMap& headers, bool has_body);
  RetryState() = default;
  // Counts a retry when it says retry. random: jitter.
  RetryDecision Decide(const TryResult& result, uint64_t random, uint64_t unix_now_s = 0);

  uint32_t retries() const { return retries_; }
  uint32_t max_retries() const { return max_retries_; }
  // The caller should exclude hosts already tried (predicate configured, or a built-in retry).
  bool avoid_previous_hosts() const { return avoid_previous_; }
  uint32_t host_selection_attempts() const { return policy_ ? policy_->host_selection_attempts : 3; }
  uint64_t per_try_timeout_ns() const { return policy_ ? policy_->per_try_timeout_ns : 0; }
  const model::RetryPolicy* policy() const { return policy_; }

 private:
  const char* PolicyWord(const TryResult& result) const;
  const char* BuiltInWord(const TryResult& result) const;

  const model::RetryPolicy* policy_ = nullptr;
  uint32_t retries_ = 0, max_retries_ = 2;
  bool safe_method_ = false, has_body_ = false, avoid_previous_ = true, policy_applies_ = false;
};

// retry_on words ("5xx,connect-failure,unavailable"); unknown words are appended to *unknown (comma separated).
uint32_t ParseRetryOn(std::string_view words, std::string* unknown);

}  // namespace weft::cluster
