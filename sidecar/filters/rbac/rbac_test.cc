#include "sidecar/filters/rbac/rbac.h"

#include <gtest/gtest.h>

namespace weft::filters::rbac {
namespace {

using http::HeaderMap;
using http::Token;
using model::HeaderMatcher;
using model::RbacNode;
using model::RbacRules;
using model::StringMatcher;

RbacNode Any() { return {.kind = RbacNode::kAny}; }
RbacNode Unknown() { return {.what = "x"}; }
RbacNode Id(const char* v, StringMatcher::Kind k = StringMatcher::kExact) {
  return {.kind = RbacNode::kAuthenticated, .string = {.kind = k, .value = v}};
}
RbacNode Header(const char* name, const char* v, StringMatcher::Kind k = StringMatcher::kExact, bool invert = false) {
  return {.kind = RbacNode::kHeader,
          .header = {.kind = HeaderMatcher::kString, .name = name, .token = http::FindToken(name), .string = {.kind = k, .value = v}, .invert = invert}};
}
RbacNode Path(const char* prefix) { return {.kind = RbacNode::kUrlPath, .string = {.kind = StringMatcher::kPrefix, .value = prefix}}; }
RbacNode Group(RbacNode::Kind k, std::vector<RbacNode> c) { return {.kind = k, .children = std::move(c)}; }
RbacNode Not(RbacNode n) { return Group(RbacNode::kNot, {std::move(n)}); }

model::RbacConfig Config(RbacRules::Action action, std::vector<RbacNode> permissions, std::vector<RbacNode> principals) {
  auto r = std::make_shared<RbacRules>();
  r->action = action;
  r->policies.push_back({"p", std::move(permissions), std::move(principals)});
  model::RbacConfig c;
  c.rules = r;
  return c;
}

struct RbacTest : ::testing::Test {
  RbacTest() {
    headers.Add(Token::kMethod, "GET"), headers.Add(Token::kAuthority, "cart"), headers.Add(Token::kPath, "/admin/x?y=/public");
    peer.spiffe_id = "spiffe://mesh/ns/default/sa/web";
    peer.uri_sans = {peer.spiffe_id};
    destination = *model::Address::FromIp("10.0.0.9", 8000);
    remote = *model::Address::FromIp("10.1.0.1", 1234);
    in = {.headers = &headers, .peer = &peer, .destination = &destination, .direct_remote = &remote, .server_name = "cart.mesh"};
  }
  bool Matches(RbacNode n) {
    bool allow = Evaluate(Config(RbacRules::kAllow, {n}, {Any()}), in).allowed;
    EXPECT_EQ(allow, !Evaluate(Config(RbacRules::kDeny, {n}, {Any()}), in).allowed);
    EXPECT_TRUE(Evaluate(Config(RbacRules::kLog, {n}, {Any()}), in).allowed);
    return allow;
  }
  HeaderMap headers;
  tls::PeerInfo peer;
  model::Address destination, remote;
  Input in;
};

TEST_F(RbacTest, EachMatcher) {
  EXPECT_TRUE(Matches(Any()));
  EXPECT_TRUE(Matches(Header(":method", "GET")));
  EXPECT_FALSE(Matches(Header(":method", "POST")));
  EXPECT_TRUE(Matches(Path("/admin/")));
  EXPECT_FALSE(Matches({.kind = RbacNode::kUrlPath, .string = {.kind = StringMatcher::kSuffix, .value = "/public"}}));  // the query is no path
  EXPECT_TRUE(Matches(Id("spiffe://mesh/ns/default/sa/web")));
  EXPECT_FALSE(Matches(Id("spiffe://mesh/ns/default/sa/we")));
  EXPECT_TRUE(Matches(Id("spiffe://mesh/ns/default/", StringMatcher::kPrefix)));
  EXPECT_TRUE(Matches({.kind = RbacNode::kAuthenticated, .any_identity = true}));
  EXPECT_TRUE(Matches({.kind = RbacNode::kDestinationPort, .port = 8000}));
  EXPECT_FALSE(Matches({.kind = RbacNode::kDestinationPortRange, .port = 7000, .port_end = 8000}));
  EXPECT_TRUE(Matches({.kind = RbacNode::kDestinationIp, .cidr = *model::Cidr::Make("10.0.0.0", 16)}));
  EXPECT_TRUE(Matches({.kind = RbacNode::kDirectRemoteIp, .cidr = *model::Cidr::Make("10.1.0.0", 16)}));
  model::Address xff = *model::Address::FromIp("8.8.8.8", 0);
  in.remote = &xff;
  EXPECT_TRUE(Matches({.kind = RbacNode::kRemoteIp, .cidr = *model::Cidr::Make("8.0.0.0", 8)}));
  EXPECT_FALSE(Matches({.kind = RbacNode::kDirectRemoteIp, .cidr = *model::Cidr::Make("8.0.0.0", 8)}));
  EXPECT_TRUE(Matches({.kind = RbacNode::kRequestedServerName, .string = {.kind = StringMatcher::kSuffix, .value = ".mesh"}}));
  EXPECT_FALSE(Matches({.kind = RbacNode::kMetadata, .string = {.kind = StringMatcher::kExact, .value = "x"}}));
}

TEST_F(RbacTest, Trees) {
  EXPECT_TRUE(Matches(Group(RbacNode::kAnd, {Header(":method", "GET"), Path("/admin/")})));
  EXPECT_FALSE(Matches(Group(RbacNode::kAnd, {Header(":method", "GET"), Path("/x")})));
  EXPECT_TRUE(Matches(Group(RbacNode::kOr, {Path("/x"), Header(":method", "GET")})));
  EXPECT_TRUE(Matches(Not(Path("/x"))));
  EXPECT_FALSE(Matches(Not(Any())));
}

TEST_F(RbacTest, WithoutCertificateNobodyIsAuthenticated) {
  in.peer = nullptr;
  EXPECT_FALSE(Matches(Id("", StringMatcher::kPrefix)));
  EXPECT_FALSE(Matches({.kind = RbacNode::kAuthenticated, .any_identity = true}));
}

TEST_F(RbacTest, NetworkFilterSeesNoRequest) {
  in.headers = nullptr;
  EXPECT_FALSE(Matches(Path("/")));
  EXPECT_FALSE(Matches(Header(":method", "GET")));
  EXPECT_TRUE(Matches(Id("spiffe://mesh/ns/default/sa/web")));
}

TEST_F(RbacTest, EmptyRulesAndNoRules) {
  model::RbacConfig c;
  EXPECT_TRUE(Evaluate(c, in).allowed);
  auto r = std::make_shared<RbacRules>();
  c.rules = r;
  EXPECT_FALSE(Evaluate(c, in).allowed);  // ALLOW without policies: nothing is allowed
  r->action = RbacRules::kDeny;
  EXPECT_TRUE(Evaluate(c, in).allowed);
}

TEST_F(RbacTest, UnknownFailsClosed) {
  for (const RbacNode& n : {Unknown(), Not(Unknown()), Group(RbacNode::kOr, {Path("/x"), Unknown()}), Group(RbacNode::kAnd, {Any(), Unknown()})}) {
    EXPECT_FALSE(Evaluate(Config(RbacRules::kAllow, {n}, {Any()}), in).allowed);
    EXPECT_FALSE(Evaluate(Config(RbacRules::kDeny, {n}, {Any()}), in).allowed);
    EXPECT_FALSE(Evaluate(Config(RbacRules::kAllow, {Any()}, {n}), in).allowed);
  }
  // Certain in spite of the unknown part.
  EXPECT_TRUE(Evaluate(Config(RbacRules::kDeny, {Group(RbacNode::kAnd, {Path("/x"), Unknown()})}, {Any()}), in).allowed);
  EXPECT_TRUE(Evaluate(Config(RbacRules::kAllow, {Group(RbacNode::kOr, {Any(), Unknown()})}, {Any()}), in).allowed);
}

TEST_F(RbacTest, RepeatedHeadersCannotHideAValue) {
  headers.Add("x-role", "guest"), headers.Add("x-role", "admin");
  auto deny = [&](RbacNode n) { return !Evaluate(Config(RbacRules::kDeny, {n}, {Any()}), in).allowed; };
  auto allow = [&](RbacNode n) { return Evaluate(Config(RbacRules::kAllow, {n}, {Any()}), in).allowed; };
  EXPECT_TRUE(deny(Header("x-role", "admin")));
  EXPECT_TRUE(deny(Header("x-role", "guest")));
  EXPECT_FALSE(allow(Header("x-role", "admin")));
  EXPECT_FALSE(allow(Header("x-role", "guest")));
  EXPECT_FALSE(allow(Header("x-role", "guest", StringMatcher::kPrefix)));
  EXPECT_TRUE(allow(Header("x-role", "", StringMatcher::kPrefix)));
  EXPECT_FALSE(allow(Not(Header("x-role", "admin"))));                              // "no admin" must not hold
  EXPECT_FALSE(allow(Header("x-role", "admin", StringMatcher::kExact, true)));      // nor its inverted form
}

TEST_F(RbacTest, PolicyNamesAndShadow) {
  auto r = std::make_shared<RbacRules>();
  r->policies.push_back({"a", {Path("/x")}, {Any()}});
  r->policies.push_back({"b", {Any()}, {Id("spiffe://mesh/ns/default/sa/web")}});
  auto s = std::make_shared<RbacRules>();
  s->action = RbacRules::kDeny;
  s->policies.push_back({"Authorization/default/no/0@4", {Any()}, {Any()}});
  model::RbacConfig c;
  c.rules = r, c.shadow_rules = s;
  Verdict v = Evaluate(c, in);
  EXPECT_TRUE(v.allowed);
  EXPECT_EQ(v.policy, "b");
  EXPECT_TRUE(v.shadow_evaluated);
  EXPECT_FALSE(v.shadow_allowed);
  EXPECT_EQ(v.shadow_policy, "Authorization/default/no/0@4");
}

}  // namespace
}  // namespace weft::filters::rbac
