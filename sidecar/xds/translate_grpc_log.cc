// Access logs that go to servers: ALS and OTLP over gRPC.
#include <cstdlib>

#include "envoy/config/core/v3/grpc_service.pb.h"
#include "envoy/extensions/access_loggers/grpc/v3/als.pb.h"
#include "envoy/extensions/access_loggers/open_telemetry/v3/logs_service.pb.h"
#include "envoy/type/tracing/v3/custom_tag.pb.h"
#include "sidecar/model/log_format.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {

namespace grpc3 = envoy::extensions::access_loggers::grpc::v3;
namespace common = opentelemetry::proto::common::v1;
using envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;

namespace {

// False: not by a client of ours; the log is left out, not the listener.
bool SetService(const Ctx& c, const core::GrpcService& s, model::GrpcLog& log) {
  if (!s.has_envoy_grpc()) {
    c.Warn("only envoy_grpc is supported, the access log is ignored");
    return false;
  }
  log.cluster = s.envoy_grpc().cluster_name();
  log.authority = s.envoy_grpc().authority();
  if (log.cluster.empty()) (c / "envoy_grpc.cluster_name").Fail("is required");
  for (const auto& h : s.initial_metadata()) log.metadata.emplace_back(LowerCase(h.key()), h.value());
  if (s.has_timeout()) log.timeout_ns = Ns(c / "timeout", s.timeout());
  return true;
}

void SetBuffer(const Ctx& c, bool has_interval, const google::protobuf::Duration& interval, bool has_size, uint32_t size, model::GrpcLog& log) {
  if (has_interval) log.flush_interval_ns = Ns(c / "buffer_flush_interval", interval);
  if (log.flush_interval_ns == 0) (c / "buffer_flush_interval").Fail("must be longer than 0");
  constexpr uint32_t kMost = 1 << 20;
  if (has_size) log.buffer_bytes = std::min(size, kMost);
  if (has_size && size > kMost) (c / "buffer_size_bytes").Warn("batches have 1 MiB at most");
}

template <typename Tags>
void SetTags(const Ctx& c, const Tags& tags, model::GrpcLog& log) {
  using T = envoy::type::tracing::v3::CustomTag;
  for (int i = 0; i < tags.size(); ++i) {
    const T& t = tags[i];
    model::LogTag tag{t.tag(), {}, {}};
    if (tag.name.empty()) (c[i] / "tag").Fail("is required");
    switch (t.type_case()) {
      case T::kLiteral: tag.text = t.literal().value(); break;
      case T::kEnvironment: {
        const char* v = std::getenv(t.environment().name().c_str());
        tag.text = v ? v : t.environment().default_value();
        break;
      }
      case T::kRequestHeader:
        tag.header = LowerCase(t.request_header().name()), tag.text = t.request_header().default_value();
        if (tag.header.empty()) (c[i] / "request_header.name").Fail("is required");
        break;
      default: c[i].Warn("only literal, environment and request_header are supported, the tag is left out"); continue;
    }
    log.tags.push_back(std::move(tag));
  }
}

bool SetCommon(const Ctx& c, const grpc3::CommonGrpcAccessLogConfig& p, model::GrpcLog& log) {
  log.name = p.log_name();
  if (p.transport_api_version() == core::V2) (c / "transport_api_version").Fail("must be V3");
  SetBuffer(c, p.has_buffer_flush_interval(), p.buffer_flush_interval(), p.has_buffer_size_bytes(), p.buffer_size_bytes().value(), log);
  SetTags(c / "custom_tags", p.custom_tags(), log);
  return SetService(c / "grpc_service", p.grpc_service(), log);
}

template <typename Names>
std::vector<std::string> Lower(const Names& names) {
  std::vector<std::string> out;
  for (const std::string& n : names) out.push_back(LowerCase(n));
  return out;
}

model::LogValue ToValue(const Ctx& c, const common::AnyValue& v, int depth = 0) {
  model::LogValue out;
  if (depth > 16) {
    c.Fail("is nested too deeply");
    return out;
  }
  switch (v.value_case()) {
    case common::AnyValue::kStringValue:
      out.format = v.string_value();
      if (auto f = model::LogFormat::Parse(out.format); !f) c.Fail(f.error().message());
      break;
    case common::AnyValue::kArrayValue:
      out.kind = model::LogValue::kList;
      for (int i = 0; i < v.array_value().values_size(); ++i) out.children.push_back(ToValue(c[i], v.array_value().values(i), depth + 1));
      break;
    case common::AnyValue::kKvlistValue:
      out.kind = model::LogValue::kMap;
      for (const auto& m : v.kvlist_value().values()) {
        out.children.push_back(ToValue(c.Key(m.key()), m.value(), depth + 1));
        out.children.back().key = m.key();
      }
      break;
    default: c.Fail("only strings, lists and maps are supported in an OpenTelemetry log format");
  }
  return out;
}

bool SetOtlp(const Ctx& c, const OpenTelemetryAccessLogConfig& p, model::GrpcLog& log) {
  log.kind = model::GrpcLog::kOtlp;
  bool usable = true;
  if (p.has_common_config()) usable = SetCommon(c / "common_config", p.common_config(), log);
  if (p.has_grpc_service()) usable = SetService(c / "grpc_service", p.grpc_service(), log);
  else if (!p.has_common_config()) {
    (c / (p.has_http_service() ? "http_service" : "grpc_service")).Warn("grpc_service with envoy_grpc is needed, the access log is ignored");
    usable = false;
  }
  if (!p.log_name().empty()) log.name = p.log_name();
  if (p.has_buffer_flush_interval() || p.has_buffer_size_bytes()) {
    SetBuffer(c, p.has_buffer_flush_interval(), p.buffer_flush_interval(), p.has_buffer_size_bytes(), p.buffer_size_bytes().value(), log);
  }
  SetTags(c / "custom_tags", p.custom_tags(), log);
  if (p.has_body() && p.body().value_case() != common::AnyValue::VALUE_NOT_SET) log.body = ToValue(c / "body", p.body());
  for (const auto& a : p.attributes().values()) {
    log.attributes.push_back(ToValue((c / "attributes").Key(a.key()), a.value()));
    log.attributes.back().key = a.key();
  }
  for (const auto& a : p.resource_attributes().values()) log.resource.emplace_back(a.key(), a.value().SerializeAsString());
  log.builtin_labels = !p.disable_builtin_labels();
  log.stat_prefix = p.stat_prefix();
  return usable;
}

}  // namespace

bool IsGrpcLog(const std::string& type) {
  return type == "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" ||
         type == "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig" ||
         type == "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
}

std::shared_ptr<const model::GrpcLog> ToGrpcLog(const Ctx& c, const google::protobuf::Any& config) {
  auto log = std::make_shared<model::GrpcLog>();
  const std::string type = TypeOf(config);
  // As in Envoy: what is logged besides the fields makes no stream of its own.
  const grpc3::CommonGrpcAccessLogConfig* shared = nullptr;
  bool usable = false;
  grpc3::HttpGrpcAccessLogConfig http;
  grpc3::TcpGrpcAccessLogConfig tcp;
  if (type.ends_with(".HttpGrpcAccessLogConfig")) {
    http = Unpack<grpc3::HttpGrpcAccessLogConfig>(c, config);
    shared = &http.common_config();
    usable = SetCommon(c / "common_config", *shared, *log);
    log->request_headers = Lower(http.additional_request_headers_to_log());
    log->response_headers = Lower(http.additional_response_headers_to_log());
    log->response_trailers = Lower(http.additional_response_trailers_to_log());
  } else if (type.ends_with(".TcpGrpcAccessLogConfig")) {
    tcp = Unpack<grpc3::TcpGrpcAccessLogConfig>(c, config);
    shared = &tcp.common_config();
    log->kind = model::GrpcLog::kTcp;
    usable = SetCommon(c / "common_config", *shared, *log);
  } else {
    const auto otlp = Unpack<OpenTelemetryAccessLogConfig>(c, config);
    usable = SetOtlp(c, otlp, *log);
    log->key = "otlp " + Fingerprint(otlp);
  }
  if (shared) {
    if (log->name.empty()) (c / "common_config.log_name").Fail("is required");
    log->key = (log->kind == model::GrpcLog::kHttp ? "http " : "tcp ") + Fingerprint(*shared);
  }
  return usable ? log : nullptr;
}

}  // namespace weft::xds
