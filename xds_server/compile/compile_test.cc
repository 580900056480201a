// Golden files: testdata/<case>.yaml (policies) applied to one small shop gives testdata/<case>.golden: the resources that
// differ from those without any policy (plain.golden has all of those). Rewrite them with
//   WEFT_UPDATE_GOLDEN=$PWD/xds_server/compile/testdata bazel-bin/xds_server/compile/compile_test
#include "xds_server/compile/compile.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

std::shared_ptr<const Workload> Instance(const std::string& service, int n, const std::string& version, Port port) {
  auto w = std::make_shared<Workload>();
  w->id = service + "-" + std::to_string(n), w->service = {"default", service}, w->version = version;
  w->address = "10.77.0." + std::to_string(10 + n), w->ports = {port}, w->ready = true;
  return w;
}

std::shared_ptr<const World> Shop(const std::vector<ParsedObject>& objects) {
  WorldInput in;
  in.trust_domain = "weft.local";
  in.revision = 7;
  in.workloads = {Instance("frontend", 1, "v1", {80, 8000, Protocol::kHttp}), Instance("cart", 2, "v1", {80, 8000, Protocol::kHttp}),
                  Instance("cart", 3, "v2", {80, 8000, Protocol::kHttp}),     Instance("pricing", 4, "v1", {50051, 50051, Protocol::kGrpc}),
                  Instance("redis", 5, "", {6379, 6379, Protocol::kTcp})};
  for (const auto& o : objects) in.policies.push_back({o.kind, o.name, 7, o.object});
  in.vip = [next = 0](const Name&) mutable { return "240.64.0." + std::to_string(++next); };
  return BuildWorld(in);
}

std::string Print(Type type, const Resource& r) {
  std::unique_ptr<google::protobuf::Message> m;
  if (type == kCds) m = std::make_unique<envoy::config::cluster::v3::Cluster>();
  if (type == kEds) m = std::make_unique<envoy::config::endpoint::v3::ClusterLoadAssignment>();
  if (type == kLds) m = std::make_unique<envoy::config::listener::v3::Listener>();
  if (type == kRds) m = std::make_unique<envoy::config::route::v3::RouteConfiguration>();
  EXPECT_TRUE(m && m->ParseFromString(r.bytes)) << r.name;
  google::protobuf::TextFormat::Printer printer;
  printer.SetExpandAny(true);
  std::string text;
  printer.PrintToString(*m, &text);
  return text;
}

// Resources of `b` that `a` lacks or has otherwise, and the names that are gone.
std::string PrintDifference(const Snapshot& a, const Snapshot& b) {
  std::string out;
  for (int t = 0; t < kTypeCount; ++t) {
    const Type type = static_cast<Type>(t);
    for (const auto& [name, r] : b.resources[t]) {
      const Resource* old = a.Find(type, name);
      if (old && old->version == r->version) continue;
      out += "# " + std::string(TypeName(type)) + " " + name + "\n" + Print(type, *r) + "\n";
    }
    for (const auto& [name, r] : a.resources[t]) {
      if (!b.Find(type, name)) out += "# gone: " + std::string(TypeName(type)) + " " + name + "\n";
    }
  }
  return out;
}

struct Case {
  const char* name;
  ProxyClass proxy;
};
const ProxyClass kCart{{"default", "cart"}, {{80, 8000, Protocol::kHttp}}, "", false};
const ProxyClass kRedis{{"default", "redis"}, {{6379, 6379, Protocol::kTcp}}, "", false};
const ProxyClass kForeign{{"default", "frontend"}, {}, "/run/weft/sds", true};

class Golden : public testing::TestWithParam<Case> {};

TEST_P(Golden, Matches) {
  const Case& c = GetParam();
  const std::string base = "xds_server/compile/testdata/" + std::string(c.name);
  ParseOutcome parsed = ParsePolicies(ReadText(base + ".yaml"), std::string(c.name) + ".yaml");
  ASSERT_TRUE(parsed.issues.empty()) << parsed.issues[0].ToString();
  auto plain = parsed.objects.empty() ? std::make_shared<const Snapshot>() : Compiler(Shop({})).For(c.proxy);
  const std::string got = PrintDifference(*plain, *Compiler(Shop(parsed.objects)).For(c.proxy));
  if (const char* dir = std::getenv("WEFT_UPDATE_GOLDEN")) {
    std::ofstream(std::string(dir) + "/" + c.name + ".golden") << got;
    return;
  }
  EXPECT_EQ(got, ReadText(base + ".golden"));
}

INSTANTIATE_TEST_SUITE_P(Policies, Golden,
                         testing::Values(Case{"plain", kCart}, Case{"canary", kCart}, Case{"rules", kCart}, Case{"traffic", kCart},
                                         Case{"permissive", kCart}, Case{"authorization", kCart}, Case{"authorization_tcp", kRedis},
                                         Case{"fault", kCart}, Case{"external", kCart}, Case{"foreign", kForeign}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Compile, EqualInputsGiveEqualBytes) {
  auto a = Compiler(Shop({})).For(kCart), b = Compiler(Shop({})).For(kCart);
  EXPECT_EQ(a->versions, b->versions);
  EXPECT_EQ(PrintDifference(*a, *b), "");
}

TEST(Compile, OneEndpointChangesOnlyItsEndpoints) {
  auto shop = Shop({});
  auto before = Compiler(shop).For(kCart);
  WorldInput in;
  in.trust_domain = "weft.local", in.revision = 7;
  for (const auto& [id, w] : shop->workloads) {
    auto copy = std::make_shared<Workload>(*w);
    if (id == "cart-3") copy->ready = false;
    in.workloads.push_back(copy);
  }
  in.vip = [&](const Name& n) { return shop->FindService(n)->vip; };
  Compiler fresh(BuildWorld(in)), old(shop);
  auto after = fresh.For(kCart);
  // The fast lane gives the same, and the same objects for all but the endpoints.
  auto first = old.For(kCart);
  auto fast = Compiler(BuildWorld(in), &old).For(kCart);
  EXPECT_EQ(fast->versions, after->versions);
  EXPECT_EQ(fast->Find(kLds, "outbound"), first->Find(kLds, "outbound"));
  EXPECT_EQ(fast->Find(kLds, "inbound"), first->Find(kLds, "inbound"));
  EXPECT_EQ(before->versions[kCds], after->versions[kCds]);
  EXPECT_EQ(before->versions[kLds], after->versions[kLds]);
  EXPECT_EQ(before->versions[kRds], after->versions[kRds]);
  int changed = 0;
  for (const auto& [name, r] : after->resources[kEds]) changed += before->Find(kEds, name)->version != r->version;
  EXPECT_EQ(changed, 2);  // all of cart, and its v2
}

TEST(Compile, AnotherShapeIsCompiledAnew) {
  Compiler old(Shop({}));
  auto before = old.For(kCart);
  ParseOutcome p = ParsePolicies(ReadText("xds_server/compile/testdata/canary.yaml"), "");
  WorldInput in;
  in.trust_domain = "weft.local", in.revision = 8;
  auto shop = Shop({});
  for (const auto& [id, w] : shop->workloads) in.workloads.push_back(w);
  in.policies.push_back({"Route", p.objects[0].name, 8, p.objects[0].object});
  in.vip = [&](const Name& n) { return shop->FindService(n)->vip; };
  auto after = Compiler(BuildWorld(in), &old).For(kCart);
  EXPECT_NE(before->versions[kRds], after->versions[kRds]);
}

TEST(Compile, UnknownDestinationsGetEmptyClusters) {
  ParseOutcome p = ParsePolicies(
      "apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec: {rules: [{to: [{service: nobody, version: v3}]}]}\n", "");
  auto s = Compiler(Shop(p.objects)).For(kCart);
  EXPECT_TRUE(s->Find(kCds, "outbound|80|v3|nobody.default"));
  EXPECT_TRUE(s->Find(kEds, "outbound|80|v3|nobody.default"));
}

}  // namespace
}  // namespace weft::server
