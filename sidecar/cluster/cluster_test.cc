// Picks, panic, priorities, breakers, outlier ejection.
#include <gtest/gtest.h>

#include <map>

#include "sidecar/base/random.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/cluster/outlier.h"

namespace weft::cluster {
namespace {

using model::EndpointHealth;
constexpr uint64_t kS = 1'000'000'000;

struct ClusterTest : ::testing::Test {
  ClusterTest() {
    cluster.name = "c";
    entry.cells = registry.Get("c");
    eps.localities.resize(4);
  }
  void Add(int n, uint32_t weight = 1, uint32_t priority = 0, EndpointHealth health = EndpointHealth::kUnknown, uint32_t locality = 0) {
    model::Endpoint e;
    e.address = *model::Address::FromIp("10.0.0." + std::to_string(n), 80);
    e.weight = weight, e.priority = priority, e.health = health, e.locality = locality;
    eps.endpoints.push_back(e);
  }
  void Build() {
    entry.config = std::make_shared<model::Cluster>(cluster);
    entry.hosts = HostSet::Build(cluster, eps, *entry.cells);
  }
  Choice Pick(PickInput in = {}) {
    in.random = random.Next(), in.now_ns = now;
    return picker.Pick(entry, in);
  }
  std::map<std::string, int> Picks(int n) {
    std::map<std::string, int> m;
    for (int i = 0; i < n; ++i) {
      Choice c = Pick();
      ++m[c.host ? c.host->address.substr(7) : c.why];
    }
    return m;
  }
  const Host& At(size_t i) { return entry.hosts->hosts()[i]; }
  void Outlier(model::OutlierConfig o) { cluster.outlier = std::make_shared<model::OutlierConfig>(o); }

  CellRegistry registry;
  model::Cluster cluster;
  model::Endpoints eps;
  model::ClusterEntry entry;
  Picker picker;
  base::Random random{42};
  uint64_t now = 1000 * kS;
};

TEST_F(ClusterTest, RoundRobinIsEven) {
  for (int i = 1; i <= 4; ++i) Add(i);
  Build();
  for (auto& [a, n] : Picks(400)) EXPECT_EQ(n, 100) << a;
}

TEST_F(ClusterTest, EmptyAndAllUnhealthy) {
  Build();
  EXPECT_STREQ(Pick().why, "no_hosts");
  Add(1, 1, 0, EndpointHealth::kUnhealthy);
  Add(2, 1, 0, EndpointHealth::kDraining);
  Build();
  Choice c = Pick();
  EXPECT_EQ(c.host, nullptr);  // not even in panic: the control plane took them out
  EXPECT_STREQ(c.why, "no_healthy_host");
  EXPECT_EQ(c.total, 2u);
  EXPECT_EQ(c.healthy, 0u);
}

TEST_F(ClusterTest, WeightedRoundRobin) {
  Add(1, 90), Add(2, 10);
  Build();
  auto m = Picks(20000);
  EXPECT_NEAR(m["1:80"], 18000, 50);
  EXPECT_NEAR(m["2:80"], 2000, 50);
  m = Picks(20);  // also over a short run
  EXPECT_NEAR(m["2:80"], 2, 1);
}

TEST_F(ClusterTest, Random) {
  cluster.lb = model::LbPolicy::kRandom;
  Add(1, 3), Add(2, 1);
  Build();
  EXPECT_NEAR(Picks(20000)["1:80"], 15000, 300);
}

TEST_F(ClusterTest, LeastRequestAvoidsTheBusyOne) {
  cluster.lb = model::LbPolicy::kLeastRequest;
  for (int i = 1; i <= 3; ++i) Add(i);
  Build();
  At(0).cell->active_requests = 100;
  auto m = Picks(3000);
  EXPECT_NEAR(m["1:80"], 333, 80);  // only when both choices fall on it
}

TEST_F(ClusterTest, LocalityWeights) {
  cluster.locality_weighted = true;
  eps.localities[0].weight = 1, eps.localities[1].weight = 3;
  Add(1), Add(2), Add(3, 1, 0, EndpointHealth::kUnknown, 1);
  Build();
  auto m = Picks(20000);
  EXPECT_NEAR(m["3:80"], 15000, 100);
  EXPECT_NEAR(m["1:80"], 2500, 100);
}

TEST_F(ClusterTest, ExcludedHostsAreAvoidedWhileOthersAreThere) {
  Add(1), Add(2), Add(3);
  Build();
  const HostCell* tried[] = {At(0).cell.get(), At(1).cell.get()};
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Pick({.excluded = tried}).host, &At(2));
  const HostCell* all[] = {At(0).cell.get(), At(1).cell.get(), At(2).cell.get()};
  EXPECT_NE(Pick({.excluded = all}).host, nullptr);
}

TEST_F(ClusterTest, PrioritiesSpillOver) {
  for (int i = 1; i <= 10; ++i) Add(i, 1, 0, i <= 5 ? EndpointHealth::kHealthy : EndpointHealth::kUnhealthy);
  Add(11, 1, 1);
  Build();
  auto m = Picks(10000);  // 50 % healthy × 1.4 = 70 % stay in priority 0
  EXPECT_NEAR(m["11:80"], 3000, 200);
  EXPECT_NEAR(m["1:80"], 1400, 200);
}

TEST_F(ClusterTest, Subset) {
  Add(1), Add(2);
  eps.endpoints[1].lb_metadata = {{"version", "v2"}};
  Build();
  std::vector<std::pair<std::string, std::string>> v2 = {{"version", "v2"}}, v3 = {{"version", "v3"}};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Pick({.subset = &v2}).host, &At(1));
  EXPECT_EQ(Pick({.subset = &v3}).host, nullptr);
}

TEST_F(ClusterTest, DropOverload) {
  Add(1);
  eps.drop_per_million = 300'000;
  Build();
  EXPECT_NEAR(Picks(10000)["drop_overload"], 3000, 250);
}

TEST_F(ClusterTest, ConsecutiveErrorsEjectAndTheHostReturns) {
  for (int i = 1; i <= 4; ++i) Add(i);
  Outlier({.max_ejection_percent = 50});
  Build();
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(Report(entry, At(0), {.status = 500}, now));
  EXPECT_FALSE(Report(entry, At(0), {.status = 200}, now));  // starts over
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(Report(entry, At(0), {.status = 503}, now));
  EXPECT_TRUE(Report(entry, At(0), {.kind = Outcome::kConnectFailure}, now));
  EXPECT_EQ(Picks(300).count("1:80"), 0u);
  EXPECT_EQ(picker.healthy(), 3u);
  // New endpoints, same address: still out.
  Add(5);
  Build();
  EXPECT_EQ(Picks(300).count("1:80"), 0u);
  now += 30 * kS;
  EXPECT_GT(Picks(500).count("1:80"), 0u);
  EXPECT_EQ(entry.cells->ejections_active, 0u);
  // The second time it stays out for twice the time.
  for (int i = 0; i < 5; ++i) Report(entry, At(0), {.status = 500}, now);
  now += 59 * kS;
  EXPECT_EQ(Picks(300).count("1:80"), 0u);
  now += 2 * kS;
  EXPECT_GT(Picks(500).count("1:80"), 0u);
}

TEST_F(ClusterTest, AnEjectionSaysWhyAndForHowLong) {
  for (int i = 1; i <= 4; ++i) Add(i);
  Outlier({.consecutive_gateway = 2, .consecutive_local = 3, .enforce_5xx = 0, .enforce_gateway = 100, .max_ejection_percent = 100,
           .split_local_errors = true});
  Build();
  EXPECT_FALSE(WhyEjected(*At(0).cell));
  Report(entry, At(0), {.kind = Outcome::kReset}, now);
  Report(entry, At(0), {.status = 200}, now);  // the reset is forgotten
  for (auto kind : {Outcome::kTimeout, Outcome::kConnectFailure, Outcome::kTimeout}) Report(entry, At(0), {.kind = kind}, now);
  auto why = WhyEjected(*At(0).cell);
  ASSERT_TRUE(why);
  EXPECT_STREQ(why->rule, "consecutive_local_origin_failure");
  EXPECT_EQ(why->kinds, "connect_failure,timeout");
  EXPECT_EQ(why->errors, 3u);
  EXPECT_EQ(why->at_ns, now);
  EXPECT_GT(why->until_ns, now);
  for (int i = 0; i < 2; ++i) Report(entry, At(1), {.status = 503}, now);
  why = WhyEjected(*At(1).cell);
  ASSERT_TRUE(why);
  EXPECT_STREQ(why->rule, "consecutive_gateway_failure");
  EXPECT_EQ(why->kinds, "503");
  EXPECT_EQ(why->errors, 2u);
}

TEST_F(ClusterTest, EjectionLimits) {
  for (int i = 1; i <= 10; ++i) Add(i);
  Outlier({.consecutive_5xx = 1, .max_ejection_percent = 20});
  Build();
  EXPECT_TRUE(Report(entry, At(0), {.status = 500}, now));
  EXPECT_TRUE(Report(entry, At(1), {.status = 500}, now));
  EXPECT_FALSE(Report(entry, At(2), {.status = 500}, now));
  EXPECT_EQ(entry.cells->ejections_overflow, 1u);
}

TEST_F(ClusterTest, PanicIgnoresEjections) {
  Add(1), Add(2), Add(3, 1, 0, EndpointHealth::kUnhealthy);
  Outlier({.consecutive_5xx = 1, .max_ejection_percent = 100});
  Build();
  Report(entry, At(0), {.status = 500}, now);
  Report(entry, At(1), {.status = 500}, now);
  Choice c = Pick();
  EXPECT_TRUE(c.panic);
  auto m = Picks(100);
  EXPECT_EQ(m["1:80"] + m["2:80"], 100);
  cluster.healthy_panic_percent = 0;
  Build();
  EXPECT_STREQ(Pick().why, "no_healthy_host");
}

TEST_F(ClusterTest, SplitLocalErrorsAndGateway) {
  for (int i = 1; i <= 5; ++i) Add(i);
  Outlier({.consecutive_5xx = 0, .consecutive_gateway = 2, .consecutive_local = 3, .enforce_gateway = 100, .max_ejection_percent = 100, .split_local_errors = true});
  Build();
  EXPECT_FALSE(Report(entry, At(0), {.kind = Outcome::kReset}, now));
  EXPECT_FALSE(Report(entry, At(0), {.kind = Outcome::kTimeout}, now));
  EXPECT_TRUE(Report(entry, At(0), {.kind = Outcome::kConnectTimeout}, now));
  EXPECT_EQ(entry.cells->ejections_local, 1u);
  EXPECT_FALSE(Report(entry, At(1), {.status = 503}, now));
  EXPECT_FALSE(Report(entry, At(1), {.status = 500}, now));  // not a gateway error: the run ends
  EXPECT_FALSE(Report(entry, At(1), {.status = 502}, now));
  EXPECT_TRUE(Report(entry, At(1), {.status = 504}, now));
  EXPECT_EQ(entry.cells->ejections_gateway, 1u);
}

TEST_F(ClusterTest, SuccessRateEjectsTheOddOne) {
  for (int i = 1; i <= 6; ++i) Add(i);
  Outlier({.consecutive_5xx = 0, .max_ejection_percent = 50, .enforce_success_rate = 100});
  Build();
  Sweep(entry, now);
  for (size_t h = 0; h < 6; ++h)
    for (int i = 0; i < 200; ++i) Report(entry, At(h), {.status = static_cast<uint16_t>(h == 3 && i % 2 ? 500 : 200)}, now);
  now += 11 * kS;
  Sweep(entry, now);
  EXPECT_TRUE(At(3).cell->ejected);
  EXPECT_EQ(entry.cells->ejections_success_rate, 1u);
  EXPECT_EQ(entry.cells->ejections_active, 1u);
}

TEST_F(ClusterTest, Breakers) {
  model::BreakerThresholds t{.max_connections = 1, .max_requests = 2};
  Breakers b;
  EXPECT_TRUE(b.TryRequest(t));
  EXPECT_TRUE(b.TryRequest(t));
  EXPECT_FALSE(b.TryRequest(t));
  EXPECT_EQ(b.rq_overflow, 1u);
  Breakers::Release(b.requests);
  EXPECT_TRUE(b.TryRequest(t));
  EXPECT_TRUE(b.TryConnection(t));
  EXPECT_FALSE(b.TryConnection(t));
}

TEST_F(ClusterTest, RetryBudget) {
  model::BreakerThresholds t;
  Breakers b;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(b.TryRetry(t));
  EXPECT_FALSE(b.TryRetry(t));
  b.requests = 100;
  EXPECT_EQ(b.RetryLimit(t), 20u);
  t.budget = false, t.max_retries = 4;
  EXPECT_TRUE(b.TryRetry(t));
  EXPECT_FALSE(b.TryRetry(t));
  EXPECT_EQ(b.retry_overflow, 2u);
}

TEST_F(ClusterTest, CellsOutliveSnapshotsAndAreForgottenAfter) {
  Add(1);
  Build();
  auto cell = At(0).cell;
  Build();
  EXPECT_EQ(At(0).cell, cell);
  EXPECT_EQ(registry.Get("c"), entry.cells);
  auto h = MakeHost(*model::Address::FromIp("10.0.0.1", 80), *entry.cells);
  EXPECT_EQ(h->cell, cell);
}

}  // namespace
}  // namespace weft::cluster
