// What a worker asks of the allocator and of the kernel for one request in the steady state. malloc (C libraries too) and
// the socket calls are replaced in this binary by versions that count for worker threads.
#include <malloc.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "sidecar/io/socket.h"
#include "sidecar/proxy/testing/harness.h"
#include "sidecar/proxy/testing/peers.h"

namespace {

struct Counts {
  uint64_t allocations = 0, receives = 0, sends = 0, waits = 0, others = 0;
};
// A worker writes them, the test reads them between requests.
std::atomic<uint64_t> g_allocations{0}, g_receives{0}, g_sends{0}, g_waits{0}, g_others{0};

Counts Now() { return {g_allocations, g_receives, g_sends, g_waits, g_others}; }

bool OnWorker() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof name);
  return strncmp(name, "worker_", 7) == 0;
}
template <typename... Args>
long Counted(std::atomic<uint64_t>& counter, Args... args) {
  const long r = syscall(args...);
  const int error = errno;
  if (OnWorker()) counter.fetch_add(1, std::memory_order_relaxed);
  errno = error;
  return r;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCounts = false;  // the sanitizer has its own versions
#else
constexpr bool kCounts = true;
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* malloc(size_t n) { return g_allocations.fetch_add(OnWorker(), std::memory_order_relaxed), __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return g_allocations.fetch_add(OnWorker(), std::memory_order_relaxed), __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return g_allocations.fetch_add(OnWorker(), std::memory_order_relaxed), __libc_realloc(p, n); }

ssize_t recv(int fd, void* to, size_t n, int flags) { return Counted(g_receives, SYS_recvfrom, fd, to, n, flags, nullptr, nullptr); }
ssize_t readv(int fd, const iovec* v, int n) { return Counted(g_receives, SYS_readv, fd, v, n); }
ssize_t send(int fd, const void* from, size_t n, int flags) { return Counted(g_sends, SYS_sendto, fd, from, n, flags, nullptr, 0); }
ssize_t sendmsg(int fd, const msghdr* m, int flags) { return Counted(g_sends, SYS_sendmsg, fd, m, flags); }
int epoll_wait(int fd, epoll_event* events, int n, int ms) {
  return static_cast<int>(Counted(g_waits, SYS_epoll_wait, fd, events, n, ms));
}
int epoll_ctl(int fd, int op, int target, epoll_event* e) noexcept { return static_cast<int>(Counted(g_others, SYS_epoll_ctl, fd, op, target, e)); }
int setsockopt(int fd, int level, int name, const void* value, socklen_t n) noexcept {
  return static_cast<int>(Counted(g_others, SYS_setsockopt, fd, level, name, value, n));
}
}
#endif

namespace weft::proxy::testing {
namespace {

class WarmRequest : public ::testing::TestWithParam<Legs> {};

TEST_P(WarmRequest, AsksForNothingItNeedNot) {
  if (!kCounts) GTEST_SKIP() << "the sanitizer owns malloc and the socket calls";
  const auto [down_h2, up_h2, tls, istio_stats] = GetParam();
  Through through(GetParam(), [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "hello", {{"content-type", "text/plain"}});
  });
  Mesh& mesh = through.mesh;
  TestClient& c = *through.client;
  mesh.keep_records = false;
  for (int i = 0; i < 200; ++i) ASSERT_EQ(c.Get("/shop/cart?item=17").status, "200");
  constexpr int kRequests = 400;
  const Counts before = Now();
  for (int i = 0; i < kRequests; ++i) ASSERT_EQ(c.Get("/shop/cart?item=17").status, "200");
  const Counts after = Now();
  auto each = [](uint64_t from, uint64_t to) { return static_cast<double>(to - from) / kRequests; };
  const double receives = each(before.receives, after.receives), sends = each(before.sends, after.sends);
  const double waits = each(before.waits, after.waits), others = each(before.others, after.others);
  const double allocations = each(before.allocations, after.allocations);
  printf("each %s -> %s%s%s: %.2f allocations, %.2f receives, %.2f sends, %.2f waits, %.2f others\n", down_h2 ? "h2" : "h1",
         up_h2 ? "h2" : "h1", tls ? " (mTLS)" : "", istio_stats ? " (istio.stats)" : "", allocations, receives, sends, waits, others);
  // The TLS library makes a buffer for each record read and written, so that idle connections hold none.
  EXPECT_LE(allocations, tls ? 4.1 : 0.1);
  // One to take the request and one to pass it on, the same for its answer. The little more: HTTP/2 returns credit now
  // and then, and the peer's parts may arrive in two pieces.
  EXPECT_LE(receives, 2.1);
  EXPECT_LE(sends, 2.1);
  EXPECT_LE(waits, 2.2);
  EXPECT_EQ(others, 0);
}

// Thousands of connections wait for their next request: each is one small object, whatever had to be found out about it
// at first.
TEST(IdleConnection, IsSmall) {
  if (!kCounts) GTEST_SKIP() << "the sanitizer owns malloc";
  TestServer app({.h2 = false, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", std::string(20'000, 'x'));  // more than a block: several slices
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.listener.filters = model::kTlsInspector | model::kHttpInspector;
  mesh.chain.match.transport_protocol = "raw_buffer";  // so that the first bytes are looked at
  mesh.keep_records = false;
  mesh.Start();
  auto ask = [&](const io::Fd& fd) {
    constexpr std::string_view kAsk = "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    EXPECT_EQ(write(fd.get(), kAsk.data(), kAsk.size()), static_cast<ssize_t>(kAsk.size()));
    char part[4096];
    for (ssize_t got = 0, n; got < 20'000 && (n = read(fd.get(), part, sizeof part)) > 0;) got += n;
  };
  auto open_and_ask = [&] {
    io::Fd fd(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_storage to;
    const auto length = model::Address::FromIp("127.0.0.1", mesh.port())->ToSockaddr(&to);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&to), length), 0);
    ask(fd);
    return fd;
  };
  // An answer out of a later turn: what the turns before it held is given back.
  const io::Fd later = open_and_ask();
  auto in_use = [&] { return ask(later), mallinfo2().uordblks; };
  std::vector<io::Fd> idle;
  idle.reserve(1000);
  for (int i = 0; i < 200; ++i) idle.push_back(open_and_ask());
  const size_t before = in_use();
  for (int i = 0; i < 400; ++i) idle.push_back(open_and_ask());
  const size_t each = (in_use() - before) / 400;
  printf("each idle connection: %zu bytes\n", each);
  // The object (480 with what malloc adds), its entry in the loop's table, and a share of what grows by leaps. A ring of
  // slices, a codec, or what was sniffed would be 300 and more.
  EXPECT_LE(each, 544u);
}

INSTANTIATE_TEST_SUITE_P(All, WarmRequest,
                         ::testing::Values(Legs{false, false, false}, Legs{false, true, false}, Legs{true, false, false},
                                           Legs{true, true, false}, Legs{false, false, true}, Legs{true, true, true},
                                           Legs{false, true, false, true}, Legs{true, true, true, true}));

}  // namespace
}  // namespace weft::proxy::testing
