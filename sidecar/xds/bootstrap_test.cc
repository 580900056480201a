// Whole bootstrap files: those users have, and broken ones.
#include "sidecar/xds/bootstrap.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <fstream>

#include "api/weft/mesh/v1/mesh.pb.h"
#include "envoy/config/bootstrap/v3/bootstrap.pb.h"

namespace weft::xds {
namespace {

std::string File(const std::string& name) { return "sidecar/xds/testdata/" + name; }

std::string Error(const std::string& yaml) {
  auto b = LoadBootstrap({.config_yaml = yaml});
  return b ? "" : b.error().ToString();
}

TEST(Bootstrap, EnvoyFilesLoadWithoutWarnings) {
  for (const char* name : {"bench_http1.json", "bench_istio_like.json", "bench_mtls_pair.json", "bench_h2.json", "bench_tcp.json", "bench_accesslog.json", "front_proxy.yaml"}) {
    auto b = LoadBootstrap({.config_path = File(name)});
    ASSERT_TRUE(b) << name << ": " << b.error().ToString();
    for (const auto& w : b->warnings.list()) ADD_FAILURE() << name << ": " << w;
    EXPECT_FALSE(b->listeners.empty()) << name;
  }
}

TEST(Bootstrap, IstioLikeFiltersArrive) {
  auto b = LoadBootstrap({.config_path = File("bench_istio_like.json")});
  ASSERT_TRUE(b);
  EXPECT_EQ(b->max_downstream_connections, 15000u);
  EXPECT_EQ(b->node_id, "bench");
  const auto* hcm = b->listeners[0]->chains[0]->http();
  ASSERT_EQ(hcm->filters.size(), 4u);
  auto& rbac = std::get<std::shared_ptr<const model::RbacConfig>>(hcm->filters[0].config);
  EXPECT_EQ(rbac->rules->policies[0].permissions[0].children.size(), 2u);
  auto& limit = std::get<std::shared_ptr<const model::LocalRateLimitConfig>>(hcm->filters[2].config);
  EXPECT_EQ(limit->max_tokens, 100'000'000u);
  EXPECT_EQ(limit->enforced.fraction(), 1);
  EXPECT_EQ(hcm->route_table->config().virtual_hosts[0].routes.size(), 5u);
}

TEST(Bootstrap, InjectedSidecar) {
  auto b = LoadBootstrap({.config_path = File("mesh.yaml"), .config_yaml = "{node: {metadata: {EXTRA: \"1.10\"}}}", .service_node = "cart-7"});
  ASSERT_TRUE(b) << b.error().ToString();
  EXPECT_TRUE(b->warnings.list().empty()) << b->warnings.list()[0];
  ASSERT_TRUE(b->mesh);
  EXPECT_EQ(b->mesh->server_address(), "10.77.0.1:15012");
  EXPECT_EQ(b->mesh->workload().ports(0).number(), 8000u);
  EXPECT_TRUE(b->has_ads && b->lds && b->cds && b->ads.delta);
  EXPECT_EQ(b->node_id, "cart-7");
  EXPECT_EQ(b->admin.address.ToString(), "/run/weft/admin.sock");
  EXPECT_EQ(b->proto->node().metadata().fields().at("EXTRA").string_value(), "1.10");
}

TEST(Bootstrap, PlainEnvoyWithAds) {
  auto b = LoadBootstrap({.config_path = File("ads.yaml")});
  ASSERT_TRUE(b) << b.error().ToString();
  EXPECT_FALSE(b->mesh);
  EXPECT_TRUE(b->has_ads && b->lds && b->cds);
  EXPECT_FALSE(b->ads.delta);
  EXPECT_EQ(b->ads.cluster, "xds");
  EXPECT_EQ(b->admin.address.ToString(), "127.0.0.1:9901");
  EXPECT_EQ(b->warnings.list(), std::vector<std::string>{"watchdogs: not supported, ignored"});
}

TEST(Bootstrap, TenThousandClustersLoadQuickly) {
  std::string path = std::string(getenv("TEST_TMPDIR") ? getenv("TEST_TMPDIR") : "/tmp") + "/big.json";
  {
    std::ofstream out(path);
    out << R"({"static_resources":{"clusters":[)";
    for (int i = 0; i < 10000; ++i)
      out << (i ? "," : "") << R"({"name":"c)" << i << R"(","type":"STATIC","connect_timeout":"5s","load_assignment":{"cluster_name":"c)" << i
          << R"(","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"127.0.0.1","port_value":8000}}}}]}]}})";
    out << "]}}";
  }
  auto start = std::chrono::steady_clock::now();
  auto b = LoadBootstrap({.config_path = path});
  double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(b) << b.error().ToString();
  EXPECT_EQ(b->clusters.size(), 10000u);
  printf("10,000 clusters: %.2f s\n", s);
}

TEST(Bootstrap, ErrorsNamePlaceAndReason) {
  EXPECT_EQ(Error(""), "needs --config-path or --config-yaml");
  EXPECT_EQ(Error("a: [1"), "--config-yaml: line 1: end of sequence flow not found");
  EXPECT_EQ(Error("- 1"), "--config-yaml: is not a YAML map");
  EXPECT_EQ(Error("node: {id: a, id: b}"), "--config-yaml: line 1: key \"id\" is there twice");
  EXPECT_EQ(Error("{\"node\": {\"id\": \"a\",\n \"id\": \"b\"}}"), "--config-yaml: line 2: key \"id\" is there twice");
  EXPECT_EQ(Error("node: {id: a}\n---\nnode: {id: b}"), "--config-yaml: holds more than one YAML document");
  EXPECT_EQ(Error("static_resources:\n  listeners:\n  - {naem: x}"), "--config-yaml: line 3: static_resources.listeners[0].naem: unknown field");
  EXPECT_EQ(Error("{\"static_resources\": {\"listeners\": [\n{\"name\": {}}]}}"),
            "--config-yaml: line 2: static_resources.listeners[0].name: invalid value Starting an object on a scalar field for type name");
  EXPECT_EQ(Error("admin: {address: {socket_address: {address: x,\n port_value: abc}}}"),
            "--config-yaml: line 2: admin.address.socket_address.port_value: invalid value \"abc\" for type TYPE_UINT32");
  const std::string filter = "static_resources: {listeners: [{filter_chains: [{filters: [{typed_config: {\n'@type': ";
  const std::string at = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
  EXPECT_EQ(Error(filter + "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,\n stat_prefx: a}}]}]}]}"),
            "--config-yaml: line 3: " + at + ".stat_prefx: unknown field");
  EXPECT_EQ(Error(filter + "type.googleapis.com/no.Such}}]}]}]}"), "--config-yaml: line 1: " + at + ": unknown type type.googleapis.com/no.Such");
  EXPECT_EQ(Error("static_resources: {listeners: [{name: x}]}"), "static_resources.listeners[0]: address: an address is required");
  EXPECT_EQ(Error("static_resources: {clusters: [{name: x, type: ORIGINAL_DST}, {name: x, type: ORIGINAL_DST}]}"), "static_resources.clusters: \"x\" is there twice");
  EXPECT_EQ(Error("dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: nope}}]}}"),
            "dynamic_resources.ads_config: cluster \"nope\" is not among the static clusters");
  auto b = LoadBootstrap({.config_path = "/nonexistent/x.yaml"});
  ASSERT_FALSE(b);
  EXPECT_EQ(b.error().ToString(), "/nonexistent/x.yaml: cannot be read: No such file or directory");
  std::string deep = "node: {metadata: ", tail;
  for (int i = 0; i < 100; ++i) deep += "{a: ", tail += "}";
  EXPECT_NE(Error(deep + "1" + tail + "}").find("nested deeper than 64"), std::string::npos);
}

}  // namespace
}  // namespace weft::xds
