#include "sidecar/telemetry/log_filter.h"

#include <gtest/gtest.h>

namespace weft::telemetry {
namespace {

using model::LogFilter;

proxy::Record Sample() {
  proxy::Record r;
  r.protocol = proxy::Protocol::kHttp11;
  r.status = 503, r.duration_ns = 25'900'000;
  r.flags.Set(proxy::ResponseFlag::kUpstreamOverflow);
  r.request_id = "00000031-0000-4000-8000-000000000000";
  r.request_headers.Add("x-a", "1");
  return r;
}

bool Takes(const LogFilter& f, const proxy::Record& r, uint64_t random = 0) { return Passes(f, r, random); }

TEST(LogFilter, Comparisons) {
  const proxy::Record r = Sample();
  const auto status = [&](LogFilter::Op op, uint64_t v) { return Takes({.kind = LogFilter::kStatus, .op = op, .value = v}, r); };
  EXPECT_TRUE(status(LogFilter::kEq, 503) && !status(LogFilter::kEq, 502));
  EXPECT_TRUE(status(LogFilter::kGe, 503) && !status(LogFilter::kGe, 504));
  EXPECT_TRUE(status(LogFilter::kLe, 503) && !status(LogFilter::kLe, 502));
  EXPECT_TRUE(status(LogFilter::kNe, 502) && !status(LogFilter::kNe, 503));
  EXPECT_TRUE(Takes({.kind = LogFilter::kDuration, .op = LogFilter::kEq, .value = 25}, r)) << "whole milliseconds";
}

TEST(LogFilter, Trees) {
  const proxy::Record r = Sample();
  const LogFilter yes{.kind = LogFilter::kNotHealthCheck}, no{.kind = LogFilter::kOr};
  EXPECT_TRUE(Takes({.kind = LogFilter::kOr, .filters = {no, yes}}, r));
  EXPECT_FALSE(Takes({.kind = LogFilter::kAnd, .filters = {yes, no}}, r));
  EXPECT_TRUE(Takes({.kind = LogFilter::kAnd, .filters = {yes, {.kind = LogFilter::kOr, .filters = {no, yes}}}}, r));
}

TEST(LogFilter, FlagsAndHeaders) {
  proxy::Record r = Sample();
  EXPECT_TRUE(Takes({.kind = LogFilter::kResponseFlag}, r));
  EXPECT_TRUE(Takes({.kind = LogFilter::kResponseFlag, .flags = {"UF", "UO"}}, r));
  EXPECT_FALSE(Takes({.kind = LogFilter::kResponseFlag, .flags = {"UF"}}, r));
  r.flags = {};
  EXPECT_FALSE(Takes({.kind = LogFilter::kResponseFlag}, r));
  LogFilter header{.kind = LogFilter::kHeader};
  header.header.name = "x-a";
  EXPECT_TRUE(Takes(header, r));
  header.header.name = "x-b";
  EXPECT_FALSE(Takes(header, r));
}

TEST(LogFilter, GrpcStatusComesFromTheAnswerOrItsCode) {
  proxy::Record r = Sample();
  const LogFilter unavailable{.kind = LogFilter::kGrpcStatus, .mask = 1u << 14}, not_found{.kind = LogFilter::kGrpcStatus, .mask = 1u << 5};
  EXPECT_TRUE(Takes(unavailable, r));
  r.grpc_status = 5;
  EXPECT_TRUE(Takes(not_found, r) && !Takes(unavailable, r));
  EXPECT_FALSE(Takes({.kind = LogFilter::kGrpcStatus, .exclude = true, .mask = 1u << 5}, r));
  r.grpc_status = 1000;
  EXPECT_TRUE(Takes({.kind = LogFilter::kGrpcStatus, .exclude = true, .mask = ~0u}, r));
}

TEST(LogFilter, SamplingFollowsTheRequestId) {
  proxy::Record r = Sample();
  LogFilter f{.kind = LogFilter::kSample, .sample = {50, 100}};
  EXPECT_TRUE(Takes(f, r, 99)) << "0x31 is 49";
  f.sample.numerator = 49;
  EXPECT_FALSE(Takes(f, r, 0));
  f.independent = true;
  EXPECT_TRUE(Takes(f, r, 0) && !Takes(f, r, 49));
  f.independent = false;
  r.request_id = "0000003x-";
  EXPECT_TRUE(Takes(f, r, 0) && !Takes(f, r, 49)) << "not an id";
}

TEST(LogFilter, TypesAndTraces) {
  proxy::Record r = Sample();
  const LogFilter http{.kind = LogFilter::kLogType, .mask = 1u << 6};
  EXPECT_TRUE(Takes(http, r));
  r.protocol = proxy::Protocol::kTcp;
  EXPECT_FALSE(Takes(http, r));
  EXPECT_TRUE(Takes({.kind = LogFilter::kLogType, .exclude = true, .mask = 1u << 6}, r));

  const LogFilter traceable{.kind = LogFilter::kTraceable, .tracing = true};
  EXPECT_FALSE(Takes(traceable, r));
  r.request_id[14] = 'a';
  EXPECT_TRUE(Takes(traceable, r) && !Takes({.kind = LogFilter::kTraceable}, r));
  r.request_id[14] = '4';
  r.request_headers.Add("x-envoy-force-trace", "1");
  EXPECT_TRUE(Takes(traceable, r));
  r.request_headers.Add("x-client-trace-id", "c");
  EXPECT_FALSE(Takes(traceable, r)) << "the client's reason comes first";
}

TEST(LogFilter, DynamicMetadata) {
  proxy::Record r = Sample();
  LogFilter f{.kind = LogFilter::kMetadata, .name = "a.b:k", .strings = {{.kind = model::StringMatcher::kExact, .value = "v"}}};
  EXPECT_FALSE(Takes(f, r));
  f.value = 1;
  EXPECT_TRUE(Takes(f, r)) << "not there";
  r.metadata.Add("a.b:k", "v");
  EXPECT_TRUE(Takes(f, r));
  f.strings[0].value = "w";
  EXPECT_FALSE(Takes(f, r));
  f.present = true;
  EXPECT_TRUE(Takes(f, r));
}

bool Says(const char* text, const proxy::Record& r) {
  auto e = cel::Expression::Compile(text);
  EXPECT_TRUE(e) << text;
  return e && Takes({.kind = LogFilter::kExpression, .expression = std::move(*e)}, r);
}

TEST(LogFilter, ExpressionsOverARequest) {
  proxy::Record r = Sample();
  r.method = "GET", r.path = "/a?b=1#c", r.authority = "cart:80", r.detail = "overflow";
  r.request_headers.Add("x-many", "1"), r.request_headers.Add("x-many", "2"), r.request_headers.Add(":authority", "cart:80");
  r.response_headers.Add("x-color", "red");
  r.downstream_remote = *model::Address::FromIp("::1", 555);
  r.request_bytes = 3, r.request_header_bytes = 20, r.start_unix_ns = 1'700'000'000'000'000'000;
  for (const char* text :
       {"request.method == 'GET' && request.host == 'cart:80'", "request.url_path == '/a' && request.query == 'b=1'", "request.headers['X-Many'] == '1,2'", "request.headers['host'] == 'cart:80'",
        "size(request.headers) == 3", "request.total_size == 23 && request.size == 3", "request.duration.getMilliseconds() == 25", "request.time.getFullYear() == 2023", "response.code == 503",
        "response.code_details == 'overflow'", "response.flags == 128", "response.grpc_status == 14", "response.headers['x-color'].startsWith('r')", "source.address == '[::1]:555' && source.port == 555",
        "!has(upstream.address) && upstream.request_attempt_count == 0u", "!connection.mtls && connection.requested_server_name == ''", "metadata.filter_metadata == {}", "!has(response.backend_latency)"})
    EXPECT_TRUE(Says(text, r)) << text;
  for (const char* text : {"request.method", "request.nope == 1", "response.code", "request.headers['x-none'] == ''", "xds.node.id == ''"}) EXPECT_FALSE(Says(text, r)) << text;
  r.metadata.Add("a.b:k", "v");
  for (const char* text : {"metadata.filter_metadata['a.b'].k == 'v'", "metadata.filter_metadata == {'a.b': {'k': 'v'}}", "has(metadata.filter_metadata) && size(metadata.filter_metadata['a.b']) == 1",
                           "!has(metadata.filter_metadata['a.b'].x) && !('a' in metadata.filter_metadata)", "metadata == metadata"})
    EXPECT_TRUE(Says(text, r)) << text;
  r.flags.Set(proxy::ResponseFlag::kNoClusterFound);
  EXPECT_TRUE(Says("response.flags == 16777216 + 128", r)) << "Envoy's bits";
}

TEST(LogFilter, ExpressionsOverAConnection) {
  proxy::Record r;
  r.tls_version = "TLSv1.3", r.peer_identity = "spiffe://t/ns/n/sa/a", r.request_bytes = 5;
  r.attempt_count = 1;
  r.attempts.resize(1);
  r.attempts[0].endpoint = r.upstream_host = "10.0.0.1:8000", r.attempts[0].total_hosts = 2;
  for (const char* text : {"!has(request.path) && !has(request.protocol) && request.size == 5", "!has(response.code) && !has(response.grpc_status)", "connection.mtls && connection.tls_version == 'TLSv1.3'",
                           "connection.uri_san_peer_certificate.endsWith('/sa/a')", "upstream.port == 8000 && upstream.num_endpoints == 2", "upstream.transport_failure_reason == ''", "!has(xds.route_name)"})
    EXPECT_TRUE(Says(text, r)) << text;
}

}  // namespace
}  // namespace weft::telemetry
