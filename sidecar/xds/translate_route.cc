// RouteConfiguration → route::RouteTable.
#include <algorithm>
#include <set>

#include "envoy/config/route/v3/route.pb.h"
#include "sidecar/cluster/retry.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

namespace route3 = envoy::config::route::v3;

model::RegexRewrite ToRewrite(const Ctx& c, const envoy::type::matcher::v3::RegexMatchAndSubstitute& p) {
  model::RegexRewrite out;
  out.regex = ToRegex(c / "pattern", p.pattern());
  out.substitution = p.substitution();
  if (auto ok = out.regex.CheckSubstitution(out.substitution); !ok) (c / "substitution").Fail(ok.error());
  return out;
}

std::shared_ptr<const model::RetryPolicy> ToRetry(const Ctx& c, const route3::RetryPolicy& p) {
  auto out = std::make_shared<model::RetryPolicy>();
  std::string unknown;
  out->on = cluster::ParseRetryOn(p.retry_on(), &unknown);
  if (!unknown.empty()) (c / "retry_on").Warn("\"" + unknown + "\" is not known, ignored");
  out->num_retries = p.has_num_retries() ? p.num_retries().value() : 1;
  if (p.has_per_try_timeout()) out->per_try_timeout_ns = Ns(c / "per_try_timeout", p.per_try_timeout());
  if (p.has_retry_back_off()) {
    Ctx b = c / "retry_back_off";
    out->backoff_base_ns = Ns(b / "base_interval", p.retry_back_off().base_interval());
    if (out->backoff_base_ns == 0) (b / "base_interval").Fail("must be greater than 0");
    out->backoff_max_ns = p.retry_back_off().has_max_interval() ? Ns(b / "max_interval", p.retry_back_off().max_interval()) : out->backoff_base_ns * 10;
    if (out->backoff_max_ns < out->backoff_base_ns) (b / "max_interval").Fail("is below base_interval");
  }
  out->status_codes.assign(p.retriable_status_codes().begin(), p.retriable_status_codes().end());
  // Codes and headers act when named, as they do in Envoy only together with their word.
  out->retriable_headers = ToHeaders(c / "retriable_headers", p.retriable_headers());
  out->retriable_request_headers = ToHeaders(c / "retriable_request_headers", p.retriable_request_headers());
  for (int i = 0; i < p.retry_host_predicate_size(); ++i) {
    const auto& h = p.retry_host_predicate(i);
    std::string type = TypeOf(h.typed_config());
    if (type == "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" || h.name() == "envoy.retry_host_predicates.previous_hosts") {
      out->previous_hosts_predicate = true;
    } else {
      (c / "retry_host_predicate")[i].Warn("\"" + (type.empty() ? h.name() : type) + "\" is not supported, ignored");
    }
  }
  if (p.host_selection_retry_max_attempts() > 0) out->host_selection_attempts = static_cast<uint32_t>(std::min<int64_t>(p.host_selection_retry_max_attempts(), 100));
  if (p.has_rate_limited_retry_back_off()) {
    Ctx r = c / "rate_limited_retry_back_off";
    for (const auto& h : p.rate_limited_retry_back_off().reset_headers())
      out->reset_headers.emplace_back(LowerCase(h.name()), h.format() == route3::RetryPolicy::UNIX_TIMESTAMP);
    if (p.rate_limited_retry_back_off().has_max_interval()) out->reset_max_interval_ns = Ns(r / "max_interval", p.rate_limited_retry_back_off().max_interval());
  }
  return out;
}

model::RouteMatch ToMatch(const Ctx& c, const route3::RouteMatch& p) {
  using M = model::RouteMatch;
  M out;
  switch (p.path_specifier_case()) {
    case route3::RouteMatch::kPrefix: out.path = M::kPrefix, out.value = p.prefix(); break;
    case route3::RouteMatch::kPath: out.path = M::kExact, out.value = p.path(); break;
    case route3::RouteMatch::kSafeRegex: out.path = M::kRegex, out.regex = ToRegex(c / "safe_regex", p.safe_regex()); break;
    case route3::RouteMatch::kConnectMatcher: out.path = M::kConnect; break;
    case route3::RouteMatch::kPathSeparatedPrefix: {
      out.path = M::kSeparatedPrefix, out.value = p.path_separated_prefix();
      if (out.value.empty() || out.value.back() == '/' || out.value.find_first_of("?#") != std::string::npos)
        (c / "path_separated_prefix").Fail("must not be empty, end in \"/\" or hold \"?\" or \"#\"");
      break;
    }
    case route3::RouteMatch::kPathMatchPolicy: (c / "path_match_policy").Fail("not supported"); break;
    default: c.Fail("needs prefix, path, safe_regex, connect_matcher or path_separated_prefix");
  }
  out.case_sensitive = !p.has_case_sensitive() || p.case_sensitive().value();
  if (p.has_runtime_fraction()) out.runtime_fraction = Fraction(p.runtime_fraction().default_value());
  out.headers = ToHeaders(c / "headers", p.headers());
  for (int i = 0; i < p.query_parameters_size(); ++i) {
    const auto& q = p.query_parameters(i);
    model::QueryMatcher m;
    m.name = q.name();
    if (q.has_string_match()) m.present_only = false, m.string = ToString((c / "query_parameters")[i] / "string_match", q.string_match());
    out.query.push_back(std::move(m));
  }
  out.grpc_only = p.has_grpc();
  // Ignoring one of these would send requests where they were not meant to go.
  if (p.cookies_size()) (c / "cookies").Fail("not supported");
  if (p.has_tls_context()) (c / "tls_context").Fail("not supported");
  if (p.dynamic_metadata_size()) (c / "dynamic_metadata").Fail("not supported");
  if (p.filter_state_size()) (c / "filter_state").Fail("not supported");
  return out;
}

void ToForward(const Ctx& c, const route3::RouteAction& p, model::Forward& out) {
  switch (p.cluster_specifier_case()) {
    case route3::RouteAction::kCluster: out.cluster = p.cluster(); break;
    case route3::RouteAction::kClusterHeader: out.cluster_header = LowerCase(p.cluster_header()); break;
    case route3::RouteAction::kWeightedClusters: {
      const auto& list = p.weighted_clusters().clusters();
      Ctx wc = c / "weighted_clusters";
      for (int i = 0; i < list.size(); ++i) {
        Ctx ic = (wc / "clusters")[i];
        model::ClusterWeight w;
        w.cluster = list[i].name();
        w.cluster_header = LowerCase(list[i].cluster_header());
        if (w.cluster.empty() == w.cluster_header.empty()) ic.Fail("needs name or cluster_header");
        w.weight = list[i].weight().value();
        w.headers = ToMutations(ic, list[i]);
        w.host_rewrite = list[i].host_rewrite_literal();
        w.per_filter = ToPerFilter(ic / "typed_per_filter_config", list[i].typed_per_filter_config());
        w.subset = MetadataStrings(list[i].metadata_match(), "envoy.lb");
        out.total_weight += w.weight;
        out.weighted.push_back(std::move(w));
      }
      if (out.total_weight == 0) wc.Fail("the sum of the weights must be greater than 0");
      if (out.total_weight > UINT32_MAX) wc.Fail("the sum of the weights is too large");
      break;
    }
    default: c.Fail("needs cluster, cluster_header or weighted_clusters");
  }
  if (p.cluster_specifier_case() == route3::RouteAction::kCluster && out.cluster.empty()) (c / "cluster").Fail("must not be empty");
  if (p.cluster_not_found_response_code() == route3::RouteAction::NOT_FOUND) out.cluster_not_found_status = 404;
  if (p.cluster_not_found_response_code() == route3::RouteAction::INTERNAL_SERVER_ERROR) out.cluster_not_found_status = 500;
  out.subset = MetadataStrings(p.metadata_match(), "envoy.lb");
  out.prefix_rewrite = p.prefix_rewrite();
  if (p.has_regex_rewrite()) out.regex_rewrite = ToRewrite(c / "regex_rewrite", p.regex_rewrite());
  if (p.has_path_rewrite_policy()) (c / "path_rewrite_policy").Fail("not supported");
  if (!out.prefix_rewrite.empty() && p.has_regex_rewrite()) c.Fail("prefix_rewrite and regex_rewrite exclude each other");
  out.host_rewrite = p.host_rewrite_literal();
  out.auto_host_rewrite = p.auto_host_rewrite().value();
  out.host_rewrite_header = LowerCase(p.host_rewrite_header());
  if (p.has_host_rewrite_path_regex()) (c / "host_rewrite_path_regex").Fail("not supported");
  out.append_x_forwarded_host = p.append_x_forwarded_host();
  if (p.has_timeout()) out.timeout_ns = Ns(c / "timeout", p.timeout()), out.timeout_set = true;
  if (p.has_idle_timeout()) out.idle_timeout_ns = Ns(c / "idle_timeout", p.idle_timeout());
  if (p.has_max_stream_duration()) {
    Ctx m = c / "max_stream_duration";
    if (p.max_stream_duration().has_max_stream_duration()) out.max_stream_duration_ns = Ns(m / "max_stream_duration", p.max_stream_duration().max_stream_duration());
    if (p.max_stream_duration().has_grpc_timeout_header_max())
      out.grpc_timeout_header_max_ns = Ns(m / "grpc_timeout_header_max", p.max_stream_duration().grpc_timeout_header_max());
  }
  if (p.has_max_grpc_timeout()) out.grpc_timeout_header_max_ns = Ns(c / "max_grpc_timeout", p.max_grpc_timeout());
  if (p.has_retry_policy()) out.retry = ToRetry(c / "retry_policy", p.retry_policy());
  out.high_priority = p.priority() == core::HIGH;
  for (const auto& u : p.upgrade_configs()) {
    out.upgrades.emplace_back(LowerCase(u.upgrade_type()), !u.has_enabled() || u.enabled().value());
    if (u.has_connect_config()) out.connect_terminate = true;
  }
}

std::shared_ptr<const model::Route> ToRoute(const Ctx& c, const route3::Route& p, uint32_t max_body) {
  auto out = std::make_shared<model::Route>();
  out->name = p.name();
  if (!p.has_match()) (c / "match").Fail("is required");
  out->match = ToMatch(c / "match", p.match());
  switch (p.action_case()) {
    case route3::Route::kRoute:
      out->action = model::Route::kForward;
      ToForward(c / "route", p.route(), out->forward);
      break;
    case route3::Route::kDirectResponse: {
      out->action = model::Route::kDirectResponse;
      Ctx d = c / "direct_response";
      out->direct.status = static_cast<uint16_t>(p.direct_response().status());
      if (p.direct_response().status() < 200 || p.direct_response().status() > 599) (d / "status").Fail("must be 200 to 599");
      if (p.direct_response().has_body()) {
        auto body = ReadSource(ToSource(d / "body", p.direct_response().body()));
        if (!body) (d / "body").Fail(body.error());
        else if (body->size() > max_body) (d / "body").Fail("is larger than " + std::to_string(max_body) + " bytes");
        else out->direct.body = *body;
      }
      break;
    }
    case route3::Route::kRedirect: {
      out->action = model::Route::kRedirect;
      const auto& r = p.redirect();
      Ctx rc = c / "redirect";
      out->redirect.scheme = r.https_redirect() ? "https" : r.scheme_redirect();
      out->redirect.host = r.host_redirect();
      if (r.port_redirect()) out->redirect.port = r.port_redirect();
      out->redirect.path = r.path_redirect();
      out->redirect.prefix_rewrite = r.prefix_rewrite();
      if (r.has_regex_rewrite()) out->redirect.regex_rewrite = ToRewrite(rc / "regex_rewrite", r.regex_rewrite());
      out->redirect.strip_query = r.strip_query();
      constexpr uint16_t kCodes[] = {301, 302, 303, 307, 308};
      out->redirect.status = kCodes[std::clamp(static_cast<int>(r.response_code()), 0, 4)];
      break;
    }
    case route3::Route::kNonForwardingAction: out->action = model::Route::kNonForwarding; break;
    case route3::Route::kFilterAction: (c / "filter_action").Fail("not supported"); break;
    default: c.Fail("needs route, redirect or direct_response");
  }
  out->headers = ToMutations(c, p);
  out->per_filter = ToPerFilter(c / "typed_per_filter_config", p.typed_per_filter_config());
  out->weft = ToProvenance(p.metadata());
  out->decorator_operation = p.decorator().operation();
  out->stat_prefix = p.stat_prefix();
  return out;
}

}  // namespace

std::shared_ptr<const route::RouteTable> ToRouteTable(const Ctx& c, const route3::RouteConfiguration& p) {
  model::RouteConfig out;
  out.name = p.name();
  if (p.has_vhds()) (c / "vhds").Fail("not supported");
  if (p.has_max_direct_response_body_size_bytes()) out.max_direct_response_body = p.max_direct_response_body_size_bytes().value();
  for (int h = 0; h < p.virtual_hosts_size(); ++h) {
    const auto& v = p.virtual_hosts(h);
    Ctx vc = (c / "virtual_hosts")[h];
    model::VirtualHost to;
    to.name = v.name();
    if (to.name.empty()) (vc / "name").Fail("is required");
    to.domains.assign(v.domains().begin(), v.domains().end());
    if (v.has_matcher()) (vc / "matcher").Fail("not supported");
    for (int i = 0; i < v.routes_size(); ++i) to.routes.push_back(ToRoute((vc / "routes")[i], v.routes(i), out.max_direct_response_body));
    to.require_tls = static_cast<model::VirtualHost::RequireTls>(v.require_tls());
    to.headers = ToMutations(vc, v);
    to.per_filter = ToPerFilter(vc / "typed_per_filter_config", v.typed_per_filter_config());
    if (v.has_retry_policy()) to.retry = ToRetry(vc / "retry_policy", v.retry_policy());
    to.include_request_attempt_count = v.include_request_attempt_count();
    to.include_attempt_count_in_response = v.include_attempt_count_in_response();
    if (v.has_per_request_buffer_limit_bytes()) to.per_request_buffer_limit = v.per_request_buffer_limit_bytes().value();
    out.virtual_hosts.push_back(std::move(to));
  }
  out.headers = ToMutations(c, p);
  for (const auto& n : p.internal_only_headers()) out.internal_only_headers.push_back(LowerCase(n));
  out.per_filter = ToPerFilter(c / "typed_per_filter_config", p.typed_per_filter_config());
  out.most_specific_header_mutations_wins = p.most_specific_header_mutations_wins();
  out.ignore_port_in_host = p.ignore_port_in_host_matching();
  out.ignore_path_parameters = p.ignore_path_parameters_in_path_matching();
  out.validate_clusters = p.validate_clusters().value();
  if (c.failed()) return nullptr;
  auto table = route::RouteTable::Compile(std::move(out));
  if (table) return *table;
  c.Fail(table.error());
  return nullptr;
}

base::Result<std::shared_ptr<const route::RouteTable>> TranslateRoutes(const route3::RouteConfiguration& p, Warnings* warnings) {
  std::optional<base::Error> error;
  Ctx c{warnings, &error, ""};
  c.CheckFields(p);
  auto table = ToRouteTable(c, p);
  if (error) return *error;
  return table;
}

std::vector<std::string> ClusterNames(const route::RouteTable& table) {
  std::set<std::string> names;
  for (const auto& v : table.config().virtual_hosts) {
    for (const auto& r : v.routes) {
      if (r->action != model::Route::kForward) continue;
      if (!r->forward.cluster.empty()) names.insert(r->forward.cluster);
      for (const auto& w : r->forward.weighted)
        if (!w.cluster.empty()) names.insert(w.cluster);
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace weft::xds
