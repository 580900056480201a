#include "xds_server/model/policy.h"

#include <gtest/gtest.h>

#include "api/weft/policy/v1/policy.pb.h"

namespace weft::server {
namespace {

std::string First(const std::string& yaml) {
  ParseOutcome r = ParsePolicies(yaml, "f.yaml");
  return r.issues.empty() ? "" : r.issues[0].ToString();
}

std::string Doc(const std::string& kind, const std::string& spec) {
  return "apiVersion: weft/v1\nkind: " + kind + "\nmetadata: {name: cart}\nspec:\n" + spec;
}

TEST(Policy, ReadsARouteAndRoundTrips) {
  ParseOutcome r = ParsePolicies(R"(
apiVersion: weft/v1
kind: Route
metadata: {name: cart, labels: {team: shop}}
spec:
  rules:
  - name: canary
    matches: [{prefix: /cart, methods: [GET], headers: [{name: x-beta, exact: "1"}]}]
    to: [{version: v1, weight: 90}, {version: v2, weight: 10}]
    timeout: 1.5s
    retry: {attempts: 4, on: [5xx], perTryTimeout: 250ms}
---
# an empty document is nothing
---
apiVersion: weft/v1
kind: MeshTls
metadata: {name: default, namespace: shop}
spec: {mode: PERMISSIVE}
)", "f.yaml");
  ASSERT_TRUE(r.issues.empty()) << r.issues[0].ToString();
  ASSERT_EQ(r.objects.size(), 2u);
  EXPECT_EQ(r.objects[0].name, (Name{"default", "cart"}));
  const auto& rule = r.objects[0].object->route().rules(0);
  EXPECT_EQ(rule.to(1).weight(), 10u);
  EXPECT_EQ(rule.timeout().nanos(), 500'000'000);
  EXPECT_EQ(rule.retry().per_try_timeout().nanos(), 250'000'000);
  std::string json = ToStoredJson(*r.objects[0].object);
  auto back = ParseStored(json);
  ASSERT_TRUE(back);
  EXPECT_EQ(ToStoredJson(*back), json);
}

TEST(Policy, JsonIsTaken) {
  EXPECT_EQ(First(R"([{"apiVersion":"weft/v1","kind":"MeshTls","metadata":{"name":"a","revision":3},"spec":{"mode":"STRICT"}}])"), "");
}

TEST(Policy, NamesFileLineFieldAndReason) {
  EXPECT_EQ(First(Doc("Route", "  rules:\n  - to:\n    - wieght: 3\n")),
            "f.yaml:7: Route/default/cart: spec.rules[0].to[0].wieght: unknown field; did you mean \"weight\"?");
  EXPECT_EQ(First(Doc("Route", "  rules: 3\n")), "f.yaml:5: Route/default/cart: spec.rules: expected a list, found a value");
  EXPECT_EQ(First(Doc("Route", "  rules:\n  - timeout: soon\n")),
            "f.yaml:6: Route/default/cart: spec.rules[0].timeout: expected a duration such as \"1.5s\", found \"soon\"");
  EXPECT_EQ(First(Doc("Route", "  rules:\n  - matches:\n    - regex: \"(\"\n")),
            "f.yaml:7: Route/default/cart: spec.rules[0].matches[0].regex: bad regular expression: missing ): (");
  EXPECT_EQ(First("apiVersion: weft/v1\nkind: Rout\nmetadata: {name: a}\nspec: {}\n"),
            "f.yaml:2: Rout: kind: unknown kind \"Rout\"; one of Service, Route, Traffic, MeshTls, Authorization, Fault");
  EXPECT_EQ(First("a: [1\n").substr(0, 18), "f.yaml:2: not YAML");
}

TEST(Policy, RefusesWhatCannotBeServed) {
  const std::pair<std::string, std::string> cases[] = {
      {Doc("Route", "  rules:\n  - to: [{version: v1}, {version: v2}]\n"), "several destinations need weights"},
      {Doc("Route", "  rules:\n  - to: [{version: v1, weight: 1}, {version: v1, weight: 2}]\n"), "given twice"},
      {Doc("Route", "  rules:\n  - {respond_status: 200, to: [{version: v1}]}\n"), "not both"},
      {Doc("Route", "  rules:\n  - retry: {attempts: 11}\n"), "0..10"},
      {Doc("Route", "  rules:\n  - retry: {on: [sometimes]}\n"), "unknown condition"},
      {Doc("Route", "  rules:\n  - timeout: -1s\n"), "negative"},
      {Doc("Service", "  ports: [{port: 70000}]\n"), "1..65535"},
      {Doc("Service", "  ports: [{port: -1}]\n"), "whole number"},
      {Doc("Service", "  ports: [{port: 80}, {port: 80}]\n"), "given twice"},
      {Doc("Service", "  ports: [{port: 80, protocol: htpp}]\n"), "one of http"},
      {Doc("Service", "  ports: [{port: 80}]\n  endpoints: [example.com:80]\n"), "ip:port"},
      {Doc("MeshTls", "  mode: strict\n"), "STRICT or PERMISSIVE"},
      {Doc("Authorization", "  rules: []\n"), "ALLOW or DENY"},
      {Doc("Authorization", "  action: DENY\n"), "denies nothing"},
      {Doc("Authorization", "  action: ALLOW\n  rules: [{from: [{identities: [\"spiffe://*/x\"]}]}]\n"), "only at the end"},
      {Doc("Fault", "  abort_percent: 101\n"), "0..100"},
      {Doc("Traffic", "  load_balancer: fastest\n"), "one of least_request"},
      {Doc("MeshTls", "  mode: STRICT\n") + "---\n" + Doc("MeshTls", "  mode: STRICT\n"), "already at line 1"},
      {"apiVersion: weft/v1\nkind: MeshTls\nmetadata: {name: Cart_1}\nspec: {mode: STRICT}\n", "DNS label"},
      {"apiVersion: v1\nkind: MeshTls\nmetadata: {name: a}\nspec: {mode: STRICT}\n", "must be weft/v1"},
  };
  for (const auto& [yaml, want] : cases) EXPECT_NE(First(yaml).find(want), std::string::npos) << yaml << " -> " << First(yaml);
}

TEST(World, MergesWorkloadsAndDeclaredServices) {
  ParseOutcome r = ParsePolicies(Doc("Route", "  rules:\n  - to: [{version: v9, weight: 1}, {service: api.x, weight: 1}]\n"), "");
  ASSERT_TRUE(r.issues.empty());
  WorldInput in;
  in.trust_domain = "weft.local";
  in.policies.push_back({"Route", r.objects[0].name, 4, r.objects[0].object});
  auto w = std::make_shared<Workload>();
  w->id = "cart-1", w->service = {"default", "cart"}, w->version = "v1", w->address = "10.0.0.1";
  w->ports = {{80, 8000, Protocol::kHttp}};
  in.workloads.push_back(w);
  in.vip = [](const Name& n) { return "vip-" + n.name; };
  auto world = BuildWorld(in);
  const Service* s = world->FindService({"default", "cart"});
  ASSERT_TRUE(s);
  EXPECT_EQ(s->versions, (std::vector<std::string>{"v1", "v9"}));
  EXPECT_EQ(s->FindPort(80)->target_port, 8000);
  EXPECT_EQ(s->vip, "vip-cart");
  auto warnings = ReferenceWarnings(r.objects[0], *world);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_NE(warnings[0].find("version v9"), std::string::npos);
  EXPECT_NE(warnings[1].find("api.x is not known"), std::string::npos);
}

TEST(World, SpiffeIdsAreExact) {
  Name n;
  EXPECT_TRUE(ParseSpiffeId("spiffe://weft.local/ns/default/sa/cart", "weft.local", n));
  EXPECT_EQ(n, (Name{"default", "cart"}));
  for (const char* bad : {"spiffe://weft.local/ns/default/sa/cart/x", "spiffe://other/ns/default/sa/cart",
                          "spiffe://weft.local/ns/../sa/cart", "spiffe://weft.local/ns/default/sa/", "spiffe://weft.local/ns/default"}) {
    EXPECT_FALSE(ParseSpiffeId(bad, "weft.local", n)) << bad;
  }
}

}  // namespace
}  // namespace weft::server
