// The rules at work: sockets in a fresh network namespace, where a stand-in "sidecar" listens on the redirect ports.
#include "tools/weft/intercept/intercept.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tools/weft/intercept/rules.h"

namespace weft::intercept {
namespace {

sockaddr_in At(const char* ip, uint16_t port) {
  sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  inet_pton(AF_INET, ip, &a.sin_addr);
  return a;
}

std::string Name(const sockaddr_in& a) {
  char ip[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &a.sin_addr, ip, sizeof ip);
  return std::string(ip) + ":" + std::to_string(ntohs(a.sin_port));
}

int Listen(const char* ip, uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in a = At(ip, port);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0) << strerror(errno);
  EXPECT_EQ(listen(fd, 16), 0);
  return fd;
}

int Dial(const char* ip, uint16_t port, uint32_t mark = 0) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (mark != 0) {
    EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark), 0);
  }
  sockaddr_in a = At(ip, port);
  EXPECT_TRUE(connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 || errno == EINPROGRESS) << strerror(errno);
  return fd;
}

// The original destination of the next connection, "" when none comes within a moment.
std::string Accepted(int listener, int wait_ms = 1000) {
  pollfd p = {listener, POLLIN, 0};
  if (poll(&p, 1, wait_ms) != 1) return "";
  int fd = accept(listener, nullptr, nullptr);
  sockaddr_in a = {};
  socklen_t n = sizeof a;
  if (getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &a, &n) != 0) getsockname(fd, reinterpret_cast<sockaddr*>(&a), &n);
  close(fd);
  return Name(a);
}

class Intercept : public testing::Test {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no network namespace: " << strerror(errno);
    ASSERT_EQ(system("ip link set lo up && ip link add eth0 type veth peer name far && ip link set far up && ip addr add 10.9.0.2/24 dev eth0 && "
                     "ip link set eth0 up && ip route add default via 10.9.0.1 dev eth0"),
              0);
  }
};

TEST_F(Intercept, OutboundComesToTheSidecarWithItsOriginalDestination) {
  ASSERT_EQ(Apply(Rules({.exclude_outbound_ports = {"5432"}, .exclude_outbound_cidrs = {"192.0.2.0/24"}})), "");
  int sidecar = Listen("0.0.0.0", 15001);
  int app = Dial("240.64.0.9", 80);
  EXPECT_EQ(Accepted(sidecar), "240.64.0.9:80");
  // Loopback, exclusions and marked packets pass by; the next plain one is the first to arrive.
  int local = Listen("127.0.0.1", 8080);
  int a = Dial("127.0.0.1", 8080), b = Dial("198.51.100.1", 5432), c = Dial("192.0.2.7", 80),
      d = Dial("198.51.100.1", 80, 0x539), e = Dial("198.51.100.1", 81);
  EXPECT_EQ(Accepted(local), "127.0.0.1:8080");
  EXPECT_EQ(Accepted(sidecar), "198.51.100.1:81");
  EXPECT_EQ(Accepted(sidecar, 50), "");
  for (int fd : {sidecar, app, local, a, b, c, d, e}) close(fd);
}

TEST_F(Intercept, TheSidecarsCallToItsOwnWorkloadMeetsTheInboundPort) {
  ASSERT_EQ(Apply(Rules({})), "");
  int inbound = Listen("0.0.0.0", 15006);
  int s = Dial("10.9.0.2", 8000, 0x539);
  EXPECT_EQ(Accepted(inbound), "10.9.0.2:8000");
  close(s);
  close(inbound);
}

TEST_F(Intercept, DnsIsCapturedWhateverTheResolver) {
  ASSERT_EQ(Apply(Rules({})), "");
  int dns = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in at = At("127.0.0.1", 15053);
  ASSERT_EQ(bind(dns, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  timeval patience = {1, 0};
  setsockopt(dns, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  for (const char* resolver : {"127.0.0.53", "127.0.0.1", "10.9.0.1", "8.8.8.8"}) {
    int app = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(app, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in to = At(resolver, 53), from = {};
    ASSERT_EQ(connect(app, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    ASSERT_EQ(send(app, "q", 1, 0), 1);
    char buf[4];
    socklen_t n = sizeof from;
    ASSERT_EQ(recvfrom(dns, buf, sizeof buf, 0, reinterpret_cast<sockaddr*>(&from), &n), 1) << resolver;
    ASSERT_EQ(sendto(dns, "a", 1, 0, reinterpret_cast<sockaddr*>(&from), n), 1);
    // A connected socket takes the answer only from the address it asked.
    EXPECT_EQ(recv(app, buf, sizeof buf, 0), 1) << resolver;
    close(app);
  }
  int tcp = Listen("127.0.0.1", 15053);
  int app = Dial("8.8.8.8", 53);
  EXPECT_EQ(Accepted(tcp), "8.8.8.8:53");
  close(app);
  close(tcp);
  close(dns);
}

TEST_F(Intercept, TwiceIsOnceAndUndoLeavesNothing) {
  EXPECT_EQ(List(), "");
  ASSERT_EQ(Apply(Rules({})), "");
  const std::string once = List();
  EXPECT_NE(once.find("redirect to :15001"), std::string::npos);
  ASSERT_EQ(Apply(Rules({})), "");
  EXPECT_EQ(List(), once);
  ASSERT_EQ(Apply(UndoRules()), "");
  EXPECT_EQ(List(), "");
  EXPECT_EQ(Apply(UndoRules()), "");
}

TEST_F(Intercept, ARefusedChangeLeavesTheOldRules) {
  ASSERT_EQ(Apply(Rules({})), "");
  const std::string before = List();
  EXPECT_NE(Apply(UndoRules() + "table inet weft { chain x { nonsense } }\n"), "");
  EXPECT_EQ(List(), before);
}

}  // namespace
}  // namespace weft::intercept
