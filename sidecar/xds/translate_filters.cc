// HTTP filters and network RBAC.
#include <algorithm>

#include "envoy/config/rbac/v3/rbac.pb.h"
#include "envoy/extensions/filters/http/buffer/v3/buffer.pb.h"
#include "envoy/extensions/filters/http/fault/v3/fault.pb.h"
#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb.h"
#include "envoy/extensions/filters/http/rbac/v3/rbac.pb.h"
#include "envoy/extensions/filters/http/router/v3/router.pb.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

namespace rbac3 = envoy::config::rbac::v3;
using model::RbacNode;
constexpr int kMaxDepth = 32;

RbacNode Unknown(const Ctx& c, const std::string& what) {
  // Kept, not refused: evaluation then denies, and the rest of the configuration stays in force.
  c.Warn(what + " is not supported: rules with it deny");
  RbacNode n;
  n.what = c.where.substr(c.where.rfind("policies") == std::string::npos ? 0 : c.where.rfind("policies"));
  return n;
}

RbacNode Metadata(const Ctx& c, const envoy::type::matcher::v3::MetadataMatcher& m) {
  RbacNode n;
  if (!m.value().has_string_match()) return Unknown(c, "a metadata matcher other than string_match");
  n.kind = RbacNode::kMetadata;
  n.metadata_filter = m.filter();
  for (const auto& s : m.path()) n.metadata_path.push_back(s.key());
  n.string = ToString(c / "value.string_match", m.value().string_match());
  n.invert = m.invert();
  return n;
}

RbacNode Path(const Ctx& c, const envoy::type::matcher::v3::PathMatcher& m) {
  RbacNode n;
  n.kind = RbacNode::kUrlPath;
  n.string = ToString(c / "path", m.path());
  return n;
}

RbacNode Range(const Ctx& c, RbacNode::Kind kind, const core::CidrRange& r) {
  RbacNode n;
  n.kind = kind;
  n.cidr = ToCidr(c, r);
  return n;
}

RbacNode Header(const Ctx& c, const envoy::config::route::v3::HeaderMatcher& h) {
  RbacNode n;
  n.kind = RbacNode::kHeader;
  n.header = ToHeader(c, h);
  return n;
}

template <typename Set, typename Fn>
RbacNode Group(const Ctx& c, RbacNode::Kind kind, const Set& set, Fn fn, int depth) {
  RbacNode n;
  n.kind = kind;
  if (set.empty()) c.Fail("must not be empty");
  for (int i = 0; i < set.size(); ++i) n.children.push_back(fn(c[i], set[i], depth + 1));
  return n;
}

RbacNode ToPermission(const Ctx& c, const rbac3::Permission& p, int depth) {
  RbacNode n;
  if (depth > kMaxDepth) return Unknown(c, "nesting this deep");
  switch (p.rule_case()) {
    case rbac3::Permission::kAndRules: return Group(c / "and_rules.rules", RbacNode::kAnd, p.and_rules().rules(), ToPermission, depth);
    case rbac3::Permission::kOrRules: return Group(c / "or_rules.rules", RbacNode::kOr, p.or_rules().rules(), ToPermission, depth);
    case rbac3::Permission::kNotRule:
      n.kind = RbacNode::kNot;
      n.children.push_back(ToPermission(c / "not_rule", p.not_rule(), depth + 1));
      return n;
    case rbac3::Permission::kAny:
      if (!p.any()) (c / "any").Fail("must be true");
      n.kind = RbacNode::kAny;
      return n;
    case rbac3::Permission::kHeader: return Header(c / "header", p.header());
    case rbac3::Permission::kUrlPath: return Path(c / "url_path", p.url_path());
    case rbac3::Permission::kDestinationIp: return Range(c / "destination_ip", RbacNode::kDestinationIp, p.destination_ip());
    case rbac3::Permission::kDestinationPort: n.kind = RbacNode::kDestinationPort, n.port = p.destination_port(); return n;
    case rbac3::Permission::kDestinationPortRange:
      n.kind = RbacNode::kDestinationPortRange;
      n.port = static_cast<uint32_t>(std::max(0, p.destination_port_range().start()));
      n.port_end = static_cast<uint32_t>(std::max(0, p.destination_port_range().end()));
      return n;
    case rbac3::Permission::kMetadata: return Metadata(c / "metadata", p.metadata());
    case rbac3::Permission::kRequestedServerName:
      n.kind = RbacNode::kRequestedServerName;
      n.string = ToString(c / "requested_server_name", p.requested_server_name());
      return n;
    case rbac3::Permission::RULE_NOT_SET: c.Fail("is empty"); return n;
    default: return Unknown(c, "this kind of permission");
  }
}

RbacNode ToPrincipal(const Ctx& c, const rbac3::Principal& p, int depth) {
  RbacNode n;
  if (depth > kMaxDepth) return Unknown(c, "nesting this deep");
  switch (p.identifier_case()) {
    case rbac3::Principal::kAndIds: return Group(c / "and_ids.ids", RbacNode::kAnd, p.and_ids().ids(), ToPrincipal, depth);
    case rbac3::Principal::kOrIds: return Group(c / "or_ids.ids", RbacNode::kOr, p.or_ids().ids(), ToPrincipal, depth);
    case rbac3::Principal::kNotId:
      n.kind = RbacNode::kNot;
      n.children.push_back(ToPrincipal(c / "not_id", p.not_id(), depth + 1));
      return n;
    case rbac3::Principal::kAny:
      if (!p.any()) (c / "any").Fail("must be true");
      n.kind = RbacNode::kAny;
      return n;
    case rbac3::Principal::kAuthenticated:
      n.kind = RbacNode::kAuthenticated;
      n.any_identity = !p.authenticated().has_principal_name();
      if (!n.any_identity) n.string = ToString(c / "authenticated.principal_name", p.authenticated().principal_name());
      return n;
    case rbac3::Principal::kSourceIp: return Range(c / "source_ip", RbacNode::kDirectRemoteIp, p.source_ip());
    case rbac3::Principal::kDirectRemoteIp: return Range(c / "direct_remote_ip", RbacNode::kDirectRemoteIp, p.direct_remote_ip());
    case rbac3::Principal::kRemoteIp: return Range(c / "remote_ip", RbacNode::kRemoteIp, p.remote_ip());
    case rbac3::Principal::kHeader: return Header(c / "header", p.header());
    case rbac3::Principal::kUrlPath: return Path(c / "url_path", p.url_path());
    case rbac3::Principal::kMetadata: return Metadata(c / "metadata", p.metadata());
    case rbac3::Principal::IDENTIFIER_NOT_SET: c.Fail("is empty"); return n;
    default: return Unknown(c, "this kind of principal");
  }
}

std::shared_ptr<const model::RbacRules> ToRules(const Ctx& c, const rbac3::RBAC& p) {
  auto out = std::make_shared<model::RbacRules>();
  out->action = p.action() == rbac3::RBAC::DENY ? model::RbacRules::kDeny : p.action() == rbac3::RBAC::LOG ? model::RbacRules::kLog : model::RbacRules::kAllow;
  for (const auto& [name, policy] : p.policies()) {
    Ctx pc = (c / "policies").Key(name);
    model::RbacPolicy to;
    to.name = name;
    if (policy.permissions().empty()) (pc / "permissions").Fail("must not be empty");
    if (policy.principals().empty()) (pc / "principals").Fail("must not be empty");
    for (int i = 0; i < policy.permissions_size(); ++i) to.permissions.push_back(ToPermission((pc / "permissions")[i], policy.permissions(i), 0));
    for (int i = 0; i < policy.principals_size(); ++i) to.principals.push_back(ToPrincipal((pc / "principals")[i], policy.principals(i), 0));
    if (policy.has_condition() || policy.has_checked_condition()) {
      // A condition narrows the policy: without it an ALLOW would be too wide. An unknown node fails closed.
      RbacNode both;
      both.kind = RbacNode::kAnd;
      both.children.push_back(Unknown(pc / "condition", "a CEL condition"));
      to.permissions.assign(1, both);
    }
    out->policies.push_back(std::move(to));
  }
  std::sort(out->policies.begin(), out->policies.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

template <typename P>
std::shared_ptr<model::RbacConfig> ToRbac(const Ctx& c, const P& p) {
  auto out = std::make_shared<model::RbacConfig>();
  if (p.has_matcher()) (c / "matcher").Fail("not supported");
  if (p.has_rules()) out->rules = ToRules(c / "rules", p.rules());
  if (p.has_shadow_rules()) out->shadow_rules = ToRules(c / "shadow_rules", p.shadow_rules());
  out->shadow_stat_prefix = p.shadow_rules_stat_prefix();
  return out;
}

std::shared_ptr<const model::RbacConfig> ToHttpRbac(const Ctx& c, const envoy::extensions::filters::http::rbac::v3::RBAC& p) {
  auto out = ToRbac(c, p);
  out->stat_prefix = p.rules_stat_prefix();
  return out;
}

std::shared_ptr<const model::FaultConfig> ToFault(const Ctx& c, const envoy::extensions::filters::http::fault::v3::HTTPFault& p) {
  auto out = std::make_shared<model::FaultConfig>();
  if (p.has_delay()) {
    out->has_delay = true;
    out->header_delay = p.delay().has_header_delay();
    if (p.delay().has_fixed_delay()) out->delay_ns = Ns(c / "delay.fixed_delay", p.delay().fixed_delay());
    out->delay_percent = Fraction(p.delay().percentage());
  }
  if (p.has_abort()) {
    const auto& a = p.abort();
    out->has_abort = true;
    out->header_abort = a.has_header_abort();
    out->abort_percent = Fraction(a.percentage());
    if (a.error_type_case() == a.kGrpcStatus) out->grpc_status = static_cast<int32_t>(a.grpc_status());
    if (a.error_type_case() == a.kHttpStatus) out->http_status = a.http_status();
    if (out->http_status && (out->http_status < 200 || out->http_status > 599)) (c / "abort.http_status").Fail("must be 200 to 599");
    if (a.error_type_case() == a.ERROR_TYPE_NOT_SET) (c / "abort").Fail("needs http_status, grpc_status or header_abort");
  }
  for (const auto& [k, v] : StructStrings(p.filter_metadata())) {
    if (k == "policy") out->weft.policy = v;
    if (k == "revision") out->weft.revision = strtoull(v.c_str(), nullptr, 10);
  }
  if (p.has_response_rate_limit()) (c / "response_rate_limit").Warn("not supported, ignored");
  out->headers = ToHeaders(c / "headers", p.headers());
  out->upstream_cluster = p.upstream_cluster();
  if (p.has_max_active_faults()) out->max_active_faults = p.max_active_faults().value();
  return out;
}

std::shared_ptr<const model::LocalRateLimitConfig> ToRateLimit(const Ctx& c, const envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit& p) {
  auto out = std::make_shared<model::LocalRateLimitConfig>();
  out->stat_prefix = p.stat_prefix();
  if (p.has_token_bucket()) {
    out->max_tokens = p.token_bucket().max_tokens();
    out->tokens_per_fill = p.token_bucket().has_tokens_per_fill() ? p.token_bucket().tokens_per_fill().value() : 1;
    out->fill_interval_ns = Ns(c / "token_bucket.fill_interval", p.token_bucket().fill_interval());
    if (out->max_tokens == 0) (c / "token_bucket.max_tokens").Fail("must be greater than 0");
    if (out->tokens_per_fill == 0) (c / "token_bucket.tokens_per_fill").Fail("must be greater than 0");
    if (out->fill_interval_ns < 50'000'000) (c / "token_bucket.fill_interval").Fail("must be at least 50 ms");
  }
  if (p.has_status()) {
    int code = static_cast<int>(p.status().code());
    if (code >= 400 && code <= 599) out->status = static_cast<uint16_t>(code);
  }
  out->enabled = {0, 100}, out->enforced = {0, 100};
  if (p.has_filter_enabled()) out->enabled = Fraction(p.filter_enabled().default_value());
  if (p.has_filter_enforced()) out->enforced = Fraction(p.filter_enforced().default_value());
  out->per_connection = p.local_rate_limit_per_downstream_connection();
  out->rate_limited_as_resource_exhausted = p.rate_limited_as_resource_exhausted();
  for (int i = 0; i < p.response_headers_to_add_size(); ++i) {
    auto o = ToHeaderOption((c / "response_headers_to_add")[i], p.response_headers_to_add(i));
    out->response_headers_to_add.emplace_back(o.name, o.value);
  }
  out->key = Fingerprint(p);
  return out;
}

namespace buffer3 = envoy::extensions::filters::http::buffer::v3;

std::shared_ptr<const model::BufferConfig> ToBuffer(const Ctx& c, const buffer3::Buffer& p) {
  auto out = std::make_shared<model::BufferConfig>();
  out->max_request_bytes = p.max_request_bytes().value();
  if (out->max_request_bytes == 0) (c / "max_request_bytes").Fail("must be greater than 0");
  return out;
}

constexpr char kBuffer[] = "envoy.extensions.filters.http.buffer.v3.Buffer";
constexpr char kRbac[] = "envoy.extensions.filters.http.rbac.v3.RBAC";
constexpr char kFault[] = "envoy.extensions.filters.http.fault.v3.HTTPFault";
constexpr char kRateLimit[] = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
constexpr char kRouter[] = "envoy.extensions.filters.http.router.v3.Router";

}  // namespace

std::optional<model::HttpFilter> ToHttpFilter(const Ctx& c, const std::string& name, const google::protobuf::Any& config, bool optional) {
  model::HttpFilter out;
  out.name = name;
  std::string type = TypeOf(config);
  Ctx tc = c / "typed_config";
  if (type == kRbac) {
    out.config = ToHttpRbac(tc, Unpack<envoy::extensions::filters::http::rbac::v3::RBAC>(tc, config));
  } else if (type == kFault) {
    out.config = ToFault(tc, Unpack<envoy::extensions::filters::http::fault::v3::HTTPFault>(tc, config));
  } else if (type == kRateLimit) {
    auto limit = std::make_shared<model::LocalRateLimitConfig>(*ToRateLimit(tc, Unpack<envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit>(tc, config)));
    out.config = std::shared_ptr<const model::LocalRateLimitConfig>(limit);
  } else if (type == kBuffer) {
    out.config = ToBuffer(tc, Unpack<buffer3::Buffer>(tc, config));
  } else if (type == kRouter || (type.empty() && name == "envoy.filters.http.router")) {
    auto p = Unpack<envoy::extensions::filters::http::router::v3::Router>(tc, config.type_url().empty() ? [] {
      google::protobuf::Any any;
      any.PackFrom(envoy::extensions::filters::http::router::v3::Router());
      return any;
    }() : config);
    auto r = std::make_shared<model::RouterConfig>();
    r->suppress_envoy_headers = p.suppress_envoy_headers();
    r->start_child_span = p.start_child_span();
    out.config = std::shared_ptr<const model::RouterConfig>(r);
  } else if (optional) {
    c.Warn("optional filter \"" + (type.empty() ? name : type) + "\" is not supported, skipped");
    return std::nullopt;
  } else {
    c.Fail("HTTP filter \"" + (type.empty() ? name : type) + "\" is not supported");
  }
  return out;
}

std::vector<model::PerFilterConfig> ToPerFilter(const Ctx& c, const PerFilterMap& map) {
  std::vector<model::PerFilterConfig> out;
  for (const auto& [name, any] : map) {
    Ctx fc = c.Key(name);
    model::PerFilterConfig e;
    e.name = name;
    google::protobuf::Any config = any;
    bool optional = false;
    if (TypeOf(any) == "envoy.config.route.v3.FilterConfig") {
      auto wrapper = Unpack<envoy::config::route::v3::FilterConfig>(fc, any);
      e.disabled = wrapper.disabled();
      optional = wrapper.is_optional();
      config = wrapper.config();
    }
    std::string type = TypeOf(config);
    if (type == "envoy.extensions.filters.http.rbac.v3.RBACPerRoute") {
      auto p = Unpack<envoy::extensions::filters::http::rbac::v3::RBACPerRoute>(fc, config);
      if (p.has_rbac()) e.config = ToHttpRbac(fc / "rbac", p.rbac());
      else e.disabled = true;
    } else if (type == kFault) {
      e.config = ToFault(fc, Unpack<envoy::extensions::filters::http::fault::v3::HTTPFault>(fc, config));
    } else if (type == kRateLimit) {
      e.config = ToRateLimit(fc, Unpack<envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit>(fc, config));
    } else if (type == "envoy.extensions.filters.http.buffer.v3.BufferPerRoute") {
      auto p = Unpack<buffer3::BufferPerRoute>(fc, config);
      if (p.override_case() == buffer3::BufferPerRoute::OVERRIDE_NOT_SET) fc.Fail("needs disabled or buffer");
      if (p.has_buffer()) e.config = ToBuffer(fc / "buffer", p.buffer());
      e.disabled = p.disabled();
    } else if (optional) {
      fc.Warn("optional filter configuration \"" + type + "\" is not supported, skipped");
      continue;
    } else if (!type.empty()) {
      fc.Fail("filter configuration \"" + type + "\" is not supported");
    }
    out.push_back(std::move(e));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

std::shared_ptr<const model::RbacConfig> ToNetworkRbac(const Ctx& c, const google::protobuf::Any& config) {
  auto p = Unpack<envoy::extensions::filters::network::rbac::v3::RBAC>(c, config);
  auto out = ToRbac(c, p);
  out->stat_prefix = p.stat_prefix();
  out->delay_deny_ms = static_cast<uint32_t>(Ns(c / "delay_deny", p.delay_deny()) / 1'000'000);
  return out;
}

}  // namespace weft::xds
