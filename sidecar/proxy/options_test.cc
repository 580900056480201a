// Options of the connection manager that an Envoy file may set.
#include <gtest/gtest.h>

#include "sidecar/proxy/testing/harness.h"

namespace weft::proxy::testing {
namespace {

TEST(Options, HeadersWithUnderscores) {
  std::string seen;
  TestServer app({.h2 = false, .handler = [&](ServerStream& s) {
    if (!s.complete()) return;
    seen = s.in.head.ToString();
    s.Respond("200", "ok");
  }});
  using Http = model::HttpCommonOptions;
  for (Http::UnderscoreAction action : {Http::kAllow, Http::kDropHeader, Http::kRejectRequest}) {
    for (bool h2 : {false, true}) {
      Mesh mesh;
      mesh.hcm.common.underscores = action;
      mesh.AddCluster("app", {app.port()});
      mesh.Start();
      TestClient c(mesh.port(), h2);
      EXPECT_EQ(c.Get("/", {{"x_user", "1"}, {"x-user", "2"}, {"y_z", "3"}}).status, action == Http::kRejectRequest ? "400" : "200");
      if (action == Http::kRejectRequest) continue;
      EXPECT_EQ(seen.find("x_user") != std::string::npos, action == Http::kAllow);
      EXPECT_EQ(seen.find("y_z") != std::string::npos, action == Http::kAllow);
      EXPECT_NE(seen.find("x-user"), std::string::npos);
    }
  }
}

TEST(Options, RequestTimeoutEndsAnUploadThatStalls) {
  TestServer app({.h2 = false, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "ok");
  }});
  Mesh mesh;
  mesh.hcm.request_timeout_ns = 1'000'000'000;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  TestClient whole(mesh.port());
  EXPECT_EQ(whole.Post("/", "body", {}).status, "200");
  TestClient c(mesh.port(), true);
  auto* call = c.Open("POST", "/", {}, false);
  ASSERT_TRUE(call);
  c.Send(call, "half", false);
  ASSERT_TRUE(c.Until([&] { return call->in.bits & codec::Inbound::kHead; }));
  EXPECT_EQ(call->in.head.Value(http::Token::kStatus), "408");
}

// Operators in headers do not hang on somebody reading the record, whose texts are left out when nobody does.
TEST(Options, HeaderOperatorsWithoutLogsOrTelemetry) {
  TestServer app({.h2 = false, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "ok");
  }});
  for (bool all : {false, true}) {
    Mesh mesh;
    mesh.options.all_records = all;
    mesh.hcm.always_set_request_id_in_response = true;
    mesh.AddCluster("app", {app.port()});
    mesh.routes.headers.response_add.push_back(
        {.name = "x-where", .format = std::make_shared<model::LogFormat>(*model::LogFormat::Parse("%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %PROTOCOL%"))});
    mesh.Start();
    TestClient c(mesh.port());
    const Reply r = c.Get("/", {{"x-request-id", "the-callers-own"}});
    EXPECT_EQ(r.head.Value(http::Token::kXRequestId).empty(), false);
    EXPECT_EQ(r.head.Get("x-where"), "app 127.0.0.1:" + std::to_string(app.port()) + " HTTP/1.1") << all;
  }
}

}  // namespace
}  // namespace weft::proxy::testing
