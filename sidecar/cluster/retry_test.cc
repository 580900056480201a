#include "sidecar/cluster/retry.h"

#include <gtest/gtest.h>

namespace weft::cluster {
namespace {

using http::HeaderMap;
using http::Token;

HeaderMap Request(const char* method) {
  HeaderMap h;
  h.Add(Token::kMethod, method), h.Add(Token::kPath, "/");
  return h;
}
model::RetryPolicy Policy(const char* words, uint32_t n = 1) {
  std::string unknown;
  model::RetryPolicy p{.on = ParseRetryOn(words, &unknown), .num_retries = n};
  EXPECT_EQ(unknown, "");
  return p;
}
// The word that makes result a retry under the policy, "" when it is none.
std::string Word(const model::RetryPolicy* p, TryResult r, const char* method = "POST", bool body = true) {
  RetryState s(p, Request(method), body);
  auto d = s.Decide(r, 1ull << 63);
  return d.retry ? d.reason : "";
}

TEST(Retry, Words) {
  std::string unknown;
  EXPECT_EQ(ParseRetryOn("5xx, connect-failure,unavailable", &unknown), model::kRetry5xx | model::kRetryConnectFailure | model::kRetryGrpcUnavailable);
  EXPECT_EQ(ParseRetryOn("foo,5xx,bar", &unknown), model::kRetry5xx);
  EXPECT_EQ(unknown, "foo,bar");
}

TEST(Retry, BuiltInRule) {
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kConnectFailure}), "connect-failure");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kRefusedStream}), "refused-stream");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kResetBeforeRequest}), "reset-before-request");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kReset}), "");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kReset}, "GET", false), "reset");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kReset}, "GET", true), "");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kPerTryTimeout}, "GET", false), "");
  EXPECT_EQ(Word(nullptr, {.kind = TryResult::kResponse, .status = 503}, "GET", false), "");
  RetryState s(nullptr, Request("GET"), false);
  EXPECT_TRUE(s.Decide({.kind = TryResult::kReset}, 0).retry);
  EXPECT_TRUE(s.Decide({.kind = TryResult::kReset}, 0).retry);
  auto d = s.Decide({.kind = TryResult::kReset}, 0);
  EXPECT_FALSE(d.retry);
  EXPECT_TRUE(d.exhausted);
  model::RetryPolicy none = Policy("", 0);
  EXPECT_EQ(Word(&none, {.kind = TryResult::kConnectFailure}), "");
}

TEST(Retry, HttpWords) {
  struct { const char* word; TryResult result; bool retry; } cases[] = {
      {"5xx", {.status = 500}, true}, {"5xx", {.status = 599}, true}, {"5xx", {.status = 499}, false},
      {"5xx", {.kind = TryResult::kPerTryTimeout}, true}, {"5xx", {.kind = TryResult::kReset}, true},
      {"gateway-error", {.status = 502}, true}, {"gateway-error", {.status = 504}, true}, {"gateway-error", {.status = 500}, false},
      {"gateway-error", {.kind = TryResult::kReset}, true},
      {"reset", {.kind = TryResult::kReset}, true}, {"reset", {.kind = TryResult::kPerTryTimeout}, true}, {"reset", {.status = 503}, false},
      {"retriable-4xx", {.status = 409}, true}, {"retriable-4xx", {.status = 404}, false},
      {"connect-failure", {.kind = TryResult::kReset}, false},
  };
  for (auto& c : cases) {
    auto p = Policy(c.word);
    EXPECT_EQ(Word(&p, c.result) == c.word, c.retry) << c.word << " " << c.result.status;
  }
  auto p = Policy("retriable-status-codes");
  p.status_codes = {418};
  EXPECT_EQ(Word(&p, {.status = 418}), "retriable-status-codes");
  EXPECT_EQ(Word(&p, {.status = 419}), "");
  p = Policy("retriable-headers");
  p.retriable_headers.push_back({.name = "x-again"});
  HeaderMap h;
  EXPECT_EQ(Word(&p, {.status = 200, .headers = &h}), "");
  h.Add("x-again", "1");
  EXPECT_EQ(Word(&p, {.status = 200, .headers = &h}), "retriable-headers");
}

TEST(Retry, GrpcWords) {
  struct { const char* word; int status; } cases[] = {
      {"cancelled", 1}, {"deadline-exceeded", 4}, {"resource-exhausted", 8}, {"internal", 13}, {"unavailable", 14}};
  for (auto& c : cases) {
    auto p = Policy(c.word);
    HeaderMap h;
    h.Add(Token::kGrpcStatus, std::to_string(c.status));
    EXPECT_EQ(Word(&p, {.status = 200, .headers = &h}), c.word);
    EXPECT_EQ(Word(&p, {.status = 200, .grpc_status = c.status}), c.word);
    EXPECT_EQ(Word(&p, {.status = 200, .grpc_status = 2}), "");
    EXPECT_EQ(Word(&p, {.status = 200}), "");
  }
}

TEST(Retry, RateLimitedAnswersOnlyWhenAsked) {
  HeaderMap h;
  h.Add("x-envoy-ratelimited", "true");
  auto p = Policy("5xx");
  EXPECT_EQ(Word(&p, {.status = 503, .headers = &h}), "");
  p = Policy("envoy-ratelimited");
  EXPECT_EQ(Word(&p, {.status = 429, .headers = &h}), "envoy-ratelimited");
}

TEST(Retry, RequestHeadersGateThePolicyNotTheBuiltInRule) {
  auto p = Policy("5xx", 4);
  p.retriable_request_headers.push_back({.kind = model::HeaderMatcher::kString, .name = ":method", .token = Token::kMethod,
                                         .string = {.kind = model::StringMatcher::kExact, .value = "GET"}});
  EXPECT_EQ(Word(&p, {.status = 503}, "GET"), "5xx");
  EXPECT_EQ(Word(&p, {.status = 503}, "POST"), "");
  EXPECT_EQ(Word(&p, {.kind = TryResult::kConnectFailure}, "POST"), "connect-failure");
}

TEST(Retry, CountAndBackoff) {
  auto p = Policy("5xx", 4);
  RetryState s(&p, Request("GET"), false);
  uint64_t ceilings[] = {25, 75, 175, 250};
  for (uint64_t c : ceilings) {
    auto d = s.Decide({.status = 503}, ~0ull);
    EXPECT_TRUE(d.retry);
    EXPECT_NEAR(static_cast<double>(d.backoff_ns), static_cast<double>(c) * 1e6, 10);
  }
  EXPECT_TRUE(s.Decide({.status = 503}, 0).exhausted);
  RetryState t(&p, Request("GET"), false);
  EXPECT_EQ(t.Decide({.kind = TryResult::kConnectFailure}, ~0ull).backoff_ns, 0u);  // another host, at once
  EXPECT_TRUE(t.avoid_previous_hosts());
}

TEST(Retry, ToldBackoff) {
  auto p = Policy("5xx", 2);
  p.reset_headers = {{"retry-after", false}, {"x-at", true}};
  HeaderMap h;
  h.Add("retry-after", "7");
  RetryState s(&p, Request("GET"), false);
  EXPECT_EQ(s.Decide({.status = 503, .headers = &h}, 0).backoff_ns, 7'000'000'000u);
  h.Set("retry-after", "9999");
  h.Add("x-at", "1005");
  EXPECT_EQ(s.Decide({.status = 503, .headers = &h}, 0, 1000).backoff_ns, 5'000'000'000u);
}

}  // namespace
}  // namespace weft::cluster
