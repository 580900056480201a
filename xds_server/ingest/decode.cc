#include "xds_server/ingest/decode.h"

#include <zlib.h>

#include <nlohmann/json.hpp>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"

namespace weft::insight {
namespace {

using Json = nlohmann::json;
namespace otlp = opentelemetry::proto;

std::string IdHex(std::string_view bytes, size_t size) {
  if (bytes.size() != size || bytes.find_first_not_of('\0') == std::string_view::npos) return "";
  return Hex(bytes);
}

const char* KindName(int kind) {
  static const char* const kNames[] = {"internal", "internal", "server", "client", "producer", "consumer"};
  return kind >= 0 && kind < 6 ? kNames[kind] : "internal";
}

Json ValueOf(const otlp::common::v1::AnyValue& v, const Limits& limits, int depth) {
  switch (v.value_case()) {
    case otlp::common::v1::AnyValue::kStringValue: return CleanText(v.string_value(), limits.attribute_value);
    case otlp::common::v1::AnyValue::kBoolValue: return v.bool_value();
    case otlp::common::v1::AnyValue::kIntValue: return v.int_value();
    case otlp::common::v1::AnyValue::kDoubleValue: return v.double_value();
    case otlp::common::v1::AnyValue::kBytesValue: return Hex(std::string_view(v.bytes_value()).substr(0, limits.attribute_value / 2));
    case otlp::common::v1::AnyValue::kArrayValue: {
      Json out = Json::array();
      if (depth >= 4) return "…";
      for (const auto& x : v.array_value().values()) {
        if (out.size() >= limits.span_attributes) break;
        out.push_back(ValueOf(x, limits, depth + 1));
      }
      return out;
    }
    case otlp::common::v1::AnyValue::kKvlistValue: {
      Json out = Json::object();
      if (depth >= 4) return "…";
      for (const auto& x : v.kvlist_value().values()) {
        if (out.size() >= limits.span_attributes) break;
        out[CleanText(x.key(), limits.name)] = ValueOf(x.value(), limits, depth + 1);
      }
      return out;
    }
    default: return nullptr;
  }
}

// The rest of a span once its parts are known, from either encoding.
void Finish(Span& s, const std::string& service, const std::string& ns, const std::string& workload, Json attributes) {
  s.service = NodeName(service.empty() ? "(unnamed)" : service, ns);
  s.workload = workload;
  s.attributes = attributes.empty() ? "{}" : attributes.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (s.attributes.size() > (64u << 10)) s.attributes = R"({"weft.cut":"attributes over 64 KiB"})";
  if (s.end_ns < s.start_ns) s.end_ns = s.start_ns;
}

bool LowerHex(std::string& s, size_t size) {
  if (s.size() != size) return false;
  bool zero = true;
  for (char& c : s) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c + 32);
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    zero = zero && c == '0';
  }
  return !zero;
}

int64_t Nanos(const Json& j) {
  if (j.is_string()) return static_cast<int64_t>(strtoull(j.get_ref<const std::string&>().c_str(), nullptr, 10));
  return j.is_number() ? j.get<int64_t>() : 0;
}

std::string Text(const Json& o, const char* name, size_t max) {
  auto it = o.find(name);
  return it != o.end() && it->is_string() ? CleanText(it->get_ref<const std::string&>(), max) : "";
}

const Json& Member(const Json& o, const char* name) {
  static const Json none;
  if (!o.is_object()) return none;
  auto it = o.find(name);
  return it == o.end() ? none : *it;
}

Json AttributesOf(const Json& list, const Limits& limits) {
  Json out = Json::object();
  if (!list.is_array()) return out;
  for (const Json& kv : list) {
    if (out.size() >= limits.span_attributes) break;
    if (!kv.is_object()) continue;
    const Json& v = Member(kv, "value");
    if (!v.is_object() || v.empty()) continue;
    const Json& inner = v.begin().value();
    std::string key = Text(kv, "key", limits.name);
    if (inner.is_string() && v.begin().key() == "intValue") {
      out[key] = strtoll(inner.get_ref<const std::string&>().c_str(), nullptr, 10);
    } else if (inner.is_string()) {
      out[key] = CleanText(inner.get_ref<const std::string&>(), limits.attribute_value);
    } else if (inner.is_primitive()) {
      out[key] = inner;
    } else {
      out[key] = CleanText(inner.dump(-1, ' ', false, Json::error_handler_t::replace), limits.attribute_value);
    }
  }
  return out;
}

}  // namespace

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(bytes.size() * 2, '\0');
  char* p = out.data();
  for (unsigned char c : bytes) *p++ = kDigits[c >> 4], *p++ = kDigits[c & 15];
  return out;
}

bool ReporterOf(const std::string& identity, Reporter* out) {
  if (NodeOfSpiffe(identity).empty()) return false;
  size_t ns = identity.find("/ns/") + 4, sa = identity.find("/sa/", ns);
  out->identity = identity, out->ns = identity.substr(ns, sa - ns), out->service = identity.substr(sa + 4);
  return true;
}

void DecodeEvents(const weft::telemetry::v1::EventBatch& batch, const Reporter& reporter, std::vector<Event>& out,
                  const Limits& l) {
  Event base;
  bool proven = !reporter.identity.empty();
  base.service = proven ? reporter.service : CleanText(batch.service(), l.name);
  base.ns = proven ? reporter.ns : CleanText(batch.namespace_().empty() ? "default" : batch.namespace_(), l.name);
  base.version = CleanText(batch.version(), l.name);
  base.workload = CleanText(batch.workload_id(), l.name);
  // The certificate names the service; an instance id of another service is not this sidecar's to use.
  if (proven && !base.workload.starts_with(base.service + "-")) base.workload = base.service + "/" + base.workload;
  base.epoch = CleanText(batch.epoch(), l.name);
  out.reserve(out.size() + static_cast<size_t>(batch.events_size()));
  for (const auto& p : batch.events()) {
    Event& e = out.emplace_back(base);
    e.number = p.number();
    e.direction = p.direction() == weft::telemetry::v1::INBOUND ? Direction::kInbound : Direction::kOutbound;
    e.request_id = CleanText(p.request_id(), l.name);
    e.trace_id = IdHex(p.trace_id(), 16), e.span_id = IdHex(p.span_id(), 8), e.parent_span_id = IdHex(p.parent_span_id(), 8);
    e.start_ns = static_cast<int64_t>(std::min<uint64_t>(p.start_unix_ns(), INT64_MAX / 2));
    e.duration_us = static_cast<int64_t>(std::min<uint64_t>(p.duration_us(), INT64_MAX / 4'000));
    e.protocol = CleanText(p.protocol(), 32), e.method = CleanText(p.method(), 64), e.path = CleanText(p.path(), l.path);
    if (size_t query = e.path.find('?'); query != std::string::npos) e.path.resize(query);  // may hold credentials
    e.authority = CleanText(p.authority(), l.name);
    e.status = static_cast<int32_t>(std::min<uint32_t>(p.status(), 999)), e.grpc_status = std::clamp(p.grpc_status(), -1, 255);
    e.response_flags = CleanText(p.response_flags(), 128), e.response_detail = CleanText(p.response_detail(), l.text);
    e.route = CleanText(p.route(), l.name), e.cluster = CleanText(p.cluster(), l.name);
    e.source_service = CleanText(p.source_service(), l.name), e.source_identity = CleanText(p.source_identity(), l.text);
    e.destination_service = CleanText(p.destination_service(), l.name);
    e.destination_identity = CleanText(p.destination_identity(), l.text);
    if (proven) (e.direction == Direction::kInbound ? e.destination_identity : e.source_identity) = reporter.identity;
    e.tls_version = CleanText(p.tls_version(), 32);
    e.policy = CleanText(p.policy(), l.text);
    e.policy_revision = std::min<uint64_t>(p.policy_revision(), INT64_MAX);
    e.config_revision = std::min<uint64_t>(p.config_revision() ? p.config_revision() : batch.config_revision(), INT64_MAX);
    for (const auto& a : p.attempts()) {
      if (e.attempts.size() >= l.attempts) break;
      Attempt& t = e.attempts.emplace_back();
      t.endpoint = CleanText(a.endpoint(), l.name), t.workload = CleanText(a.endpoint_workload(), l.name);
      t.version = CleanText(a.endpoint_version(), l.name), t.outcome = CleanText(a.outcome(), 64);
      t.detail = CleanText(a.detail(), l.text);
      t.start_us = static_cast<int64_t>(std::min<uint64_t>(a.start_offset_us(), INT64_MAX));
      t.duration_us = static_cast<int64_t>(std::min<uint64_t>(a.duration_us(), INT64_MAX));
      t.connect_us = static_cast<int64_t>(std::min<uint64_t>(a.connect_us(), INT64_MAX));
      t.status = static_cast<int32_t>(std::min<uint32_t>(a.status(), 999));
      t.ejected = a.host_ejected(), t.reused = a.connection_reused();
      t.healthy_hosts = a.healthy_hosts(), t.total_hosts = a.total_hosts();
      t.active_requests = a.active_requests(), t.max_requests = a.max_requests();
      t.local_address = CleanText(a.local_address(), l.name), t.not_retried = CleanText(a.not_retried(), 32);
      t.active_retries = a.active_retries(), t.max_retries = a.max_retries();
      t.retry_budget_percent = a.retry_budget_percent() >= 0 && a.retry_budget_percent() <= 100 ? a.retry_budget_percent() : 0;
      for (const auto& j : a.ejections()) {
        if (t.ejections.size() >= l.ejections) break;
        Ejection& out = t.ejections.emplace_back();
        out.endpoint = CleanText(j.endpoint(), l.name), out.workload = CleanText(j.endpoint_workload(), l.name);
        out.version = CleanText(j.endpoint_version(), l.name), out.rule = CleanText(j.rule(), 64), out.kinds = CleanText(j.kinds(), 128);
        out.errors = j.errors();
        out.at_ms = static_cast<int64_t>(std::min<uint64_t>(j.at_unix_ms(), INT64_MAX / 1'000'000));
        out.until_ms = static_cast<int64_t>(std::min<uint64_t>(j.until_unix_ms(), INT64_MAX / 1'000'000));
      }
    }
    e.request_bytes = std::min<uint64_t>(p.request_bytes(), INT64_MAX / 1'000'000);
    e.response_bytes = std::min<uint64_t>(p.response_bytes(), INT64_MAX / 1'000'000);
    e.downstream_address = CleanText(p.downstream_address(), l.name);
    e.original_destination = CleanText(p.original_destination(), l.name);
    e.without_detail = p.count() > 0;
    e.interim = p.interim(), e.open = e.interim ? std::min<uint64_t>(p.open(), 10'000'000) : 0;
    e.told_request_bytes = p.told_request_bytes(), e.told_response_bytes = p.told_response_bytes();
    e.count = e.interim ? 0 : e.without_detail ? std::min<uint64_t>(p.count(), 1'000'000'000) : 1;
    if (e.without_detail || e.interim) e.destination_version = CleanText(p.destination_version(), l.name);
    e.retries = static_cast<uint32_t>(std::min<uint64_t>(p.retries(), e.count * 1'000)), e.fault = CleanText(p.fault(), 128);
    e.tls_failure = CleanText(p.tls_failure(), 128);
    Derive(e);
    if (e.interim) e.outcome = Outcome::kOk;  // nothing is known of its end
  }
}

size_t DecodeSpans(const otlp::collector::trace::v1::ExportTraceServiceRequest& request, std::vector<Span>& out,
                   const Limits& l) {
  size_t left_out = 0, taken = 0;
  for (const auto& rs : request.resource_spans()) {
    std::string service, ns, workload;
    for (const auto& kv : rs.resource().attributes()) {
      if (kv.value().value_case() != otlp::common::v1::AnyValue::kStringValue) continue;
      const std::string& v = kv.value().string_value();
      if (kv.key() == "service.name") service = CleanText(v, l.name);
      if (kv.key() == "service.namespace") ns = CleanText(v, l.name);
      if (kv.key() == "service.instance.id") workload = CleanText(v, l.name);
    }
    for (const auto& ss : rs.scope_spans()) {
      for (const auto& p : ss.spans()) {
        Span s;
        s.trace_id = IdHex(p.trace_id(), 16), s.span_id = IdHex(p.span_id(), 8), s.parent_span_id = IdHex(p.parent_span_id(), 8);
        if (s.trace_id.empty() || s.span_id.empty() || taken >= l.spans_per_request || p.ByteSizeLong() > (1u << 20)) {
          ++left_out;
          continue;
        }
        s.name = CleanText(p.name(), l.text), s.kind = KindName(p.kind());
        s.start_ns = static_cast<int64_t>(std::min<uint64_t>(p.start_time_unix_nano(), INT64_MAX / 2));
        s.end_ns = static_cast<int64_t>(std::min<uint64_t>(p.end_time_unix_nano(), INT64_MAX / 2));
        s.error = p.status().code() == otlp::trace::v1::Status::STATUS_CODE_ERROR;
        s.status_message = CleanText(p.status().message(), l.text);
        Json attributes = Json::object();
        for (const auto& kv : p.attributes()) {
          if (attributes.size() >= l.span_attributes) break;
          attributes[CleanText(kv.key(), l.name)] = ValueOf(kv.value(), l, 0);
        }
        Finish(s, service, ns, workload, std::move(attributes));
        out.push_back(std::move(s));
        ++taken;
      }
    }
  }
  return left_out;
}

int DecodeSpansJson(std::string_view text, std::vector<Span>& out, const Limits& l) {
  // Depth is bounded while parsing: a nest of a million brackets must not cost a stack.
  int deepest = 0;
  Json doc = Json::parse(text, [&](int depth, Json::parse_event_t, Json&) {
    deepest = std::max(deepest, depth);
    return depth <= 32;
  }, false);
  if (!doc.is_object() || deepest > 32 || !Member(doc, "resourceSpans").is_array()) return -1;
  int left_out = 0;
  size_t taken = 0;
  for (const Json& rs : doc["resourceSpans"]) {
    Json resource = AttributesOf(Member(Member(rs, "resource"), "attributes"), l);
    std::string service = Text(resource, "service.name", l.name), ns = Text(resource, "service.namespace", l.name);
    std::string workload = Text(resource, "service.instance.id", l.name);
    const Json& scopes = Member(rs, "scopeSpans");
    if (!scopes.is_array()) continue;
    for (const Json& ss : scopes) {
      const Json& spans = Member(ss, "spans");
      if (!spans.is_array()) continue;
      for (const Json& p : spans) {
        Span s;
        if (p.is_object()) s.trace_id = Text(p, "traceId", 64), s.span_id = Text(p, "spanId", 64), s.parent_span_id = Text(p, "parentSpanId", 64);
        if (!LowerHex(s.trace_id, 32) || !LowerHex(s.span_id, 16) || taken >= l.spans_per_request) {
          ++left_out;
          continue;
        }
        if (!LowerHex(s.parent_span_id, 16)) s.parent_span_id.clear();
        s.name = Text(p, "name", l.text);
        const Json& kind = Member(p, "kind");
        s.kind = KindName(kind.is_number_integer() ? static_cast<int>(std::clamp<int64_t>(kind.get<int64_t>(), 0, 99)) : 0);
        s.start_ns = Nanos(Member(p, "startTimeUnixNano")), s.end_ns = Nanos(Member(p, "endTimeUnixNano"));
        const Json& status = Member(p, "status");
        const Json& code = Member(status, "code");
        s.error = code == 2 || code == "STATUS_CODE_ERROR";
        if (status.is_object()) s.status_message = Text(status, "message", l.text);
        Finish(s, service, ns, workload, AttributesOf(Member(p, "attributes"), l));
        out.push_back(std::move(s));
        ++taken;
      }
    }
  }
  return left_out;
}

bool Gunzip(std::string_view in, size_t max, std::string* out) {
  z_stream z{};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return false;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
  z.avail_in = static_cast<uInt>(in.size());
  size_t cap = std::min(max, in.size() * 100 + 1'024);
  int rc = Z_OK;
  out->clear();
  while (rc == Z_OK) {
    char buf[16 << 10];
    z.next_out = reinterpret_cast<Bytef*>(buf), z.avail_out = sizeof buf;
    rc = inflate(&z, Z_NO_FLUSH);
    size_t n = sizeof buf - z.avail_out;
    if (n == 0 && rc == Z_OK) break;
    if (out->size() + n > cap) {
      rc = Z_DATA_ERROR;
      break;
    }
    out->append(buf, n);
  }
  inflateEnd(&z);
  return rc == Z_STREAM_END;
}

}  // namespace weft::insight
