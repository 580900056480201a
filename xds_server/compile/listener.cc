#include <set>

#include "api/weft/policy/v1/policy.pb.h"
#include "envoy/extensions/filters/http/router/v3/router.pb.h"
#include "envoy/extensions/filters/listener/original_dst/v3/original_dst.pb.h"
#include "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.pb.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb.h"
#include "envoy/extensions/filters/udp/dns_filter/v3/dns_filter.pb.h"
#include "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.pb.h"
#include "third_party/istio_api/stats.pb.h"
#include "xds_server/compile/parts.h"

namespace weft::server::compile {
namespace {

namespace core = envoy::config::core::v3;
namespace listener = envoy::config::listener::v3;
namespace hcm = envoy::extensions::filters::network::http_connection_manager::v3;

void AddListenerFilter(const char* name, const google::protobuf::Message& config, listener::Listener* l) {
  auto* f = l->add_listener_filters();
  f->set_name(name);
  Pack(config, f->mutable_typed_config());
}

hcm::HttpConnectionManager BaseManager(const std::string& stat_prefix) {
  hcm::HttpConnectionManager m;
  m.set_stat_prefix(stat_prefix);
  m.set_codec_type(hcm::HttpConnectionManager::AUTO);
  m.mutable_normalize_path()->set_value(true);
  m.set_server_header_transformation(hcm::HttpConnectionManager::PASS_THROUGH);
  m.set_preserve_external_request_id(true);  // the id must be the same at both ends
  m.mutable_http2_protocol_options()->set_allow_connect(true);
  m.mutable_request_headers_timeout()->set_seconds(10);
  m.add_upgrade_configs()->set_upgrade_type("websocket");
  return m;
}

template <typename Filter>
void SetIstioStats(Filter* f) {
  f->set_name("istio.stats");
  Pack(stats::PluginConfig(), f->mutable_typed_config());
}

void AddRouter(hcm::HttpConnectionManager* m, bool metrics) {
  if (metrics) SetIstioStats(m->add_http_filters());
  auto* router = m->add_http_filters();
  router->set_name("envoy.filters.http.router");
  Pack(envoy::extensions::filters::http::router::v3::Router(), router->mutable_typed_config());
}

void AddManager(const hcm::HttpConnectionManager& m, listener::FilterChain* chain) {
  auto* f = chain->add_filters();
  f->set_name("envoy.filters.network.http_connection_manager");
  Pack(m, f->mutable_typed_config());
}

void AddTcp(const std::string& stat_prefix, const std::string& cluster, bool metrics, listener::FilterChain* chain) {
  if (metrics) SetIstioStats(chain->add_filters());
  envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy tcp;
  tcp.set_stat_prefix(stat_prefix);
  tcp.set_cluster(cluster);
  auto* f = chain->add_filters();
  f->set_name("envoy.filters.network.tcp_proxy");
  Pack(tcp, f->mutable_typed_config());
}

void Bind(const std::string& v4, const std::string& v6, uint16_t port, bool ipv6, listener::Listener* l) {
  SetAddress(v4, port, l->mutable_address());
  if (ipv6) SetAddress(v6, port, l->add_additional_addresses()->mutable_address());
}

void InboundChain(const World& world, const Service* service, const ProxyClass& c, const Port& port, bool tls, const PolicyObject* mode,
                  listener::FilterChain* chain) {
  const std::string number = std::to_string(port.target_port);
  chain->set_name("inbound|" + number + (tls ? "" : "|plaintext"));
  chain->mutable_filter_chain_match()->mutable_destination_port()->set_value(port.target_port);
  chain->mutable_filter_chain_match()->set_transport_protocol(tls ? "tls" : "raw_buffer");
  SetProvenance({mode, &c.service}, chain->mutable_metadata());
  const bool http = IsHttp(port.protocol), metrics = c.sds_dir.empty();
  if (tls) SetTls(TlsSide::kDownstream, world, "", "", http, c.sds_dir, chain->mutable_transport_socket());
  // Rules are written with the port callers know, which the service may declare anew.
  Port seen = port;
  if (service) {
    for (const Port& p : service->ports) {
      if (p.target_port == port.target_port) seen.service_port = p.service_port;
    }
  }
  if (!http) {
    for (const NamedFilter& f : NetworkAuthorization(world, c.service, seen)) {
      auto* out = chain->add_filters();
      out->set_name(f.name);
      *out->mutable_typed_config() = f.config;
    }
    return AddTcp("inbound_" + number, "inbound|" + number, metrics, chain);
  }
  hcm::HttpConnectionManager m = BaseManager("inbound_" + number);
  auto* config = m.mutable_route_config();
  config->set_name("inbound|" + number);
  auto* host = config->add_virtual_hosts();
  host->set_name("inbound|" + number);
  host->add_domains("*");
  auto* route = host->add_routes();
  route->set_name("default");
  route->mutable_match()->set_prefix("/");
  route->mutable_route()->set_cluster("inbound|" + number);
  route->mutable_route()->mutable_timeout();  // the caller's side keeps the time
  auto add = [&](const NamedFilter& f) {
    auto* out = m.add_http_filters();
    out->set_name(f.name);
    *out->mutable_typed_config() = f.config;
  };
  for (const NamedFilter& f : HttpAuthorization(world, c.service, seen)) add(f);
  if (AuthorizationNamesPaths(world, c.service)) {
    // "/x/..%2fadmin" and "//admin" are "/admin" to many applications: the rules judge, and the application gets, the plain path.
    m.set_merge_slashes(true);
    m.set_path_with_escaped_slashes_action(hcm::HttpConnectionManager::UNESCAPE_AND_FORWARD);
  }
  if (auto fault = FaultFilter(world, c.service)) add(*fault);
  AddRouter(&m, metrics);
  AddManager(m, chain);
}

}  // namespace

listener::Listener OutboundListener(const World& world, bool ipv6, bool metrics) {
  listener::Listener l;
  l.set_name("outbound");
  Bind("127.0.0.1", "::1", kOutboundPort, ipv6, &l);
  l.set_traffic_direction(core::OUTBOUND);
  AddListenerFilter("envoy.filters.listener.original_dst", envoy::extensions::filters::listener::original_dst::v3::OriginalDst(), &l);
  for (const auto& [name, service] : world.services) {
    if (service.vip.empty()) continue;
    for (const Port& port : service.ports) {
      listener::FilterChain* chain = l.add_filter_chains();
      const std::string id = RouteName(name, port.service_port);
      chain->set_name(id);
      auto* range = chain->mutable_filter_chain_match()->add_prefix_ranges();
      range->set_address_prefix(service.vip);
      range->mutable_prefix_len()->set_value(32);
      chain->mutable_filter_chain_match()->mutable_destination_port()->set_value(port.service_port);
      SetProvenance({nullptr, &name}, chain->mutable_metadata());
      if (!IsHttp(port.protocol)) {
        AddTcp(id, ClusterName(name, port.service_port, ""), metrics, chain);
        continue;
      }
      hcm::HttpConnectionManager m = BaseManager(id);
      m.mutable_rds()->set_route_config_name(id);
      m.mutable_rds()->mutable_config_source()->mutable_ads();
      m.mutable_rds()->mutable_config_source()->set_resource_api_version(core::V3);
      AddRouter(&m, metrics);
      AddManager(m, chain);
    }
  }
  l.mutable_default_filter_chain()->set_name("passthrough");
  AddTcp("passthrough", "passthrough", metrics, l.mutable_default_filter_chain());
  return l;
}

listener::Listener InboundListener(const World& world, const ProxyClass& c) {
  listener::Listener l;
  l.set_name("inbound");
  Bind("0.0.0.0", "::", kInboundPort, c.ipv6, &l);
  l.set_traffic_direction(core::INBOUND);
  AddListenerFilter("envoy.filters.listener.original_dst", envoy::extensions::filters::listener::original_dst::v3::OriginalDst(), &l);
  AddListenerFilter("envoy.filters.listener.tls_inspector", envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector(), &l);
  const PolicyObject* mode = world.FindPolicyOrDefault("MeshTls", c.service);
  const bool permissive = mode && mode->object->mesh_tls().mode() == "PERMISSIVE";
  const Service* service = world.FindService(c.service);
  std::set<uint16_t> seen;
  for (const Port& port : c.ports) {
    if (!seen.insert(port.target_port).second) continue;  // one application port under two service ports: one chain
    InboundChain(world, service, c, port, true, mode, l.add_filter_chains());
    if (permissive) InboundChain(world, service, c, port, false, mode, l.add_filter_chains());
  }
  if (permissive) {
    // A plaintext caller that waits for the server to speak first must not wait for the inspector.
    l.mutable_listener_filters_timeout()->set_nanos(500'000'000);
    l.set_continue_on_listener_filters_timeout(true);
  }
  return l;
}

listener::Listener DnsListener(const World& world, const std::string& ns, bool ipv6) {
  listener::Listener l;
  l.set_name("dns");
  Bind("127.0.0.1", "::1", kDnsPort, ipv6, &l);
  l.mutable_address()->mutable_socket_address()->set_protocol(core::SocketAddress::UDP);
  for (auto& more : *l.mutable_additional_addresses()) more.mutable_address()->mutable_socket_address()->set_protocol(core::SocketAddress::UDP);
  l.mutable_udp_listener_config();
  envoy::extensions::filters::udp::dns_filter::v3::DnsFilterConfig dns;
  dns.set_stat_prefix("dns");
  dns.set_case_insensitive(true);
  auto* table = dns.mutable_server_config()->mutable_inline_dns_table();
  table->set_external_retry_count(2);
  std::set<std::string> seen;
  auto add = [&](const std::string& name, const std::string& vip) {
    if (!seen.insert(name).second) return;
    auto* d = table->add_virtual_domains();
    d->set_name(name);
    d->mutable_endpoint()->mutable_address_list()->add_address(vip);
    d->mutable_answer_ttl()->set_seconds(30);
  };
  for (const auto& [name, service] : world.services) {
    if (service.vip.empty() || service.ports.empty()) continue;
    if (name.ns == ns) add(name.name, service.vip);
    add(name.ToString(), service.vip);
    add(name.ToString() + ".mesh", service.vip);
    for (const std::string& host : service.hosts) add(host, service.vip);
  }
  auto* client = dns.mutable_client_config();
  client->mutable_resolver_timeout()->set_seconds(5);
  client->set_max_pending_lookups(256);
  client->mutable_typed_dns_resolver_config()->set_name("envoy.network.dns_resolver.cares");
  Pack(envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig(),
       client->mutable_typed_dns_resolver_config()->mutable_typed_config());
  auto* f = l.add_listener_filters();
  f->set_name("envoy.filters.udp.dns_filter");
  Pack(dns, f->mutable_typed_config());
  return l;
}

}  // namespace weft::server::compile
