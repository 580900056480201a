#include <gtest/gtest.h>
#include <httplib.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "xds_server/rest/config_api.h"
#include "xds_server/rest/http_server.h"

namespace weft::server {
namespace {

using Json = nlohmann::json;

constexpr char kCanary[] =
    "apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec:\n  rules:\n  - to: [{version: v1, weight: 90}, {version: v2, weight: 10}]\n";

class Rest : public testing::Test {
 protected:
  void SetUp() override {
    std::string dir = std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") + "/restXXXXXX";
    dir = mkdtemp(dir.data());
    store_ = std::move(*Store::Open(":memory:"));
    authority_ = std::move(*Authority::Open({dir + "/ca", "weft.local"}, time(nullptr)));
    Control::Options o;
    o.store = store_.get(), o.trust_domain = "weft.local", o.clock = base::Clock::Real();
    control_ = std::make_unique<Control>(o);
    control_->Start();
    ConfigApi api;
    api.store = store_.get(), api.control = control_.get(), api.authority = authority_.get(), api.clock = base::Clock::Real();
    RegisterConfigRoutes(router_, api);
    router_.AddAsset("/", "text/html", "<html></html>");
    router_.AddAsset("/app.js", "text/javascript", "a script", "its compressed form");
    HttpServer::Options h;
    h.address = "127.0.0.1:0", h.write_token = "secret-token", h.page_csp = "default-src 'self'";
    http_ = std::make_unique<HttpServer>(h, router_);
    auto r = http_->Start();
    ASSERT_TRUE(r) << r.error().ToString();
    client_ = std::make_unique<httplib::Client>("127.0.0.1", http_->port());
  }
  void TearDown() override {
    http_->Stop();
    control_->Stop();
  }

  std::pair<int, Json> Get(const std::string& path) {
    auto r = client_->Get(path.c_str());
    return {r ? r->status : -1, r ? Json::parse(r->body, nullptr, false) : Json()};
  }
  std::pair<int, Json> Post(const std::string& path, const std::string& body, const char* type = "application/yaml") {
    auto r = client_->Post(path.c_str(), {{"Authorization", "Bearer secret-token"}}, body, type);
    return {r ? r->status : -1, r ? Json::parse(r->body, nullptr, false) : Json()};
  }

  std::unique_ptr<Store> store_;
  std::unique_ptr<Authority> authority_;
  std::unique_ptr<Control> control_;
  Router router_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<httplib::Client> client_;
};

TEST_F(Rest, ApplyDiffHistoryRollbackDelete) {
  auto [code, dry] = Post("/api/v1/apply?dry_run=true", kCanary);
  EXPECT_EQ(code, 200);
  EXPECT_EQ(dry["objects"][0]["action"], "created");
  EXPECT_EQ(Get("/api/v1/objects").second["objects"].size(), 0u);

  auto [code2, applied] = Post("/api/v1/apply?file=cart.yaml&message=canary&wait_ms=1000", kCanary);
  EXPECT_EQ(applied["sidecars"]["connected"], 0);
  EXPECT_EQ(code2, 200);
  EXPECT_EQ(applied["revision"], 1);
  EXPECT_EQ(applied["warnings"][0], "Route/default/cart: service cart.default is not known yet");
  EXPECT_EQ(Post("/api/v1/apply", kCanary).second["objects"][0]["action"], "unchanged");

  Json object = Get("/api/v1/objects/Route/default/cart").second;
  EXPECT_EQ(object["metadata"]["revision"], 1);
  EXPECT_EQ(object["spec"]["rules"][0]["to"][1]["weight"], 10);
  EXPECT_EQ(Post("/api/v1/apply", object.dump(), "application/json").second["objects"][0]["action"], "unchanged");
  EXPECT_EQ(Get("/api/v1/objects/Route/default/x").first, 404);
  EXPECT_EQ(Get("/api/v1/objects?kind=Traffic").second["objects"].size(), 0u);

  std::string half = kCanary;
  half.replace(half.find("90"), 2, "50");
  auto [code3, diff] = Post("/api/v1/diff", half);
  EXPECT_EQ(code3, 200);
  EXPECT_NE(diff["objects"][0]["diff"].get<std::string>().find("-      weight: 90"), std::string::npos) << diff["objects"][0]["diff"];
  EXPECT_NE(diff["objects"][0]["diff"].get<std::string>().find("+      weight: 50"), std::string::npos);
  EXPECT_EQ(Post("/api/v1/apply", half).second["revision"], 2);

  Json back = Post("/api/v1/rollback", "{\"revision\": 1}", "application/json").second;
  EXPECT_EQ(back["revision"], 3);
  EXPECT_EQ(back["objects"][0]["action"], "configured");
  EXPECT_EQ(Post("/api/v1/rollback", "{\"revision\": 99}", "application/json").first, 404);
  EXPECT_EQ(Post("/api/v1/rollback", "{}", "application/json").first, 400);

  Json history = Get("/api/v1/history").second["revisions"];
  ASSERT_EQ(history.size(), 3u);
  EXPECT_EQ(history[0]["action"], "rollback");
  EXPECT_EQ(history[2]["message"], "canary");
  EXPECT_EQ(Get("/api/v1/history/2").second["changes"][0]["old"]["spec"]["rules"][0]["to"][0]["weight"], 90);

  auto gone = client_->Delete("/api/v1/objects/Route/default/cart", {{"Authorization", "Bearer secret-token"}});
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->status, 200);
  EXPECT_EQ(client_->Delete("/api/v1/objects/Route/default/cart", {{"Authorization", "Bearer secret-token"}})->status, 404);
}

TEST_F(Rest, RefusedPoliciesNameThePlace) {
  auto [code, j] = Post("/api/v1/apply?file=bad.yaml", "apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec:\n  rules:\n  - timeout: soon\n");
  EXPECT_EQ(code, 400);
  const Json& d = j["error"]["details"][0];
  EXPECT_EQ(d["file"], "bad.yaml");
  EXPECT_EQ(d["line"], 6);
  EXPECT_EQ(d["field"], "spec.rules[0].timeout");
  EXPECT_EQ(Post("/api/v1/apply", "").first, 400);
}

TEST_F(Rest, TokensStatusAndFriends) {
  auto [code, t] = Post("/api/v1/tokens", "{\"service\":\"cart\",\"uses\":2}", "application/json");
  EXPECT_EQ(code, 200);
  const std::string token = t["token"], id = t["id"];
  EXPECT_EQ(token.substr(token.rfind('.') + 1), authority_->root_spki_sha256_hex());
  EXPECT_EQ(store_->FindToken(id)->uses_left, 2);
  EXPECT_EQ(Post("/api/v1/tokens", "{\"service\":\"Cart!\"}", "application/json").first, 400);
  EXPECT_EQ(Post("/api/v1/tokens", "{\"service\":\"xds\",\"namespace\":\"weft-system\"}", "application/json").first, 403);
  EXPECT_EQ(client_->Delete(("/api/v1/tokens/" + id).c_str(), {{"Authorization", "Bearer secret-token"}})->status, 200);
  EXPECT_FALSE(store_->FindToken(id));
  EXPECT_EQ(Get("/api/v1/status").second["sidecars"].size(), 0u);
  EXPECT_EQ(Get("/api/v1/workloads").second["workloads"].size(), 0u);
  EXPECT_EQ(Get("/api/v1/trust-bundle").second["root_sha256"], authority_->root_spki_sha256_hex());
  EXPECT_EQ(Get("/api/v1/openapi.json").second["openapi"], "3.1.0");
  EXPECT_EQ(client_->Get("/healthz")->body, "ok\n");
  EXPECT_NE(client_->Get("/metrics")->body.find("weft_xds_streams 0"), std::string::npos);
}

TEST_F(Rest, AssetsAreSentAsTheyWereCompressedAndOnlyOnce) {
  client_->set_decompress(false);
  auto r = client_->Get("/app.js", httplib::Headers{{"Accept-Encoding", "gzip"}});
  ASSERT_TRUE(r);
  EXPECT_EQ(r->body, "its compressed form");
  EXPECT_EQ(r->get_header_value_count("Content-Encoding"), 1u);
  EXPECT_EQ(r->get_header_value_count("Cache-Control"), 1u);
  const std::string etag = r->get_header_value("ETag");
  r = client_->Get("/app.js", httplib::Headers{{"If-None-Match", etag}});
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 304);
  EXPECT_EQ(r->body, "");
}

TEST_F(Rest, EveryRequestIsHeldToTheRules) {
  auto status = [&](const char* method, const char* path, httplib::Headers headers, const char* type = "application/yaml") {
    httplib::Request q;
    q.method = method, q.path = path, q.headers = std::move(headers);
    if (std::string(method) == "POST") q.body = kCanary, q.headers.emplace("Content-Type", type);
    auto r = client_->send(q);
    return r ? r->status : -1;
  };
  const std::pair<std::string, std::string> good{"Authorization", "Bearer secret-token"};
  EXPECT_EQ(status("POST", "/api/v1/apply?dry_run=1", {good}), 200);
  EXPECT_EQ(status("POST", "/api/v1/apply", {}), 401);
  EXPECT_EQ(status("POST", "/api/v1/apply", {{"Authorization", "Bearer secret-tokeN"}}), 401);
  EXPECT_EQ(status("POST", "/api/v1/apply", {good}, "application/x-www-form-urlencoded"), 415);
  EXPECT_EQ(status("POST", "/api/v1/apply", {good, {"Origin", "http://evil.example"}}), 403);
  EXPECT_EQ(status("GET", "/api/v1/status", {{"Host", "evil.example"}}), 421);
  EXPECT_EQ(status("GET", "/api/v1/status", {{"Host", "localhost:8080"}}), 200);
  EXPECT_EQ(status("GET", "/api/v1/status", {{"Sec-Fetch-Site", "cross-site"}}), 403);
  EXPECT_EQ(status("GET", "/api/v1/apply", {}), 405);
  EXPECT_EQ(status("GET", "/nothing", {}), 404);
  EXPECT_EQ(status("GET", "/../etc/passwd", {}), 404);
  auto page = client_->Get("/");
  ASSERT_TRUE(page);
  EXPECT_EQ(page->get_header_value("Content-Security-Policy"), "default-src 'self'");
  EXPECT_EQ(page->get_header_value("X-Content-Type-Options"), "nosniff");
  HttpServer::Options open;
  for (const char* wrong : {"0.0.0.0:0", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:80x", "127.0.0.1:65536"}) {
    open.address = wrong;
    EXPECT_FALSE(HttpServer(open, router_).Start()) << wrong;
  }
}

TEST(Text, YamlAndDiff) {
  EXPECT_EQ(StoredToYaml(R"({"kind":"Route","spec":{"rules":[{"name":"a","to":[{"version":"1"}]},{"on":["5xx"]}],"empty":{}}})"),
            "kind: Route\nspec:\n  rules:\n  - name: a\n    to:\n    - version: \"1\"\n  - on:\n    - \"5xx\"\n  empty: {}\n");
  EXPECT_EQ(UnifiedDiff("a\nb\nc\n", "a\nx\nc\n"), " a\n-b\n+x\n c\n");
  EXPECT_EQ(UnifiedDiff("a\n", "a\n"), "");
  EXPECT_EQ(IsoTime(1700000000123), "2023-11-14T22:13:20.123Z");
}

}  // namespace
}  // namespace weft::server
