// The admin's server over real sockets (one loop, stepped by the test), and what clusters put among the stats.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/admin/config_stats.h"
#include "sidecar/admin/http_server.h"
#include "sidecar/cluster/host_set.h"

namespace weft::admin {
namespace {

class Admin : public ::testing::Test {
 protected:
  Admin() {
    server_.Handle("/read", "reads", HttpServer::kRead, [](const Request& r) { return Response{200, "read " + r.Get("x", "nothing") + "\n"}; });
    server_.Handle("/write", "writes", HttpServer::kWrite, [this](const Request& r) {
      written_ += r.body;
      return Response{200, "OK\n"};
    });
    auto bound = server_.Listen("127.0.0.1:0");
    EXPECT_TRUE(bound);
    port_ = static_cast<uint16_t>(atoi(bound->c_str() + bound->rfind(':') + 1));
  }

  int Dial() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at = {};
    at.sin_family = AF_INET, at.sin_port = htons(port_), at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    return fd;
  }
  // Sends, half-closes, and returns all that comes back.
  std::string Exchange(const std::string& bytes) {
    const int fd = Dial();
    EXPECT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    shutdown(fd, SHUT_WR);
    std::string out;
    for (int turns = 0; turns < 1000; ++turns) {
      loop_.RunOnce(base::kMs);
      char buf[4096];
      const ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
      if (n > 0) out.append(buf, n);
      else if (n == 0) break;
    }
    close(fd);
    return out;
  }
  std::string Ask(const std::string& line, const std::string& host = "localhost", const std::string& body = "") {
    return Exchange(line + " HTTP/1.1\r\nHost: " + host + "\r\n" +
                    (body.empty() ? "" : "Content-Length: " + std::to_string(body.size()) + "\r\n") + "\r\n" + body);
  }
  static std::string Status(const std::string& answer) { return answer.size() > 12 ? answer.substr(9, 3) : "none"; }

  io::Loop loop_;
  HttpServer server_{&loop_};
  std::string written_;
  uint16_t port_ = 0;
};

TEST_F(Admin, ReadsAndWrites) {
  const std::string got = Ask("GET /read?x=a%20b&y");
  EXPECT_EQ(Status(got), "200");
  EXPECT_EQ(got.substr(got.find("\r\n\r\n") + 4), "read a b\n");
  EXPECT_EQ(Status(Ask("HEAD /read")), "200");
  EXPECT_EQ(Status(Ask("DELETE /read")), "405");
  EXPECT_EQ(Status(Ask("GET /write")), "405");
  EXPECT_EQ(written_, "");
  EXPECT_EQ(Status(Ask("POST /write", "localhost", "text")), "200");
  EXPECT_EQ(written_, "text");
  EXPECT_EQ(Status(Ask("GET /none")), "404");
  EXPECT_NE(Ask("GET /help").find("/write (POST): writes"), std::string::npos);
}

TEST_F(Admin, APageCannotReachItByANameThatItRebinds) {
  for (const char* host : {"localhost", "127.0.0.1", "127.0.0.1:9901", "[::1]:9901"}) EXPECT_EQ(Status(Ask("GET /read", host)), "200") << host;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80"}) {
    EXPECT_EQ(Status(Ask("POST /write", host, "x")), "403") << host;
  }
  EXPECT_EQ(written_, "");
}

TEST_F(Admin, RequestsOneAfterAnotherOnAConnection) {
  const std::string one = "GET /read?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", two = "GET /read?x=2 HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const std::string got = Exchange(one + two + one);
  const size_t first = got.find("read 1"), second = got.find("read 2"), third = got.find("read 1", second);
  EXPECT_TRUE(first < second && second < third && third != std::string::npos) << got;
}

TEST_F(Admin, AllRequestsOfOneReadAreAnswered) {
  std::string all;
  for (int i = 0; i < 100; ++i) all += "HEAD /read HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const std::string got = Exchange(all);
  size_t answers = 0;
  for (size_t at = 0; (at = got.find("HTTP/1.1 200", at)) != std::string::npos; ++at) ++answers;
  EXPECT_EQ(answers, 100u);
}

TEST_F(Admin, WhatIsTooLargeOrMalformedIsToldSo) {
  EXPECT_EQ(Status(Ask("POST /write", "localhost", std::string(65 * 1024, 'x'))), "413");
  EXPECT_EQ(Status(Exchange("GET /read HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")), "400");
  EXPECT_EQ(Status(Exchange("GARBAGE\r\n\r\n")), "400");
  EXPECT_EQ(written_, "");
  EXPECT_EQ(Status(Ask("GET /read")), "200");
}

TEST_F(Admin, ConnectionsAreBounded) {
  std::vector<int> held;
  for (int i = 0; i < 64; ++i) held.push_back(Dial());
  for (int i = 0; i < 100; ++i) loop_.RunOnce(0);
  EXPECT_EQ(Exchange("GET /read HTTP/1.1\r\nHost: localhost\r\n\r\n"), "");
  for (int fd : held) close(fd);
  for (int i = 0; i < 100; ++i) loop_.RunOnce(0);
  EXPECT_EQ(Status(Ask("GET /read")), "200");
}

model::ConfigSnapshot Snapshot(const std::string& cluster, std::shared_ptr<cluster::ClusterCells> cells, const std::vector<uint16_t>& ports) {
  auto config = std::make_shared<model::Cluster>();
  config->name = cluster;
  config->outlier = std::make_shared<const model::OutlierConfig>();
  model::Endpoints endpoints;
  for (uint16_t port : ports) {
    model::Endpoint e;
    e.address = model::Address::FromIp(*model::Ip::Parse("10.0.0.1"), port);
    endpoints.endpoints.push_back(e);
  }
  auto entry = std::make_shared<model::ClusterEntry>();
  entry->config = config, entry->cells = cells;
  entry->hosts = cluster::HostSet::Build(*config, endpoints, *cells);
  model::ConfigSnapshot s;
  s.clusters.push_back(entry);
  return s;
}

TEST(ConfigStats, SayWhatIsTrueNow) {
  ConfigStats stats;
  std::map<std::string, int64_t> seen;
  auto read = [&](const model::ConfigSnapshot& snapshot) {
    seen.clear();
    base::StatView v;
    std::string last;
    for (ConfigStatsReader rows = stats.Read(snapshot); rows.Next(&v); last = v.name) {
      EXPECT_LT(last, v.name) << "by name";
      EXPECT_EQ(v.used, v.value != 0);
      seen[std::string(v.name).substr(sizeof "cluster.shop." - 1)] = v.value;
      EXPECT_EQ(*v.tags, (base::TagList{{"envoy_cluster_name", "shop"}}));
      EXPECT_EQ(v.base_name, "cluster." + std::string(v.name).substr(sizeof "cluster.shop." - 1));
    }
  };
  auto cells = std::make_shared<cluster::ClusterCells>("shop");
  auto two = Snapshot("shop", cells, {1, 2});
  read(two);
  EXPECT_EQ(seen.size(), 19u);
  EXPECT_EQ(seen["membership_total"], 2);
  EXPECT_EQ(seen["membership_healthy"], 2);
  two.clusters[0]->hosts->hosts()[0].cell->ejected = true;
  cells->ejections_enforced = 3, cells->ejections_active = 1;
  cells->breakers[0].requests = two.clusters[0]->config->breakers[0].max_requests;
  read(two);
  EXPECT_EQ(seen["membership_healthy"], 1);
  EXPECT_EQ(seen["outlier_detection.ejections_active"], 1);
  EXPECT_EQ(seen["outlier_detection.ejections_enforced_total"], 3);
  EXPECT_EQ(seen["circuit_breakers.default.rq_open"], 1);
  EXPECT_EQ(seen["circuit_breakers.high.rq_open"], 0);
  // Counters start again, gauges do not.
  stats.ResetCounters(two);
  cells->ejections_enforced = 5;
  read(two);
  EXPECT_EQ(seen["outlier_detection.ejections_enforced_total"], 2);
  EXPECT_EQ(seen["membership_total"], 2);
  // Another cluster of the name counts from its own zero; one that is gone has nothing to say.
  auto anew = std::make_shared<cluster::ClusterCells>("shop");
  anew->ejections_enforced = 7;
  auto one = Snapshot("shop", anew, {1});
  read(one);
  EXPECT_EQ(seen["outlier_detection.ejections_enforced_total"], 7);
  EXPECT_EQ(seen["membership_total"], 1);
  read(model::ConfigSnapshot());
  EXPECT_TRUE(seen.empty());
}

}  // namespace
}  // namespace weft::admin
