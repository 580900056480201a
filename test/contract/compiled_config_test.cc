// Every resource of the server's golden files must be taken by the sidecar: no error, and no warning, because a warning
// means that the server relies on a field that the sidecar ignores. A few are then used as the data plane uses them.
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/xds/translate.h"

namespace weft {
namespace {

using envoy::config::cluster::v3::Cluster;
using envoy::config::endpoint::v3::ClusterLoadAssignment;
using envoy::config::listener::v3::Listener;
using envoy::config::route::v3::RouteConfiguration;

struct Loaded {
  std::map<std::string, std::shared_ptr<const model::Listener>> listeners;
  std::map<std::string, std::shared_ptr<const model::Cluster>> clusters;
  std::map<std::string, std::shared_ptr<const model::Endpoints>> endpoints;
  std::map<std::string, std::shared_ptr<const route::RouteTable>> routes;
  int resources = 0;
};

template <typename P, typename R>
void Take(const std::string& where, const std::string& name, const std::string& text, base::Result<R> (*translate)(const P&, xds::Warnings*),
          std::map<std::string, R>& to) {
  P p;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &p)) << where << name;
  xds::Warnings warnings;
  auto r = translate(p, &warnings);
  ASSERT_TRUE(r) << where << name << ": " << r.error().ToString();
  for (const auto& w : warnings.list()) ADD_FAILURE() << where << name << ": " << w;
  to[name] = *r;
}

// A golden file: "# <type> <name>" and the message's text, over and over; "# gone: ..." lines have no text.
void Load(const std::string& file, Loaded& to) {
  std::ifstream in("xds_server/compile/testdata/" + file + ".golden");
  ASSERT_TRUE(in) << file;
  std::string type, name, text, where = file + ": ";
  auto flush = [&] {
    if (type == "lds") Take(where, name, text, xds::TranslateListener, to.listeners);
    else if (type == "cds") Take(where, name, text, xds::TranslateCluster, to.clusters);
    else if (type == "eds") Take(where, name, text, xds::TranslateEndpoints, to.endpoints);
    else if (type == "rds") Take(where, name, text, xds::TranslateRoutes, to.routes);
    else return;
    ++to.resources;
  };
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("# ")) {
      flush();
      std::stringstream s(line.substr(2));
      s >> type;
      std::getline(s >> std::ws, name);
      text.clear();
    } else {
      text += line + "\n";
    }
  }
  flush();
}

TEST(CompiledConfig, TheSidecarTakesEverythingTheServerCompiles) {
  int resources = 0;
  for (const auto& e : std::filesystem::directory_iterator("xds_server/compile/testdata")) {
    if (e.path().extension() != ".golden" || e.path().stem() == "foreign") continue;
    Loaded l;
    Load(e.path().stem(), l);
    resources += l.resources;
  }
  EXPECT_GT(resources, 40);
}

TEST(CompiledConfig, ForeignProxiesResourcesToo) {
  Loaded l;
  Load("foreign", l);
}

TEST(CompiledConfig, OutboundChainsRouteToClustersThatExist) {
  Loaded l;
  Load("plain", l);
  ASSERT_TRUE(l.listeners.count("outbound"));
  const model::Listener& out = *l.listeners["outbound"];
  EXPECT_TRUE(out.filters & model::kOriginalDst);
  int http = 0, tcp = 0;
  for (const auto& chain : out.chains) {
    if (const auto* h = chain->http()) {
      ++http;
      ASSERT_TRUE(l.routes.count(h->rds_name)) << h->rds_name;
      http::HeaderMap request;
      request.Add(http::Token::kMethod, "GET"), request.Add(http::Token::kAuthority, "anything"), request.Add(http::Token::kPath, "/x");
      route::Found f = l.routes[h->rds_name]->Find(request, 1, false);
      ASSERT_NE(f.route, nullptr) << h->rds_name;
      EXPECT_TRUE(l.clusters.count(std::string(f.cluster))) << f.cluster;
      EXPECT_NE(route::Retry(f), nullptr);
    } else {
      ++tcp;
      EXPECT_TRUE(l.clusters.count(chain->tcp()->cluster)) << chain->tcp()->cluster;
    }
  }
  EXPECT_GT(http, 0);
  EXPECT_GT(tcp, 0);
  ASSERT_TRUE(out.default_chain);
  EXPECT_EQ(out.default_chain->tcp()->cluster, "passthrough");
  for (const auto& [name, table] : l.routes)
    for (const auto& c : xds::ClusterNames(*table)) EXPECT_TRUE(l.clusters.count(c)) << name << " -> " << c;
  for (const auto& [name, c] : l.clusters) {
    if (c->type == model::Cluster::kEds) {
      EXPECT_TRUE(l.endpoints.count(c->eds_service_name)) << name;
    }
  }
}

TEST(CompiledConfig, InboundRefusesPlaintextAndStrangers) {
  Loaded l;
  Load("plain", l);
  ASSERT_TRUE(l.listeners.count("inbound"));
  const model::Listener& in = *l.listeners["inbound"];
  EXPECT_TRUE(in.filters & model::kTlsInspector);
  EXPECT_EQ(in.default_chain, nullptr);
  ASSERT_FALSE(in.chains.empty());
  for (const auto& chain : in.chains) {
    EXPECT_EQ(chain->match.transport_protocol, "tls");
    ASSERT_TRUE(chain->tls);
    EXPECT_TRUE(chain->tls->require_client_certificate);
    EXPECT_TRUE(chain->tls->spiffe);
    EXPECT_EQ(chain->tls->parameters.min_version, 0x0304);
  }
}

TEST(CompiledConfig, ProvenanceReachesTheModel) {
  Loaded l;
  Load("canary", l);
  const auto& table = l.routes["outbound|80|cart.default"];
  ASSERT_TRUE(table);
  const model::Route& r = *table->config().virtual_hosts[0].routes[0];
  EXPECT_EQ(r.weft.policy, "Route/default/cart");
  EXPECT_EQ(r.weft.revision, 7u);
  EXPECT_EQ(r.forward.total_weight, 100u);
  EXPECT_EQ(r.forward.timeout_ns, 0u);
  EXPECT_TRUE(r.forward.retry->previous_hosts_predicate);
}

TEST(CompiledConfig, AFaultNamesItsPolicy) {
  Loaded l;
  Load("fault", l);
  std::shared_ptr<const model::FaultConfig> fault;
  for (const auto& [name, listener] : l.listeners)
    for (const auto& chain : listener->chains)
      if (const auto* h = chain->http())
        for (const auto& f : h->filters)
          if (auto* c = std::get_if<std::shared_ptr<const model::FaultConfig>>(&f.config)) fault = *c;
  ASSERT_TRUE(fault);
  EXPECT_TRUE(fault->weft.policy.starts_with("Fault/")) << fault->weft.policy;
  EXPECT_EQ(fault->weft.revision, 7u);
}

}  // namespace
}  // namespace weft
