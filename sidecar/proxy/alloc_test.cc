// Allocations of a worker for one request in the steady state, counted at operator new and malloc's callers in C++.
#include <pthread.h>

#include <cstring>
#include <new>

#include "sidecar/proxy/testing/peers.h"

namespace {
std::atomic<uint64_t> g_worker_allocations{0};
void Count() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  if (strncmp(name, "worker_", 7) == 0) g_worker_allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

void* operator new(size_t n) {
  Count();
  if (void* p = malloc(n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }

namespace weft::proxy::testing {
namespace {

class Allocations : public ::testing::TestWithParam<std::pair<bool, bool>> {};

TEST_P(Allocations, SteadyState) {
  auto [down_h2, up_h2] = GetParam();
  TestServer app({.h2 = up_h2, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "hello", {{"content-type", "text/plain"}});
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()}).protocol = up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
  mesh.Start();
  TestClient c(mesh.port(), down_h2);
  auto drain = [&] { mesh.plane->DrainRecords([](Record&) {}); };
  for (int i = 0; i < 1200; ++i) {  // past the ring's first round
    ASSERT_EQ(c.Get("/shop/cart?item=17").status, "200");
    drain();
  }
  constexpr int kRequests = 400;
  uint64_t before = g_worker_allocations;
  for (int i = 0; i < kRequests; ++i) {
    ASSERT_EQ(c.Get("/shop/cart?item=17").status, "200");
    drain();
  }
  double each = static_cast<double>(g_worker_allocations - before) / kRequests;
  printf("allocations per request %s -> %s: %.2f\n", down_h2 ? "h2" : "h1", up_h2 ? "h2" : "h1", each);
  EXPECT_LE(each, 0.1);  // nghttp2 allocates in C and is not counted
}

INSTANTIATE_TEST_SUITE_P(All, Allocations,
                         ::testing::Values(std::pair(false, false), std::pair(false, true), std::pair(true, false), std::pair(true, true)));

}  // namespace
}  // namespace weft::proxy::testing
