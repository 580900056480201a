#include "tools/weft/run/bootstrap.h"

#include "tools/weft/cli/client.h"

namespace weft::run {

using cli::Json;

std::string RenderBootstrap(const BootstrapSpec& s) {
  const size_t colon = s.server_address.rfind(':');
  std::string host = s.server_address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  const int port = colon == std::string::npos ? 15012 : atoi(s.server_address.c_str() + colon + 1);
  const bool name = host.find_first_not_of("0123456789.:abcdefABCDEF") != std::string::npos;

  const Json ads = {{"ads", Json::object()}, {"resource_api_version", "V3"}};
  Json b;
  b["node"] = {{"id", s.workload_id}, {"cluster", s.service}, {"metadata", {{"NAMESPACE", s.ns}, {"VERSION", s.version}}}};
  if (s.ipv6) b["node"]["metadata"]["WEFT_IPV6"] = "true";
  b["admin"]["address"]["pipe"] = {{"path", s.admin_socket}, {"mode", 0600}};
  b["dynamic_resources"] = {
      {"ads_config",
       {{"api_type", "DELTA_GRPC"},
        {"transport_api_version", "V3"},
        {"grpc_services", Json::array({{{"envoy_grpc", {{"cluster_name", "weft-xds"}}}}})}}},
      {"cds_config", ads},
      {"lds_config", ads}};
  Json endpoint = {{"endpoint", {{"address", {{"socket_address", {{"address", host}, {"port_value", port}}}}}}}};
  Json lb_endpoints = Json::array({endpoint});
  Json localities = Json::array({{{"lb_endpoints", lb_endpoints}}});
  Json http2 = {
      {"@type", "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"},
      {"explicit_http_config", {{"http2_protocol_options", Json::object()}}}};
  Json cluster = {{"name", "weft-xds"},
                  {"type", name ? "STRICT_DNS" : "STATIC"},
                  {"connect_timeout", "1s"},
                  {"typed_extension_protocol_options", {{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", http2}}},
                  {"load_assignment", {{"cluster_name", "weft-xds"}, {"endpoints", localities}}}};
  b["static_resources"]["clusters"] = Json::array({cluster});

  Json ports = Json::array();
  for (const PortSpec& p : s.ports) {
    std::string protocol = p.protocol;
    for (char& c : protocol) c = static_cast<char>(toupper(c));
    ports.push_back({{"number", p.number}, {"protocol", protocol}, {"service_port", p.service_port ? p.service_port : p.number}});
  }
  Json mesh = {{"@type", "type.googleapis.com/weft.mesh.v1.MeshConfig"},
               {"server_address", s.server_address},
               {"token_file", s.token_file},
               {"trust_domain", s.trust_domain},
               {"workload",
                {{"id", s.workload_id},
                 {"service", s.service},
                 {"namespace", s.ns},
                 {"version", s.version},
                 {"address", s.address},
                 {"ports", ports}}},
               {"telemetry", s.telemetry}};
  if (!s.identity_dir.empty()) mesh["identity_dir"] = s.identity_dir;
  Json extension = {{"name", "weft.mesh"}, {"typed_config", mesh}};
  b["bootstrap_extensions"] = Json::array({extension});
  return b.dump(2) + "\n";
}

}  // namespace weft::run
