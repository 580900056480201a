// Access logs: loggers, their formats and filters, and the headers these need to be kept.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "envoy/data/accesslog/v3/accesslog.pb.h"
#include "envoy/extensions/access_loggers/file/v3/file.pb.h"
#include "envoy/extensions/access_loggers/filters/cel/v3/cel.pb.h"
#include "envoy/extensions/access_loggers/stream/v3/stream.pb.h"
#include "envoy/type/matcher/v3/metadata.pb.h"
#include "sidecar/cel/expression.h"
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

// Checks formats and collects the headers that formats and filters need.
struct Needed {
  std::set<std::string> request, response, trailers;
  bool all_request = false, all_response = false, all_trailers = false;

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
  void ReadValue(const Ctx& c, const model::LogValue& v) {
    if (v.kind == model::LogValue::kFormat) Read(c, v.format);
    for (const model::LogValue& child : v.children) ReadValue(c, child);
  }
  void ReadGrpc(const Ctx& c, const model::GrpcLog& log) {
    // Those that have fields of their own in an entry of a request.
    if (log.kind == model::GrpcLog::kHttp) {
      request.insert({":scheme", ":authority", ":path", ":method", "user-agent", "referer", "x-forwarded-for", "x-request-id", "x-envoy-original-path"});
    }
    request.insert(log.request_headers.begin(), log.request_headers.end());
    response.insert(log.response_headers.begin(), log.response_headers.end());
    trailers.insert(log.response_trailers.begin(), log.response_trailers.end());
    for (const model::LogTag& t : log.tags) {
      if (!t.header.empty()) request.insert(t.header);
    }
    if (log.body) ReadValue(c, *log.body);
    for (const model::LogValue& v : log.attributes) ReadValue(c, v);
  }
  // What an expression looks at: headers by name where it names them, otherwise all of a message.
  void Read(const Ctx& c, const cel::Expression::Path& path) {
    // Attributes of Envoy that are not kept here.
    static const std::map<std::string, std::set<std::string>> kMissing = {
        {"xds", {"node", "cluster_metadata", "route_metadata", "virtual_host_metadata", "upstream_host_metadata", "upstream_host_locality_metadata", "listener_metadata"}},
        {"upstream",
         {"locality", "cx_pool_ready_duration", "subject_local_certificate", "subject_peer_certificate", "uri_san_local_certificate", "dns_san_local_certificate",
          "dns_san_peer_certificate", "sha256_peer_certificate_digest"}},
        {"connection", {"subject_local_certificate", "dns_san_local_certificate", "dns_san_peer_certificate", "sha256_peer_certificate_digest"}}};
    const std::string& first = path[0];
    const std::string second = path.size() > 1 ? path[1] : "";
    if (auto it = kMissing.find(first); it != kMissing.end() && it->second.count(second)) c.Warn("attribute " + first + "." + second + " is always missing here");
    if (first != "request" && first != "response") return;
    const bool response = first == "response", trailers = response && second == "trailers", headers = second == "headers" || trailers;
    const std::string name = path.size() > 2 ? LowerCase(path[2]) : "";
    if (headers && !name.empty()) {
      (trailers ? this->trailers : response ? this->response : request).insert(name == "host" ? ":authority" : name);
    } else if (headers || second.empty()) {
      all_trailers |= trailers || (response && second.empty());
      all_response |= response && !trailers;
      all_request |= !response;
    } else if (!response) {
      request.insert({":path", ":authority", ":scheme", ":method", "user-agent", "x-request-id"});
      if (second == "size") request.insert("content-length");
      if (second == "referer") request.insert("referer");
    }
  }
};

void SetComparison(const Ctx& c, const envoy::config::accesslog::v3::ComparisonFilter& p, model::LogFilter& to) {
  using Cmp = envoy::config::accesslog::v3::ComparisonFilter;
  if (!p.has_value()) c.Fail("needs a value");
  to.value = p.value().default_value();
  switch (p.op()) {
    case Cmp::EQ: to.op = model::LogFilter::kEq; break;
    case Cmp::GE: to.op = model::LogFilter::kGe; break;
    case Cmp::LE: to.op = model::LogFilter::kLe; break;
    case Cmp::NE: to.op = model::LogFilter::kNe; break;
    default: (c / "op").Fail("must be EQ, GE, LE or NE");
  }
}

// A set of enumerators, all of them below 32.
template <typename List>
uint32_t Mask(const Ctx& c, const List& values, bool (*valid)(int)) {
  uint32_t mask = 0;
  for (int i = 0; i < values.size(); ++i) {
    if (valid(values[i])) mask |= 1u << values[i];
    else c[i].Fail(std::to_string(values[i]) + " is not one of the known values");
  }
  return mask;
}

constexpr std::string_view kFlags[] = {"LH", "UH", "UT",   "LR",   "UR", "UF", "UC",  "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
                                       "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO"};

void SetExpression(const Ctx& c, const envoy::config::accesslog::v3::ExtensionFilter& p, model::LogFilter& to, Needed& needed) {
  using Filter = envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
  const std::string type = TypeOf(p.typed_config());
  if (type != Filter::descriptor()->full_name()) return c.Fail("filter \"" + (type.empty() ? p.name() : type) + "\" is not supported");
  const auto f = Unpack<Filter>(c, p.typed_config());
  const auto& options = f.cel_config();
  auto expression = cel::Expression::Compile(f.expression(), {.string_conversion = options.enable_string_conversion(),
                                                              .string_concat = options.enable_string_concat(),
                                                              .string_functions = options.enable_string_functions()});
  if (!expression) return (c / "expression").Fail(expression.error());
  for (const auto& path : expression->Paths()) needed.Read(c / "expression", path);
  to.kind = model::LogFilter::kExpression, to.expression = std::move(*expression);
}

// Values are texts here, so that matchers of other kinds match none.
void SetValue(const Ctx& c, const envoy::type::matcher::v3::ValueMatcher& m, model::LogFilter& to) {
  using V = envoy::type::matcher::v3::ValueMatcher;
  switch (m.match_pattern_case()) {
    case V::kStringMatch: to.strings.push_back(ToString(c / "string_match", m.string_match())); break;
    case V::kPresentMatch: to.present |= m.present_match(); break;
    case V::kOrMatch:
      for (int i = 0; i < m.or_match().value_matchers_size(); ++i) SetValue((c / "or_match.value_matchers")[i], m.or_match().value_matchers(i), to);
      break;
    case V::MATCH_PATTERN_NOT_SET: c.Fail("needs one kind of match"); break;
    default: break;
  }
}

void SetMetadata(const Ctx& c, const envoy::type::matcher::v3::MetadataMatcher& m, model::LogFilter& to) {
  if (m.filter().empty()) (c / "filter").Fail("is required");
  if (m.path().empty()) (c / "path").Fail("is required");
  // There is nothing below a key: a longer path finds nothing.
  if (m.path_size() == 1) to.name = m.filter() + ":" + m.path(0).key();
  SetValue(c / "value", m.value(), to);
}

model::LogFilter ToFilter(const Ctx& c, const envoy::config::accesslog::v3::AccessLogFilter& f, bool tracing, Needed& needed) {
  using F = envoy::config::accesslog::v3::AccessLogFilter;
  using model::LogFilter;
  LogFilter out;
  const auto all = [&](const Ctx& fc, const auto& filters) {
    if (filters.size() < 2) fc.Fail("needs at least two filters");
    for (int i = 0; i < filters.size(); ++i) out.filters.push_back(ToFilter(fc[i], filters[i], tracing, needed));
  };
  switch (f.filter_specifier_case()) {
    case F::kStatusCodeFilter:
      out.kind = LogFilter::kStatus;
      SetComparison(c / "status_code_filter.comparison", f.status_code_filter().comparison(), out);
      break;
    case F::kDurationFilter:
      out.kind = LogFilter::kDuration;
      SetComparison(c / "duration_filter.comparison", f.duration_filter().comparison(), out);
      break;
    case F::kNotHealthCheckFilter: out.kind = LogFilter::kNotHealthCheck; break;
    case F::kTraceableFilter:
      out.kind = LogFilter::kTraceable, out.tracing = tracing;
      needed.request.insert({"x-envoy-force-trace", "x-client-trace-id"});
      break;
    case F::kRuntimeFilter:
      if (f.runtime_filter().runtime_key().empty()) (c / "runtime_filter.runtime_key").Fail("is required");
      out.kind = LogFilter::kSample;
      if (f.runtime_filter().has_percent_sampled()) out.sample = Fraction(f.runtime_filter().percent_sampled());
      out.independent = f.runtime_filter().use_independent_randomness();
      break;
    case F::kAndFilter: out.kind = LogFilter::kAnd, all(c / "and_filter.filters", f.and_filter().filters()); break;
    case F::kOrFilter: out.kind = LogFilter::kOr, all(c / "or_filter.filters", f.or_filter().filters()); break;
    case F::kHeaderFilter:
      out.kind = LogFilter::kHeader;
      out.header = ToHeader(c / "header_filter.header", f.header_filter().header());
      needed.request.insert(out.header.name);
      break;
    case F::kResponseFlagFilter:
      out.kind = LogFilter::kResponseFlag;
      out.flags.assign(f.response_flag_filter().flags().begin(), f.response_flag_filter().flags().end());
      for (int i = 0; i < f.response_flag_filter().flags_size(); ++i) {
        if (std::find(std::begin(kFlags), std::end(kFlags), out.flags[static_cast<size_t>(i)]) == std::end(kFlags))
          (c / "response_flag_filter.flags")[i].Fail("\"" + out.flags[static_cast<size_t>(i)] + "\" is not a response flag");
      }
      break;
    case F::kGrpcStatusFilter:
      out.kind = LogFilter::kGrpcStatus, out.exclude = f.grpc_status_filter().exclude();
      out.mask = Mask(c / "grpc_status_filter.statuses", f.grpc_status_filter().statuses(),
                      envoy::config::accesslog::v3::GrpcStatusFilter::Status_IsValid);
      break;
    case F::kLogTypeFilter:
      out.kind = LogFilter::kLogType, out.exclude = f.log_type_filter().exclude();
      out.mask = Mask(c / "log_type_filter.types", f.log_type_filter().types(), envoy::data::accesslog::v3::AccessLogType_IsValid);
      break;
    case F::kMetadataFilter:
      out.kind = LogFilter::kMetadata;
      out.value = !f.metadata_filter().has_match_if_key_not_found() || f.metadata_filter().match_if_key_not_found().value();
      if (f.metadata_filter().has_matcher()) SetMetadata(c / "metadata_filter.matcher", f.metadata_filter().matcher(), out);
      break;
    case F::kExtensionFilter:
      SetExpression(c / "extension_filter.typed_config", f.extension_filter(), out, needed);
      break;
    case F::FILTER_SPECIFIER_NOT_SET: c.Fail("needs one kind of filter");
  }
  return out;
}

// What Envoy's default format needs.
constexpr char kDefaultHeaders[] =
    "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%%REQ(X-FORWARDED-FOR)%%REQ(USER-AGENT)%%REQ(X-REQUEST-ID)%%REQ(:AUTHORITY)%%REQ(:METHOD)%"
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%";

}  // namespace

std::shared_ptr<const model::AccessLogs> ToAccessLogs(const Ctx& c,
                                                      const google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>& logs,
                                                      bool tracing) {
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
    } else if (IsGrpcLog(type)) {
      log.grpc = ToGrpcLog(tc, l.typed_config());
      if (!log.grpc) continue;
    } else {
      tc.Warn("access logger \"" + (type.empty() ? l.name() : type) + "\" is not supported, ignored");
      continue;
    }
    if (l.has_filter()) log.filter = ToFilter(lc / "filter", l.filter(), tracing, needed);
    if (log.grpc) needed.ReadGrpc(tc, *log.grpc);
    else if (log.json) needed.ReadAll(tc, log.json_format);
    else needed.Read(tc, log.text_format.empty() ? kDefaultHeaders : log.text_format);
    if (log.grpc && log.grpc->kind != model::GrpcLog::kOtlp) out->certificates = true;
    out->logs.push_back(std::move(log));
  }
  if (out->logs.empty()) return nullptr;
  out->request_headers.assign(needed.request.begin(), needed.request.end());
  out->response_headers.assign(needed.response.begin(), needed.response.end());
  out->response_trailers.assign(needed.trailers.begin(), needed.trailers.end());
  out->all_request_headers = needed.all_request, out->all_response_headers = needed.all_response, out->all_response_trailers = needed.all_trailers;
  return out;
}

}  // namespace weft::xds
