// Messages that appear in many places: addresses, matchers, header options, data sources, access logs, protocol options.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "envoy/extensions/access_loggers/file/v3/file.pb.h"
#include "envoy/extensions/access_loggers/stream/v3/stream.pb.h"
#include "sidecar/model/log_format.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {

using google::protobuf::Struct;
using google::protobuf::Value;

std::string TypeOf(const google::protobuf::Any& any) { return any.type_url().substr(any.type_url().rfind('/') + 1); }

std::string LowerCase(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return s;
}

std::string Fingerprint(const google::protobuf::Message& m) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  m.SerializeToCodedStream(&coded);
  coded.Trim();
  return out;
}

uint64_t Ns(const Ctx& c, const google::protobuf::Duration& d) {
  if (d.seconds() < 0 || d.nanos() < 0 || d.nanos() > 999'999'999 || d.seconds() > 315'576'000'000) {
    c.Fail("is not a valid duration");
    return 0;
  }
  // Longer than a hundred years is as good as for ever, and leaves room to add to a clock.
  return d.seconds() > 3'155'760'000 ? 3'155'760'000'000'000'000ull : static_cast<uint64_t>(d.seconds()) * 1'000'000'000 + static_cast<uint64_t>(d.nanos());
}

model::Percent Fraction(const envoy::type::v3::FractionalPercent& p) {
  uint32_t d = p.denominator() == envoy::type::v3::FractionalPercent::MILLION        ? 1'000'000
               : p.denominator() == envoy::type::v3::FractionalPercent::TEN_THOUSAND ? 10'000
                                                                                     : 100;
  return {std::min(p.numerator(), d), d};
}

model::Address ToAddress(const Ctx& c, const core::Address& a, bool names_allowed) {
  if (a.has_pipe()) {
    auto p = model::Address::Pipe(a.pipe().path());
    p.pipe_mode = a.pipe().mode();
    if (p.text.empty() || p.text.size() > 107) (c / "pipe.path").Fail("must have 1 to 107 characters");
    return p;
  }
  if (!a.has_socket_address()) {
    c.Fail(a.has_envoy_internal_address() ? "internal addresses are not supported" : "an address is required");
    return {};
  }
  const auto& s = a.socket_address();
  Ctx sc = c / "socket_address";
  if (!s.named_port().empty()) (sc / "named_port").Fail("not supported");
  if (!s.resolver_name().empty()) (sc / "resolver_name").Fail("not supported");
  if (s.port_value() > 65535) (sc / "port_value").Fail("port " + std::to_string(s.port_value()) + " is out of range");
  model::Address out;
  if (auto ip = model::Ip::Parse(s.address())) {
    out = model::Address::FromIp(*ip, static_cast<uint16_t>(s.port_value()));
  } else if (names_allowed && !s.address().empty()) {
    out = model::Address::Name(s.address(), static_cast<uint16_t>(s.port_value()));
  } else {
    (sc / "address").Fail("\"" + s.address() + "\" is not an IP address");
  }
  out.udp = s.protocol() == core::SocketAddress::UDP;
  return out;
}

model::Cidr ToCidr(const Ctx& c, const core::CidrRange& r) {
  // An unset prefix_len is 0, as in Envoy.
  auto cidr = model::Cidr::Make(r.address_prefix(), r.prefix_len().value());
  if (!cidr) {
    c.Fail(cidr.error());
    return {};
  }
  return *cidr;
}

model::Regex ToRegex(const Ctx& c, const envoy::type::matcher::v3::RegexMatcher& m) {
  auto r = model::Regex::Compile(m.regex());
  if (r) return *r;
  (c / "regex").Fail(r.error());
  return {};
}

model::StringMatcher ToString(const Ctx& c, const envoy::type::matcher::v3::StringMatcher& m) {
  using P = envoy::type::matcher::v3::StringMatcher;
  model::StringMatcher out;
  out.ignore_case = m.ignore_case();
  switch (m.match_pattern_case()) {
    case P::kExact: out.kind = model::StringMatcher::kExact, out.value = m.exact(); break;
    case P::kPrefix: out.kind = model::StringMatcher::kPrefix, out.value = m.prefix(); break;
    case P::kSuffix: out.kind = model::StringMatcher::kSuffix, out.value = m.suffix(); break;
    case P::kContains: out.kind = model::StringMatcher::kContains, out.value = m.contains(); break;
    case P::kSafeRegex: out.kind = model::StringMatcher::kRegex, out.regex = ToRegex(c / "safe_regex", m.safe_regex()); break;
    default: c.Fail("needs exact, prefix, suffix, contains or safe_regex");
  }
  if (out.ignore_case) out.value = LowerCase(out.value);
  return out;
}

model::HeaderMatcher ToHeader(const Ctx& c, const envoy::config::route::v3::HeaderMatcher& m) {
  using P = envoy::config::route::v3::HeaderMatcher;
  model::HeaderMatcher out;
  if (m.name().empty()) (c / "name").Fail("is required");
  out.name = LowerCase(m.name());
  out.token = http::FindToken(out.name);
  out.invert = m.invert_match();
  out.treat_missing_as_empty = m.treat_missing_header_as_empty();
  auto string = [&](model::StringMatcher::Kind kind, const std::string& value) {
    out.kind = model::HeaderMatcher::kString;
    out.string.kind = kind, out.string.value = value;
  };
  switch (m.header_match_specifier_case()) {
    case P::kExactMatch: string(model::StringMatcher::kExact, m.exact_match()); break;
    case P::kPrefixMatch: string(model::StringMatcher::kPrefix, m.prefix_match()); break;
    case P::kSuffixMatch: string(model::StringMatcher::kSuffix, m.suffix_match()); break;
    case P::kContainsMatch: string(model::StringMatcher::kContains, m.contains_match()); break;
    case P::kSafeRegexMatch:
      string(model::StringMatcher::kRegex, "");
      out.string.regex = ToRegex(c / "safe_regex_match", m.safe_regex_match());
      break;
    case P::kStringMatch:
      out.kind = model::HeaderMatcher::kString;
      out.string = ToString(c / "string_match", m.string_match());
      break;
    case P::kRangeMatch:
      out.kind = model::HeaderMatcher::kRange;
      out.range_start = m.range_match().start(), out.range_end = m.range_match().end();
      break;
    case P::kPresentMatch: out.present = m.present_match(); break;
    default: break;  // nothing said: the header must be there
  }
  return out;
}

model::HeaderOption ToHeaderOption(const Ctx& c, const core::HeaderValueOption& o) {
  model::HeaderOption out;
  out.name = LowerCase(o.header().key());
  out.value = o.header().raw_value().empty() ? o.header().value() : o.header().raw_value();
  out.keep_empty_value = o.keep_empty_value();
  if (out.name.empty() || out.name.find_first_of("\r\n \t") != std::string::npos) (c / "header.key").Fail("\"" + out.name + "\" is not a header name");
  if (out.name[0] == ':' || out.name == "host") (c / "header.key").Fail("\"" + out.name + "\" must not be changed this way");
  if (out.value.find_first_of(std::string("\r\n\0", 3)) != std::string::npos) (c / "header.value").Fail("has control characters");
  out.has_command = out.value.find('%') != std::string::npos;
  switch (o.append_action()) {
    case core::HeaderValueOption::ADD_IF_ABSENT: out.action = model::HeaderOption::kAddIfAbsent; break;
    case core::HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD: out.action = model::HeaderOption::kOverwrite; break;
    case core::HeaderValueOption::OVERWRITE_IF_EXISTS: out.action = model::HeaderOption::kOverwriteIfExists; break;
    default: break;
  }
  if (o.has_append() && !o.append().value()) out.action = model::HeaderOption::kOverwrite;
  return out;
}

model::DataSource ToSource(const Ctx& c, const core::DataSource& d) {
  model::DataSource out;
  switch (d.specifier_case()) {
    case core::DataSource::kFilename: out.kind = model::DataSource::kFile, out.value = d.filename(); break;
    case core::DataSource::kInlineBytes: out.kind = model::DataSource::kInline, out.value = d.inline_bytes(); break;
    case core::DataSource::kInlineString: out.kind = model::DataSource::kInline, out.value = d.inline_string(); break;
    case core::DataSource::kEnvironmentVariable: {
      const char* v = std::getenv(d.environment_variable().c_str());
      if (!v) (c / "environment_variable").Fail("\"" + d.environment_variable() + "\" is not set");
      else out.kind = model::DataSource::kInline, out.value = v;
      break;
    }
    default: c.Fail("needs filename, inline_bytes, inline_string or environment_variable");
  }
  return out;
}

base::Result<std::string> ReadSource(const model::DataSource& source) {
  if (source.kind == model::DataSource::kInline) return source.value;
  if (source.kind == model::DataSource::kNone) return std::string();
  std::ifstream in(source.value, std::ios::binary);
  if (!in) return base::Error("cannot read \"" + source.value + "\": " + strerror(errno));
  constexpr size_t kMax = 1 << 20;
  std::string text(kMax + 1, 0);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMax) return base::Error("\"" + source.value + "\" is larger than 1 MiB");
  return text;
}

void RequireAds(const Ctx& c, const core::ConfigSource& s) {
  switch (s.config_source_specifier_case()) {
    case core::ConfigSource::kAds:
    case core::ConfigSource::kSelf: return;
    case core::ConfigSource::kApiConfigSource:
      // One stream carries everything here; a stream of its own would bring the same resources.
      (c / "api_config_source").Warn("served by the ADS stream instead");
      return;
    case core::ConfigSource::CONFIG_SOURCE_SPECIFIER_NOT_SET: c.Fail("is required (ads: {})"); return;
    default: c.Fail("only ads is supported for this resource");
  }
}

model::Cluster::SocketOption ToSocketOption(const Ctx& c, const core::SocketOption& o) {
  model::Cluster::SocketOption out{static_cast<int>(o.level()), static_cast<int>(o.name()), {}};
  if (o.has_buf_value()) {
    out.bytes = o.buf_value();
  } else {
    int v = static_cast<int>(o.int_value());
    out.bytes.assign(reinterpret_cast<const char*>(&v), sizeof v);
  }
  if (o.state() != core::SocketOption::STATE_PREBIND) (c / "state").Warn("applied before bind");
  return out;
}

std::vector<std::pair<std::string, std::string>> MetadataStrings(const core::Metadata& m, const std::string& filter) {
  auto it = m.filter_metadata().find(filter);
  if (it == m.filter_metadata().end()) return {};
  return StructStrings(it->second);
}

std::vector<std::pair<std::string, std::string>> StructStrings(const Struct& s) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [k, v] : s.fields()) {
    if (v.kind_case() == Value::kStringValue) out.emplace_back(k, v.string_value());
    else if (v.kind_case() == Value::kBoolValue) out.emplace_back(k, v.bool_value() ? "true" : "false");
    else if (v.kind_case() == Value::kNumberValue) {
      double d = v.number_value();
      bool whole = std::floor(d) == d && std::fabs(d) < 9e15;
      out.emplace_back(k, whole ? std::to_string(static_cast<int64_t>(d)) : std::to_string(d));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

model::Provenance ToProvenance(const core::Metadata& m) {
  model::Provenance p;
  for (const auto& [k, v] : MetadataStrings(m, "weft")) {
    if (k == "policy") p.policy = v;
    if (k == "revision") p.revision = strtoull(v.c_str(), nullptr, 10);
  }
  return p;
}

model::HttpCommonOptions ToCommonHttp(const Ctx& c, const core::HttpProtocolOptions& p) {
  model::HttpCommonOptions o;
  if (p.has_idle_timeout()) o.idle_timeout_ns = Ns(c / "idle_timeout", p.idle_timeout());
  if (p.has_max_connection_duration()) o.max_connection_duration_ns = Ns(c / "max_connection_duration", p.max_connection_duration());
  if (p.has_max_stream_duration()) o.max_stream_duration_ns = Ns(c / "max_stream_duration", p.max_stream_duration());
  o.max_headers_count = p.max_headers_count().value();
  o.max_response_headers_kb = p.max_response_headers_kb().value();
  o.max_requests_per_connection = p.max_requests_per_connection().value();
  if (p.headers_with_underscores_action() == core::HttpProtocolOptions::REJECT_REQUEST) o.underscores = model::HttpCommonOptions::kRejectRequest;
  if (p.headers_with_underscores_action() == core::HttpProtocolOptions::DROP_HEADER) o.underscores = model::HttpCommonOptions::kDropHeader;
  return o;
}

model::Http1Options ToHttp1(const Ctx& c, const core::Http1ProtocolOptions& p) {
  model::Http1Options o;
  o.accept_http_10 = p.accept_http_10();
  o.default_host_for_http_10 = p.default_host_for_http_10();
  if (p.has_allow_absolute_url() && !p.allow_absolute_url().value()) (c / "allow_absolute_url").Warn("absolute URLs are always accepted");
  o.allow_absolute_url = !p.has_allow_absolute_url() || p.allow_absolute_url().value();
  o.enable_trailers = p.enable_trailers();
  return o;
}

model::Http2Options ToHttp2(const Ctx& c, const core::Http2ProtocolOptions& p) {
  model::Http2Options o;
  o.max_concurrent_streams = p.max_concurrent_streams().value();
  auto window = [&](const char* field, uint32_t v, uint32_t& to) {
    if (v != 0 && (v < 65535 || v > 2147483647)) (c / field).Fail("must be 65535 to 2147483647");
    to = v;
  };
  window("initial_stream_window_size", p.initial_stream_window_size().value(), o.initial_stream_window);
  window("initial_connection_window_size", p.initial_connection_window_size().value(), o.initial_connection_window);
  o.allow_connect = p.allow_connect();
  if (p.has_connection_keepalive()) {
    Ctx k = c / "connection_keepalive";
    o.keepalive_interval_ns = Ns(k / "interval", p.connection_keepalive().interval());
    o.keepalive_timeout_ns = Ns(k / "timeout", p.connection_keepalive().timeout());
    o.connection_idle_interval_ns = Ns(k / "connection_idle_interval", p.connection_keepalive().connection_idle_interval());
  }
  return o;
}

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
