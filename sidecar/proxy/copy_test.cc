// How often a worker copies the bytes of a body on their way through, and what it copies for a small request. memcpy and
// memmove are replaced in this binary by versions that count for worker threads. What the kernel copies is not seen, nor
// what AES writes elsewhere than where it read.
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "sidecar/proxy/testing/harness.h"
#include "sidecar/proxy/testing/peers.h"

namespace {

std::atomic<uint64_t> g_copied{0};

}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__x86_64__)
constexpr bool kCounts = false;  // the sanitizer has its own versions; ours are for one processor
#else
constexpr bool kCounts = true;
static bool OnWorker() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  return name[0] == 'w' && name[1] == 'o' && name[6] == '_';
}
extern "C" {
// What the compiler makes of "copy" here must not be a call of memcpy.
void* memcpy(void* to, const void* from, size_t n) {
  if (n >= 32 && OnWorker()) g_copied.fetch_add(n, std::memory_order_relaxed);
  void* const start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
  return start;
}
void* memmove(void* to, const void* from, size_t n) {
  const auto t = reinterpret_cast<uintptr_t>(to), f = reinterpret_cast<uintptr_t>(from);
  if (t - f >= n) return memcpy(to, from, n);
  if (n >= 32 && OnWorker()) g_copied.fetch_add(n, std::memory_order_relaxed);
  const char* last_from = static_cast<const char*>(from) + n - 1;
  char* last_to = static_cast<char*>(to) + n - 1;
  asm volatile("std; rep movsb; cld" : "+D"(last_to), "+S"(last_from), "+c"(n)::"memory");
  return to;
}
void* __memcpy_chk(void* to, const void* from, size_t n, size_t) { return memcpy(to, from, n); }
void* __memmove_chk(void* to, const void* from, size_t n, size_t) { return memmove(to, from, n); }
}
#endif

namespace weft::proxy::testing {
namespace {

struct Case {
  Legs legs;
  double down, both;  // copies of each byte of an answer, and of a body that comes back; at most
  size_t request;     // bytes copied for a small request, at most
};
class Copies : public ::testing::TestWithParam<Case> {};

TEST_P(Copies, OfABody) {
  if (!kCounts) GTEST_SKIP() << "memcpy is the sanitizer's, or another processor's";
  const Case& p = GetParam();
  constexpr size_t kBody = 8 << 20;
  Through through(p.legs, [](ServerStream& s) {
    if (s.path() == "/echo") {
      if (!s.responded) s.Head("200");
      s.EchoBody();
    } else if (s.complete()) {
      s.Respond("200", s.path() == "/big" ? std::string(kBody, 'd') : "hello", {{"content-type", "text/plain"}});
    }
  });
  TestClient& c = *through.client;
  for (int i = 0; i < 50; ++i) ASSERT_EQ(c.Get("/").status, "200");

  auto copied = [&](auto&& f) {
    const uint64_t before = g_copied;
    f();
    return static_cast<double>(g_copied - before);
  };
  const double small = copied([&] {
    for (int i = 0; i < 100; ++i) ASSERT_EQ(c.Get("/").status, "200");
  }) / 100;
  const double down = copied([&] { ASSERT_EQ(c.Get("/big").body.size(), kBody); }) / kBody;
  const std::string body(kBody, 'u');
  const double both = copied([&] { ASSERT_EQ(c.Post("/echo", body).body.size(), kBody); }) / kBody;
  printf("%s -> %s%s: a byte is copied %.2f times down, %.2f there and back; a small request copies %.0f bytes\n", p.legs.down_h2 ? "h2" : "h1",
         p.legs.up_h2 ? "h2" : "h1", p.legs.tls ? " (mTLS)" : "", down, both, small);
  EXPECT_LE(down, p.down);
  EXPECT_LE(both, p.both);
  EXPECT_LE(small, static_cast<double>(p.request));
}

// Blocks go through HTTP/1.1 as they came. nghttp2 hands out views into what it was fed, which are copied, and sends blocks as they
// are. TLS: into the library's buffer, out of it, gathered into full records, and out of its other buffer.
INSTANTIATE_TEST_SUITE_P(All, Copies,
                         ::testing::Values(Case{{false, false, false}, 0.05, 0.05, 400}, Case{{false, true, false}, 1.05, 1.05, 400},
                                           Case{{true, false, false}, 0.05, 1.05, 400}, Case{{true, true, false}, 1.05, 2.05, 400},
                                           Case{{false, false, true}, 3.3, 6.9, 1200}, Case{{true, true, true}, 5.1, 10.2, 1200}));

}  // namespace
}  // namespace weft::proxy::testing
