// What a record keeps for whoever asks why later: who set the limit that decided, and the state it was decided in.
#include "sidecar/proxy/testing/peers.h"

namespace weft::proxy::testing {
namespace {

// A cluster whose one host answers 503, limited by a policy.
model::Cluster& Limited(Mesh& mesh, TestServer& app) {
  model::Cluster& c = mesh.AddCluster("app", {app.port()});
  c.weft.policy = "Traffic/default/app", c.weft.revision = 7;
  return c;
}
ServerOptions Unavailable() {
  return {.handler = [](ServerStream& s) { s.Respond("503", "no"); }};
}
std::shared_ptr<model::RetryPolicy> OnceMore() {
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::kRetry5xx, retry->num_retries = 1, retry->backoff_base_ns = 1'000'000;
  return retry;
}

TEST(RecordsForWhy, ARetryTheBudgetHadNoRoomFor) {
  TestServer app(Unavailable());
  Mesh mesh;
  auto& limits = Limited(mesh, app).breakers[0];
  limits.budget = true, limits.budget_percent = 5, limits.min_retry_concurrency = 0;
  mesh.forward().retry = OnceMore();
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.Get("/").status, "503");
  Record rec = mesh.NextRecord();
  ASSERT_EQ(rec.attempt_count, 1u);
  EXPECT_STREQ(rec.attempts[0].not_retried, "retry_budget");
  EXPECT_EQ(rec.attempts[0].retry_budget_percent, 5);
  EXPECT_EQ(rec.attempts[0].max_retries, 0u);
  EXPECT_EQ(rec.policy, "Traffic/default/app");
  EXPECT_EQ(rec.policy_revision, 7u);
}

TEST(RecordsForWhy, ARetryBeyondMaxRetriesOrAttempts) {
  TestServer app(Unavailable());
  Mesh mesh;
  auto& limits = Limited(mesh, app).breakers[0];
  limits.budget = false, limits.max_retries = 0;
  mesh.forward().retry = OnceMore();
  mesh.Start();
  TestClient c(mesh.port());
  EXPECT_EQ(c.Get("/").status, "503");
  EXPECT_STREQ(mesh.NextRecord().attempts[0].not_retried, "max_retries");

  Mesh roomy;
  Limited(roomy, app);
  roomy.forward().retry = OnceMore();
  roomy.Start();
  TestClient d(roomy.port());
  EXPECT_EQ(d.Get("/").status, "503");
  Record rec = roomy.NextRecord();
  ASSERT_EQ(rec.attempt_count, 2u);
  EXPECT_STREQ(rec.attempts[0].not_retried, "");
  EXPECT_STREQ(rec.attempts[1].not_retried, "attempts");
}

TEST(RecordsForWhy, WithoutAHostTheEjectedOnesAreNamed) {
  TestServer app(Unavailable());
  Mesh mesh;
  model::Cluster& cluster = Limited(mesh, app);
  auto outlier = std::make_shared<model::OutlierConfig>();
  outlier->consecutive_gateway = 2, outlier->enforce_gateway = 100, outlier->max_ejection_percent = 100;
  cluster.outlier = outlier, cluster.healthy_panic_percent = 0;
  mesh.Start();
  TestClient c(mesh.port());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(c.Get("/").status, "503");
    EXPECT_TRUE(mesh.NextRecord().attempts[0].ejections.empty());
  }
  EXPECT_EQ(c.Get("/").status, "503");
  Record rec = mesh.NextRecord();
  EXPECT_EQ(rec.flags.ToString(), "UH");
  ASSERT_EQ(rec.attempts[0].ejections.size(), 1u);
  const EjectionRecord& e = rec.attempts[0].ejections[0];
  EXPECT_EQ(e.endpoint, "127.0.0.1:" + std::to_string(app.port()));
  EXPECT_STREQ(e.rule, "consecutive_gateway_failure");
  EXPECT_EQ(e.kinds, "503");
  EXPECT_EQ(e.errors, 2u);
  EXPECT_LE(e.at_unix_ns, rec.start_unix_ns);
  EXPECT_GE(e.until_unix_ns, e.at_unix_ns + outlier->base_ejection_ns);
  EXPECT_EQ(rec.policy, "Traffic/default/app");
  EXPECT_EQ(app.requests(), 2);
}

}  // namespace
}  // namespace weft::proxy::testing
