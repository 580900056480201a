// When connections are made ahead, and when they are given up: by age, by number of requests, before the peer's own timeout.
// The clock is stepped by hand; the peer is a socket of this process.
#include "sidecar/upstream/pool.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

namespace weft::upstream {
namespace {

struct PoolTest : ::testing::Test {
  PoolTest() {
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t n = sizeof a;
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&a), n), 0);
    EXPECT_EQ(listen(listener, 16), 0);
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&a), &n), 0);
    config.dial.address = *model::Address::FromIp("127.0.0.1", ntohs(a.sin_port));
  }
  ~PoolTest() override {
    streams.clear();
    pool.reset();
    Turn();
    for (int fd : peers) close(fd);
    if (listener >= 0) close(listener);
  }
  // Lets everything that is under way arrive; accepts.
  void Turn(int n = 8) {
    for (int i = 0; i < n; ++i) {
      loop.RunOnce(2'000'000);
      for (int fd; listener >= 0 && (fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) peers.push_back(fd);
    }
  }
  Stream& Acquire() {
    if (!pool) pool = std::make_unique<Pool>(&loop, config);
    Stream& s = streams.emplace_back();
    s.task = &task, s.loop = &loop;
    pool->Acquire(&s);
    for (int i = 0; i < 200 && s.state == Stream::State::kWaiting; ++i) Turn(1);
    return s;
  }
  // A request on s, answered by whichever peer got it.
  void Exchange(Stream& s, const std::string& headers = "") {
    ASSERT_EQ(s.state, Stream::State::kOpen);
    http::HeaderMap head;
    head.Add(http::Token::kMethod, "GET"), head.Add(http::Token::kPath, "/"), head.Add(http::Token::kAuthority, "a");
    s.conn->codec().SendHead(s.id, head, true);
    s.conn->MarkDirty();
    for (int i = 0; i < 200 && !(s.in.bits & codec::Inbound::kEnd); ++i) {
      Turn(1);
      for (int fd : peers) {
        char request[4096];
        const std::string answer = "HTTP/1.1 200 OK\r\n" + headers + "content-length: 0\r\n\r\n";
        if (read(fd, request, sizeof request) <= 0) continue;
        EXPECT_EQ(write(fd, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
      }
    }
    ASSERT_TRUE(s.in.bits & codec::Inbound::kEnd);
    s.Finish();
    Turn();
  }
  void Wait(uint64_t ms) {
    clock.Advance(ms * base::kMs);
    Turn();
  }

  base::ManualClock clock;
  io::Loop loop{&clock};
  PoolConfig config;
  std::unique_ptr<Pool> pool;
  std::deque<Stream> streams;
  io::Task task{[](io::Task*) {}};
  int listener = -1;
  std::vector<int> peers;
};

TEST_F(PoolTest, APeersKeepAliveIsUndercut) {
  Exchange(Acquire(), "keep-alive: timeout=5, max=100\r\n");
  Wait(3900);
  EXPECT_EQ(pool->connections(), 1u);
  Wait(200);
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, AKeepAliveBeyondOursChangesNothing) {
  config.idle_timeout_ns = 2 * base::kSecond;
  Exchange(Acquire(), "keep-alive: TIMEOUT=500\r\n");
  Wait(1900);
  EXPECT_EQ(pool->connections(), 1u);
  Wait(200);
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, ANonsensicalKeepAliveChangesNothing) {
  for (const char* value : {"timeout=", "timeout=x", "timeout=-1", "timeout=99999999999", "max=5", "timeout", "\"timeout=1\""}) {
    Exchange(Acquire(), std::string("keep-alive: ") + value + "\r\n");
    Wait(30'000);
    EXPECT_EQ(pool->connections(), 1u) << value;
  }
}

TEST_F(PoolTest, AKeepAliveOfZeroIsNotReused) {
  Exchange(Acquire(), "keep-alive: timeout=0\r\n");
  Wait(2);
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, AnOldConnectionServesItsRequestAndNoOther) {
  config.max_connection_duration_ns = 10 * base::kSecond;
  Exchange(Acquire());
  Wait(9'000);
  Stream& s = Acquire();
  Wait(2'000);
  EXPECT_EQ(pool->connections(), 1u);
  EXPECT_EQ(s.state, Stream::State::kOpen);
  Acquire();
  EXPECT_EQ(pool->connections(), 2u);
  Exchange(s);
  EXPECT_EQ(pool->connections(), 1u);
}

TEST_F(PoolTest, AnOldIdleConnectionIsClosed) {
  config.max_connection_duration_ns = 10 * base::kSecond;
  Exchange(Acquire());
  Wait(10'100);
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, SoManyRequestsAConnection) {
  config.max_requests_per_connection = 2;
  for (int i = 0; i < 4; ++i) Exchange(Acquire());
  EXPECT_EQ(peers.size(), 2u);
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, ConnectionsAreMadeAhead) {
  config.preconnect_ratio = 2;
  Stream& first = Acquire();
  Turn();
  EXPECT_EQ(pool->connections(), 2u);
  EXPECT_EQ(peers.size(), 2u);
  Stream& second = Acquire();
  EXPECT_EQ(second.connect_ns, 0u) << "it was there";
  Turn();
  EXPECT_EQ(pool->connections(), 4u);
  Exchange(first), Exchange(second);
  Acquire();
  Turn();
  EXPECT_EQ(pool->connections(), 4u) << "enough are idle";
}

TEST_F(PoolTest, ARatioBetweenOneAndTwo) {
  config.preconnect_ratio = 1.5;
  for (size_t want : {2u, 3u, 5u, 6u}) {
    Acquire();
    Turn();
    EXPECT_EQ(pool->connections(), want);
  }
}

TEST_F(PoolTest, OneHttp2ConnectionIsEnough) {
  config.preconnect_ratio = 3;
  config.mode = HttpMode::kHttp2;
  Acquire();
  Turn();
  EXPECT_EQ(pool->connections(), 1u);
}

TEST_F(PoolTest, WithoutAPortEveryWaiterFailsOnce) {
  config.preconnect_ratio = 3;
  close(listener), listener = -1;
  EXPECT_EQ(Acquire().state, Stream::State::kFailed);
  Turn();
  EXPECT_EQ(pool->connections(), 0u);
}

TEST_F(PoolTest, PreconnectIsForAHostWithoutConnections) {
  pool = std::make_unique<Pool>(&loop, config);
  pool->Preconnect(), pool->Preconnect();
  Turn();
  EXPECT_EQ(pool->connections(), 1u);
  Exchange(Acquire());
  EXPECT_EQ(peers.size(), 1u);
}

TEST_F(PoolTest, TheFirstBytesComeFirst) {
  config.dial.first_bytes = "PROXY UNKNOWN\r\n";
  Stream& s = Acquire();
  http::HeaderMap head;
  head.Add(http::Token::kMethod, "GET"), head.Add(http::Token::kPath, "/"), head.Add(http::Token::kAuthority, "a");
  s.conn->codec().SendHead(s.id, head, true);
  s.conn->MarkDirty();
  Turn();
  char request[4096];
  const ssize_t n = read(peers.at(0), request, sizeof request);
  ASSERT_GT(n, 0);
  EXPECT_EQ(std::string(request, static_cast<size_t>(n)).substr(0, 29), "PROXY UNKNOWN\r\nGET / HTTP/1.1");
}

}  // namespace
}  // namespace weft::upstream
