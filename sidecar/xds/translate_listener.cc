// Listener → model: listener filters, chains, connection manager, TCP proxy, DNS filter.
#include <algorithm>
#include <set>

#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/data/dns/v3/dns_table.pb.h"
#include "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.pb.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb.h"
#include "envoy/extensions/filters/udp/dns_filter/v3/dns_filter.pb.h"
#include "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.pb.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

namespace listener3 = envoy::config::listener::v3;
namespace hcm3 = envoy::extensions::filters::network::http_connection_manager::v3;
namespace tcp3 = envoy::extensions::filters::network::tcp_proxy::v3;
namespace dns3 = envoy::extensions::filters::udp::dns_filter::v3;

constexpr char kHcm[] = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
constexpr char kTcp[] = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
constexpr char kSniCluster[] = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster";
constexpr char kRbac[] = "envoy.extensions.filters.network.rbac.v3.RBAC";

std::shared_ptr<const model::HttpConnectionManager> ToHcm(const Ctx& c, const google::protobuf::Any& any) {
  auto p = Unpack<hcm3::HttpConnectionManager>(c, any);
  auto out = std::make_shared<model::HttpConnectionManager>();
  using H = hcm3::HttpConnectionManager;
  using M = model::HttpConnectionManager;
  switch (p.codec_type()) {
    case H::AUTO: out->codec = M::kAuto; break;
    case H::HTTP1: out->codec = M::kHttp1; break;
    case H::HTTP2: out->codec = M::kHttp2; break;
    default: (c / "codec_type").Fail("HTTP/3 is not supported");
  }
  out->stat_prefix = p.stat_prefix();
  if (out->stat_prefix.empty()) (c / "stat_prefix").Fail("is required");
  switch (p.route_specifier_case()) {
    case H::kRouteConfig: out->route_table = ToRouteTable(c / "route_config", p.route_config()); break;
    case H::kRds:
      out->rds_name = p.rds().route_config_name();
      if (out->rds_name.empty()) (c / "rds.route_config_name").Fail("is required");
      RequireAds(c / "rds.config_source", p.rds().config_source());
      break;
    default: c.Fail("needs rds or route_config");
  }
  for (int i = 0; i < p.http_filters_size(); ++i) {
    const auto& f = p.http_filters(i);
    Ctx fc = (c / "http_filters")[i];
    if (f.has_config_discovery()) {
      (fc / "config_discovery").Fail("not supported");
      continue;
    }
    if (IsIstioStats(f.name(), f.typed_config())) {
      if (!f.disabled()) out->istio_stats = ToIstioStats(fc / "typed_config", f.typed_config());
      if (i + 1 == p.http_filters_size()) fc.Fail("the last filter must be the router");
      continue;
    }
    auto filter = ToHttpFilter(fc, f.name(), f.typed_config(), f.is_optional());
    if (!filter) continue;
    filter->disabled = f.disabled();
    filter->index = static_cast<uint8_t>(out->filters.size());
    bool router = std::holds_alternative<std::shared_ptr<const model::RouterConfig>>(filter->config);
    if (router != (i + 1 == p.http_filters_size())) fc.Fail(router ? "the router must be the last filter" : "the last filter must be the router");
    out->filters.push_back(std::move(*filter));
  }
  if (p.http_filters().empty()) (c / "http_filters").Fail("needs at least the router");
  if (out->filters.size() > 64) (c / "http_filters").Fail("more than 64 filters");
  for (const auto& u : p.upgrade_configs())
    if (!u.has_enabled() || u.enabled().value()) out->upgrades.push_back(LowerCase(u.upgrade_type()));

  auto time = [&](const char* field, bool set, const google::protobuf::Duration& d, uint64_t& to) { if (set) to = Ns(c / field, d); };
  time("stream_idle_timeout", p.has_stream_idle_timeout(), p.stream_idle_timeout(), out->stream_idle_timeout_ns);
  time("request_timeout", p.has_request_timeout(), p.request_timeout(), out->request_timeout_ns);
  time("request_headers_timeout", p.has_request_headers_timeout(), p.request_headers_timeout(), out->request_headers_timeout_ns);
  out->request_headers_timeout_set = p.has_request_headers_timeout();
  time("drain_timeout", p.has_drain_timeout(), p.drain_timeout(), out->drain_timeout_ns);
  time("delayed_close_timeout", p.has_delayed_close_timeout(), p.delayed_close_timeout(), out->delayed_close_timeout_ns);
  out->common = ToCommonHttp(c / "common_http_protocol_options", p.common_http_protocol_options());
  out->http1 = ToHttp1(c / "http_protocol_options", p.http_protocol_options());
  out->http2 = ToHttp2(c / "http2_protocol_options", p.http2_protocol_options());
  if (out->http2.keepalive_interval_ns) (c / "http2_protocol_options.connection_keepalive").Warn("clients are not probed, ignored");
  if (p.has_max_request_headers_kb()) out->max_request_headers_kb = p.max_request_headers_kb().value();
  if (out->max_request_headers_kb == 0 || out->max_request_headers_kb > 8192) (c / "max_request_headers_kb").Fail("must be 1 to 8192");

  if (!p.server_name().empty()) out->server_name = p.server_name();
  if (p.server_header_transformation() == H::APPEND_IF_ABSENT) out->server_header = M::kAppendIfAbsent;
  if (p.server_header_transformation() == H::PASS_THROUGH) out->server_header = M::kPassThrough;
  out->via = p.via();
  out->use_remote_address = p.use_remote_address().value();
  out->xff_num_trusted_hops = p.xff_num_trusted_hops();
  out->skip_xff_append = p.skip_xff_append();
  switch (p.forward_client_cert_details()) {
    case H::FORWARD_ONLY: out->xfcc = M::kForwardOnly; break;
    case H::APPEND_FORWARD: out->xfcc = M::kAppendForward; break;
    case H::SANITIZE_SET: out->xfcc = M::kSanitizeSet; break;
    case H::ALWAYS_FORWARD_ONLY: out->xfcc = M::kAlwaysForwardOnly; break;
    default: break;
  }
  const auto& d = p.set_current_client_cert_details();
  out->xfcc_subject = d.subject().value(), out->xfcc_cert = d.cert(), out->xfcc_chain = d.chain(), out->xfcc_dns = d.dns(), out->xfcc_uri = d.uri();
  out->scheme_override = p.scheme_header_transformation().scheme_to_overwrite();
  out->generate_request_id = !p.has_generate_request_id() || p.generate_request_id().value();
  out->preserve_external_request_id = p.preserve_external_request_id();
  out->always_set_request_id_in_response = p.always_set_request_id_in_response();
  out->normalize_path = p.normalize_path().value();
  if (p.has_normalize_path() && !p.normalize_path().value()) (c / "normalize_path").Warn("paths are always normalised");
  out->merge_slashes = p.merge_slashes();
  switch (p.path_with_escaped_slashes_action()) {
    case H::REJECT_REQUEST: out->escaped_slashes = M::kReject; break;
    case H::UNESCAPE_AND_REDIRECT: out->escaped_slashes = M::kUnescapeRedirect; break;
    case H::UNESCAPE_AND_FORWARD: out->escaped_slashes = M::kUnescapeForward; break;
    default: break;
  }
  out->strip_any_host_port = p.strip_any_host_port();
  out->strip_matching_host_port = p.strip_matching_host_port();
  out->strip_trailing_host_dot = p.strip_trailing_host_dot();
  out->proxy_100_continue = p.proxy_100_continue();
  out->stream_error_on_invalid_http = p.stream_error_on_invalid_http_message().value();
  if (p.has_tracing()) {
    model::Tracing t;
    const auto& q = p.tracing();
    if (q.has_client_sampling()) t.client_sampling = q.client_sampling().value();
    if (q.has_random_sampling()) t.random_sampling = q.random_sampling().value();
    if (q.has_overall_sampling()) t.overall_sampling = q.overall_sampling().value();
    t.verbose = q.verbose();
    if (q.has_max_path_tag_length()) t.max_path_tag_length = q.max_path_tag_length().value();
    out->tracing = t;
  }
  out->access_logs = ToAccessLogs(c / "access_log", p.access_log(), p.has_tracing());
  return out;
}

std::shared_ptr<const model::TcpProxy> ToTcp(const Ctx& c, const google::protobuf::Any& any) {
  auto p = Unpack<tcp3::TcpProxy>(c, any);
  auto out = std::make_shared<model::TcpProxy>();
  out->stat_prefix = p.stat_prefix();
  if (out->stat_prefix.empty()) (c / "stat_prefix").Fail("is required");
  out->cluster = p.cluster();
  for (int i = 0; i < p.weighted_clusters().clusters_size(); ++i) {
    const auto& w = p.weighted_clusters().clusters(i);
    model::ClusterWeight to;
    to.cluster = w.name();
    to.weight = w.weight();
    if (w.weight() == 0) (c / "weighted_clusters.clusters")[i].Fail("weight must be greater than 0");
    out->total_weight += w.weight();
    out->weighted.push_back(std::move(to));
  }
  if (out->cluster.empty() && out->weighted.empty()) c.Fail("needs cluster or weighted_clusters");
  if (p.has_tunneling_config()) (c / "tunneling_config").Fail("not supported");
  if (p.has_on_demand()) (c / "on_demand").Fail("not supported");
  if (p.has_idle_timeout()) out->idle_timeout_ns = Ns(c / "idle_timeout", p.idle_timeout());
  if (p.has_max_downstream_connection_duration()) out->max_duration_ns = Ns(c / "max_downstream_connection_duration", p.max_downstream_connection_duration());
  if (p.has_max_connect_attempts()) out->max_connect_attempts = std::max<uint32_t>(1, p.max_connect_attempts().value());
  out->access_logs = ToAccessLogs(c / "access_log", p.access_log());
  return out;
}

model::ChainMatch ToChainMatch(const Ctx& c, const listener3::FilterChainMatch& p) {
  model::ChainMatch out;
  if (p.has_destination_port()) {
    out.destination_port = p.destination_port().value();
    if (*out.destination_port == 0 || *out.destination_port > 65535) (c / "destination_port").Fail("must be 1 to 65535");
  }
  auto ranges = [](const Ctx& rc, const auto& list, std::vector<model::Cidr>& to) {
    for (int i = 0; i < list.size(); ++i) to.push_back(ToCidr(rc[i], list[i]));
  };
  ranges(c / "prefix_ranges", p.prefix_ranges(), out.prefix_ranges);
  ranges(c / "direct_source_prefix_ranges", p.direct_source_prefix_ranges(), out.direct_source_prefix_ranges);
  ranges(c / "source_prefix_ranges", p.source_prefix_ranges(), out.source_prefix_ranges);
  out.source_type = static_cast<model::ChainMatch::SourceType>(p.source_type());
  out.source_ports.assign(p.source_ports().begin(), p.source_ports().end());
  for (int i = 0; i < p.server_names_size(); ++i) {
    std::string n = LowerCase(p.server_names(i));
    bool wildcard = n.find('*') != std::string::npos;
    if (n == "*") n.clear();
    else if (wildcard && (!n.starts_with("*.") || n.find('*', 1) != std::string::npos)) (c / "server_names")[i].Fail("only \"*.suffix\" wildcards are allowed");
    out.server_names.push_back(n);
  }
  out.transport_protocol = p.transport_protocol();
  out.application_protocols.assign(p.application_protocols().begin(), p.application_protocols().end());
  if (!p.address_suffix().empty()) (c / "address_suffix").Fail("not supported");
  return out;
}

std::shared_ptr<const model::FilterChain> ToChain(const Ctx& c, const listener3::FilterChain& p, uint32_t index) {
  auto out = std::make_shared<model::FilterChain>();
  out->name = p.name();
  out->index = index;
  out->match = ToChainMatch(c / "filter_chain_match", p.filter_chain_match());
  if (p.has_transport_socket()) out->tls = ToTls(c / "transport_socket", p.transport_socket(), false);
  if (p.use_proxy_proto().value()) (c / "use_proxy_proto").Fail("not supported: use the listener filter envoy.filters.listener.proxy_protocol");
  if (p.has_transport_socket_connect_timeout()) out->transport_connect_timeout_ns = Ns(c / "transport_socket_connect_timeout", p.transport_socket_connect_timeout());
  for (int i = 0; i < p.filters_size(); ++i) {
    const auto& f = p.filters(i);
    Ctx fc = (c / "filters")[i], tc = fc / "typed_config";
    std::string type = TypeOf(f.typed_config());
    bool last = i + 1 == p.filters_size();
    if (type == kRbac) {
      out->network_rbac.push_back(ToNetworkRbac(tc, f.typed_config()));
      if (last) fc.Fail("the last filter must be http_connection_manager or tcp_proxy");
      continue;
    }
    if (IsIstioStats(f.name(), f.typed_config())) {
      out->istio_stats = ToIstioStats(tc, f.typed_config());
      if (last) fc.Fail("the last filter must be http_connection_manager or tcp_proxy");
      continue;
    }
    if (type == kSniCluster) {
      out->sni_cluster = true;
      if (last) fc.Fail("the last filter must be http_connection_manager or tcp_proxy");
      continue;
    }
    if (type == kHcm) out->end = ToHcm(tc, f.typed_config());
    else if (type == kTcp) out->end = ToTcp(tc, f.typed_config());
    else fc.Fail("network filter \"" + (type.empty() ? f.name() : type) + "\" is not supported");
    if (!last) fc.Fail("must be the last filter");
  }
  out->weft = ToProvenance(p.metadata());
  for (const auto& [k, v] : MetadataStrings(p.metadata(), "weft")) {
    if (k == "service") out->service = v;
    if (k == "namespace") out->service_namespace = v;
  }
  return out;
}

model::DnsFilter ToDns(const Ctx& c, const google::protobuf::Any& any) {
  auto p = Unpack<dns3::DnsFilterConfig>(c, any);
  model::DnsFilter out;
  out.stat_prefix = p.stat_prefix();
  if (p.server_config().has_external_dns_table()) (c / "server_config.external_dns_table").Fail("not supported");
  const auto& table = p.server_config().inline_dns_table();
  Ctx tc = c / "server_config.inline_dns_table";
  for (int i = 0; i < table.virtual_domains_size(); ++i) {
    const auto& v = table.virtual_domains(i);
    Ctx vc = (tc / "virtual_domains")[i];
    model::DnsFilter::Name n;
    n.name = LowerCase(v.name());
    if (!n.name.empty() && n.name.back() == '.') n.name.pop_back();
    if (n.name.empty() || n.name.size() > 253) (vc / "name").Fail("must have 1 to 253 characters");
    if (!v.endpoint().has_address_list()) (vc / "endpoint").Fail("only address_list is supported");
    for (int a = 0; a < v.endpoint().address_list().address_size(); ++a) {
      const std::string& text = v.endpoint().address_list().address(a);
      if (auto ip = model::Ip::Parse(text)) n.addresses.push_back(*ip);
      else (vc / "endpoint.address_list.address")[a].Fail("\"" + text + "\" is not an IP address");
    }
    n.ttl_s = static_cast<uint32_t>(Ns(vc / "answer_ttl", v.answer_ttl()) / 1'000'000'000);
    out.names.push_back(std::move(n));
  }
  for (int i = 0; i < table.known_suffixes_size(); ++i) {
    auto m = ToString((tc / "known_suffixes")[i], table.known_suffixes(i));
    if (m.kind != model::StringMatcher::kSuffix && m.kind != model::StringMatcher::kExact) (tc / "known_suffixes")[i].Fail("only suffix and exact are supported");
    out.known_suffixes.push_back(LowerCase(m.value));
  }
  if (p.has_client_config()) {
    const auto& cc = p.client_config();
    Ctx ccc = c / "client_config";
    out.forward = true;
    if (cc.has_resolver_timeout()) out.resolver_timeout_ns = Ns(ccc / "resolver_timeout", cc.resolver_timeout());
    if (cc.max_pending_lookups()) out.max_pending_lookups = static_cast<uint32_t>(std::min<uint64_t>(cc.max_pending_lookups(), 65536));
    for (int i = 0; i < cc.upstream_resolvers_size(); ++i) out.resolvers.push_back(ToAddress((ccc / "upstream_resolvers")[i], cc.upstream_resolvers(i), false));
    if (cc.has_typed_dns_resolver_config()) {
      const auto& any = cc.typed_dns_resolver_config().typed_config();
      Ctx rc = ccc / "typed_dns_resolver_config.typed_config";
      if (TypeOf(any) == "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig") {
        auto r = Unpack<envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig>(rc, any);
        for (int i = 0; i < r.resolvers_size(); ++i) out.resolvers.push_back(ToAddress((rc / "resolvers")[i], r.resolvers(i), false));
      } else {
        rc.Warn("\"" + TypeOf(any) + "\" is not supported: the system's resolvers are used");
      }
    }
    for (int i = 0; i < cc.dns_resolution_config().resolvers_size(); ++i)
      out.resolvers.push_back(ToAddress((ccc / "dns_resolution_config.resolvers")[i], cc.dns_resolution_config().resolvers(i), false));
  }
  return out;
}

model::ProxyProtocolFilter ToProxyProtocol(const Ctx& c, const google::protobuf::Any& any) {
  using core::ProxyProtocolConfig;
  auto p = Unpack<envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol>(c, any);
  model::ProxyProtocolFilter out;
  out.optional = p.allow_requests_without_proxy_protocol();
  for (int version : p.disallowed_versions()) (version == ProxyProtocolConfig::V1 ? out.v1 : out.v2) = false;
  if (p.has_pass_through_tlvs()) out.keep = ToTlvTypes(c / "pass_through_tlvs", p.pass_through_tlvs());
  out.stat_prefix = p.stat_prefix();
  return out;
}

void ToListenerFilter(const Ctx& c, const listener3::ListenerFilter& f, model::Listener& out) {
  std::string type = TypeOf(f.typed_config());
  auto is = [&](const char* message, const char* name) {
    return type == std::string("envoy.extensions.filters.listener.") + message || (type.empty() && f.name() == name);
  };
  if (is("original_dst.v3.OriginalDst", "envoy.filters.listener.original_dst")) out.filters |= model::kOriginalDst;
  else if (is("tls_inspector.v3.TlsInspector", "envoy.filters.listener.tls_inspector")) out.filters |= model::kTlsInspector;
  else if (is("http_inspector.v3.HttpInspector", "envoy.filters.listener.http_inspector")) out.filters |= model::kHttpInspector;
  else if (is("proxy_protocol.v3.ProxyProtocol", "envoy.filters.listener.proxy_protocol")) out.proxy_protocol = ToProxyProtocol(c / "typed_config", f.typed_config());
  else if (type == "envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig") out.dns = ToDns(c / "typed_config", f.typed_config());
  else c.Fail("listener filter \"" + (type.empty() ? f.name() : type) + "\" is not supported");
  if (f.has_config_discovery()) (c / "config_discovery").Fail("not supported");
}

}  // namespace

base::Result<std::shared_ptr<const model::Listener>> TranslateListener(const listener3::Listener& p, Warnings* warnings) {
  std::optional<base::Error> error;
  Ctx c{warnings, &error, ""};
  c.CheckFields(p);
  auto out = std::make_shared<model::Listener>();
  out->name = p.name();
  if (p.has_api_listener()) (c / "api_listener").Fail("not supported");
  if (p.has_internal_listener()) (c / "internal_listener").Fail("not supported");
  if (p.has_filter_chain_matcher()) (c / "filter_chain_matcher").Fail("not supported");
  if (p.has_fcds_config()) (c / "fcds_config").Fail("not supported");
  out->addresses.push_back(ToAddress(c / "address", p.address(), false));
  for (int i = 0; i < p.additional_addresses_size(); ++i)
    out->addresses.push_back(ToAddress((c / "additional_addresses")[i] / "address", p.additional_addresses(i).address(), false));
  if (out->name.empty()) out->name = out->addresses[0].ToString();
  out->stat_prefix = p.stat_prefix();
  for (int i = 0; i < p.listener_filters_size(); ++i) ToListenerFilter((c / "listener_filters")[i], p.listener_filters(i), *out);
  bool udp = out->addresses[0].udp;
  if (out->dns && !udp) (c / "address").Fail("a dns_filter needs a UDP address");
  if (udp && !out->dns) (c / "listener_filters").Fail("a UDP listener needs a dns_filter");
  if (udp && p.filter_chains_size()) (c / "filter_chains").Fail("a UDP listener has none");
  for (int i = 0; i < p.filter_chains_size(); ++i) out->chains.push_back(ToChain((c / "filter_chains")[i], p.filter_chains(i), static_cast<uint32_t>(i)));
  if (p.has_default_filter_chain())
    out->default_chain = ToChain(c / "default_filter_chain", p.default_filter_chain(), static_cast<uint32_t>(out->chains.size()));
  if (!udp && out->chains.empty() && !out->default_chain) (c / "filter_chains").Fail("at least one is required");
  switch (p.traffic_direction()) {
    case core::INBOUND: out->direction = model::Listener::kInbound; break;
    case core::OUTBOUND: out->direction = model::Listener::kOutbound; break;
    default: break;
  }
  if (p.has_per_connection_buffer_limit_bytes()) out->per_connection_buffer_limit = std::max<uint32_t>(1024, p.per_connection_buffer_limit_bytes().value());
  out->bind_to_port = p.has_bind_to_port() ? p.bind_to_port().value() : !p.deprecated_v1().has_bind_to_port() || p.deprecated_v1().bind_to_port().value();
  out->use_original_dst = p.use_original_dst().value();
  if (p.has_enable_reuse_port()) out->reuse_port = p.enable_reuse_port().value();
  out->transparent = p.transparent().value(), out->freebind = p.freebind().value();
  out->backlog = p.tcp_backlog_size().value();
  if (p.has_listener_filters_timeout()) out->listener_filters_timeout_ns = Ns(c / "listener_filters_timeout", p.listener_filters_timeout());
  out->continue_on_listener_filters_timeout = p.continue_on_listener_filters_timeout();
  out->access_logs = ToAccessLogs(c / "access_log", p.access_log());
  for (int i = 0; i < p.socket_options_size(); ++i) out->socket_options.push_back(ToSocketOption((c / "socket_options")[i], p.socket_options(i)));
  out->key = Fingerprint(p);
  if (error) return *error;
  auto index = model::ChainIndex::Build(out->chains);
  if (!index) return index.error();
  out->index = *index;
  return std::shared_ptr<const model::Listener>(std::move(out));
}

std::vector<std::string> RouteNames(const model::Listener& listener) {
  std::set<std::string> names;
  auto add = [&](const std::shared_ptr<const model::FilterChain>& chain) {
    if (chain && chain->http() && !chain->http()->rds_name.empty()) names.insert(chain->http()->rds_name);
  };
  for (const auto& chain : listener.chains) add(chain);
  add(listener.default_chain);
  return {names.begin(), names.end()};
}

}  // namespace weft::xds
