#include "sidecar/telemetry/otlp_encode.h"

#include <algorithm>

#include "opentelemetry/proto/collector/logs/v1/logs_service.pb.h"
#include "opentelemetry/proto/logs/v1/logs.pb.h"
#include "opentelemetry/proto/resource/v1/resource.pb.h"
#include "sidecar/telemetry/als_encode.h"
#include "sidecar/telemetry/proto_wire.h"

namespace weft::telemetry {
namespace {

namespace common = opentelemetry::proto::common::v1;
using Value = OtlpEncoder::Value;

Value Compile(const model::LogValue& v) {
  Value out{v.kind, v.key, {}, {}};
  if (v.kind == model::LogValue::kFormat) {
    // The translation has checked the formats.
    if (auto f = proxy::Format::Compile(v.format)) out.format = std::move(*f);
  }
  for (const model::LogValue& child : v.children) out.children.push_back(Compile(child));
  return out;
}

void Set(const Value& v, const proxy::Record& record, common::AnyValue* to) {
  switch (v.kind) {
    case model::LogValue::kFormat: {
      std::string text;
      v.format.Append(record, false, &text);
      if (!wire::IsAscii(text)) text = wire::Repair(text, '!');
      to->set_string_value(std::move(text));
      break;
    }
    case model::LogValue::kList: {
      auto* list = to->mutable_array_value();
      for (const Value& child : v.children) Set(child, record, list->add_values());
      break;
    }
    case model::LogValue::kMap: {
      auto* map = to->mutable_kvlist_value();
      for (const Value& child : v.children) {
        auto* member = map->add_values();
        member->set_key(child.key);
        Set(child, record, member->mutable_value());
      }
    }
  }
}

}  // namespace

OtlpEncoder::OtlpEncoder(const model::GrpcLog& config) : tags_(config.tags) {
  if (config.body) body_.push_back(Compile(*config.body));
  for (const model::LogValue& v : config.attributes) attributes_.push_back(Compile(v));
}

std::string OtlpEncoder::Encode(const proxy::Record& record) const {
  opentelemetry::proto::logs::v1::LogRecord out;
  out.set_time_unix_nano(record.start_unix_ns);
  for (const Value& v : body_) Set(v, record, out.mutable_body());
  for (const Value& v : attributes_) {
    auto* a = out.add_attributes();
    a->set_key(v.key);
    Set(v, record, a->mutable_value());
  }
  const auto any = [](const uint8_t* id, size_t n) { return std::any_of(id, id + n, [](uint8_t b) { return b != 0; }); };
  if (any(record.span_id, sizeof record.span_id)) {
    out.set_trace_id(record.trace_id, sizeof record.trace_id);
    out.set_span_id(record.span_id, sizeof record.span_id);
  }
  for (const model::LogTag& tag : tags_) {
    const std::string_view value = TagValue(tag, record);
    if (value.empty()) continue;
    auto* a = out.add_attributes();
    a->set_key(tag.name);
    a->mutable_value()->set_string_value(wire::IsAscii(value) ? std::string(value) : wire::Repair(value, '!'));
  }
  return out.SerializeAsString();
}

std::string EncodeResource(const model::GrpcLog& config, const LogOrigin& origin) {
  opentelemetry::proto::resource::v1::Resource out;
  if (config.builtin_labels) {
    const std::pair<const char*, const std::string*> labels[] = {
        {"log_name", &config.name}, {"zone_name", &origin.zone}, {"cluster_name", &origin.cluster}, {"node_name", &origin.id}};
    for (const auto& [key, value] : labels) {
      auto* a = out.add_attributes();
      a->set_key(key);
      a->mutable_value()->set_string_value(*value);
    }
  }
  for (const auto& [key, encoded] : config.resource) {
    auto& all = *out.mutable_attributes();
    auto it = std::find_if(all.begin(), all.end(), [&, k = &key](const auto& a) { return a.key() == *k; });
    auto* a = it == all.end() ? all.Add() : &*it;
    a->set_key(key);
    a->mutable_value()->ParseFromString(encoded);
  }
  return out.SerializeAsString();
}

uint64_t RejectedRecords(std::string_view reply) {
  opentelemetry::proto::collector::logs::v1::ExportLogsServiceResponse r;
  if (!r.ParseFromArray(reply.data(), static_cast<int>(reply.size()))) return 0;
  return static_cast<uint64_t>(std::max<int64_t>(0, r.partial_success().rejected_log_records()));
}

}  // namespace weft::telemetry
