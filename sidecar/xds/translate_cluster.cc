// Cluster and ClusterLoadAssignment → model.
#include <algorithm>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.pb.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

namespace cluster3 = envoy::config::cluster::v3;
namespace endpoint3 = envoy::config::endpoint::v3;
namespace http3 = envoy::extensions::upstreams::http::v3;

constexpr char kHttpOptions[] = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

void ToBreakers(const Ctx& c, const cluster3::CircuitBreakers& p, model::Cluster& out) {
  bool seen[2] = {};
  for (int i = 0; i < p.thresholds_size(); ++i) {
    const auto& t = p.thresholds(i);
    int priority = t.priority() == core::HIGH ? 1 : 0;
    if (seen[priority]) continue;  // the first of a priority counts, as in Envoy
    seen[priority] = true;
    model::BreakerThresholds& b = out.breakers[priority];
    if (t.has_max_connections()) b.max_connections = t.max_connections().value();
    if (t.has_max_pending_requests()) b.max_pending = t.max_pending_requests().value();
    if (t.has_max_requests()) b.max_requests = t.max_requests().value();
    if (t.has_max_retries()) b.max_retries = t.max_retries().value(), b.max_retries_set = true;
    b.track_remaining = t.track_remaining();
    b.budget = t.has_retry_budget() || !t.has_max_retries();
    if (t.has_retry_budget()) {
      if (t.retry_budget().has_budget_percent()) b.budget_percent = t.retry_budget().budget_percent().value();
      if (t.retry_budget().has_min_retry_concurrency()) b.min_retry_concurrency = t.retry_budget().min_retry_concurrency().value();
      if (b.budget_percent < 0 || b.budget_percent > 100) ((c / "thresholds")[i] / "retry_budget.budget_percent").Fail("must be 0 to 100");
    }
  }
}

std::shared_ptr<const model::OutlierConfig> ToOutlier(const Ctx& c, const cluster3::OutlierDetection& p) {
  auto out = std::make_shared<model::OutlierConfig>();
  auto number = [&](const char* field, const auto& wrapper, bool set, uint32_t& to, uint32_t most = UINT32_MAX) {
    if (!set) return;
    to = wrapper.value();
    if (to > most) (c / field).Fail("must be at most " + std::to_string(most));
  };
#define WEFT_NUMBER(field, to, ...) number(#field, p.field(), p.has_##field(), out->to, ##__VA_ARGS__)
  WEFT_NUMBER(consecutive_5xx, consecutive_5xx);
  WEFT_NUMBER(consecutive_gateway_failure, consecutive_gateway);
  WEFT_NUMBER(consecutive_local_origin_failure, consecutive_local);
  WEFT_NUMBER(enforcing_consecutive_5xx, enforce_5xx, 100);
  WEFT_NUMBER(enforcing_consecutive_gateway_failure, enforce_gateway, 100);
  WEFT_NUMBER(enforcing_consecutive_local_origin_failure, enforce_local, 100);
  WEFT_NUMBER(max_ejection_percent, max_ejection_percent, 100);
  out->enforce_success_rate = 100;
  WEFT_NUMBER(enforcing_success_rate, enforce_success_rate, 100);
  WEFT_NUMBER(success_rate_minimum_hosts, success_rate_min_hosts);
  WEFT_NUMBER(success_rate_request_volume, success_rate_volume);
  WEFT_NUMBER(success_rate_stdev_factor, success_rate_stdev);
  WEFT_NUMBER(enforcing_failure_percentage, enforce_failure_percent, 100);
  WEFT_NUMBER(failure_percentage_threshold, failure_percent_threshold, 100);
  WEFT_NUMBER(failure_percentage_minimum_hosts, failure_percent_min_hosts);
  WEFT_NUMBER(failure_percentage_request_volume, failure_percent_volume);
#undef WEFT_NUMBER
  // Own failures are judged by runs of them, not by rates.
  if (p.enforcing_local_origin_success_rate().value()) (c / "enforcing_local_origin_success_rate").Warn("not supported, ignored");
  if (p.enforcing_failure_percentage_local_origin().value()) (c / "enforcing_failure_percentage_local_origin").Warn("not supported, ignored");
  if (p.has_interval()) out->interval_ns = Ns(c / "interval", p.interval());
  if (p.has_base_ejection_time()) out->base_ejection_ns = Ns(c / "base_ejection_time", p.base_ejection_time());
  if (p.has_max_ejection_time()) out->max_ejection_ns = Ns(c / "max_ejection_time", p.max_ejection_time());
  out->max_ejection_ns = std::max(out->max_ejection_ns, out->base_ejection_ns);
  out->split_local_errors = p.split_external_local_origin_errors();
  out->always_eject_one = p.always_eject_one_host().value();
  return out;
}

void ToProtocol(const Ctx& c, const http3::HttpProtocolOptions& p, model::Cluster& out) {
  using P = http3::HttpProtocolOptions;
  out.common = ToCommonHttp(c / "common_http_protocol_options", p.common_http_protocol_options());
  out.auto_sni = p.upstream_http_protocol_options().auto_sni();
  out.auto_san_validation = p.upstream_http_protocol_options().auto_san_validation();
  auto both = [&](const Ctx& oc, const auto& o) {
    if (o.has_http3_protocol_options()) (oc / "http3_protocol_options").Fail("HTTP/3 is not supported");
    out.http1 = ToHttp1(oc / "http_protocol_options", o.http_protocol_options());
    out.http2 = ToHttp2(oc / "http2_protocol_options", o.http2_protocol_options());
  };
  switch (p.upstream_protocol_options_case()) {
    case P::kExplicitHttpConfig:
      both(c / "explicit_http_config", p.explicit_http_config());
      out.protocol = p.explicit_http_config().has_http2_protocol_options() ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
      break;
    case P::kUseDownstreamProtocolConfig:
      both(c / "use_downstream_protocol_config", p.use_downstream_protocol_config());
      out.protocol = model::Cluster::kUseDownstream;
      break;
    case P::kAutoConfig:
      both(c / "auto_config", p.auto_config());
      out.protocol = model::Cluster::kAuto;
      break;
    default: c.Fail("needs explicit_http_config, use_downstream_protocol_config or auto_config");
  }
}

void ToLb(const Ctx& c, const cluster3::Cluster& p, model::Cluster& out) {
  using C = cluster3::Cluster;
  if (p.has_load_balancing_policy() && p.load_balancing_policy().policies_size() > 0) {
    // The first known one counts.
    Ctx lc = c / "load_balancing_policy.policies";
    std::string names;
    for (const auto& policy : p.load_balancing_policy().policies()) {
      std::string type = TypeOf(policy.typed_extension_config().typed_config());
      constexpr char kBase[] = "envoy.extensions.load_balancing_policies.";
      if (type == std::string(kBase) + "round_robin.v3.RoundRobin") return void(out.lb = model::LbPolicy::kRoundRobin);
      if (type == std::string(kBase) + "least_request.v3.LeastRequest") return void(out.lb = model::LbPolicy::kLeastRequest);
      if (type == std::string(kBase) + "random.v3.Random") return void(out.lb = model::LbPolicy::kRandom);
      names += " " + type;
    }
    lc.Fail("none of these is supported:" + names);
    return;
  }
  switch (p.lb_policy()) {
    case C::ROUND_ROBIN: out.lb = model::LbPolicy::kRoundRobin; break;
    case C::LEAST_REQUEST: out.lb = model::LbPolicy::kLeastRequest; break;
    case C::RANDOM: out.lb = model::LbPolicy::kRandom; break;
    case C::CLUSTER_PROVIDED: out.lb = model::LbPolicy::kClusterProvided; break;
    case C::RING_HASH:
    case C::MAGLEV: (c / "lb_policy").Warn(C::LbPolicy_Name(p.lb_policy()) + " is not supported, ROUND_ROBIN is used"); break;
    default: (c / "lb_policy").Fail("needs load_balancing_policy");
  }
  if (p.has_least_request_lb_config() && p.least_request_lb_config().has_choice_count())
    out.least_request_choices = std::clamp<uint32_t>(p.least_request_lb_config().choice_count().value(), 2, 100);
}

model::ProxyProtocolHeader ToProxyProtocol(const Ctx& c, const core::ProxyProtocolConfig& p) {
  model::ProxyProtocolHeader out;
  out.version = p.version() == core::ProxyProtocolConfig::V2 ? 2 : 1;
  if (p.has_pass_through_tlvs()) out.pass = ToTlvTypes(c / "pass_through_tlvs", p.pass_through_tlvs());
  size_t bytes = 0;
  for (int i = 0; i < p.added_tlvs_size(); ++i) {
    const auto& tlv = p.added_tlvs(i);
    if (tlv.type() > 255) ((c / "added_tlvs")[i] / "type").Fail("must be 0 to 255");
    if (tlv.has_format_string()) ((c / "added_tlvs")[i] / "format_string").Fail("not supported: give a value");
    out.added.emplace_back(static_cast<uint8_t>(tlv.type()), tlv.value());
    bytes += 3 + tlv.value().size();
  }
  if (bytes > 32 * 1024) (c / "added_tlvs").Fail("more than 32 KiB");
  return out;
}

// PROXY protocol around TLS or nothing.
void ToTransport(const Ctx& c, const core::TransportSocket& p, model::Cluster& out) {
  using Around = envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
  if (TypeOf(p.typed_config()) != Around::descriptor()->full_name()) return void(out.tls = ToTls(c, p, true));
  Ctx tc = c / "typed_config";
  auto around = Unpack<Around>(tc, p.typed_config());
  out.proxy_protocol = ToProxyProtocol(tc / "config", around.config());
  if (!around.has_transport_socket()) (tc / "transport_socket").Fail("is required");
  else out.tls = ToTls(tc / "transport_socket", around.transport_socket(), true);
}

void ToBind(const Ctx& c, const core::BindConfig& p, model::Cluster& out) {
  if (p.has_source_address()) {
    core::Address a;
    *a.mutable_socket_address() = p.source_address();
    out.bind_source = ToAddress(c / "source_address", a, false);
    if (out.bind_source.ip.is_any() && out.bind_source.port == 0) out.bind_source = {};
  }
  for (int i = 0; i < p.socket_options_size(); ++i) out.socket_options.push_back(ToSocketOption((c / "socket_options")[i], p.socket_options(i)));
}

}  // namespace

std::shared_ptr<const model::Endpoints> ToEndpoints(const Ctx& c, const endpoint3::ClusterLoadAssignment& p, bool names_allowed) {
  auto out = std::make_shared<model::Endpoints>();
  out->cluster = p.cluster_name();
  for (int l = 0; l < p.endpoints_size(); ++l) {
    const auto& group = p.endpoints(l);
    Ctx gc = (c / "endpoints")[l];
    if (group.has_leds_cluster_locality_config()) (gc / "leds_cluster_locality_config").Fail("not supported");
    if (group.priority() > 128) (gc / "priority").Fail("must be at most 128");
    model::Locality loc{group.locality().region(), group.locality().zone(), group.locality().sub_zone(), group.load_balancing_weight().value(), group.priority()};
    uint32_t locality = static_cast<uint32_t>(out->localities.size());
    out->localities.push_back(std::move(loc));
    out->priorities = std::max(out->priorities, group.priority() + 1);
    const auto& list = group.has_load_balancer_endpoints() ? group.load_balancer_endpoints().lb_endpoints() : group.lb_endpoints();
    for (int i = 0; i < list.size(); ++i) {
      const auto& e = list[i];
      Ctx ec = (gc / "lb_endpoints")[i];
      const endpoint3::Endpoint* ep = &e.endpoint();
      if (!e.endpoint_name().empty()) {
        auto it = p.named_endpoints().find(e.endpoint_name());
        if (it == p.named_endpoints().end()) (ec / "endpoint_name").Fail("\"" + e.endpoint_name() + "\" is not in named_endpoints");
        else ep = &it->second;
      }
      model::Endpoint to;
      to.address = ToAddress(ec / "endpoint.address", ep->address(), names_allowed);
      to.hostname = ep->hostname();
      to.health = static_cast<model::EndpointHealth>(std::clamp(static_cast<int>(e.health_status()), 0, 5));
      to.weight = e.has_load_balancing_weight() ? e.load_balancing_weight().value() : 1;
      if (to.weight == 0) (ec / "load_balancing_weight").Fail("must be greater than 0");
      to.priority = group.priority();
      to.locality = locality;
      if (e.has_metadata()) {
        for (const auto& [k, v] : MetadataStrings(e.metadata(), "weft")) {
          if (k == "workload") to.workload = v;
          if (k == "version") to.version = v;
        }
        to.istio_workload = IstioWorkload(e.metadata());
        to.lb_metadata = MetadataStrings(e.metadata(), "envoy.lb");
        to.transport_match = MetadataStrings(e.metadata(), "envoy.transport_socket_match");
        for (const auto& [k, v] : to.lb_metadata) to.canary = to.canary || (k == "canary" && v == "true");
      }
      out->endpoints.push_back(std::move(to));
    }
  }
  if (p.policy().has_overprovisioning_factor()) {
    out->overprovisioning_percent = p.policy().overprovisioning_factor().value();
    if (out->overprovisioning_percent == 0) (c / "policy.overprovisioning_factor").Fail("must be greater than 0");
  }
  // Categories are independent of each other: what all of them let through is the product.
  double kept = 1;
  for (const auto& d : p.policy().drop_overloads()) kept *= 1 - Fraction(d.drop_percentage()).fraction();
  out->drop_per_million = static_cast<uint32_t>((1 - kept) * 1'000'000 + 0.5);
  return out;
}

base::Result<std::shared_ptr<const model::Endpoints>> TranslateEndpoints(const endpoint3::ClusterLoadAssignment& p, Warnings* warnings) {
  std::optional<base::Error> error;
  Ctx c{warnings, &error, ""};
  c.CheckFields(p);
  if (p.cluster_name().empty()) (c / "cluster_name").Fail("is required");
  auto out = ToEndpoints(c, p, false);
  if (error) return *error;
  return out;
}

base::Result<std::shared_ptr<const model::Cluster>> TranslateCluster(const cluster3::Cluster& p, Warnings* warnings) {
  using C = cluster3::Cluster;
  std::optional<base::Error> error;
  Ctx c{warnings, &error, ""};
  c.CheckFields(p);
  auto out = std::make_shared<model::Cluster>();
  out->name = p.name();
  if (out->name.empty()) (c / "name").Fail("is required");
  out->alt_stat_name = p.alt_stat_name();
  switch (p.type()) {
    case C::STATIC: out->type = model::Cluster::kStatic; break;
    case C::STRICT_DNS: out->type = model::Cluster::kStrictDns; break;
    case C::LOGICAL_DNS: out->type = model::Cluster::kLogicalDns; break;
    case C::EDS: out->type = model::Cluster::kEds; break;
    case C::ORIGINAL_DST: out->type = model::Cluster::kOriginalDst; break;
    default: (c / "type").Fail("not supported");
  }
  if (p.has_cluster_type()) (c / "cluster_type").Fail("\"" + p.cluster_type().name() + "\" is not supported");
  bool dns = out->type == model::Cluster::kStrictDns || out->type == model::Cluster::kLogicalDns;
  if (out->type == model::Cluster::kEds) {
    out->eds_service_name = p.eds_cluster_config().service_name().empty() ? p.name() : p.eds_cluster_config().service_name();
    RequireAds(c / "eds_cluster_config.eds_config", p.eds_cluster_config().eds_config());
    if (p.has_load_assignment()) (c / "load_assignment").Fail("an EDS cluster has none");
  } else if (out->type == model::Cluster::kOriginalDst) {
    if (p.has_load_assignment()) (c / "load_assignment").Fail("an ORIGINAL_DST cluster has none");
    const auto& o = p.original_dst_lb_config();
    // Where traffic goes would be somewhere else without it.
    if (o.use_http_header()) (c / "original_dst_lb_config.use_http_header").Fail("not supported");
    if (o.has_metadata_key()) (c / "original_dst_lb_config.metadata_key").Fail("not supported");
    if (o.has_upstream_port_override()) out->original_dst_port = o.upstream_port_override().value();
  } else {
    if (!p.has_load_assignment()) (c / "load_assignment").Fail("is required");
    out->inline_endpoints = ToEndpoints(c / "load_assignment", p.load_assignment(), dns);
    if (out->type == model::Cluster::kLogicalDns && out->inline_endpoints->endpoints.size() != 1)
      (c / "load_assignment").Fail("a LOGICAL_DNS cluster has exactly one endpoint");
  }
  if (p.has_connect_timeout()) out->connect_timeout_ns = Ns(c / "connect_timeout", p.connect_timeout());
  if (out->connect_timeout_ns == 0) (c / "connect_timeout").Fail("must be greater than 0");
  if (p.has_per_connection_buffer_limit_bytes()) out->per_connection_buffer_limit = std::max<uint32_t>(1024, p.per_connection_buffer_limit_bytes().value());
  ToLb(c, p, *out);
  const auto& common = p.common_lb_config();
  if (common.has_healthy_panic_threshold()) out->healthy_panic_percent = common.healthy_panic_threshold().value();
  out->locality_weighted = common.has_locality_weighted_lb_config();
  out->fail_traffic_on_panic = common.zone_aware_lb_config().fail_traffic_on_panic();
  ToBreakers(c / "circuit_breakers", p.circuit_breakers(), *out);
  if (p.has_outlier_detection()) out->outlier = ToOutlier(c / "outlier_detection", p.outlier_detection());
  if (p.health_checks_size()) (c / "health_checks").Warn("active health checks are not made: endpoints count as healthy until they fail");
  out->ignore_health_on_host_removal = p.ignore_health_on_host_removal();
  out->close_connections_on_host_health_failure = p.close_connections_on_host_health_failure();

  // Picking the wrong one would send traffic in the clear, or to the wrong peer.
  if (p.transport_socket_matches_size()) (c / "transport_socket_matches").Fail("not supported");
  if (p.has_transport_socket_matcher()) (c / "transport_socket_matcher").Fail("not supported");
  if (p.has_transport_socket()) ToTransport(c / "transport_socket", p.transport_socket(), *out);

  // The deprecated fields first; typed options replace them.
  if (p.has_common_http_protocol_options()) out->common = ToCommonHttp(c / "common_http_protocol_options", p.common_http_protocol_options());
  if (p.has_http_protocol_options()) out->http1 = ToHttp1(c / "http_protocol_options", p.http_protocol_options());
  if (p.has_http2_protocol_options()) out->http2 = ToHttp2(c / "http2_protocol_options", p.http2_protocol_options()), out->protocol = model::Cluster::kHttp2;
  if (p.has_max_requests_per_connection()) out->common.max_requests_per_connection = p.max_requests_per_connection().value();
  if (p.protocol_selection() == C::USE_DOWNSTREAM_PROTOCOL) out->protocol = model::Cluster::kUseDownstream;
  out->auto_sni = p.upstream_http_protocol_options().auto_sni();
  out->auto_san_validation = p.upstream_http_protocol_options().auto_san_validation();
  for (const auto& [key, any] : p.typed_extension_protocol_options()) {
    Ctx kc = (c / "typed_extension_protocol_options").Key(key);
    if (TypeOf(any) == kHttpOptions) ToProtocol(kc, Unpack<http3::HttpProtocolOptions>(kc, any), *out);
    else kc.Warn("not supported, ignored");
  }
  // Without it any name under the roots would do.
  if (out->auto_san_validation) c.Fail("auto_san_validation is not supported: name the peer in match_typed_subject_alt_names");
  if (p.has_dns_refresh_rate()) {
    out->dns_refresh_ns = Ns(c / "dns_refresh_rate", p.dns_refresh_rate());
    if (out->dns_refresh_ns < 1'000'000) (c / "dns_refresh_rate").Fail("must be at least 1 ms");
  }
  if (p.has_preconnect_policy()) {
    Ctx pc = c / "preconnect_policy";
    const auto ratio = [&](const char* field, const google::protobuf::DoubleValue& v, bool set, double& to) {
      if (!set) return;
      to = v.value();
      if (!(to >= 1 && to <= 3)) (pc / field).Fail("must be 1 to 3");
    };
    ratio("per_upstream_preconnect_ratio", p.preconnect_policy().per_upstream_preconnect_ratio(),
          p.preconnect_policy().has_per_upstream_preconnect_ratio(), out->preconnect_ratio);
    ratio("predictive_preconnect_ratio", p.preconnect_policy().predictive_preconnect_ratio(),
          p.preconnect_policy().has_predictive_preconnect_ratio(), out->predictive_preconnect_ratio);
  }
  out->respect_dns_ttl = p.respect_dns_ttl();
  out->dns_family = static_cast<model::Cluster::DnsFamily>(std::clamp(static_cast<int>(p.dns_lookup_family()), 0, 4));
  if (p.has_upstream_bind_config()) ToBind(c / "upstream_bind_config", p.upstream_bind_config(), *out);
  if (p.upstream_connection_options().has_tcp_keepalive()) {
    const auto& k = p.upstream_connection_options().tcp_keepalive();
    out->tcp_keepalive = true;
    out->keepalive_probes = k.keepalive_probes().value(), out->keepalive_time_s = k.keepalive_time().value(), out->keepalive_interval_s = k.keepalive_interval().value();
  }
  if (p.filters_size()) (c / "filters").Fail("not supported");

  out->weft = ToProvenance(p.metadata());
  for (const auto& [k, v] : MetadataStrings(p.metadata(), "weft")) {
    if (k == "service") out->service = v;
    if (k == "namespace") out->service_namespace = v;
  }
  SetIstioService(p.metadata(), *out);
  if (error) return *error;
  return std::shared_ptr<const model::Cluster>(std::move(out));
}

}  // namespace weft::xds
