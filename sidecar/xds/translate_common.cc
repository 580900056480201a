// Messages that appear in many places: addresses, matchers, header options, data sources, protocol options.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.pb.h"
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
  if (out.value.find('%') != std::string::npos) {
    auto format = model::LogFormat::Parse(out.value);
    if (format) out.format = std::make_shared<const model::LogFormat>(std::move(*format));
    else (c / "header.value").Fail(format.error().message());
  }
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

model::TlvTypes ToTlvTypes(const Ctx& c, const core::ProxyProtocolPassThroughTLVs& p) {
  model::TlvTypes out;
  if (p.match_type() == core::ProxyProtocolPassThroughTLVs::INCLUDE_ALL) return out.set();
  for (int i = 0; i < p.tlv_type_size(); ++i) {
    if (p.tlv_type(i) > 255) (c / "tlv_type")[i].Fail("must be 0 to 255");
    else out.set(p.tlv_type(i));
  }
  return out;
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

namespace {
namespace case3 = envoy::extensions::http::header_formatters::preserve_case::v3;

model::Http1Options::HeaderCase ToHeaderCase(const Ctx& c, const core::Http1ProtocolOptions::HeaderKeyFormat& p) {
  using O = model::Http1Options;
  using Format = core::Http1ProtocolOptions::HeaderKeyFormat;
  if (p.header_format_case() == Format::kProperCaseWords) return O::kProper;
  if (p.header_format_case() != Format::kStatefulFormatter) c.Fail("needs proper_case_words or stateful_formatter");
  Ctx tc = c / "stateful_formatter.typed_config";
  const auto& any = p.stateful_formatter().typed_config();
  if (TypeOf(any) != "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig") {
    tc.Fail("only PreserveCaseFormatterConfig is supported, not \"" + TypeOf(any) + "\"");
    return O::kLower;
  }
  auto preserve = Unpack<case3::PreserveCaseFormatterConfig>(tc, any);
  return preserve.formatter_type_on_envoy_headers() == case3::PreserveCaseFormatterConfig::PROPER_CASE ? O::kKeepProper : O::kKeep;
}
}  // namespace

model::Http1Options ToHttp1(const Ctx& c, const core::Http1ProtocolOptions& p) {
  model::Http1Options o;
  o.accept_http_10 = p.accept_http_10();
  o.default_host_for_http_10 = p.default_host_for_http_10();
  if (p.has_allow_absolute_url() && !p.allow_absolute_url().value()) (c / "allow_absolute_url").Warn("absolute URLs are always accepted");
  o.allow_absolute_url = !p.has_allow_absolute_url() || p.allow_absolute_url().value();
  o.enable_trailers = p.enable_trailers();
  if (p.has_header_key_format()) o.header_case = ToHeaderCase(c / "header_key_format", p.header_key_format());
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

}  // namespace weft::xds
