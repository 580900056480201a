#include "sidecar/telemetry/grpc_log.h"

#include <gtest/gtest.h>

#include "envoy/data/accesslog/v3/accesslog.pb.h"
#include "opentelemetry/proto/collector/logs/v1/logs_service.pb.h"
#include "opentelemetry/proto/logs/v1/logs.pb.h"
#include "opentelemetry/proto/resource/v1/resource.pb.h"
#include "sidecar/base/stats.h"
#include "sidecar/telemetry/als_encode.h"
#include "sidecar/telemetry/otlp_encode.h"

namespace weft::telemetry {
namespace {

namespace als = envoy::data::accesslog::v3;
using model::GrpcLog;
using model::LogValue;

proxy::Record Sample() {
  proxy::Record r;
  r.protocol = proxy::Protocol::kHttp2;
  r.method = "PATCH", r.path = "/a?b=1", r.authority = "shop", r.request_id = "id-1", r.user_agent = "curl";
  r.start_unix_ns = 1'700'000'000'123'456'789, r.duration_ns = 2'500'000'000;
  r.request_rx_ns = 1, r.upstream_tx_first_ns = 2, r.upstream_tx_ns = 3, r.upstream_first_rx_ns = 4, r.upstream_rx_last_ns = 5;
  r.response_tx_first_ns = 6, r.response_tx_last_ns = 7;
  r.request_bytes = 10, r.response_bytes = 20, r.request_header_bytes = 100, r.response_header_bytes = 200;
  r.upstream_tx_bytes = 11, r.upstream_rx_bytes = 21, r.upstream_tx_header_bytes = 101, r.upstream_rx_header_bytes = 201;
  r.status = 503, r.detail = "via_upstream", r.route = "r", r.cluster = "cart", r.upstream_host = "[::1]:8000", r.upstream_local = "10.0.0.1:5000";
  r.downstream_remote = *model::Address::FromIp("10.0.0.9", 4000), r.downstream_direct_remote = *model::Address::FromIp("::1", 4001);
  r.downstream_local = model::Address::Pipe("/run/x.sock");
  r.attempt_count = 2, r.attempts.resize(2);
  r.request_headers.Add(":scheme", "https"), r.request_headers.Add("x-many", "1"), r.request_headers.Add("x-many", "2");
  r.response_headers.Add("x-color", "r\xff" "d"), r.response_trailers.Add("grpc-status", "5");
  return r;
}

TEST(AlsEntry, HttpHasEveryFigureOfTheRecord) {
  proxy::Record r = Sample();
  GrpcLog config;
  config.request_headers = {"x-many", "x-none"}, config.response_headers = {"x-color"}, config.response_trailers = {"grpc-status"};
  config.tags = {{"lit", "v", ""}, {"many", "", "x-many"}, {"gone", "", "x-none"}, {"instead", "other", "x-none"}};
  r.metadata.Add("envoy.filters.http.rbac:enforced_engine_result", "denied");
  als::HTTPAccessLogEntry e;
  ASSERT_TRUE(e.ParseFromString(EncodeHttpEntry(r, config)));
  const auto& c = e.common_properties();
  EXPECT_EQ("10.0.0.9", c.downstream_remote_address().socket_address().address());
  EXPECT_EQ(4000u, c.downstream_remote_address().socket_address().port_value());
  EXPECT_EQ("::1", c.downstream_direct_remote_address().socket_address().address());
  EXPECT_EQ("/run/x.sock", c.downstream_local_address().pipe().path());
  EXPECT_EQ("::1", c.upstream_remote_address().socket_address().address());
  EXPECT_EQ(8000u, c.upstream_remote_address().socket_address().port_value());
  EXPECT_EQ(5000u, c.upstream_local_address().socket_address().port_value());
  EXPECT_EQ("cart", c.upstream_cluster());
  EXPECT_EQ(1'700'000'000, c.start_time().seconds());
  EXPECT_EQ(123'456'789, c.start_time().nanos());
  EXPECT_EQ(2, c.duration().seconds());
  EXPECT_EQ(500'000'000, c.duration().nanos());
  EXPECT_EQ(1, c.time_to_last_rx_byte().nanos());
  EXPECT_EQ(2, c.time_to_first_upstream_tx_byte().nanos());
  EXPECT_EQ(3, c.time_to_last_upstream_tx_byte().nanos());
  EXPECT_EQ(4, c.time_to_first_upstream_rx_byte().nanos());
  EXPECT_EQ(5, c.time_to_last_upstream_rx_byte().nanos());
  EXPECT_EQ(6, c.time_to_first_downstream_tx_byte().nanos());
  EXPECT_EQ(7, c.time_to_last_downstream_tx_byte().nanos());
  EXPECT_EQ(110u, c.downstream_wire_bytes_received());
  EXPECT_EQ(220u, c.downstream_wire_bytes_sent());
  EXPECT_EQ(112u, c.upstream_wire_bytes_sent());
  EXPECT_EQ(222u, c.upstream_wire_bytes_received());
  EXPECT_EQ(2u, c.upstream_request_attempt_count());
  EXPECT_EQ(als::AccessLogType::DownstreamEnd, c.access_log_type());
  EXPECT_FALSE(c.has_tls_properties());
  EXPECT_EQ("denied", c.metadata().filter_metadata().at("envoy.filters.http.rbac").fields().at("enforced_engine_result").string_value());
  EXPECT_FALSE(c.has_response_flags());
  ASSERT_EQ(3u, c.custom_tags().size());
  EXPECT_EQ("v", c.custom_tags().at("lit"));
  EXPECT_EQ("other", c.custom_tags().at("instead"));
  EXPECT_EQ(als::HTTPAccessLogEntry::HTTP2, e.protocol_version());
  EXPECT_EQ(envoy::config::core::v3::PATCH, e.request().request_method());
  EXPECT_EQ("https", e.request().scheme());
  EXPECT_EQ("shop", e.request().authority());
  EXPECT_EQ("/a?b=1", e.request().path());
  EXPECT_EQ("curl", e.request().user_agent());
  EXPECT_EQ("id-1", e.request().request_id());
  ASSERT_EQ(1u, e.request().request_headers().size());
  EXPECT_EQ("1,2", e.request().request_headers().at("x-many"));
  EXPECT_EQ(503u, e.response().response_code().value());
  EXPECT_EQ("r!d", e.response().response_headers().at("x-color")) << "bytes that are not UTF-8";
  EXPECT_EQ("5", e.response().response_trailers().at("grpc-status"));
}

TEST(AlsEntry, EveryFlagOfEnvoysIsThere) {
  const auto* fields = als::ResponseFlags::descriptor();
  int named = 0;
  for (int i = 0; i < static_cast<int>(proxy::ResponseFlag::kCount); ++i) {
    proxy::Record r;
    r.flags.Set(static_cast<proxy::ResponseFlag>(i));
    als::HTTPAccessLogEntry e;
    ASSERT_TRUE(e.ParseFromString(EncodeHttpEntry(r, {})));
    std::vector<const google::protobuf::FieldDescriptor*> set;
    e.common_properties().response_flags().GetReflection()->ListFields(e.common_properties().response_flags(), &set);
    const auto flag = static_cast<proxy::ResponseFlag>(i);
    if (flag == proxy::ResponseFlag::kDropOverload || flag == proxy::ResponseFlag::kUnconditionalDropOverload) EXPECT_TRUE(set.empty()) << "Envoy has no field for it";
    else EXPECT_EQ(1u, set.size()) << proxy::LongName(static_cast<proxy::ResponseFlag>(i));
    named += static_cast<int>(set.size());
  }
  EXPECT_EQ(fields->field_count() - 2, named) << "all but those of filters that we do not have: cache, missing filter configuration";
}

TEST(AlsEntry, TcpAndTls) {
  proxy::Record r;
  r.protocol = proxy::Protocol::kTcp, r.request_bytes = 7, r.response_bytes = 9, r.upstream_first_rx_ns = 5;
  r.requested_server_name = "shop.mesh", r.tls_version = "TLSv1.3", r.tls_cipher = "TLS_AES_256_GCM_SHA384";
  r.peer_identity = "spiffe://t/a", r.peer_subject = "CN=a", r.local_identity = "spiffe://t/b";
  r.peer_issuer = "CN=ca", r.local_subject = "CN=b", r.tls_session_id = "ab01";
  als::TCPAccessLogEntry e;
  ASSERT_TRUE(e.ParseFromString(EncodeTcpEntry(r, {})));
  EXPECT_EQ(7u, e.connection_properties().received_bytes());
  EXPECT_EQ(9u, e.connection_properties().sent_bytes());
  EXPECT_EQ(als::AccessLogType::TcpConnectionEnd, e.common_properties().access_log_type());
  EXPECT_FALSE(e.common_properties().has_time_to_first_upstream_rx_byte());
  const auto& t = e.common_properties().tls_properties();
  EXPECT_EQ("shop.mesh", t.tls_sni_hostname());
  EXPECT_EQ(als::TLSProperties::TLSv1_3, t.tls_version());
  EXPECT_EQ(0x1302u, t.tls_cipher_suite().value());
  EXPECT_EQ("spiffe://t/a", t.peer_certificate_properties().subject_alt_name(0).uri());
  EXPECT_EQ("CN=ca", t.peer_certificate_properties().issuer());
  EXPECT_EQ("CN=b", t.local_certificate_properties().subject());
  EXPECT_EQ("ab01", t.tls_session_id());
  EXPECT_EQ("CN=a", t.peer_certificate_properties().subject());
  EXPECT_EQ("spiffe://t/b", t.local_certificate_properties().subject_alt_name(0).uri());
}

TEST(OtlpEntry, NestedFormatsTagsAndTrace) {
  GrpcLog config;
  config.body = LogValue{LogValue::kFormat, "", "%REQ(:METHOD)% %ROUTE_NAME% %TRAILER(none)%", {}};
  config.attributes = {{LogValue::kFormat, "z", "%RESPONSE_CODE%", {}},
                       {LogValue::kMap, "a", "", {{LogValue::kList, "l", "", {{LogValue::kFormat, "", "%RESP(X-COLOR)%", {}}}}}}};
  config.tags = {{"tag", "v", ""}};
  proxy::Record r = Sample();
  r.trace_id[0] = 1, r.span_id[7] = 2;
  opentelemetry::proto::logs::v1::LogRecord e;
  ASSERT_TRUE(e.ParseFromString(OtlpEncoder(config).Encode(r)));
  EXPECT_EQ(1'700'000'000'123'456'789u, e.time_unix_nano());
  EXPECT_EQ("PATCH r -", e.body().string_value());
  ASSERT_EQ(3, e.attributes_size());
  EXPECT_EQ("z", e.attributes(0).key());
  EXPECT_EQ("503", e.attributes(0).value().string_value());
  EXPECT_EQ("r!d", e.attributes(1).value().kvlist_value().values(0).value().array_value().values(0).string_value());
  EXPECT_EQ("tag", e.attributes(2).key());
  EXPECT_EQ(16u, e.trace_id().size());
  EXPECT_EQ(8u, e.span_id().size());
}

TEST(OtlpEntry, ResourceAttributesTakeThePlaceOfLabels) {
  GrpcLog config;
  config.name = "log";
  opentelemetry::proto::common::v1::AnyValue zone, number;
  zone.set_string_value("mine"), number.set_int_value(5);
  config.resource = {{"zone_name", zone.SerializeAsString()}, {"n", number.SerializeAsString()}};
  opentelemetry::proto::resource::v1::Resource r;
  ASSERT_TRUE(r.ParseFromString(EncodeResource(config, {"", "id", "c", "z"})));
  ASSERT_EQ(5, r.attributes_size());
  EXPECT_EQ("log", r.attributes(0).value().string_value());
  EXPECT_EQ("mine", r.attributes(1).value().string_value());
  EXPECT_EQ("c", r.attributes(2).value().string_value());
  EXPECT_EQ("id", r.attributes(3).value().string_value());
  EXPECT_EQ(5, r.attributes(4).value().int_value());
  config.builtin_labels = false;
  ASSERT_TRUE(r.ParseFromString(EncodeResource(config, {})));
  EXPECT_EQ(2, r.attributes_size());
}

uint64_t Counter(const std::string& name) { return static_cast<uint64_t>(base::Stats::Get().Value(name)); }

TEST(LogSender, WhatCannotLeaveWaitsWithinBounds) {
  base::ManualClock clock;
  io::Loop loop(&clock);
  loop.RunOnce(0);
  auto config = std::make_shared<GrpcLog>();
  config->name = "log", config->cluster = "nobody", config->key = "k";
  const std::string entry(1000, 'x');
  const uint64_t before = Counter("access_logs.grpc_access_log.logs_dropped");
  {
    LogSender sender(&loop, config, {}, 0);
    for (int i = 0; i < 10'000; ++i) sender.Add(entry);
    EXPECT_LE(sender.waiting_bytes(), LogSender::kMaxWaiting + config->buffer_bytes);
    const uint64_t dropped = Counter("access_logs.grpc_access_log.logs_dropped") - before;
    EXPECT_GT(dropped, 5'000u);
    EXPECT_LT(dropped, 6'000u);
    EXPECT_FALSE(sender.Finish());
    for (int i = 0; i < 50; ++i) clock.Advance(base::kSecond), loop.RunOnce(0);
    EXPECT_FALSE(sender.Finish());
  }
  EXPECT_EQ(10'000u, Counter("access_logs.grpc_access_log.logs_dropped") - before) << "what is left at the end is dropped, and counted";
}

TEST(GrpcLogs, OneSenderAKeyUntilNobodyNamesItAndNothingWaits) {
  base::ManualClock clock;
  io::Loop loop(&clock);
  loop.RunOnce(0);
  GrpcLogs logs({&loop, {}, 0, [](const std::string&) { return LogTarget(); }});
  auto config = std::make_shared<GrpcLog>(), other = std::make_shared<GrpcLog>();
  config->key = "a", other->key = "b";
  model::ConfigSnapshot snapshot;
  auto listener = std::make_shared<model::Listener>();
  auto named = std::make_shared<model::AccessLogs>();
  named->logs.emplace_back().grpc = config;
  listener->access_logs = named;
  auto entry = std::make_shared<model::ListenerEntry>();
  entry->config = listener;
  snapshot.listeners.push_back(entry);
  logs.SnapshotChanged(snapshot);
  LogSender* first = logs.For(config);
  EXPECT_EQ(first, logs.For(config));
  EXPECT_NE(first, logs.For(other));
  logs.Sweep();
  EXPECT_EQ(1u, logs.size()) << "one is named, nothing waited for the other";
  logs.SnapshotChanged({});
  logs.Add(config, "x");
  logs.Sweep();
  EXPECT_EQ(1u, logs.size()) << "an entry waits for its server";
  clock.Advance(GrpcLogs::kMaxEndingNs + base::kSecond);
  loop.RunOnce(0);
  logs.Sweep();
  EXPECT_EQ(0u, logs.size());
}

}  // namespace
}  // namespace weft::telemetry
