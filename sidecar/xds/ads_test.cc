#include "sidecar/xds/ads.h"

#include <gtest/gtest.h>

#include <functional>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/core/v3/base.pb.h"
#include "envoy/service/discovery/v3/discovery.pb.h"

namespace weft::xds {
namespace {

namespace disco = envoy::service::discovery::v3;

struct Sink : AdsSink {
  std::vector<Refused> OnResources(Type type, const std::vector<AdsResource>& updated, const std::vector<std::string>& removed,
                                   bool full) override {
    log += std::string(TypeShort(type)) + (full ? " full" : "");
    for (const auto& r : updated) log += " +" + r.name + "@" + r.version;
    for (const auto& r : removed) log += " -" + r;
    log += "\n";
    std::vector<Refused> out;
    for (const auto& r : updated) {
      if (r.name == "bad") out.push_back({r.name, "lb_policy: 99 is not supported"});
    }
    return out;
  }
  std::string log;
};

std::string Node() {
  envoy::config::core::v3::Node node;
  node.set_id("sidecar~1");
  return node.SerializeAsString();
}

std::string Delta(Type type, const std::string& nonce, const std::vector<std::pair<std::string, std::string>>& add,
                  const std::vector<std::string>& remove = {}) {
  disco::DeltaDiscoveryResponse r;
  r.set_type_url(std::string(TypeUrl(type)));
  r.set_nonce(nonce);
  for (const auto& [name, version] : add) {
    auto* x = r.add_resources();
    x->set_name(name), x->set_version(version);
    x->mutable_resource()->set_type_url(std::string(TypeUrl(type)));
  }
  for (const auto& name : remove) r.add_removed_resources(name);
  return r.SerializeAsString();
}

std::string Sotw(const std::string& version, const std::string& nonce, const std::vector<std::string>& clusters) {
  disco::DiscoveryResponse r;
  r.set_type_url(std::string(TypeUrl(Type::kCluster)));
  r.set_version_info(version), r.set_nonce(nonce);
  for (const auto& name : clusters) {
    envoy::config::cluster::v3::Cluster c;
    c.set_name(name);
    c.mutable_connect_timeout()->set_seconds(1);
    r.add_resources()->PackFrom(c);
  }
  return r.SerializeAsString();
}

disco::DeltaDiscoveryRequest NextDelta(Ads& ads) {
  std::string out;
  disco::DeltaDiscoveryRequest r;
  EXPECT_TRUE(ads.Next(&out));
  EXPECT_TRUE(r.ParseFromString(out));
  return r;
}

TEST(AdsDelta, SubscribesInOrderWithTheNodeOnlyOnce) {
  Sink sink;
  Ads ads(Ads::kDelta, Node(), &sink);
  ads.WatchAll(Type::kListener);
  ads.WatchAll(Type::kCluster);
  ads.SetNames(Type::kEndpoint, {"cart"});
  std::string none;
  EXPECT_FALSE(ads.Next(&none));  // no stream yet
  ads.OnOpen();
  auto a = NextDelta(ads), b = NextDelta(ads), c = NextDelta(ads);
  EXPECT_EQ(a.type_url(), TypeUrl(Type::kCluster));
  EXPECT_EQ(a.node().id(), "sidecar~1");
  EXPECT_EQ(b.type_url(), TypeUrl(Type::kEndpoint));
  EXPECT_FALSE(b.has_node());
  ASSERT_EQ(1, b.resource_names_subscribe_size());
  EXPECT_EQ(c.type_url(), TypeUrl(Type::kListener));
  EXPECT_FALSE(ads.Next(&none));
}

TEST(AdsDelta, AcksAndNacksNamingTheBadResourceOnly) {
  Sink sink;
  Ads ads(Ads::kDelta, Node(), &sink);
  ads.WatchAll(Type::kCluster);
  ads.OnOpen();
  NextDelta(ads);
  ads.OnMessage(Delta(Type::kCluster, "n1", {{"a", "1"}, {"bad", "1"}, {"b", "1"}}));
  EXPECT_EQ("CDS +a@1 +bad@1 +b@1\n", sink.log);
  auto nack = NextDelta(ads);
  EXPECT_EQ("n1", nack.response_nonce());
  EXPECT_EQ("CDS \"bad\": lb_policy: 99 is not supported", nack.error_detail().message());
  EXPECT_EQ(nack.error_detail().message(), ads.state(Type::kCluster).last_error);
  EXPECT_EQ(2u, ads.state(Type::kCluster).versions.size());
  ads.OnMessage(Delta(Type::kCluster, "n2", {}, {"a"}));
  auto ack = NextDelta(ads);
  EXPECT_EQ("n2", ack.response_nonce());
  EXPECT_FALSE(ack.has_error_detail());
  EXPECT_EQ("", ads.state(Type::kCluster).last_error);
  EXPECT_EQ(1u, ads.state(Type::kCluster).versions.size());
}

TEST(AdsDelta, ReconnectSendsNamesAndVersionsAgain) {
  Sink sink;
  Ads ads(Ads::kDelta, Node(), &sink);
  ads.WatchAll(Type::kCluster);
  ads.SetNames(Type::kEndpoint, {"cart", "pay"});
  ads.OnOpen();
  NextDelta(ads), NextDelta(ads);
  ads.OnMessage(Delta(Type::kCluster, "n1", {{"a", "7"}}));
  ads.OnMessage(Delta(Type::kEndpoint, "n2", {{"cart", "3"}}));
  ads.OnClosed();
  ads.SetNames(Type::kEndpoint, {"cart", "ship"});
  ads.OnOpen();
  auto c = NextDelta(ads), e = NextDelta(ads);
  EXPECT_EQ("sidecar~1", c.node().id());
  EXPECT_EQ("", c.response_nonce());
  EXPECT_EQ("7", c.initial_resource_versions().at("a"));
  EXPECT_EQ(2, e.resource_names_subscribe_size());
  EXPECT_EQ(0, e.resource_names_unsubscribe_size());
  EXPECT_EQ("3", e.initial_resource_versions().at("cart"));
}

TEST(AdsDelta, NamesThatComeAndGoAreSubscribedAndUnsubscribed) {
  Sink sink;
  Ads ads(Ads::kDelta, Node(), &sink);
  ads.SetNames(Type::kRoute, {"r1", "r2"});
  ads.OnOpen();
  NextDelta(ads);
  ads.SetNames(Type::kRoute, {"r2", "r3"});
  auto r = NextDelta(ads);
  ASSERT_EQ(1, r.resource_names_subscribe_size());
  EXPECT_EQ("r3", r.resource_names_subscribe(0));
  ASSERT_EQ(1, r.resource_names_unsubscribe_size());
  EXPECT_EQ("r1", r.resource_names_unsubscribe(0));
  EXPECT_EQ("", r.response_nonce());
}

TEST(AdsSotw, AckCarriesVersionAndNackKeepsTheOldOne) {
  Sink sink;
  Ads ads(Ads::kStateOfTheWorld, Node(), &sink);
  ads.WatchAll(Type::kCluster);
  ads.OnOpen();
  std::string out;
  disco::DiscoveryRequest r;
  ASSERT_TRUE(ads.Next(&out) && r.ParseFromString(out));
  EXPECT_EQ(0, r.resource_names_size());
  EXPECT_EQ("", r.version_info());
  ads.OnMessage(Sotw("v1", "n1", {"a", "b"}));
  EXPECT_EQ("CDS full +a@v1 +b@v1\n", sink.log);
  ASSERT_TRUE(ads.Next(&out) && r.ParseFromString(out));
  EXPECT_EQ("v1", r.version_info());
  EXPECT_EQ("n1", r.response_nonce());
  EXPECT_FALSE(r.has_node());
  ads.OnMessage(Sotw("v2", "n2", {"bad"}));
  ASSERT_TRUE(ads.Next(&out) && r.ParseFromString(out));
  EXPECT_EQ("v1", r.version_info());
  EXPECT_EQ("n2", r.response_nonce());
  EXPECT_NE(std::string::npos, r.error_detail().message().find("lb_policy"));
  ads.OnClosed();
  ads.OnOpen();
  ASSERT_TRUE(ads.Next(&out) && r.ParseFromString(out));
  EXPECT_EQ("v1", r.version_info());
  EXPECT_EQ("", r.response_nonce());
  EXPECT_TRUE(r.has_node());
}

TEST(Ads, MessagesThatAreNotResponsesAreCountedAndHarmless) {
  Sink sink;
  Ads ads(Ads::kDelta, Node(), &sink);
  ads.OnOpen();
  ads.OnMessage("\xff\xff\xff\xff");
  disco::DeltaDiscoveryResponse r;
  r.set_type_url("type.googleapis.com/nobody");
  ads.OnMessage(r.SerializeAsString());
  EXPECT_EQ(2u, ads.bad_messages());
  EXPECT_EQ("", sink.log);
}

}  // namespace
}  // namespace weft::xds
