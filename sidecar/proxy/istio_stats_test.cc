// Labels of Istio's standard metrics, how many series there may be, and what a request leaves in them.
#include "sidecar/proxy/istio_stats.h"

#include <map>

#include "sidecar/proxy/testing/harness.h"
#include "sidecar/proxy/testing/peers.h"

namespace weft::proxy::testing {
namespace {

std::map<std::string, std::string> Labels(const IstioSubject& s, const IstioOwn& own) {
  std::map<std::string, std::string> out;
  for (const auto& [k, v] : IstioLabels(s, own)) out[k] = v;
  return out;
}

const IstioOwn kOwn = {"reviews-v1", "shop", "reviews", "v1", "reviews", "v1", "east", "1.27.0", false};
const IstioOwn kMesh = {"cart", "default", "cart", "v2", "cart", "v2", "", "weft", true};

TEST(IstioLabels, SourceWithIstiosEndpointMetadata) {
  model::IstioStats config;
  IstioSubject s;
  s.config = &config, s.status = 503, s.client_id = "spiffe://td/ns/shop/sa/r", s.server_id = "spiffe://td/ns/pay/sa/p";
  s.flags.Set(ResponseFlag::kUpstreamConnectionFailure), s.flags.Set(ResponseFlag::kUpstreamRetryLimitExceeded);
  s.istio_workload = "ratings-v2;other;ratings;v2;west", s.host = "ratings.other.svc.cluster.local", s.name = "ratings";
  const std::map<std::string, std::string> expected = {
      {"reporter", "source"}, {"source_workload", "reviews-v1"}, {"source_canonical_service", "reviews"}, {"source_canonical_revision", "v1"},
      {"source_workload_namespace", "shop"}, {"source_principal", "spiffe://td/ns/shop/sa/r"}, {"source_app", "reviews"}, {"source_version", "v1"},
      {"source_cluster", "east"}, {"destination_workload", "ratings-v2"}, {"destination_workload_namespace", "pay"},
      {"destination_principal", "spiffe://td/ns/pay/sa/p"}, {"destination_app", "unknown"}, {"destination_version", "unknown"},
      {"destination_service", "ratings.other.svc.cluster.local"}, {"destination_canonical_service", "ratings"},
      {"destination_canonical_revision", "v2"}, {"destination_service_name", "ratings"}, {"destination_service_namespace", "pay"},
      {"destination_cluster", "west"}, {"request_protocol", "http"}, {"response_code", "503"}, {"grpc_response_status", ""},
      {"response_flags", "UF,URX"}, {"connection_security_policy", "unknown"}};
  EXPECT_EQ(expected, Labels(s, kOwn));
}

TEST(IstioLabels, DestinationInOurMesh) {
  model::IstioStats config;
  IstioSubject s;
  s.config = &config, s.reporter = IstioSubject::kDestination, s.protocol = IstioSubject::kGrpc, s.status = 200, s.mutual_tls = true;
  s.client_id = "spiffe://weft.local/ns/front/sa/web", s.server_id = "spiffe://weft.local/ns/default/sa/cart";
  s.service = "cart", s.service_namespace = "default", s.grpc_status = 5;
  const std::map<std::string, std::string> expected = {
      {"reporter", "destination"}, {"source_workload", "web"}, {"source_canonical_service", "web"}, {"source_canonical_revision", "latest"},
      {"source_workload_namespace", "front"}, {"source_principal", "spiffe://weft.local/ns/front/sa/web"}, {"source_app", "web"},
      {"source_version", "unknown"}, {"source_cluster", "unknown"}, {"destination_workload", "cart"}, {"destination_workload_namespace", "default"},
      {"destination_principal", "spiffe://weft.local/ns/default/sa/cart"}, {"destination_app", "cart"}, {"destination_version", "v2"},
      {"destination_service", "cart.default.mesh"}, {"destination_canonical_service", "cart"}, {"destination_canonical_revision", "v2"},
      {"destination_service_name", "cart"}, {"destination_service_namespace", "default"}, {"destination_cluster", "unknown"},
      {"request_protocol", "grpc"}, {"response_code", "200"}, {"grpc_response_status", "5"}, {"response_flags", "-"},
      {"connection_security_policy", "mutual_tls"}};
  EXPECT_EQ(expected, Labels(s, kMesh));
  s.grpc_status = -1, s.status = 503, s.mutual_tls = false;
  EXPECT_EQ("14", Labels(s, kMesh)["grpc_response_status"]);
  EXPECT_EQ("none", Labels(s, kMesh)["connection_security_policy"]);
}

TEST(IstioLabels, NothingIsKnown) {
  model::IstioStats config;
  IstioSubject s;
  s.config = &config, s.protocol = IstioSubject::kTcp;
  for (const auto& [k, v] : Labels(s, {})) {
    if (k == "reporter") EXPECT_EQ("source", v);
    else if (k == "request_protocol") EXPECT_EQ("tcp", v);
    else if (k == "response_flags") EXPECT_EQ("-", v);
    else EXPECT_EQ(k.ends_with("_revision") ? "latest" : "unknown", v) << k;
  }
  EXPECT_EQ(23u, Labels(s, {}).size());  // no response_code, no grpc_response_status
}

// By labels, the stats of one metric.
std::map<std::string, int64_t> Of(const std::string& metric, const std::string& label) {
  std::map<std::string, int64_t> out;
  base::Stats::Get().Visit([&](const base::StatView& v) {
    if (v.base_name != "istiocustom.istio_" + metric) return;
    for (const auto& [k, value] : *v.tags) {
      if (k == label) out[value] += v.kind == base::StatKind::kHistogram ? static_cast<int64_t>(v.count) : v.value;
    }
  });
  return out;
}

TEST(IstioStats, TooManySeriesCountInOne) {
  model::IstioStats config;
  IstioStats stats(&kOwn, IstioStats::series() + 2);
  const int64_t before = base::Stats::Get().Value("stats.istio_overflow");
  std::vector<std::string> hosts;
  for (int i = 0; i < 50; ++i) hosts.push_back("many-" + std::to_string(i));
  IstioSubject s;
  s.config = &config, s.status = 200;
  for (int round = 0; round < 2; ++round) {
    for (const std::string& host : hosts) s.host = s.name = host, stats.CountRequest(s, {1000, 10, 20});
  }
  auto counts = Of("requests_total", "destination_service");
  EXPECT_EQ(2, counts["many-0"]);
  EXPECT_EQ(2, counts["many-1"]);
  EXPECT_EQ(0u, counts.count("many-2"));
  EXPECT_EQ(96, counts["unknown"]);
  EXPECT_EQ(96, base::Stats::Get().Value("stats.istio_overflow") - before);
  EXPECT_EQ(96, Of("request_bytes", "destination_service")["unknown"]);
}

TEST(IstioStats, MetricsAndLabelsThatWereTakenAway) {
  model::IstioStats config;
  config.changes = {{"request_bytes", true, {}}, {"", false, {"source_principal", "response_flags"}}};
  config.key = "changed";
  IstioStats stats(&kOwn);
  IstioSubject s;
  s.config = &config, s.host = s.name = "changed.test", s.status = 204;
  stats.CountRequest(s, {});
  EXPECT_EQ(1, Of("requests_total", "destination_service")["changed.test"]);
  EXPECT_EQ(1, Of("response_bytes", "destination_service")["changed.test"]);
  EXPECT_EQ(0u, Of("request_bytes", "destination_service").count("changed.test"));
  base::Stats::Get().Visit([](const base::StatView& v) {
    if (v.name.find("changed.test") == std::string_view::npos) return;
    for (const auto& tag : *v.tags) EXPECT_TRUE(tag.first != "source_principal" && tag.first != "response_flags") << v.name;
  });
}

TEST(IstioStats, ARequestThroughMutualTls) {
  Through through({true, true, true, true}, [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "hello");
  });
  const auto before = Of("requests_total", "destination_principal")[kCart];
  ASSERT_EQ(through.client->Get("/a").status, "200");
  through.mesh.NextRecord();
  EXPECT_EQ(before + 1, Of("requests_total", "destination_principal")[kCart]);
  EXPECT_GE(Of("requests_total", "source_principal")[kFront], 1);
  EXPECT_GE(Of("request_duration_milliseconds", "destination_workload_namespace")["default"], 1);
  EXPECT_EQ(1, base::Stats::Get().Value("istiocustom.istio_build.component.proxy.tag.unknown"));
}

}  // namespace
}  // namespace weft::proxy::testing
