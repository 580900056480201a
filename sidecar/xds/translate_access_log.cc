// Access logs: loggers, their formats and filters, and the headers these need to be kept.
#include <algorithm>
#include <cstdio>
#include <set>

#include "envoy/extensions/access_loggers/file/v3/file.pb.h"
#include "envoy/extensions/access_loggers/stream/v3/stream.pb.h"
#include "sidecar/model/log_format.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {

using google::protobuf::Struct;
using google::protobuf::Value;

namespace {

std::string ShortNumber(double d) {
  char text[32];
  const int n = snprintf(text, sizeof text, "%.17g", d);
  char shorter[32];
  snprintf(shorter, sizeof shorter, "%.15g", d);
  return std::stod(shorter) == d ? shorter : std::string(text, static_cast<size_t>(n));
}

void ReadJson(const Ctx& c, const Struct& s, std::vector<model::JsonNode>& out) {
  for (const auto& [k, v] : s.fields()) {
    model::JsonNode node;
    node.key = k;
    switch (v.kind_case()) {
      case Value::kStringValue: node.format = v.string_value(); break;
      case Value::kStructValue:
        node.kind = model::JsonNode::kObject;
        ReadJson(c.Key(k), v.struct_value(), node.children);
        break;
      case Value::kBoolValue: node.kind = model::JsonNode::kRaw, node.format = v.bool_value() ? "true" : "false"; break;
      case Value::kNumberValue: node.kind = model::JsonNode::kRaw, node.format = ShortNumber(v.number_value()); break;
      default: c.Key(k).Fail("lists and nulls are not supported in a JSON format"); continue;
    }
    out.push_back(std::move(node));
  }
  std::sort(out.begin(), out.end(), [](const auto& x, const auto& y) { return x.key < y.key; });
}

void SetJson(const Ctx& c, const Struct& s, model::AccessLog& log) {
  log.json = true;
  ReadJson(c, s, log.json_format);
}

void SetFormat(const Ctx& c, const core::SubstitutionFormatString& f, model::AccessLog& log) {
  log.omit_empty_values = f.omit_empty_values();
  if (f.has_json_format()) {
    SetJson(c / "json_format", f.json_format(), log);
  } else if (f.has_text_format_source()) {
    auto text = ReadSource(ToSource(c / "text_format_source", f.text_format_source()));
    if (text) log.text_format = *text;
    else (c / "text_format_source").Fail(text.error());
  } else {
    log.text_format = f.text_format();
  }
}

void SetFilter(const Ctx& c, const envoy::config::accesslog::v3::AccessLogFilter& f, model::AccessLog& log) {
  using F = envoy::config::accesslog::v3::AccessLogFilter;
  using Cmp = envoy::config::accesslog::v3::ComparisonFilter;
  switch (f.filter_specifier_case()) {
    case F::kStatusCodeFilter:
      if (f.status_code_filter().comparison().op() != Cmp::GE) (c / "status_code_filter.comparison.op").Warn("only GE is supported, the filter is ignored");
      else log.min_status = static_cast<uint16_t>(f.status_code_filter().comparison().value().default_value());
      break;
    case F::kDurationFilter:
      if (f.duration_filter().comparison().op() != Cmp::GE) (c / "duration_filter.comparison.op").Warn("only GE is supported, the filter is ignored");
      else log.min_duration_ns = uint64_t{f.duration_filter().comparison().value().default_value()} * 1'000'000;
      break;
    case F::kNotHealthCheckFilter: log.not_health_check = true; break;
    case F::kRuntimeFilter: log.sample = Fraction(f.runtime_filter().percent_sampled()); break;
    case F::kHeaderFilter: log.headers.push_back(ToHeader(c / "header_filter.header", f.header_filter().header())); break;
    case F::kResponseFlagFilter:
      log.errors_only = true;
      log.response_flags.assign(f.response_flag_filter().flags().begin(), f.response_flag_filter().flags().end());
      break;
    case F::kAndFilter:
      for (int i = 0; i < f.and_filter().filters_size(); ++i) SetFilter((c / "and_filter.filters")[i], f.and_filter().filters(i), log);
      break;
    case F::FILTER_SPECIFIER_NOT_SET: break;
    default: c.Warn("this kind of filter is not supported: everything is logged");
  }
}

// What Envoy's default format needs.
constexpr char kDefaultHeaders[] =
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%%REQ(X-FORWARDED-FOR)%%REQ(USER-AGENT)%%REQ(X-REQUEST-ID)%%REQ(:AUTHORITY)%%REQ(:METHOD)%"
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%";

// Checks formats and collects the headers they need.
struct Needed {
  std::set<std::string> request, response, trailers;

  void Read(const Ctx& c, const std::string& text) {
    using Op = model::LogOperator;
    auto format = model::LogFormat::Parse(text);
    if (!format) return c.Fail(format.error().message());
    for (const auto& op : format->ops) {
      if (op.code == Op::kPath || op.code == Op::kQueryParam) request.insert({":path", "x-envoy-original-path"});
      auto* names = op.code == Op::kReq ? &request : op.code == Op::kResp ? &response : op.code == Op::kTrailer ? &trailers : nullptr;
      if (!names) continue;
      names->insert(op.text);
      if (!op.alternative.empty()) names->insert(op.alternative);
    }
  }
  void ReadAll(const Ctx& c, const std::vector<model::JsonNode>& nodes) {
    for (const model::JsonNode& n : nodes) {
      if (n.kind == model::JsonNode::kFormat) Read(c.Key(n.key), n.format);
      ReadAll(c.Key(n.key), n.children);
    }
  }
};

}  // namespace

std::shared_ptr<const model::AccessLogs> ToAccessLogs(const Ctx& c,
                                                      const google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>& logs) {
  auto out = std::make_shared<model::AccessLogs>();
  Needed needed;
  for (int i = 0; i < logs.size(); ++i) {
    const auto& l = logs[i];
    Ctx lc = c[i], tc = lc / "typed_config";
    std::string type = TypeOf(l.typed_config());
    model::AccessLog log;
    if (type == "envoy.extensions.access_loggers.file.v3.FileAccessLog") {
      auto f = Unpack<envoy::extensions::access_loggers::file::v3::FileAccessLog>(tc, l.typed_config());
      log.path = f.path();
      if (log.path.empty()) (tc / "path").Fail("is required");
      if (f.has_log_format()) SetFormat(tc / "log_format", f.log_format(), log);
      else if (f.has_json_format()) SetJson(tc / "json_format", f.json_format(), log);
      else if (f.has_typed_json_format()) SetJson(tc / "typed_json_format", f.typed_json_format(), log);
      else log.text_format = f.format();
    } else if (type == "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog") {
      auto f = Unpack<envoy::extensions::access_loggers::stream::v3::StdoutAccessLog>(tc, l.typed_config());
      log.path = "/dev/stdout";
      SetFormat(tc / "log_format", f.log_format(), log);
    } else if (type == "envoy.extensions.access_loggers.stream.v3.StderrAccessLog") {
      auto f = Unpack<envoy::extensions::access_loggers::stream::v3::StderrAccessLog>(tc, l.typed_config());
      log.path = "/dev/stderr";
      SetFormat(tc / "log_format", f.log_format(), log);
    } else {
      tc.Warn("access logger \"" + (type.empty() ? l.name() : type) + "\" is not supported, ignored");
      continue;
    }
    if (l.has_filter()) SetFilter(lc / "filter", l.filter(), log);
    if (log.json) needed.ReadAll(tc, log.json_format);
    else needed.Read(tc, log.text_format.empty() ? kDefaultHeaders : log.text_format);
    for (const auto& h : log.headers) needed.request.insert(h.name);
    out->logs.push_back(std::move(log));
  }
  if (out->logs.empty()) return nullptr;
  out->request_headers.assign(needed.request.begin(), needed.request.end());
  out->response_headers.assign(needed.response.begin(), needed.response.end());
  out->response_trailers.assign(needed.trailers.begin(), needed.trailers.end());
  return out;
}

}  // namespace weft::xds
