// Resources as YAML → model: what is taken, what is refused (with its place), what is warned of.
#include <gtest/gtest.h>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/xds/bootstrap.h"

namespace weft::xds {
namespace {

using envoy::config::cluster::v3::Cluster;
using envoy::config::endpoint::v3::ClusterLoadAssignment;
using envoy::config::listener::v3::Listener;
using envoy::config::route::v3::RouteConfiguration;
using envoy::extensions::transport_sockets::tls::v3::Secret;

template <typename P>
P Parse(const std::string& yaml) {
  P p;
  auto s = ParseYaml(yaml, &p);
  EXPECT_TRUE(s) << s.error().ToString() << "\n" << yaml;
  return p;
}

struct Translate : ::testing::Test {
  template <typename P, typename R>
  auto Run(base::Result<R> (*f)(const P&, Warnings*), const std::string& yaml) -> R {
    auto r = f(Parse<P>(yaml), &warnings);
    error = r ? "" : r.error().ToString();
    return r ? *r : R{};
  }
  auto Lis(const std::string& y) { return Run<Listener>(TranslateListener, y); }
  auto Clu(const std::string& y) { return Run<Cluster>(TranslateCluster, y); }
  auto Rou(const std::string& y) { return Run<RouteConfiguration>(TranslateRoutes, y); }
  auto Eds(const std::string& y) { return Run<ClusterLoadAssignment>(TranslateEndpoints, y); }
  auto Sec(const std::string& y) { return Run<Secret>(TranslateSecret, y); }
  Warnings warnings;
  std::string error;
};

constexpr char kInbound[] = R"(
name: inbound
traffic_direction: INBOUND
address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
listener_filters:
- {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
- {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
filter_chains:
- name: mtls-8000
  metadata: {filter_metadata: {weft: {policy: Mtls/default/cart, revision: 7, service: cart, namespace: default}}}
  filter_chain_match: {destination_port: 8000, transport_protocol: tls}
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_params: {tls_minimum_protocol_version: TLSv1_3}
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
        combined_validation_context:
          default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://mesh/"}}]}
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
  filters:
  - name: rbac
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
      stat_prefix: r
      rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{authenticated: {principal_name: {exact: "spiffe://mesh/ns/x/sa/bad"}}}]}}}
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: inbound
      rds: {route_config_name: inbound|8000, config_source: {ads: {}}}
      upgrade_configs: [{upgrade_type: WebSocket}]
      http2_protocol_options: {allow_connect: true}
      forward_client_cert_details: SANITIZE_SET
      set_current_client_cert_details: {uri: true}
      http_filters:
      - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
- filter_chain_match: {destination_port: 6379, transport_protocol: tls}
  filters:
  - name: tcp
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: inbound|6379}
)";

TEST_F(Translate, InboundListener) {
  auto l = Lis(kInbound);
  ASSERT_TRUE(l) << error;
  EXPECT_TRUE(warnings.list().empty()) << warnings.list()[0];
  EXPECT_EQ(l->direction, model::Listener::kInbound);
  EXPECT_EQ(l->filters, model::kOriginalDst | model::kTlsInspector);
  const model::FilterChain* c = model::Match(*l, {.destination = *model::Address::FromIp("10.0.0.1", 8000), .transport_protocol = "tls"});
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->name, "mtls-8000");
  EXPECT_EQ(c->weft.policy, "Mtls/default/cart");
  EXPECT_EQ(c->weft.revision, 7u);
  EXPECT_EQ(c->service, "cart");
  ASSERT_NE(c->tls, nullptr);
  EXPECT_TRUE(c->tls->require_client_certificate);
  EXPECT_TRUE(c->tls->spiffe);
  EXPECT_EQ(c->tls->parameters.min_version, 0x0304);
  EXPECT_EQ(c->tls->alpn, (std::vector<std::string>{"h2", "http/1.1"}));
  EXPECT_EQ(c->tls->peer_sans[0].kind, tls::SanMatch::kPrefix);
  ASSERT_EQ(c->network_rbac.size(), 1u);
  EXPECT_EQ(c->network_rbac[0]->rules->action, model::RbacRules::kDeny);
  ASSERT_NE(c->http(), nullptr);
  EXPECT_EQ(c->http()->rds_name, "inbound|8000");
  EXPECT_EQ(c->http()->upgrades, std::vector<std::string>{"websocket"});
  EXPECT_TRUE(c->http()->http2.allow_connect);
  EXPECT_EQ(c->http()->xfcc, model::HttpConnectionManager::kSanitizeSet);
  EXPECT_EQ(model::Match(*l, {.destination = *model::Address::FromIp("10.0.0.1", 8000)}), nullptr);
  EXPECT_EQ(l->chains[1]->tcp()->cluster, "inbound|6379");
  EXPECT_EQ(RouteNames(*l), std::vector<std::string>{"inbound|8000"});
  auto refs = SecretRefs(*l);
  ASSERT_EQ(refs.size(), 2u);
  EXPECT_EQ(refs[0].name, "default");
  EXPECT_EQ(refs[1].name, "ROOTCA");
  EXPECT_EQ(refs[1].source, model::SdsRef::kAds);
}

TEST_F(Translate, ListenerErrorsNameTheirPlace) {
  auto bad = [&](const char* from, const char* to, const char* want) {
    std::string y = kInbound;
    size_t at = y.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    EXPECT_FALSE(Lis(y.replace(at, strlen(from), to)));
    EXPECT_EQ(error, want);
  };
  bad("0.0.0.0", "localhost", "address.socket_address.address: \"localhost\" is not an IP address");
  bad("port_value: 15006", "port_value: 70000", "address.socket_address.port_value: port 70000 is out of range");
  bad("destination_port: 6379", "destination_port: 8000",
      "filter_chains[1]: has the same matching rules as filter_chains[0] \"mtls-8000\"");
  bad("cluster: inbound|6379", "max_connect_attempts: 1", "filter_chains[1].filters[0].typed_config: needs cluster or weighted_clusters");
  bad("original_dst.v3.OriginalDst", "original_src.v3.OriginalSrc",
      "listener_filters[0]: listener filter \"envoy.extensions.filters.listener.original_src.v3.OriginalSrc\" is not supported");
  bad("rds: {route_config_name: inbound|8000, config_source: {ads: {}}}", "rds: {route_config_name: x, config_source: {path: /x}}",
      "filter_chains[0].filters[1].typed_config.rds.config_source: only ads is supported for this resource");
  bad("san_type: URI", "san_type: EMAIL",
      "filter_chains[0].transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context."
      "match_typed_subject_alt_names[0].san_type: only URI and DNS are supported");
  bad("http.router.v3.Router", "http.cors.v3.Cors",
      "filter_chains[0].filters[1].typed_config.http_filters[0]: HTTP filter \"envoy.extensions.filters.http.cors.v3.Cors\" is not supported");
}

TEST_F(Translate, BufferAndHeaderCase) {
  const auto web = [](const std::string& more, const std::string& filter) {
    return R"(
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 1}}
filter_chains:
- filters:
  - name: h
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: h
      route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {b: {
        "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute)" + more + R"(}}}]}]}
      http_filters:
      - {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer)" + filter + R"(}}
      - {name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      http_protocol_options: {header_key_format: {stateful_formatter: {name: p, typed_config: {
        "@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig, forward_reason_phrase: true}}}}
)";
  };
  auto l = Lis(web(", buffer: {max_request_bytes: 7}", ", max_request_bytes: 5"));
  ASSERT_TRUE(l) << error;
  const auto* h = l->chains[0]->http();
  EXPECT_EQ(h->http1.header_case, model::Http1Options::kKeep);
  EXPECT_EQ(std::get<std::shared_ptr<const model::BufferConfig>>(h->filters[0].config)->max_request_bytes, 5u);
  ASSERT_EQ(warnings.list().size(), 1u);
  EXPECT_EQ(warnings.list()[0],
            "filter_chains[0].filters[0].typed_config.http_protocol_options.header_key_format.stateful_formatter.typed_config.forward_reason_phrase: not supported, ignored");
  EXPECT_FALSE(Lis(web(", disabled: true", "")));
  EXPECT_EQ(error, "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.max_request_bytes: must be greater than 0");
  EXPECT_FALSE(Lis(web("", ", max_request_bytes: 5")));
  EXPECT_TRUE(error.ends_with("typed_per_filter_config[\"b\"]: needs disabled or buffer")) << error;
}

// A listener whose log has this filter.
std::string Filtered(const std::string& filter) {
  return R"(
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 1}}
filter_chains:
- filters:
  - name: t
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: t
      cluster: c
      access_log:
      - name: f
        typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, log_format: {text_format_source: {inline_string: x}}}
        filter: )" + filter;
}
std::string Expression(const std::string& text) {
  return "{extension_filter: {name: cel, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: '" + text + "'}}}";
}

TEST_F(Translate, LogFilterErrorsNameTheirPlace) {
  auto bad = [&](const std::string& filter, const std::string& want) {
    EXPECT_FALSE(Lis(Filtered(filter))) << filter;
    EXPECT_EQ(error, "filter_chains[0].filters[0].typed_config.access_log[0].filter" + want);
  };
  bad("{}", ": needs one kind of filter");
  bad("{or_filter: {filters: [{response_flag_filter: {}}]}}", ".or_filter.filters: needs at least two filters");
  bad("{and_filter: {filters: [{response_flag_filter: {}}, {response_flag_filter: {flags: [UH, XX]}}]}}", ".and_filter.filters[1].response_flag_filter.flags[1]: \"XX\" is not a response flag");
  bad("{status_code_filter: {comparison: {op: GE}}}", ".status_code_filter.comparison: needs a value");
  bad("{runtime_filter: {}}", ".runtime_filter.runtime_key: is required");
  bad("{extension_filter: {name: x}}", ".extension_filter.typed_config: filter \"x\" is not supported");
  bad(Expression("true && foo(1)"), ".extension_filter.typed_config.expression: expression 1:9: no function foo with 1 argument is available");
  bad(Expression("[1].all(x, x > 0)"), ".extension_filter.typed_config.expression: expression 1:5: comprehensions (all) are not available here");
}

TEST_F(Translate, ExpressionsSayWhichHeadersAreKept) {
  const auto logs = [&](const std::string& text) {
    auto l = Lis(Filtered(Expression(text)));
    EXPECT_TRUE(l) << error;
    return l->chains.at(0)->tcp()->access_logs;
  };
  using Names = std::vector<std::string>;
  auto some = logs("request.headers[\"X-A\"] == \"b\" && \"host\" in request.headers && has(response.headers.x) && response.trailers.y == \"1\"");
  EXPECT_EQ(some->request_headers, (Names{":authority", "x-a"}));
  EXPECT_EQ(some->response_headers, Names{"x"});
  EXPECT_EQ(some->response_trailers, Names{"y"});
  EXPECT_FALSE(some->all_request_headers || some->all_response_headers || some->all_response_trailers);
  auto request = logs("request.headers[request.method] == \"b\"");
  EXPECT_TRUE(request->all_request_headers && !request->all_response_headers && !request->all_response_trailers);
  EXPECT_TRUE(logs("size(response.headers) > 1")->all_response_headers);
  EXPECT_TRUE(logs("response.trailers == {}")->all_response_trailers);
  EXPECT_TRUE(logs("dyn(request) == 1")->all_request_headers);
  EXPECT_TRUE(warnings.list().empty());
  logs("xds.node.id == \"n\"");
  ASSERT_EQ(warnings.list().size(), 1u);
  EXPECT_NE(warnings.list()[0].find("attribute xds.node is always missing here"), std::string::npos);
}

TEST_F(Translate, UnsupportedFieldsAreNamed) {
  std::string y = kInbound;
  y += "tcp_fast_open_queue_length: 5\n";
  size_t at = y.find("      stat_prefix: inbound");
  y.insert(at, "      proxy_status_config: {}\n      append_x_forwarded_port: true\n");
  auto l = Lis(y);
  ASSERT_TRUE(l) << error;
  EXPECT_EQ(warnings.list(), (std::vector<std::string>{
                                 "tcp_fast_open_queue_length: not supported, ignored",
                                 "filter_chains[0].filters[1].typed_config.proxy_status_config: not supported, ignored",
                                 "filter_chains[0].filters[1].typed_config.append_x_forwarded_port: not supported, ignored",
                             }));
}

TEST_F(Translate, ProxyProtocol) {
  std::string y = kInbound;
  const std::string from = "original_dst.v3.OriginalDst}";
  y.replace(y.find(from), from.size(),
            "proxy_protocol.v3.ProxyProtocol, disallowed_versions: [V1], stat_prefix: p, pass_through_tlvs: {match_type: INCLUDE, tlv_type: [5, 224]},"
            " rules: [{tlv_type: 1, on_tlv_present: {key: a}}]}");
  auto l = Lis(y);
  ASSERT_TRUE(l) << error;
  ASSERT_TRUE(l->proxy_protocol);
  EXPECT_FALSE(l->proxy_protocol->v1);
  EXPECT_TRUE(l->proxy_protocol->v2);
  EXPECT_FALSE(l->proxy_protocol->optional);
  EXPECT_EQ(l->proxy_protocol->stat_prefix, "p");
  EXPECT_EQ(l->proxy_protocol->keep.count(), 2u);
  EXPECT_TRUE(l->proxy_protocol->keep[224]);
  EXPECT_EQ(warnings.list(), std::vector<std::string>{"listener_filters[0].typed_config.rules: not supported, ignored"});
  auto cluster = [&](const std::string& config, const std::string& inner) {
    return Clu("{name: c, type: STATIC, load_assignment: {cluster_name: c}, transport_socket: {name: p, typed_config: {'@type': "
               "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: " + config + inner + "}}}");
  };
  const std::string raw = ", transport_socket: {name: envoy.transport_sockets.raw_buffer}";
  auto c = cluster("{version: V2, pass_through_tlvs: {}, added_tlvs: [{type: 225, value: bWU=}]}", raw);
  ASSERT_TRUE(c) << error;
  EXPECT_EQ(c->tls, nullptr);
  EXPECT_EQ(c->proxy_protocol->version, 2);
  EXPECT_TRUE(c->proxy_protocol->pass.all());
  EXPECT_EQ(c->proxy_protocol->added[0], (std::pair<uint8_t, std::string>(225, "me")));
  EXPECT_FALSE(cluster("{}", ""));
  EXPECT_EQ(error, "transport_socket.typed_config.transport_socket: is required");
  EXPECT_FALSE(cluster("{added_tlvs: [{type: 300}]}", raw));
  EXPECT_EQ(error, "transport_socket.typed_config.config.added_tlvs[0].type: must be 0 to 255");
}

TEST_F(Translate, DnsListener) {
  auto l = Lis(R"(
name: dns
address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 15053}}
listener_filters:
- name: dns
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig
    stat_prefix: dns
    client_config: {resolver_timeout: 2s, max_pending_lookups: 100}
    server_config:
      inline_dns_table:
        known_suffixes: [{suffix: .mesh}]
        virtual_domains:
        - {name: Cart.default, endpoint: {address_list: {address: [240.64.0.1, "fd00::1"]}}, answer_ttl: 30s}
)");
  ASSERT_TRUE(l) << error;
  ASSERT_TRUE(l->dns);
  EXPECT_EQ(l->dns->names[0].name, "cart.default");
  EXPECT_EQ(l->dns->names[0].addresses[1].ToString(), "fd00::1");
  EXPECT_EQ(l->dns->names[0].ttl_s, 30u);
  EXPECT_EQ(l->dns->known_suffixes[0], ".mesh");
  EXPECT_TRUE(l->dns->forward);
  EXPECT_TRUE(l->dns->resolvers.empty());
}

TEST_F(Translate, Routes) {
  auto t = Rou(R"(
name: outbound|80|cart.default
virtual_hosts:
- name: all
  domains: ["*"]
  retry_policy: {retry_on: "5xx", num_retries: 4, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]}
  routes:
  - name: canary
    metadata: {filter_metadata: {weft: {policy: Route/default/cart, revision: 12}}}
    match: {prefix: /, headers: [{name: X-User, string_match: {exact: Amy, ignore_case: true}}, {name: x-n, range_match: {start: 1, end: 5}}]}
    route:
      timeout: 1.5s
      idle_timeout: 0s
      weighted_clusters: {clusters: [{name: v1, weight: 90}, {name: v2, weight: 10, request_headers_to_add: [{header: {key: X-V, value: "2"}}]}]}
    typed_per_filter_config:
      fault:
        "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
        abort: {http_status: 503, percentage: {numerator: 30}}
  - match: {safe_regex: {regex: "/v\\d+/.*"}}
    redirect: {https_redirect: true, prefix_rewrite: /w, response_code: PERMANENT_REDIRECT}
  - match: {path_separated_prefix: /api}
    route: {cluster: api, regex_rewrite: {pattern: {regex: "^/api/(.*)$"}, substitution: "/\\1"}, max_stream_duration: {grpc_timeout_header_max: 0s}}
  - match: {path: /hello}
    direct_response: {status: 200, body: {inline_string: hi}}
)");
  ASSERT_TRUE(t) << error;
  EXPECT_TRUE(warnings.list().empty()) << warnings.list()[0];
  const auto& v = t->config().virtual_hosts[0];
  EXPECT_EQ(v.retry->on, model::kRetry5xx);
  EXPECT_EQ(v.retry->num_retries, 4u);
  EXPECT_TRUE(v.retry->previous_hosts_predicate);
  const auto& r = *v.routes[0];
  EXPECT_EQ(r.weft.policy, "Route/default/cart");
  EXPECT_EQ(r.weft.revision, 12u);
  EXPECT_EQ(r.match.headers[0].string.value, "amy");
  EXPECT_EQ(r.forward.timeout_ns, 1'500'000'000u);
  EXPECT_EQ(r.forward.idle_timeout_ns, 0u);
  EXPECT_EQ(r.forward.total_weight, 100u);
  EXPECT_EQ(r.forward.weighted[1].headers.request_add[0].name, "x-v");
  ASSERT_EQ(r.per_filter.size(), 1u);
  EXPECT_EQ(std::get<std::shared_ptr<const model::FaultConfig>>(r.per_filter[0].config)->http_status, 503u);
  EXPECT_EQ(v.routes[1]->redirect.status, 308);
  EXPECT_EQ(v.routes[2]->forward.timeout_ns, 15'000'000'000u);
  EXPECT_FALSE(v.routes[2]->forward.timeout_set);
  EXPECT_EQ(v.routes[2]->forward.grpc_timeout_header_max_ns, 0u);
  EXPECT_EQ(v.routes[3]->direct.body, "hi");
  EXPECT_EQ(ClusterNames(*t), (std::vector<std::string>{"api", "v1", "v2"}));
}

TEST_F(Translate, RouteErrors) {
  auto bad = [&](const std::string& route, const std::string& want) {
    EXPECT_FALSE(Rou("{virtual_hosts: [{name: a, domains: [\"*\"], routes: [" + route + "]}]}"));
    EXPECT_EQ(error, "virtual_hosts[0].routes[0]." + want);
  };
  bad("{match: {prefix: /}, route: {}}", "route: needs cluster, cluster_header or weighted_clusters");
  bad("{match: {safe_regex: {regex: \"a(\"}}, route: {cluster: c}}", "match.safe_regex.regex: bad regular expression \"a(\": missing ): a(");
  bad("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a}]}}}", "route.weighted_clusters: the sum of the weights must be greater than 0");
  bad("{match: {prefix: /, cookies: [{name: a, string_match: {exact: b}}]}, route: {cluster: c}}", "match.cookies: not supported");
  bad("{match: {prefix: /}, route: {cluster: c, timeout: -1s}}", "route.timeout: is not a valid duration");
  bad("{match: {prefix: /}, direct_response: {status: 99}}", "direct_response.status: must be 200 to 599");
  bad("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: \":path\", value: x}}]}",
      "request_headers_to_add[0].header.key: \":path\" must not be changed this way");
  bad("{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: \"\\\\2\"}}}",
      "route.regex_rewrite.substitution: bad substitution: Rewrite schema requests 2 matches, but the regexp only has 0 parenthesized subexpressions.");
}

TEST_F(Translate, Cluster) {
  auto c = Clu(R"(
name: outbound|80|v2|cart.default
type: EDS
eds_cluster_config: {eds_config: {ads: {}}, service_name: cart-eps}
connect_timeout: 1s
lb_policy: LEAST_REQUEST
metadata: {filter_metadata: {weft: {policy: Route/default/cart, revision: 3, service: cart, namespace: default}}}
circuit_breakers: {thresholds: [{max_requests: 5, retry_budget: {budget_percent: {value: 30}}}, {priority: HIGH, max_retries: 9}]}
outlier_detection: {consecutive_5xx: 3, base_ejection_time: 10s, max_ejection_percent: 50}
common_lb_config: {healthy_panic_threshold: {value: 0}}
upstream_bind_config: {source_address: {address: 0.0.0.0, port_value: 0}, socket_options: [{level: 1, name: 36, int_value: 1337}]}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    common_http_protocol_options: {idle_timeout: 30s}
    explicit_http_config: {http2_protocol_options: {allow_connect: true}}
transport_socket:
  name: tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: cart.default.mesh
    common_tls_context:
      alpn_protocols: [h2]
      tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
      combined_validation_context:
        default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://mesh/ns/default/sa/cart"}}]}
        validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
)");
  ASSERT_TRUE(c) << error;
  EXPECT_TRUE(warnings.list().empty()) << warnings.list()[0];
  EXPECT_EQ(c->eds_service_name, "cart-eps");
  EXPECT_EQ(c->lb, model::LbPolicy::kLeastRequest);
  EXPECT_EQ(c->breakers[0].max_requests, 5u);
  EXPECT_EQ(c->breakers[0].budget_percent, 30);
  EXPECT_EQ(c->breakers[0].max_connections, 1024u);
  EXPECT_FALSE(c->breakers[1].budget);
  EXPECT_EQ(c->breakers[1].max_retries, 9u);
  EXPECT_EQ(c->outlier->consecutive_5xx, 3u);
  EXPECT_EQ(c->outlier->enforce_success_rate, 100u);
  EXPECT_EQ(c->healthy_panic_percent, 0);
  EXPECT_EQ(c->protocol, model::Cluster::kHttp2);
  EXPECT_TRUE(c->http2.allow_connect);
  EXPECT_EQ(c->common.idle_timeout_ns, 30'000'000'000u);
  ASSERT_EQ(c->socket_options.size(), 1u);
  EXPECT_EQ(*reinterpret_cast<const int*>(c->socket_options[0].bytes.data()), 1337);
  EXPECT_EQ(c->service, "cart");
  EXPECT_EQ(c->weft.revision, 3u);
  EXPECT_TRUE(c->tls->spiffe);
  EXPECT_EQ(c->tls->sni, "cart.default.mesh");

  model::Secret cert{.name = "default", .certificate_chain = {model::DataSource::kInline, "CHAIN"}, .private_key = {model::DataSource::kInline, "KEY"}};
  model::Secret roots{.name = "ROOTCA", .kind = model::Secret::kValidation, .trusted_ca = {model::DataSource::kInline, "ROOTS"}};
  auto cfg = MakeContextConfig(*c->tls, &cert, &roots);
  ASSERT_TRUE(cfg);
  EXPECT_EQ(cfg->certificate_chain_pem, "CHAIN");
  EXPECT_EQ(cfg->trusted_ca_pem, "ROOTS");
  EXPECT_EQ(cfg->peer_sans[0].value, "spiffe://mesh/ns/default/sa/cart");
}

TEST_F(Translate, ClusterDefaultsAndErrors) {
  auto c = Clu("{name: a, load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}");
  ASSERT_TRUE(c) << error;
  EXPECT_EQ(c->protocol, model::Cluster::kHttp1);
  EXPECT_EQ(c->connect_timeout_ns, 5'000'000'000u);
  EXPECT_TRUE(c->breakers[0].budget);
  EXPECT_EQ(c->breakers[0].budget_percent, 20);
  EXPECT_EQ(c->outlier, nullptr);
  EXPECT_EQ(c->inline_endpoints->endpoints[0].address.ToString(), "127.0.0.1:1");
  auto bad = [&](const std::string& yaml, const std::string& want) {
    EXPECT_FALSE(Clu(yaml));
    EXPECT_EQ(error, want);
  };
  bad("{name: a}", "load_assignment: is required");
  bad("{name: a, type: EDS}", "eds_cluster_config.eds_config: is required (ads: {})");
  bad("{type: ORIGINAL_DST}", "name: is required");
  bad("{name: a, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: db, port_value: 1}}}}]}]}}",
      "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"db\" is not an IP address");
  bad("{name: a, type: ORIGINAL_DST, transport_socket_matches: [{name: x}]}", "transport_socket_matches: not supported");
  EXPECT_TRUE(Clu("{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}")) << error;
  EXPECT_TRUE(Clu("{name: a, type: STRICT_DNS, load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: db, port_value: 1}}}}]}]}}"));
  warnings = {};
  EXPECT_TRUE(Clu("{name: a, type: ORIGINAL_DST, lb_policy: MAGLEV, track_timeout_budgets: true}"));
  EXPECT_EQ(warnings.list(), (std::vector<std::string>{"track_timeout_budgets: not supported, ignored", "lb_policy: MAGLEV is not supported, ROUND_ROBIN is used"}));
}

TEST_F(Translate, Endpoints) {
  auto e = Eds(R"(
cluster_name: cart
policy: {overprovisioning_factor: 200, drop_overloads: [{category: a, drop_percentage: {numerator: 50}}]}
endpoints:
- locality: {zone: a}
  load_balancing_weight: 3
  lb_endpoints:
  - {endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 8000}}}, health_status: DRAINING, load_balancing_weight: 5,
     metadata: {filter_metadata: {weft: {workload: cart-x1, version: v2}, envoy.lb: {version: v2}}}}
- priority: 1
  lb_endpoints: [{endpoint: {address: {socket_address: {address: "fd00::1", port_value: 8000}}}}]
)");
  ASSERT_TRUE(e) << error;
  EXPECT_EQ(e->priorities, 2u);
  EXPECT_EQ(e->drop_per_million, 500'000u);
  EXPECT_EQ(e->endpoints[0].workload, "cart-x1");
  EXPECT_EQ(e->endpoints[0].version, "v2");
  EXPECT_EQ(e->endpoints[0].health, model::EndpointHealth::kDraining);
  EXPECT_EQ(e->endpoints[0].lb_metadata[0].second, "v2");
  EXPECT_EQ(e->endpoints[1].priority, 1u);
  EXPECT_FALSE(Eds("{cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: x, port_value: 1}}}}]}]}"));
  EXPECT_EQ(error, "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"x\" is not an IP address");
}

constexpr char kTcpLog[] = R"(
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 1}}
filter_chains:
- filters:
  - name: t
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: t
      cluster: c
      access_log: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.)";

TEST_F(Translate, LogsToServers) {
  auto l = Lis(kTcpLog + std::string(R"(grpc.v3.HttpGrpcAccessLogConfig,
        common_config: {log_name: n, transport_api_version: V3, buffer_flush_interval: 0.25s, buffer_size_bytes: 0,
          grpc_service: {envoy_grpc: {cluster_name: logs, authority: who}, initial_metadata: [{key: X-Key, value: v}], timeout: 3s},
          filter_state_objects_to_log: [x], custom_tags: [{tag: t, request_header: {name: X-Tag, default_value: d}}, {tag: m, metadata: {}}]},
        additional_request_headers_to_log: [X-Req], additional_response_headers_to_log: [X-Resp], additional_response_trailers_to_log: [X-Last]}}])"));
  ASSERT_TRUE(l) << error;
  const auto& logs = *l->chains[0]->tcp()->access_logs;
  ASSERT_EQ(1u, logs.logs.size());
  const model::GrpcLog& g = *logs.logs[0].grpc;
  EXPECT_EQ(model::GrpcLog::kHttp, g.kind);
  EXPECT_EQ("n", g.name);
  EXPECT_EQ("logs", g.cluster);
  EXPECT_EQ("who", g.authority);
  EXPECT_EQ((std::vector<std::pair<std::string, std::string>>{{"x-key", "v"}}), g.metadata);
  EXPECT_EQ(250'000'000u, g.flush_interval_ns);
  EXPECT_EQ(0u, g.buffer_bytes);
  EXPECT_EQ(3'000'000'000u, g.timeout_ns);
  ASSERT_EQ(1u, g.tags.size());
  EXPECT_EQ("x-tag", g.tags[0].header);
  EXPECT_EQ(11u, logs.request_headers.size()) << "nine with fields of their own, x-req, x-tag";
  EXPECT_EQ(std::vector<std::string>{"x-resp"}, logs.response_headers);
  EXPECT_EQ(std::vector<std::string>{"x-last"}, logs.response_trailers);
  ASSERT_EQ(2u, warnings.list().size());
  EXPECT_NE(std::string::npos, warnings.list()[0].find("common_config.filter_state_objects_to_log: not supported, ignored"));
  EXPECT_NE(std::string::npos, warnings.list()[1].find("common_config.custom_tags[1]: only literal, environment and request_header"));

  EXPECT_FALSE(Lis(kTcpLog + std::string(R"(grpc.v3.TcpGrpcAccessLogConfig, common_config: {grpc_service: {envoy_grpc: {cluster_name: c}}}}}])")));
  EXPECT_EQ("filter_chains[0].filters[0].typed_config.access_log[0].typed_config.common_config.log_name: is required", error);
  l = Lis(kTcpLog + std::string(R"(grpc.v3.TcpGrpcAccessLogConfig, common_config: {log_name: n, grpc_service: {google_grpc: {target_uri: x, stat_prefix: s}}}}}])"));
  ASSERT_TRUE(l) << error;
  EXPECT_EQ(nullptr, l->chains[0]->tcp()->access_logs) << "left out, with a warning";
}

TEST_F(Translate, OpenTelemetryLogs) {
  auto l = Lis(kTcpLog + std::string(R"(open_telemetry.v3.OpenTelemetryAccessLogConfig, log_name: n, stat_prefix: p, disable_builtin_labels: true,
        grpc_service: {envoy_grpc: {cluster_name: logs}}, body: {string_value: "%REQ(X-A)%"},
        attributes: {values: [{key: b, value: {kvlist_value: {values: [{key: c, value: {array_value: {values: [{string_value: "%RESP(X-B)%"}]}}}]}}}]},
        resource_attributes: {values: [{key: r, value: {int_value: 5}}]}}}])"));
  ASSERT_TRUE(l) << error;
  const auto& logs = *l->chains[0]->tcp()->access_logs;
  const model::GrpcLog& g = *logs.logs[0].grpc;
  EXPECT_EQ(model::GrpcLog::kOtlp, g.kind);
  EXPECT_EQ("%REQ(X-A)%", g.body->format);
  EXPECT_EQ("%RESP(X-B)%", g.attributes[0].children[0].children[0].format);
  EXPECT_EQ("c", g.attributes[0].children[0].key);
  EXPECT_EQ("r", g.resource[0].first);
  EXPECT_FALSE(g.builtin_labels);
  EXPECT_EQ("p", g.stat_prefix);
  EXPECT_EQ(std::vector<std::string>{"x-a"}, logs.request_headers);
  EXPECT_EQ(std::vector<std::string>{"x-b"}, logs.response_headers);

  EXPECT_FALSE(Lis(kTcpLog + std::string(R"(open_telemetry.v3.OpenTelemetryAccessLogConfig, grpc_service: {envoy_grpc: {cluster_name: c}},
        attributes: {values: [{key: b, value: {string_value: "%NOPE%"}}]}}}])")));
  EXPECT_EQ("filter_chains[0].filters[0].typed_config.access_log[0].typed_config.attributes[\"b\"]: unknown operator %NOPE%", error);
  EXPECT_FALSE(Lis(kTcpLog + std::string(R"(open_telemetry.v3.OpenTelemetryAccessLogConfig, grpc_service: {envoy_grpc: {cluster_name: c}},
        body: {int_value: 5}}}])")));
  EXPECT_EQ("filter_chains[0].filters[0].typed_config.access_log[0].typed_config.body: only strings, lists and maps are supported in an "
            "OpenTelemetry log format", error);
}

TEST_F(Translate, TlsParameters) {
  auto upstream = [&](const std::string& parameters, const std::string& more = "") {
    return Clu("{name: c, type: STATIC, load_assignment: {cluster_name: c}, transport_socket: {name: t, typed_config: {'@type': "
               "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" + more + ", common_tls_context: {tls_params: " + parameters + "}}}}");
  };
  auto c = upstream("{cipher_suites: ['[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]', AES128-SHA], ecdh_curves: [P-256, X25519MLKEM768],"
                    " signature_algorithms: [ecdsa_secp256r1_sha256], compliance_policies: [FIPS_202205]}", ", max_session_keys: 0");
  ASSERT_TRUE(c) << error;
  EXPECT_TRUE(warnings.list().empty());
  EXPECT_EQ(c->tls->parameters.cipher_suites.size(), 2u);
  EXPECT_EQ(c->tls->parameters.groups, (std::vector<std::string>{"P-256", "X25519MLKEM768"}));
  EXPECT_EQ(c->tls->parameters.signature_algorithms, std::vector<std::string>{"ecdsa_secp256r1_sha256"});
  EXPECT_TRUE(c->tls->parameters.fips_202205);
  EXPECT_EQ(c->tls->max_sessions, 0u);
  const std::string place = "transport_socket.typed_config.common_tls_context.tls_params: ";
  EXPECT_FALSE(upstream("{cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256, TLS_AES_128_GCM_SHA256]}"));
  EXPECT_EQ(error, place + "cipher_suites[1]: \"TLS_AES_128_GCM_SHA256\" is not known");
  EXPECT_FALSE(upstream("{ecdh_curves: [X25519, P-257]}"));
  EXPECT_EQ(error, place + "ecdh_curves[1]: \"P-257\" is not known");
  EXPECT_FALSE(upstream("{signature_algorithms: [md5]}"));
  EXPECT_EQ(error, place + "signature_algorithms[0]: \"md5\" is not known");
  EXPECT_FALSE(upstream("{compliance_policies: [CNSA2_202603]}"));
  EXPECT_EQ(error, "transport_socket.typed_config.common_tls_context.tls_params.compliance_policies[0]: only FIPS_202205 is supported");
  EXPECT_FALSE(upstream("{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}"));
  EXPECT_EQ(error, place + "the minimum version is above the maximum");
}

TEST_F(Translate, Secrets) {
  auto s = Sec("{name: s, tls_certificate: {certificate_chain: {inline_string: C}, private_key: {filename: /k}}}");
  ASSERT_TRUE(s) << error;
  EXPECT_EQ(s->private_key.kind, model::DataSource::kFile);
  s = Sec("{name: r, validation_context: {trusted_ca: {inline_bytes: Uk9PVA==}}}");
  ASSERT_TRUE(s) << error;
  EXPECT_EQ(s->kind, model::Secret::kValidation);
  EXPECT_EQ(s->trusted_ca.value, "ROOT");
  s = Sec("{name: r, validation_context: {trusted_ca: {inline_string: x}, crl: {filename: /y}}}");
  ASSERT_TRUE(s) << error;
  EXPECT_EQ(s->crl.value, "/y");
  EXPECT_FALSE(Sec("{name: r, validation_context: {trusted_ca: {inline_string: x}, crl: {inline_string: y}, only_verify_leaf_cert_crl: true}}"));
  EXPECT_EQ(error, "validation_context.only_verify_leaf_cert_crl: not supported");
  EXPECT_FALSE(Sec("{name: r, generic_secret: {secret: {inline_string: x}}}"));
}

TEST_F(Translate, RbacUnknownMatcherIsKeptAndWarned) {
  auto l = Lis(R"(
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 1}}
filter_chains:
- filters:
  - name: rbac
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
      stat_prefix: r
      rules: {policies: {p: {permissions: [{any: true}], principals: [{filter_state: {key: x, string_match: {exact: y}}}]}}}
  - {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}
)");
  ASSERT_TRUE(l) << error;
  EXPECT_EQ(l->chains[0]->network_rbac[0]->rules->policies[0].principals[0].kind, model::RbacNode::kUnknown);
  ASSERT_EQ(warnings.list().size(), 1u);
  EXPECT_EQ(warnings.list()[0], "filter_chains[0].filters[0].typed_config.rules.policies[\"p\"].principals[0]: this kind of principal is not supported: rules with it deny");
}

}  // namespace
}  // namespace weft::xds
