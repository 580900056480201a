// What is in force when: warming, the old version meanwhile, what never comes, what is refused. Time is stepped by hand.
#include "sidecar/xds/snapshot_builder.h"

#include <gtest/gtest.h>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/xds/bootstrap.h"

namespace weft::xds {
namespace {

using envoy::config::cluster::v3::Cluster;
using envoy::config::endpoint::v3::ClusterLoadAssignment;
using envoy::config::listener::v3::Listener;
using envoy::config::route::v3::RouteConfiguration;

template <typename P>
AdsResource Resource(const std::string& name, const std::string& yaml, const std::string& version = "1") {
  P p;
  auto s = ParseYaml(yaml, &p);
  EXPECT_TRUE(s) << s.error().ToString() << "\n" << yaml;
  return {name, version, p.SerializeAsString()};
}

AdsResource Eds(const std::string& name, const std::string& service, const std::string& more = "") {
  return Resource<Cluster>(name, "{name: " + name + ", type: EDS, eds_cluster_config: {service_name: " + service +
                                     ", eds_config: {ads: {}}}, connect_timeout: 1s" + more + "}");
}

AdsResource Hosts(const std::string& service, const std::vector<int>& ports) {
  std::string list;
  for (int p : ports) {
    list += std::string(list.empty() ? "" : ", ") + "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: " + std::to_string(p) + "}}}}";
  }
  return Resource<ClusterLoadAssignment>(service, "{cluster_name: " + service + ", endpoints: [{lb_endpoints: [" + list + "]}]}");
}

AdsResource Http(const std::string& name, const std::string& rds, const std::string& more = "") {
  return Resource<Listener>(name, "{name: " + name + R"(, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [
    {name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
     stat_prefix: x, rds: {route_config_name: )" + rds + R"(, config_source: {ads: {}}},
     http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}])" + more + "}]}");
}

AdsResource Routes(const std::string& name) {
  return Resource<RouteConfiguration>(name, "{name: " + name + ", virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}]}");
}

constexpr char kIdentity[] = R"(, transport_socket: {name: tls, typed_config: {
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
    common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}],
                         validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}}})";

class Builder : public ::testing::Test {
 protected:
  Builder() {
    SnapshotBuilder::Hooks hooks;
    hooks.publish = [this](model::SnapshotPtr s) -> base::Status {
      if (!refuse_.empty() && s->FindListener(refuse_)) return base::Error("listener '" + refuse_ + "': address in use");
      published_.push_back(std::move(s));
      return base::Ok{};
    };
    hooks.resolve = [](const std::string&, model::Cluster::DnsFamily, std::function<void(const ResolveAnswer&)>) {};
    builder_ = std::make_unique<SnapshotBuilder>(&loop_, std::move(hooks));
    loop_.RunOnce(0);
    EXPECT_TRUE(builder_->Start());
  }

  // "" or what was refused, in words.
  std::string Take(Type type, const std::vector<AdsResource>& updated, const std::vector<std::string>& removed = {}, bool full = false) {
    std::string out;
    for (const auto& r : builder_->OnResources(type, updated, removed, full)) out += r.name + ": " + r.reason + "\n";
    loop_.RunOnce(0);
    return out;
  }
  void Pass(uint64_t ns) {
    clock_.Advance(ns);
    loop_.RunOnce(0);
  }
  // Ports of the hosts in force, "-" when the cluster is not there.
  std::string Ports(const std::string& cluster) {
    const auto* entry = builder_->current()->FindCluster(cluster);
    if (!entry) return "-";
    std::string out;
    for (const auto& h : entry->hosts->hosts()) out += (out.empty() ? "" : " ") + std::to_string(h.endpoint.address.port);
    return out;
  }

  base::ManualClock clock_;
  io::Loop loop_{&clock_};
  std::string refuse_;
  std::vector<model::SnapshotPtr> published_;
  std::unique_ptr<SnapshotBuilder> builder_;
};

TEST_F(Builder, AClusterWaitsForItsEndpoints) {
  EXPECT_EQ(Take(Type::kCluster, {Eds("a", "svc")}), "");
  EXPECT_EQ(Ports("a"), "-");
  EXPECT_TRUE(builder_->warming());
  EXPECT_EQ(builder_->WarmingText(), "cluster \"a\" waits for endpoints");
  EXPECT_EQ(builder_->Names(Type::kEndpoint), std::set<std::string>{"svc"});
  EXPECT_EQ(Take(Type::kEndpoint, {Hosts("svc", {1, 2})}), "");
  EXPECT_EQ(Ports("a"), "1 2");
  EXPECT_FALSE(builder_->warming());
}

TEST_F(Builder, TheOldVersionServesUntilTheNewOneIsWarm) {
  Take(Type::kCluster, {Eds("a", "one")});
  Take(Type::kEndpoint, {Hosts("one", {1})});
  Take(Type::kCluster, {Eds("a", "two")});
  EXPECT_EQ(Ports("a"), "1");
  // The old endpoints are asked for as long as they serve.
  EXPECT_EQ(builder_->Names(Type::kEndpoint), (std::set<std::string>{"one", "two"}));
  Take(Type::kEndpoint, {Hosts("one", {1, 3})});
  EXPECT_EQ(Ports("a"), "1 3");
  Take(Type::kEndpoint, {Hosts("two", {2})});
  EXPECT_EQ(Ports("a"), "2");
  EXPECT_EQ(builder_->Names(Type::kEndpoint), std::set<std::string>{"two"});
}

TEST_F(Builder, EndpointsThatNeverComeCountAsNone) {
  Take(Type::kCluster, {Eds("a", "svc")});
  Pass(SnapshotBuilder::kFetchTimeoutNs - base::kSecond);
  EXPECT_EQ(Ports("a"), "-");
  Pass(2 * base::kSecond);
  Pass(0);
  EXPECT_EQ(Ports("a"), "");
  Take(Type::kEndpoint, {Hosts("svc", {7})});
  EXPECT_EQ(Ports("a"), "7");
}

TEST_F(Builder, RoutesThatNeverComeCountAsNone) {
  Take(Type::kListener, {Http("l", "r")});
  EXPECT_EQ(builder_->current()->FindListener("l"), nullptr);
  EXPECT_EQ(builder_->WarmingText(), "listener \"l\" waits for routes \"r\"");
  Pass(SnapshotBuilder::kFetchTimeoutNs + base::kSecond);
  Pass(0);
  EXPECT_NE(builder_->current()->FindListener("l"), nullptr);
  Take(Type::kRoute, {Routes("r")});
  EXPECT_EQ(builder_->current()->route_tables->count("r"), 1u);
  Take(Type::kRoute, {}, {"r"});
  EXPECT_EQ(builder_->current()->route_tables->count("r"), 0u);
}

TEST_F(Builder, WithoutItsSecretAClusterWarmsForEver) {
  builder_->ExpectIdentity();
  Take(Type::kCluster, {Eds("a", "svc", kIdentity)});
  Take(Type::kEndpoint, {Hosts("svc", {1})});
  Pass(100 * SnapshotBuilder::kFetchTimeoutNs);
  Pass(0);
  EXPECT_EQ(Ports("a"), "-");
  EXPECT_EQ(builder_->WarmingText(), "cluster \"a\" waits for secret \"default\" secret \"ROOTCA\"");
  // These names are the sidecar's own: no server is asked for them, and none may send them.
  EXPECT_TRUE(builder_->Names(Type::kSecret).empty());
  EXPECT_NE(Take(Type::kSecret, {Resource<envoy::config::cluster::v3::Cluster>("default", "{name: default}")}), "");
}

TEST_F(Builder, WhatIsRefusedLeavesTheLastGoodOneAndSaysWhy) {
  Take(Type::kCluster, {Eds("a", "svc")});
  Take(Type::kEndpoint, {Hosts("svc", {1})});
  const size_t before = published_.size();
  EXPECT_EQ(Take(Type::kCluster, {Resource<Cluster>("a", "{name: a, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}, lb_policy: 99}", "2")}).find("a: lb_policy"), 0u);
  EXPECT_EQ(Ports("a"), "1");
  EXPECT_EQ(published_.size(), before);
  auto views = builder_->View(Type::kCluster);
  ASSERT_EQ(views.size(), 1u);
  EXPECT_TRUE(views[0].active);
  EXPECT_EQ(views[0].version, "1");
  EXPECT_EQ(views[0].refused_version, "2");
  EXPECT_NE(views[0].error.find("lb_policy"), std::string::npos);
  EXPECT_EQ(Take(Type::kCluster, {{"a", "3", "\xff\xff"}}).substr(0, 3), "a: ");
  EXPECT_EQ(Take(Type::kCluster, {Eds("a", "svc"), Eds("a", "svc")}), "a: appears twice in one response\n");
  EXPECT_EQ(Take(Type::kCluster, {{"", "1", ""}}), ": has no name\n");
  // A good one clears the refusal; the same content again is no new version to warm.
  EXPECT_EQ(Take(Type::kCluster, {Eds("a", "svc")}), "");
  EXPECT_EQ(builder_->View(Type::kCluster)[0].error, "");
}

TEST_F(Builder, OneBadResourceDoesNotHoldTheOthers) {
  EXPECT_EQ(Take(Type::kCluster, {Eds("a", "one"), {"b", "1", "\xff"}, Eds("c", "two")}).substr(0, 3), "b: ");
  Take(Type::kEndpoint, {Hosts("one", {1}), Hosts("two", {2})});
  EXPECT_EQ(Ports("a"), "1");
  EXPECT_EQ(Ports("b"), "-");
  EXPECT_EQ(Ports("c"), "2");
}

TEST_F(Builder, AListenerThatCannotBindIsTakenBackAndTheRestGoesOn) {
  Take(Type::kRoute, {Routes("r")});
  Take(Type::kListener, {Http("good", "r")});
  refuse_ = "bad";
  EXPECT_EQ(Take(Type::kListener, {Http("bad", "r"), Http("other", "r")}), "bad: listener 'bad': address in use\n");
  EXPECT_NE(builder_->current()->FindListener("good"), nullptr);
  EXPECT_NE(builder_->current()->FindListener("other"), nullptr);
  EXPECT_EQ(builder_->current()->FindListener("bad"), nullptr);
  // The address became free; the server sends it again.
  refuse_.clear();
  EXPECT_EQ(Take(Type::kListener, {Http("bad", "r")}), "");
  EXPECT_NE(builder_->current()->FindListener("bad"), nullptr);
}

TEST_F(Builder, StateOfTheWorldRemovesWhatIsMissing) {
  Take(Type::kCluster, {Eds("a", "svc"), Eds("b", "svc")}, {}, true);
  Take(Type::kEndpoint, {Hosts("svc", {1})});
  Take(Type::kCluster, {Eds("b", "svc")}, {}, true);
  EXPECT_EQ(Ports("a"), "-");
  EXPECT_EQ(Ports("b"), "1");
  Take(Type::kCluster, {}, {"b"});
  EXPECT_EQ(Ports("b"), "-");
  EXPECT_TRUE(builder_->Names(Type::kEndpoint).empty());
}

TEST_F(Builder, WhatDoesNotChangeIsSharedAndChangesOfHostsAreCounted) {
  Take(Type::kCluster, {Eds("a", "one"), Eds("b", "two")});
  Take(Type::kEndpoint, {Hosts("one", {1}), Hosts("two", {2})});
  auto first = builder_->current();
  const auto changes = [](const model::SnapshotPtr& s) { return s->FindCluster("a")->cells->membership_change.load(); };
  const uint64_t before = changes(first);
  Take(Type::kEndpoint, {Hosts("one", {1, 3})});
  auto second = builder_->current();
  EXPECT_GT(second->sequence, first->sequence);
  EXPECT_NE(first->FindCluster("a"), second->FindCluster("a"));
  EXPECT_EQ(first->FindCluster("b")->hosts, second->FindCluster("b")->hosts);
  EXPECT_EQ(first->FindCluster("a")->cells, second->FindCluster("a")->cells);
  EXPECT_EQ(changes(second), before + 1);
  Take(Type::kEndpoint, {Hosts("one", {1, 3})});
  EXPECT_EQ(changes(builder_->current()), before + 1);
}

TEST_F(Builder, TheSameAgainPublishesNothing) {
  Take(Type::kCluster, {Eds("a", "svc")});
  Take(Type::kEndpoint, {Hosts("svc", {1})});
  const size_t before = published_.size();
  Take(Type::kCluster, {Eds("a", "svc")});
  EXPECT_EQ(published_.size(), before);
  EXPECT_FALSE(builder_->warming());
}

}  // namespace
}  // namespace weft::xds
