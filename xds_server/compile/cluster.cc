#include <algorithm>
#include <map>
#include <tuple>

#include "api/weft/policy/v1/policy.pb.h"
#include "envoy/extensions/upstreams/http/v3/http_protocol_options.pb.h"
#include "xds_server/compile/parts.h"

namespace weft::server::compile {
namespace {

namespace cluster = envoy::config::cluster::v3;
using HttpOptions = envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

void SetHttp(bool h2, bool between_sidecars, cluster::Cluster& c) {
  HttpOptions options;
  if (h2) {
    auto* http2 = options.mutable_explicit_http_config()->mutable_http2_protocol_options();
    http2->set_allow_connect(true);  // WebSockets travel as extended CONNECT (RFC 8441)
    if (between_sidecars) {
      // A peer that vanished without a word is noticed within 35 s idle.
      http2->mutable_connection_keepalive()->mutable_interval()->set_seconds(30);
      http2->mutable_connection_keepalive()->mutable_timeout()->set_seconds(5);
    }
  } else {
    options.mutable_explicit_http_config()->mutable_http_protocol_options();
  }
  Pack(options, &(*c.mutable_typed_extension_protocol_options())["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]);
}

void SetBreakers(const policy::v1::Traffic& t, cluster::Cluster& c) {
  auto* limit = c.mutable_circuit_breakers()->add_thresholds();
  const auto& b = t.breakers();
  limit->mutable_max_connections()->set_value(b.max_connections() ? b.max_connections() : 1024);
  limit->mutable_max_pending_requests()->set_value(b.max_pending_requests() ? b.max_pending_requests() : 1024);
  limit->mutable_max_requests()->set_value(b.max_requests() ? b.max_requests() : 4096);
  const auto& budget = t.retry_budget();
  limit->mutable_retry_budget()->mutable_budget_percent()->set_value(t.has_retry_budget() && budget.percent() > 0 ? budget.percent() : 20);
  // The floor is what a quiet service lives on: with a handful of requests in flight, an instance that dies takes half of
  // them with it at once, and each must find its retry. Envoy's own default, 3, loses some of them.
  limit->mutable_retry_budget()->mutable_min_retry_concurrency()->set_value(budget.min_concurrency() ? budget.min_concurrency() : 10);
  limit->set_track_remaining(true);
}

void SetOutlier(const policy::v1::Traffic& t, cluster::Cluster& c) {
  const auto& o = t.outlier();
  if (o.disabled()) return;
  auto* out = c.mutable_outlier_detection();
  const uint32_t errors = o.consecutive_errors() ? o.consecutive_errors() : 5;
  // Gateway errors and failures to connect count, an application's own 500s do not.
  out->mutable_consecutive_gateway_failure()->set_value(errors);
  out->mutable_enforcing_consecutive_gateway_failure()->set_value(100);
  out->mutable_enforcing_consecutive_5xx()->set_value(0);
  out->set_split_external_local_origin_errors(true);
  out->mutable_consecutive_local_origin_failure()->set_value(errors);
  out->mutable_enforcing_consecutive_local_origin_failure()->set_value(100);
  out->mutable_enforcing_success_rate()->set_value(0);
  out->mutable_enforcing_local_origin_success_rate()->set_value(0);
  if (o.has_interval()) *out->mutable_interval() = o.interval();
  else out->mutable_interval()->set_seconds(1);
  if (o.has_base_ejection()) *out->mutable_base_ejection_time() = o.base_ejection();
  else out->mutable_base_ejection_time()->set_seconds(10);
  if (o.has_max_ejection()) *out->mutable_max_ejection_time() = o.max_ejection();
  else out->mutable_max_ejection_time()->set_seconds(120);
  // The maximum may not be below the base.
  if (out->max_ejection_time().seconds() < out->base_ejection_time().seconds()) *out->mutable_max_ejection_time() = out->base_ejection_time();
  out->mutable_max_ejection_percent()->set_value(o.max_ejection_percent() ? o.max_ejection_percent() : 30);
  // Envoy would send to ejected instances again as soon as half are out. What a policy allows to be ejected stays out.
  const uint32_t kept = 100 - std::min<uint32_t>(100, out->max_ejection_percent().value());
  if (kept < 50) c.mutable_common_lb_config()->mutable_healthy_panic_threshold()->set_value(kept);
  // With two or three instances 30 % is less than one: the broken one still has to go.
  out->mutable_always_eject_one_host()->set_value(true);
}

cluster::Cluster OutboundCluster(const World& world, const Target& t, const std::string& sds_dir) {
  cluster::Cluster c;
  c.set_name(ClusterName(t.service, t.port.service_port, t.version));
  const PolicyObject* policy = world.FindPolicyOrDefault("Traffic", t.service);
  const policy::v1::Traffic traffic = policy ? policy->object->traffic() : policy::v1::Traffic();
  SetProvenance({policy, &t.service}, c.mutable_metadata());
  if (!t.version.empty()) SetWeft(c.mutable_metadata(), "version", t.version);
  if (traffic.has_connect_timeout()) *c.mutable_connect_timeout() = traffic.connect_timeout();
  else c.mutable_connect_timeout()->set_seconds(1);
  if (traffic.load_balancer() == "round_robin") c.set_lb_policy(cluster::Cluster::ROUND_ROBIN);
  else if (traffic.load_balancer() == "random") c.set_lb_policy(cluster::Cluster::RANDOM);
  else c.set_lb_policy(cluster::Cluster::LEAST_REQUEST);
  SetBreakers(traffic, c);
  SetOutlier(traffic, c);
  c.mutable_upstream_connection_options()->mutable_tcp_keepalive();

  const Service* s = world.FindService(t.service);
  if (s && s->external()) {
    c.set_type(cluster::Cluster::STATIC);
    c.mutable_load_assignment()->set_cluster_name(c.name());
    auto* locality = c.mutable_load_assignment()->add_endpoints();
    for (const std::string& e : s->external_endpoints) {
      size_t colon = e.rfind(':');
      std::string ip = e.substr(0, colon);
      if (ip.size() > 2 && ip.front() == '[') ip = ip.substr(1, ip.size() - 2);
      SetAddress(ip, static_cast<uint16_t>(std::stoi(e.substr(colon + 1))),
                 locality->add_lb_endpoints()->mutable_endpoint()->mutable_address());
    }
    if (IsHttp(t.port.protocol)) SetHttp(t.port.protocol != Protocol::kHttp, false, c);
    return c;
  }
  c.set_type(cluster::Cluster::EDS);
  c.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  c.mutable_eds_cluster_config()->mutable_eds_config()->set_resource_api_version(envoy::config::core::v3::V3);
  const bool http = IsHttp(t.port.protocol);
  SetTls(TlsSide::kUpstream, world, SpiffeId(world.trust_domain, t.service), t.service.ToString(), http, sds_dir, c.mutable_transport_socket());
  if (http) SetHttp(true, true, c);
  return c;
}

}  // namespace

std::vector<Target> Targets(const World& world) {
  std::map<std::tuple<Name, uint16_t, std::string>, Port> found;
  auto add = [&](const Name& service, const Port& port, const std::string& version) {
    found.emplace(std::tuple(service, port.service_port, version), port);
  };
  for (const auto& [name, s] : world.services) {
    for (const Port& p : s.ports) {
      add(name, p, "");
      if (s.external()) continue;
      for (const std::string& v : s.versions) add(name, p, v);
    }
  }
  // Destinations that nobody offers yet get an empty cluster: a request is answered "no healthy upstream".
  auto routes = world.policies.find("Route");
  if (routes != world.policies.end()) {
    for (const auto& [name, policy] : routes->second) {
      const Service* own = world.FindService(name);
      if (!own) continue;
      for (const Port& port : own->ports) {
        if (!IsHttp(port.protocol)) continue;
        for (const auto& rule : policy.object->route().rules()) {
          for (const auto& to : rule.to()) {
            Name target = to.service().empty() ? name : ParseServiceRef(to.service(), name.ns);
            const Service* s = world.FindService(target);
            add(target, TargetPort(world, target, static_cast<uint16_t>(to.port()), port), s && s->external() ? "" : to.version());
          }
        }
      }
    }
  }
  std::vector<Target> out;
  for (const auto& [key, port] : found) out.push_back({std::get<0>(key), port, std::get<2>(key)});
  return out;
}

std::vector<cluster::Cluster> OutboundClusters(const World& world, const std::string& sds_dir) {
  std::vector<cluster::Cluster> out;
  for (const Target& t : Targets(world)) out.push_back(OutboundCluster(world, t, sds_dir));
  return out;
}

std::vector<envoy::config::endpoint::v3::ClusterLoadAssignment> Endpoints(const World& world) {
  std::vector<envoy::config::endpoint::v3::ClusterLoadAssignment> out;
  for (const Target& t : Targets(world)) {
    const Service* s = world.FindService(t.service);
    if (s && s->external()) continue;
    envoy::config::endpoint::v3::ClusterLoadAssignment a;
    a.set_cluster_name(ClusterName(t.service, t.port.service_port, t.version));
    if (s) {
      for (const auto& w : s->workloads) {
        if (!w->active() || (!t.version.empty() && w->version != t.version)) continue;
        // The instance's own port for this service port: instances of one service may listen on different ones.
        uint16_t target = 0;
        for (const Port& p : w->ports) {
          if (p.service_port == t.port.service_port) target = p.target_port;
        }
        for (const Port& p : w->ports) {
          if (!target && p.target_port == t.port.target_port) target = p.target_port;
        }
        if (!target) continue;
        if (a.endpoints_size() == 0) a.add_endpoints();
        auto* e = a.mutable_endpoints(0)->add_lb_endpoints();
        SetAddress(w->address, target, e->mutable_endpoint()->mutable_address());
        e->set_health_status(envoy::config::core::v3::HEALTHY);
        SetWeft(e->mutable_metadata(), "workload", w->id);
        if (!w->version.empty()) SetWeft(e->mutable_metadata(), "version", w->version);
      }
    }
    out.push_back(std::move(a));
  }
  return out;
}

cluster::Cluster InboundCluster(const Port& port) {
  cluster::Cluster c;
  c.set_name("inbound|" + std::to_string(port.target_port));
  c.set_type(cluster::Cluster::STATIC);
  c.mutable_connect_timeout()->set_seconds(1);
  c.mutable_load_assignment()->set_cluster_name(c.name());
  SetAddress("127.0.0.1", port.target_port,
             c.mutable_load_assignment()->add_endpoints()->add_lb_endpoints()->mutable_endpoint()->mutable_address());
  auto* limit = c.mutable_circuit_breakers()->add_thresholds();
  limit->mutable_max_connections()->set_value(4096);
  limit->mutable_max_pending_requests()->set_value(4096);
  limit->mutable_max_requests()->set_value(4096);
  if (IsHttp(port.protocol)) SetHttp(port.protocol != Protocol::kHttp, false, c);
  return c;
}

cluster::Cluster Passthrough() {
  cluster::Cluster c;
  c.set_name("passthrough");
  c.set_type(cluster::Cluster::ORIGINAL_DST);
  c.set_lb_policy(cluster::Cluster::CLUSTER_PROVIDED);
  c.mutable_connect_timeout()->set_seconds(5);
  return c;
}

}  // namespace weft::server::compile
