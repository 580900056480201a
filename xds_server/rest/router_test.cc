#include "xds_server/rest/router.h"

#include <gtest/gtest.h>

namespace weft::server {
namespace {

Response Call(const Router& r, std::string method, std::string path) {
  Request q;
  q.method = std::move(method), q.path = std::move(path);
  return r.Dispatch(q);
}

TEST(Router, MatchesParamsAndMethods) {
  Router r;
  r.Add("GET", "/api/v1/traces/{id}", [](const Request& q) { return Response{.body = q.params.at("id")}; });
  r.Add("DELETE", "/api/v1/objects/{kind}/{ns}/{name}",
        [](const Request& q) { return Response{.body = q.params.at("kind") + q.params.at("ns") + q.params.at("name")}; });
  EXPECT_EQ(Call(r, "GET", "/api/v1/traces/abc").body, "abc");
  EXPECT_EQ(Call(r, "HEAD", "/api/v1/traces/abc").status, 200);
  EXPECT_EQ(Call(r, "DELETE", "/api/v1/objects/Route/default/cart").body, "Routedefaultcart");
  EXPECT_EQ(Call(r, "GET", "/api/v1/traces").status, 404);
  EXPECT_EQ(Call(r, "GET", "/api/v1/traces/a/b").status, 404);
  Response wrong = Call(r, "POST", "/api/v1/traces/abc");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("Allow"), "GET");
}

TEST(Router, AssetsAreExactPaths) {
  Router r;
  r.AddAsset("/app.js", "text/javascript", "x");
  EXPECT_EQ(Call(r, "GET", "/app.js").content_type, "text/javascript");
  EXPECT_EQ(Call(r, "POST", "/app.js").status, 405);
  EXPECT_EQ(Call(r, "GET", "/../app.js").status, 404);
}

TEST(Router, AssetsAreKeptAndCompressed) {
  Router r;
  r.AddAsset("/app.js", "text/javascript", "plain", "squeezed");
  auto get = [&](const char* encodings, std::string etag) {
    Request q;
    q.method = "GET", q.path = "/app.js", q.accept_encoding = encodings, q.if_none_match = std::move(etag);
    return r.Dispatch(q);
  };
  Response plain = get("", "");
  EXPECT_EQ(plain.body, "plain");
  EXPECT_EQ(plain.headers.count("Content-Encoding"), 0u);
  EXPECT_EQ(plain.headers.at("Vary"), "Accept-Encoding");
  EXPECT_EQ(get("br, gzip;q=0.8", "").body, "squeezed");
  EXPECT_EQ(get("gzip", "").headers.at("Content-Encoding"), "gzip");
  EXPECT_EQ(get("gzip;q=0, br", "").body, "plain");
  EXPECT_EQ(get("x-gzip", "").body, "plain");
  const std::string etag = plain.headers.at("ETag");
  Response known = get("gzip", "\"other\", " + etag);
  EXPECT_EQ(known.status, 304);
  EXPECT_EQ(known.body, "");
  EXPECT_EQ(known.headers.at("ETag"), etag);
  EXPECT_EQ(get("gzip", "\"other\"").status, 200);
}

}  // namespace
}  // namespace weft::server
