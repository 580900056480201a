#include "sidecar/io/socket.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <string>

#include "sidecar/io/loop.h"

namespace weft::io {
namespace {

void WaitFor(int fd, short events) {
  pollfd p{fd, events, 0};
  ASSERT_EQ(poll(&p, 1, 10'000), 1);
}

struct Pair {
  explicit Pair(const SockAddr& at = SockAddr::Loopback(0)) {
    listener = Fd(Listen(at, {}));
    EXPECT_TRUE(listener);
    address = at.family() == AF_UNIX ? at : LocalAddress(listener.get());
    bool in_progress;
    client = Fd(Connect(address, {}, &in_progress));
    EXPECT_TRUE(client);
    WaitFor(listener.get(), POLLIN);
    server = Fd(Accept(listener.get(), &peer));
    EXPECT_TRUE(server);
    EXPECT_EQ(ConnectError(client.get()), 0);
  }
  Fd listener, client, server;
  SockAddr address, peer;
};

TEST(Socket, ConnectAcceptAddresses) {
  Pair p;
  EXPECT_EQ(p.peer, LocalAddress(p.client.get()));
  EXPECT_EQ(PeerAddress(p.client.get()), p.address);
  EXPECT_NE(p.address.port(), 0);
  EXPECT_FALSE(OriginalDestination(p.server.get()));
  SockAddr none;
  EXPECT_EQ(Accept(p.listener.get(), &none), -EAGAIN);
  EXPECT_EQ(AdoptListener(p.listener.get()), 0);
  EXPECT_EQ(AdoptListener(p.client.get()), -EINVAL);
}

TEST(Socket, MappedPeerIsReportedAsIpv4) {
  auto any = SockAddr::Ip("::", 0);
  Fd listener(Listen(*any, {.ipv4_mapped = true}));
  if (!listener) GTEST_SKIP() << "no IPv6 here";
  bool in_progress;
  Fd client(Connect(SockAddr::Loopback(LocalAddress(listener.get()).port()), {}, &in_progress));
  WaitFor(listener.get(), POLLIN);
  SockAddr peer;
  Fd server(Accept(listener.get(), &peer));
  EXPECT_EQ(peer.family(), AF_INET);
  EXPECT_EQ(LocalAddress(server.get()).family(), AF_INET);
}

TEST(Socket, RefusedIsReported) {
  Fd listener(Listen(SockAddr::Loopback(0), {}));
  SockAddr a = LocalAddress(listener.get());
  listener.Reset();
  bool in_progress = false;
  int fd = Connect(a, {}, &in_progress);
  if (fd >= 0) {
    WaitFor(fd, POLLOUT);
    EXPECT_EQ(ConnectError(fd), ECONNREFUSED);
    close(fd);
  } else {
    EXPECT_EQ(fd, -ECONNREFUSED);
  }
}

TEST(Socket, UnixWithModeAndStaleFile) {
  std::string path = "/tmp/weft-io-test-" + std::to_string(getpid());  // TempDir() may be too long for a socket
  auto a = SockAddr::Unix(path);
  ASSERT_TRUE(a);
  { Fd first(Listen(*a, {.unix_mode = 0600})); ASSERT_TRUE(first); }
  Fd again(Listen(*a, {.unix_mode = 0600}));
  ASSERT_TRUE(again);
  struct stat st;
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  unlink(path.c_str());
  Pair p(*SockAddr::Unix("@weft-io-test-" + std::to_string(getpid())));
  EXPECT_FALSE(SockAddr::Unix(std::string(200, 'x')));
}

TEST(Socket, WritesUntilFullAndReadsWithBudget) {
  Pair p;
  Buffer out, in;
  std::string data(8 << 20, 'x');
  for (size_t i = 0; i < data.size(); i += 997) data[i] = static_cast<char>(i);
  out.Append(data);
  bool budget_seen = false;
  while (in.size() < data.size()) {
    auto w = WriteFrom(p.client.get(), out);
    ASSERT_EQ(w.error, 0);
    WaitFor(p.server.get(), POLLIN);
    auto r = ReadInto(p.server.get(), in, 100'000, true);
    ASSERT_EQ(r.error, 0);
    budget_seen |= r.more;
    EXPECT_LE(r.bytes, 100'000 + Block::kSize);
  }
  EXPECT_TRUE(budget_seen);
  EXPECT_EQ(in.ToString(), data);
  p.client.Reset();
  WaitFor(p.server.get(), POLLIN);
  size_t live = Block::live();
  Buffer rest;
  EXPECT_TRUE(ReadInto(p.server.get(), rest, 1000, true).eof);
  EXPECT_EQ(Block::live(), live);  // nothing borrowed by an empty read
}

TEST(Socket, ResetIsAnError) {
  Pair p;
  SetResetOnClose(p.client.get());
  p.client.Reset();
  WaitFor(p.server.get(), POLLIN);
  Buffer in;
  EXPECT_EQ(ReadInto(p.server.get(), in, 1000, true).error, ECONNRESET);
}

// With the Loop's edges a short read may stop, and the end is still seen.
TEST(Socket, EdgesDeliverDataThenEnd) {
  Pair p;
  Loop loop;
  struct Reader : Handler {
    void OnReady(uint32_t events) override {
      if (!(events & kReadable)) return;
      auto r = ReadInto(fd, in, 1 << 20, events & kHangup);
      eof |= r.eof;
    }
    int fd = -1;
    Buffer in;
    bool eof = false;
  } reader;
  reader.fd = p.server.get();
  loop.Watch(reader.fd, &reader);
  std::string want;
  for (int i = 0; i < 100; ++i) {
    Buffer out;
    out.Append(std::string(static_cast<size_t>(i) * 50 + 1, static_cast<char>('a' + i % 26)));
    want += out.ToString();
    WriteFrom(p.client.get(), out);
    if (i == 99) p.client.Reset();
    if (i % 3) loop.RunOnce(0);
  }
  for (int i = 0; i < 100 && !reader.eof; ++i) loop.RunOnce(base::kSecond);
  EXPECT_TRUE(reader.eof);
  EXPECT_EQ(reader.in.ToString(), want);
  loop.Unwatch(reader.fd, &reader);
}

TEST(Socket, PeekLeavesBytes) {
  Pair p;
  ASSERT_EQ(send(p.client.get(), "hello", 5, 0), 5);
  WaitFor(p.server.get(), POLLIN);
  char buf[16];
  EXPECT_EQ(Peek(p.server.get(), buf, 3), 3);
  EXPECT_EQ(Peek(p.server.get(), buf, 16), 5);
  Buffer in;
  ReadInto(p.server.get(), in, 100, true);
  EXPECT_EQ(in.ToString(), "hello");
}

}  // namespace
}  // namespace weft::io
