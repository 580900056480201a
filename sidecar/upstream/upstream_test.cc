// HTTP/2 connections notice a peer that fell silent. The clock is stepped by hand; the peer is a socket of this process.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/upstream/pool.h"

namespace weft::upstream {
namespace {

struct PeerTest : ::testing::Test {
  PeerTest() {
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof a;
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&a), n), 0);
    EXPECT_EQ(listen(listener, 4), 0);
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&a), &n), 0);
    config.dial.address = *model::Address::FromIp("127.0.0.1", ntohs(a.sin_port));
    config.mode = HttpMode::kHttp2;
    config.idle_timeout_ns = 0;
  }
  ~PeerTest() override {
    pool.reset();
    for (int i = 0; i < 4; ++i) loop.RunOnce(0);
    if (peer >= 0) close(peer);
    close(listener);
  }
  void Turn(int n = 4) {
    for (int i = 0; i < n; ++i) loop.RunOnce(2'000'000);
  }
  void Open() {
    pool = std::make_unique<Pool>(&loop, config);
    stream.task = &task, stream.loop = &loop;
    pool->Acquire(&stream);
    for (int i = 0; i < 200 && stream.state != Stream::State::kOpen; ++i) {
      Turn(1);
      if (peer < 0) peer = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    }
    ASSERT_EQ(stream.state, Stream::State::kOpen);
    EXPECT_EQ(write(peer, "\0\0\0\x04\0\0\0\0\0", 9), 9);  // the peer's SETTINGS
  }
  // Steps time by whole seconds, answering PINGs when alive.
  void Wait(int seconds, bool alive) {
    for (int i = 0; i < seconds; ++i) {
      clock.Advance(base::kSecond);
      Turn();
      std::string in(65536, 0);
      ssize_t n = read(peer, in.data(), in.size());
      if (n <= 0) continue;
      in.resize(static_cast<size_t>(n));
      for (size_t at = 0; alive && (at = in.find(std::string("\0\0\x08\x06\0\0\0\0\0", 9), at)) != std::string::npos; at += 17) {
        std::string ack = in.substr(at, 17);
        ack[4] = 1;
        ++pings;
        EXPECT_EQ(write(peer, ack.data(), ack.size()), 17);
      }
      Turn();
    }
  }

  base::ManualClock clock;
  io::Loop loop{&clock};
  PoolConfig config;
  std::unique_ptr<Pool> pool;
  Stream stream;
  io::Task task{[](io::Task*) {}};
  int listener = -1, peer = -1, pings = 0;
};

TEST_F(PeerTest, SilenceUnderAStreamEndsIt) {
  Open();
  Wait(20, false);
  EXPECT_EQ(stream.state, Stream::State::kFailed);
  EXPECT_EQ(stream.failure, Failure::kTerminated);
  EXPECT_EQ(stream.failure_detail, "keepalive timeout");
}

TEST_F(PeerTest, AnAnswerKeepsIt) {
  Open();
  Wait(60, true);
  EXPECT_EQ(stream.state, Stream::State::kOpen);
  EXPECT_GT(pings, 2);
}

TEST_F(PeerTest, IntervalAndTimeoutAreConfigured) {
  config.ping_interval_ns = config.ping_timeout_ns = base::kSecond;
  Open();
  Wait(5, false);
  EXPECT_EQ(stream.failure_detail, "keepalive timeout");
}

TEST_F(PeerTest, IdleConnectionsAreProbedToo) {
  Open();
  stream.Close(codec::ResetCode::kCancel);
  Turn();
  EXPECT_EQ(pool->connections(), 1u);
  Wait(20, false);
  EXPECT_EQ(pool->connections(), 1u);
  Wait(30, false);
  EXPECT_EQ(pool->connections(), 0u);
}

}  // namespace
}  // namespace weft::upstream
