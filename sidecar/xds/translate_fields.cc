// The table of fields this sidecar acts upon (or may ignore without changing what the user asked for). A message that is
// not listed is supported in full; what is set beyond the table becomes a warning that names it. Keep it true: a field
// is added here together with the code that obeys it.
#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

struct Supported { const char* message; const char* fields; };

#define CORE "envoy.config.core.v3."
#define ROUTE "envoy.config.route.v3."
#define LISTENER "envoy.config.listener.v3."
#define CLUSTER "envoy.config.cluster.v3."
#define BOOT "envoy.config.bootstrap.v3."
#define TLS "envoy.extensions.transport_sockets.tls.v3."
#define HCM "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
#define HTTP "envoy.extensions.filters.http."

constexpr Supported kTable[] = {
    {LISTENER "Listener",
     "name address additional_addresses stat_prefix filter_chains use_original_dst default_filter_chain "
     "metadata drain_type listener_filters listener_filters_timeout continue_on_listener_filters_timeout transparent freebind socket_options "
     "traffic_direction udp_listener_config enable_reuse_port reuse_port access_log tcp_backlog_size bind_to_port deprecated_v1 "
     "ignore_global_conn_limit connection_balance_config"},
    {LISTENER "AdditionalAddress", "address"},
    {LISTENER "UdpListenerConfig", "downstream_socket_config"},
    {LISTENER "FilterChain", "filter_chain_match filters metadata transport_socket transport_socket_connect_timeout name"},
    {LISTENER "FilterChainMatch",
     "destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges source_ports server_names "
     "transport_protocol application_protocols"},
    {LISTENER "ListenerFilter", "name typed_config"},
    {CORE "SocketAddress", "protocol address port_value ipv4_compat"},
    {CORE "BindConfig", "source_address freebind socket_options"},
    {CORE "ConfigSource", "ads self api_config_source path_config_source path resource_api_version initial_fetch_timeout"},
    {CORE "ApiConfigSource", "api_type transport_api_version grpc_services set_node_on_first_message_only cluster_names"},
    {CORE "GrpcService", "envoy_grpc initial_metadata timeout"},
    {CORE "GrpcService.EnvoyGrpc", "cluster_name authority"},
    {CORE "DataSource", "filename inline_bytes inline_string environment_variable watched_directory"},
    {CORE "HttpProtocolOptions",
     "idle_timeout max_connection_duration max_headers_count max_stream_duration headers_with_underscores_action max_requests_per_connection "
     "max_response_headers_kb"},
    {CORE "Http1ProtocolOptions", "allow_absolute_url accept_http_10 enable_trailers use_balsa_parser header_key_format"},
    {"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", "formatter_type_on_envoy_headers"},
    {CORE "Http2ProtocolOptions",
     "max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect connection_keepalive hpack_table_size "
     "use_oghttp2_codec override_stream_error_on_invalid_http_message stream_error_on_invalid_http_messaging max_outbound_frames "
     "max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload max_inbound_priority_frames_per_stream "
     "max_inbound_window_update_frames_per_data_frame_sent"},
    {CORE "KeepaliveSettings", "interval timeout interval_jitter"},
    {CORE "UpstreamHttpProtocolOptions", "auto_san_validation"},
    {CORE "HeaderValueOption", "header append append_action keep_empty_value"},
    {CORE "HeaderValue", "key value raw_value"},
    {CORE "SocketOption", "description level name int_value buf_value state"},
    {CORE "SubstitutionFormatString", "text_format json_format text_format_source omit_empty_values"},
    {CORE "RuntimeFractionalPercent", "default_value runtime_key"},

    {HCM,
     "codec_type stat_prefix rds route_config http_filters tracing common_http_protocol_options http_protocol_options "
     "http2_protocol_options server_name server_header_transformation scheme_header_transformation max_request_headers_kb stream_idle_timeout "
     "request_timeout request_headers_timeout access_log use_remote_address xff_num_trusted_hops "
     "skip_xff_append via generate_request_id preserve_external_request_id always_set_request_id_in_response forward_client_cert_details "
     "set_current_client_cert_details proxy_100_continue upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action "
     "strip_matching_host_port strip_any_host_port"},
    {HCM ".Tracing", "random_sampling overall_sampling"},
    {HCM ".UpgradeConfig", "upgrade_type enabled"},
    {HCM ".SetCurrentClientCertDetails", "subject dns uri"},
    {"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
     "stat_prefix cluster weighted_clusters idle_timeout max_downstream_connection_duration access_log max_connect_attempts"},
    {"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight", "name weight"},
    {"envoy.extensions.filters.network.rbac.v3.RBAC", "rules shadow_rules shadow_rules_stat_prefix stat_prefix enforcement_type"},
    {HTTP "rbac.v3.RBAC", "rules rules_stat_prefix shadow_rules shadow_rules_stat_prefix track_per_rule_stats"},
    {HTTP "fault.v3.HTTPFault", "delay abort upstream_cluster headers max_active_faults disable_downstream_cluster_stats filter_metadata"},
    {HTTP "fault.v3.FaultAbort", "http_status grpc_status header_abort percentage"},
    {HTTP "local_ratelimit.v3.LocalRateLimit",
     "stat_prefix status token_bucket filter_enabled filter_enforced response_headers_to_add local_rate_limit_per_downstream_connection "
     "rate_limited_as_resource_exhausted stage always_consume_default_token_bucket"},
    {HTTP "buffer.v3.Buffer", "max_request_bytes"},
    {HTTP "buffer.v3.BufferPerRoute", "disabled buffer"},
    {HTTP "router.v3.Router", "dynamic_stats"},

    {ROUTE "RouteConfiguration",
     "name virtual_hosts response_headers_to_add response_headers_to_remove request_headers_to_add "
     "request_headers_to_remove most_specific_header_mutations_wins max_direct_response_body_size_bytes "
     "ignore_port_in_host_matching ignore_path_parameters_in_path_matching typed_per_filter_config metadata"},
    {ROUTE "VirtualHost",
     "name domains routes require_tls request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove "
     "typed_per_filter_config include_request_attempt_count include_attempt_count_in_response retry_policy metadata "
     "per_request_buffer_limit_bytes"},
    {ROUTE "Route",
     "name match route redirect direct_response non_forwarding_action metadata typed_per_filter_config request_headers_to_add "
     "request_headers_to_remove response_headers_to_add response_headers_to_remove stat_prefix"},
    {ROUTE "RouteMatch",
     "prefix path safe_regex connect_matcher path_separated_prefix case_sensitive runtime_fraction headers query_parameters grpc"},
    {ROUTE "RouteAction",
     "cluster cluster_header weighted_clusters cluster_not_found_response_code metadata_match prefix_rewrite regex_rewrite "
     "host_rewrite_literal auto_host_rewrite host_rewrite_header append_x_forwarded_host timeout idle_timeout retry_policy priority "
     "max_grpc_timeout upgrade_configs max_stream_duration"},
    {ROUTE "RouteAction.UpgradeConfig", "upgrade_type enabled"},
    {ROUTE "RouteAction.MaxStreamDuration", "max_stream_duration grpc_timeout_header_max"},
    {ROUTE "WeightedCluster", "clusters total_weight runtime_key_prefix"},
    {ROUTE "RetryPolicy",
     "retry_on num_retries per_try_timeout retry_host_predicate host_selection_retry_max_attempts retriable_status_codes "
     "retry_back_off rate_limited_retry_back_off retriable_headers retriable_request_headers"},
    {ROUTE "DirectResponseAction", "status body"},

    {CLUSTER "Cluster",
     "name alt_stat_name type eds_cluster_config connect_timeout lb_policy load_assignment "
     "max_requests_per_connection circuit_breakers upstream_http_protocol_options common_http_protocol_options http_protocol_options "
     "http2_protocol_options typed_extension_protocol_options dns_refresh_rate respect_dns_ttl dns_lookup_family outlier_detection "
     "upstream_bind_config original_dst_lb_config least_request_lb_config round_robin_lb_config common_lb_config transport_socket metadata "
     "protocol_selection upstream_connection_options ignore_health_on_host_removal "
     "load_balancing_policy lb_subset_config cleanup_interval wait_for_warm_on_init preconnect_policy"},
    {CLUSTER "Cluster.PreconnectPolicy", "per_upstream_preconnect_ratio predictive_preconnect_ratio"},
    {CLUSTER "Cluster.LbSubsetConfig", "fallback_policy subset_selectors"},
    {CLUSTER "Cluster.RoundRobinLbConfig", ""},
    {CLUSTER "Cluster.LeastRequestLbConfig", "choice_count"},
    {CLUSTER "Cluster.CommonLbConfig", "healthy_panic_threshold locality_weighted_lb_config zone_aware_lb_config update_merge_window"},
    {CLUSTER "Cluster.CommonLbConfig.ZoneAwareLbConfig", "fail_traffic_on_panic"},
    {CLUSTER "Cluster.OriginalDstLbConfig", "upstream_port_override"},
    {CLUSTER "UpstreamConnectionOptions", "tcp_keepalive"},
    {CLUSTER "CircuitBreakers", "thresholds"},
    {CLUSTER "CircuitBreakers.Thresholds", "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining"},
    {CLUSTER "CircuitBreakers.Thresholds.RetryBudget", "budget_percent min_retry_concurrency"},
    {CLUSTER "OutlierDetection",
     "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx enforcing_success_rate "
     "success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor consecutive_gateway_failure "
     "enforcing_consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure "
     "enforcing_consecutive_local_origin_failure failure_percentage_threshold enforcing_failure_percentage "
     "failure_percentage_minimum_hosts failure_percentage_request_volume max_ejection_time always_eject_one_host "
     "enforcing_local_origin_success_rate enforcing_failure_percentage_local_origin"},
    {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
     "common_http_protocol_options upstream_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config"},
    {"envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name endpoints policy named_endpoints"},
    {"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy", "drop_overloads overprovisioning_factor"},
    {"envoy.config.endpoint.v3.Endpoint", "address hostname health_check_config"},
    {"envoy.config.endpoint.v3.LocalityLbEndpoints", "locality metadata lb_endpoints load_balancer_endpoints load_balancing_weight priority"},

    {TLS "UpstreamTlsContext", "common_tls_context sni max_session_keys"},
    {TLS "DownstreamTlsContext",
     "common_tls_context require_client_certificate disable_stateless_session_resumption disable_stateful_session_resumption session_timeout "
     "prefer_client_ciphers"},
    {TLS "CommonTlsContext",
     "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context validation_context_sds_secret_config "
     "combined_validation_context alpn_protocols"},
    {TLS "CommonTlsContext.CombinedCertificateValidationContext", "default_validation_context validation_context_sds_secret_config"},
    {TLS "TlsParameters", "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves signature_algorithms compliance_policies"},
    {TLS "TlsCertificate", "certificate_chain private_key watched_directory"},
    {TLS "CertificateValidationContext",
     "trusted_ca system_root_certs crl watched_directory match_typed_subject_alt_names match_subject_alt_names suppress_client_ca_list"},

    {"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
     "allow_requests_without_proxy_protocol pass_through_tlvs disallowed_versions stat_prefix"},
    {"envoy.config.rbac.v3.RBAC", "action policies"},
    {"envoy.config.rbac.v3.Policy", "permissions principals"},
    {"envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig", "stat_prefix server_config client_config case_insensitive"},
    {"envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig.ClientContextConfig",
     "resolver_timeout upstream_resolvers max_pending_lookups dns_resolution_config typed_dns_resolver_config"},
    {"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "resolvers"},
    {"envoy.data.dns.v3.DnsTable", "virtual_domains known_suffixes external_retry_count"},

    {"envoy.extensions.access_loggers.grpc.v3.CommonGrpcAccessLogConfig",
     "log_name grpc_service transport_api_version buffer_flush_interval buffer_size_bytes grpc_stream_retry_policy custom_tags"},
    {"envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
     "common_config grpc_service disable_builtin_labels resource_attributes body attributes stat_prefix log_name buffer_flush_interval "
     "buffer_size_bytes custom_tags"},

    {"stats.PluginConfig", "disable_host_header_fallback tcp_reporting_duration metrics reporter"},
    {"stats.MetricConfig", "name tags_to_remove drop"},
    {BOOT "Bootstrap",
     "node node_context_params static_resources dynamic_resources stats_flush_interval admin overload_manager bootstrap_extensions "
     "header_prefix default_regex_engine stats_config layered_runtime"},
    {BOOT "Bootstrap.DynamicResources", "lds_config cds_config ads_config"},
    {BOOT "Admin", "access_log access_log_path address profile_path"},
    {BOOT "RuntimeLayer", "name admin_layer static_layer"},
    {"envoy.config.overload.v3.OverloadManager", "resource_monitors"},
};

using Fields = std::vector<std::string_view>;

const std::unordered_map<std::string_view, Fields>& Table() {
  static const auto* table = [] {
    auto* t = new std::unordered_map<std::string_view, Fields>();
    for (const Supported& s : kTable) {
      Fields f;
      std::string_view rest = s.fields;
      while (!rest.empty()) {
        std::string_view word = rest.substr(0, rest.find(' '));
        rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        if (!word.empty()) f.push_back(word);
      }
      std::sort(f.begin(), f.end());
      t->emplace(s.message, std::move(f));
    }
    return t;
  }();
  return *table;
}

void Walk(const google::protobuf::Message& m, const Ctx& c, int depth) {
  const auto* d = m.GetDescriptor();
  const std::string& type = d->full_name();
  if (depth > 64 || type.starts_with("google.protobuf.") || type.starts_with("envoy.config.core.v3.Metadata")) return;
  auto listed = Table().find(type);
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  const auto* r = m.GetReflection();
  r->ListFields(m, &fields);
  for (const auto* f : fields) {
    if (listed != Table().end() && !std::binary_search(listed->second.begin(), listed->second.end(), std::string_view(f->name()))) {
      (c / f->name()).Warn("not supported, ignored");
      continue;
    }
    if (f->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (f->message_type()->full_name().starts_with("google.protobuf.")) continue;
    Ctx fc = c / f->name();
    if (f->is_map()) {
      const auto* value = f->message_type()->map_value();
      if (value->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
      for (int i = 0; i < r->FieldSize(m, f); ++i) {
        const auto& entry = r->GetRepeatedMessage(m, f, i);
        const auto* er = entry.GetReflection();
        const auto* key = f->message_type()->map_key();
        std::string k = key->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING ? er->GetString(entry, key) : std::to_string(i);
        Walk(er->GetMessage(entry, value), fc.Key(k), depth + 1);
      }
    } else if (f->is_repeated()) {
      for (int i = 0; i < r->FieldSize(m, f); ++i) Walk(r->GetRepeatedMessage(m, f, i), fc[i], depth + 1);
    } else {
      Walk(r->GetMessage(m, f), fc, depth + 1);
    }
  }
}

}  // namespace

void Warnings::Add(const std::string& where, const std::string& what) {
  std::string line = where.empty() ? what : where + ": " + what;
  if (std::find(list_.begin(), list_.end(), line) != list_.end()) return;
  if (list_.size() >= kMax) ++suppressed_;
  else list_.push_back(std::move(line));
}

void Ctx::CheckFields(const google::protobuf::Message& m) const {
  if (warnings) Walk(m, *this, 0);
}

}  // namespace weft::xds
