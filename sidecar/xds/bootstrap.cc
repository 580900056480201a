#include "sidecar/xds/bootstrap.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "api/weft/mesh/v1/mesh.pb.h"
#include "envoy/config/bootstrap/v3/bootstrap.pb.h"
#include "envoy/config/overload/v3/overload.pb.h"
#include "envoy/extensions/access_loggers/file/v3/file.pb.h"
#include "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.pb.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {
namespace {

namespace boot3 = envoy::config::bootstrap::v3;

base::Result<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return base::Error(std::string("cannot be read: ") + strerror(errno));
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// mesh: the server's address comes from MeshConfig, so no service needs to be named.
void ToAds(const Ctx& c, const core::ApiConfigSource& p, bool mesh, AdsSource& out) {
  switch (p.api_type()) {
    case core::ApiConfigSource::DELTA_GRPC:
    case core::ApiConfigSource::AGGREGATED_DELTA_GRPC: out.delta = true; break;
    case core::ApiConfigSource::GRPC:
    case core::ApiConfigSource::AGGREGATED_GRPC: out.delta = false; break;
    default: (c / "api_type").Fail("only GRPC and DELTA_GRPC are supported");
  }
  if (p.transport_api_version() != core::V3) (c / "transport_api_version").Fail("must be V3");
  if (p.grpc_services_size() == 0) {
    if (!mesh) (c / "grpc_services").Fail("at least one is required");
    return;
  }
  if (p.grpc_services_size() > 1) (c / "grpc_services").Warn("only the first is used");
  const auto& s = p.grpc_services(0);
  if (!s.has_envoy_grpc() || s.envoy_grpc().cluster_name().empty()) (c / "grpc_services[0]").Fail("only envoy_grpc with cluster_name is supported");
  out.cluster = s.envoy_grpc().cluster_name();
  out.authority = s.envoy_grpc().authority();
  for (const auto& h : s.initial_metadata()) out.initial_metadata.emplace_back(LowerCase(h.key()), h.value());
}

void ToOverload(const Ctx& c, const envoy::config::overload::v3::OverloadManager& p, Bootstrap& out) {
  for (int i = 0; i < p.resource_monitors_size(); ++i) {
    const auto& m = p.resource_monitors(i);
    Ctx mc = (c / "resource_monitors")[i] / "typed_config";
    if (TypeOf(m.typed_config()) == "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig") {
      auto d = Unpack<envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig>(mc, m.typed_config());
      if (d.max_active_downstream_connections() <= 0) (mc / "max_active_downstream_connections").Fail("must be greater than 0");
      out.max_downstream_connections = static_cast<uint64_t>(d.max_active_downstream_connections());
    } else {
      mc.Warn("resource monitor \"" + m.name() + "\" is not supported, ignored");
    }
  }
}

void ToAdmin(const Ctx& c, const boot3::Admin& p, Bootstrap::Admin& out) {
  if (p.has_address()) out.address = ToAddress(c / "address", p.address(), false);
  out.access_log_path = p.access_log_path();
  auto logs = ToAccessLogs(c / "access_log", p.access_log());
  if (logs) out.access_log_path = logs->logs[0].path;
}

// Translates one static resource; its own error or warning paths are below `where`.
template <typename P, typename Fn, typename List>
void AddStatic(const Ctx& c, const P& resources, Fn translate, List& to) {
  for (int i = 0; i < resources.size(); ++i) {
    Warnings w;
    auto r = translate(resources[i], &w);
    for (const auto& line : w.list()) c.warnings->Add("", c[i].where + "." + line);
    if (r) to.push_back(*r);
    else c[i].Fail(r.error());
  }
}

}  // namespace

base::Result<Bootstrap> LoadBootstrap(const BootstrapSource& source) {
  if (source.config_path.empty() && source.config_yaml.empty()) return base::Error("needs --config-path or --config-yaml");
  auto proto = std::make_shared<boot3::Bootstrap>();
  if (!source.config_path.empty()) {
    auto text = ReadFile(source.config_path);
    if (!text) return base::Error(source.config_path + ": " + text.error().message());
    if (auto s = ParseYaml(*text, proto.get()); !s) return base::Error(source.config_path + ": " + s.error().ToString());
  }
  if (!source.config_yaml.empty()) {
    boot3::Bootstrap over;
    if (auto s = ParseYaml(source.config_yaml, &over); !s) return base::Error("--config-yaml: " + s.error().ToString());
    proto->MergeFrom(over);
  }
  if (!source.service_node.empty()) proto->mutable_node()->set_id(source.service_node);
  if (!source.service_cluster.empty()) proto->mutable_node()->set_cluster(source.service_cluster);
  if (!source.service_zone.empty()) proto->mutable_node()->mutable_locality()->set_zone(source.service_zone);

  Bootstrap out;
  std::optional<base::Error> error;
  Ctx c{&out.warnings, &error, ""};
  {
    // Static resources check their own fields below.
    std::unique_ptr<boot3::Bootstrap::StaticResources> resources(proto->release_static_resources());
    c.CheckFields(*proto);
    if (resources) proto->set_allocated_static_resources(resources.release());
  }
  const boot3::Bootstrap& p = *proto;
  Ctx st = c / "static_resources";
  AddStatic(st / "clusters", p.static_resources().clusters(), TranslateCluster, out.clusters);
  AddStatic(st / "listeners", p.static_resources().listeners(), TranslateListener, out.listeners);
  AddStatic(st / "secrets", p.static_resources().secrets(), TranslateSecret, out.secrets);
  auto unique = [](const Ctx& rc, const auto& list) {
    std::set<std::string> names;
    for (const auto& r : list)
      if (!names.insert(r->name).second) rc.Fail("\"" + r->name + "\" is there twice");
  };
  unique(st / "clusters", out.clusters);
  unique(st / "listeners", out.listeners);
  unique(st / "secrets", out.secrets);

  for (int i = 0; i < p.bootstrap_extensions_size(); ++i) {
    const auto& e = p.bootstrap_extensions(i);
    Ctx ec = (c / "bootstrap_extensions")[i] / "typed_config";
    if (TypeOf(e.typed_config()) == "weft.mesh.v1.MeshConfig") {
      auto mesh = std::make_shared<weft::mesh::v1::MeshConfig>(Unpack<weft::mesh::v1::MeshConfig>(ec, e.typed_config()));
      if (mesh->server_address().empty()) (ec / "server_address").Fail("is required");
      if (mesh->trust_domain().empty()) (ec / "trust_domain").Fail("is required");
      out.mesh = mesh;
    } else {
      ec.Warn("bootstrap extension \"" + e.name() + "\" is not supported, ignored");
    }
  }

  const auto& d = p.dynamic_resources();
  Ctx dc = c / "dynamic_resources";
  if (d.has_ads_config()) out.has_ads = true, ToAds(dc / "ads_config", d.ads_config(), out.mesh != nullptr, out.ads);
  // LDS or CDS over a stream of their own is served by one aggregated stream.
  auto discovery = [&](const Ctx& sc, const core::ConfigSource& s, bool& to) {
    to = true;
    if (s.has_api_config_source() && !out.has_ads) {
      out.has_ads = true;
      ToAds(sc / "api_config_source", s.api_config_source(), false, out.ads);
      sc.Warn("served by an aggregated (ADS) stream");
    } else {
      RequireAds(sc, s);
    }
  };
  if (d.has_cds_config()) discovery(dc / "cds_config", d.cds_config(), out.cds);
  if (d.has_lds_config()) discovery(dc / "lds_config", d.lds_config(), out.lds);

  // An injected sidecar needs no dynamic_resources: everything comes from its server.
  if (out.mesh && !p.has_dynamic_resources()) out.has_ads = out.lds = out.cds = true;
  if (out.has_ads && !out.mesh) {
    bool known = false;
    for (const auto& cl : out.clusters) known = known || cl->name == out.ads.cluster;
    if (!known && !out.ads.cluster.empty()) (dc / "ads_config").Fail("cluster \"" + out.ads.cluster + "\" is not among the static clusters");
  }
  if (out.has_ads && p.node().id().empty()) (c / "node.id").Fail("is required with dynamic resources (or --service-node)");

  ToAdmin(c / "admin", p.admin(), out.admin);
  ToOverload(c / "overload_manager", p.overload_manager(), out);
  if (p.has_stats_flush_interval()) out.stats_flush_interval_ns = Ns(c / "stats_flush_interval", p.stats_flush_interval());
  if (!p.header_prefix().empty() && p.header_prefix() != "x-envoy") (c / "header_prefix").Warn("\"x-envoy\" is used");
  if (p.layered_runtime().layers_size() > 0) {
    for (int i = 0; i < p.layered_runtime().layers_size(); ++i)
      if (p.layered_runtime().layers(i).static_layer().fields_size() > 0) ((c / "layered_runtime.layers")[i] / "static_layer").Warn("runtime keys have no effect");
  }
  if (error) return *error;
  out.node = std::make_shared<core::Node>(p.node());
  out.node_id = p.node().id(), out.node_cluster = p.node().cluster();
  out.proto = proto;
  return out;
}

}  // namespace weft::xds
