#include "sidecar/dns/server.h"

#include <gtest/gtest.h>

#include <fstream>

#include "sidecar/dns/test_peer.h"

namespace weft::dns {
namespace {

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    config_.stat_prefix = "mesh";
    config_.names = {{"cart", {MakeIp("240.64.0.1")}, 30},
                     {"cart.default.mesh", {MakeIp("240.64.0.1")}, 30},
                     {"six", {MakeIp("fd00::6")}, 0},
                     {"two", {MakeIp("240.64.0.2"), MakeIp("240.64.0.3")}, 5},
                     {"*.db.mesh", {MakeIp("240.64.0.9")}, 30}};
    config_.known_suffixes = {"mesh"};
  }
  void Start() {
    auto s = Server::Create(&loop_, config_, {*model::Address::FromIp("127.0.0.1", 0)}, {});
    ASSERT_TRUE(s) << s.error().ToString();
    server_ = *std::move(s);
  }
  uint16_t port() const { return server_->addresses()[0].port; }

  // One question over UDP, its answer's bytes.
  std::string Exchange(const std::string& packet) {
    io::Fd fd(io::BindUdp(io::SockAddr::Loopback(0)));
    io::SockAddr to = io::SockAddr::Loopback(port());
    EXPECT_EQ(connect(fd.get(), to.get(), to.length), 0);  // connected: only the asked address may answer
    EXPECT_GT(send(fd.get(), packet.data(), packet.size(), 0), 0);
    std::string out(4096, 0);
    ssize_t n = -1;
    RunUntil(loop_, [&] { return (n = recv(fd.get(), out.data(), out.size(), 0)) >= 0; });
    out.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return out;
  }
  Response Ask(std::string_view name, uint16_t type) {
    Response r;
    EXPECT_TRUE(ParseResponse(Exchange(BuildQuery(42, name, type)), name, type, &r)) << name;
    return r;
  }

  io::Loop loop_;
  model::DnsFilter config_;
  std::unique_ptr<Server> server_;
};

std::string Answer(const Query& q, std::string_view packet, std::string_view ip) {
  return BuildAnswer(q, packet, Rcode::kNoError, {MakeIp(ip)}, 60, 512, false);
}

TEST_F(ServerTest, AnswersFromTheTable) {
  Start();
  auto r = Ask("cart.default.mesh", kA);
  ASSERT_EQ(r.addresses.size(), 1u);
  EXPECT_EQ(r.addresses[0].ToString(), "240.64.0.1");
  EXPECT_EQ(r.ttl_s, 30u);
  r = Ask("cart", kAaaa);  // exists, has no such address
  EXPECT_EQ(r.rcode, Rcode::kNoError);
  EXPECT_TRUE(r.addresses.empty());
  EXPECT_EQ(Ask("six", kAaaa).addresses[0].ToString(), "fd00::6");
  EXPECT_EQ(Ask("a.b.db.mesh", kA).addresses[0].ToString(), "240.64.0.9");
  EXPECT_EQ(Ask("nosuch.mesh", kA).rcode, Rcode::kNxDomain);
  EXPECT_EQ(Ask("example.org", kA).rcode, Rcode::kNxDomain);  // forwarding is off
  EXPECT_EQ(Ask("two", kA).addresses.size(), 2u);
  EXPECT_NE(Ask("two", kA).addresses[0], Ask("two", kA).addresses[0]);  // take turns
  Response mx;
  ASSERT_TRUE(ParseResponse(Exchange(BuildQuery(1, "cart", 15)), "cart", 15, &mx));
  EXPECT_EQ(mx.rcode, Rcode::kNoError);
  EXPECT_EQ(server_->count(Server::local_nxdomain_answers), 2u);
  EXPECT_EQ(server_->count(Server::local_empty_answers), 2u);
  EXPECT_EQ(server_->count(Server::downstream_tx_responses), server_->count(Server::downstream_rx_queries));
}

TEST_F(ServerTest, UpdateReplacesTheTable) {
  Start();
  config_.names = {{"new", {MakeIp("240.64.0.7")}, 30}};
  server_->Update(config_);
  EXPECT_EQ(Ask("new", kA).addresses[0].ToString(), "240.64.0.7");
  EXPECT_EQ(Ask("cart", kA).rcode, Rcode::kNxDomain);
}

TEST_F(ServerTest, ForwardsOtherNamesWithTheClientsId) {
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool) { return Answer(q, p, "93.184.216.34"); });
  config_.forward = true;
  config_.resolvers = {up.address};
  Start();
  std::string a = Exchange(BuildQuery(0x4711, "example.org", kA));
  EXPECT_EQ(MessageId(a), 0x4711);
  Response r;
  ASSERT_TRUE(ParseResponse(a, "example.org", kA, &r));
  ASSERT_EQ(r.addresses.size(), 1u);
  EXPECT_EQ(r.addresses[0].ToString(), "93.184.216.34");
  EXPECT_EQ(Ask("nosuch.mesh", kA).rcode, Rcode::kNxDomain);  // never leaves the mesh
  EXPECT_EQ(up.questions, 1);
  EXPECT_EQ(server_->count(Server::external_answers), 1u);
}

TEST_F(ServerTest, NextResolverAfterSilenceAndServfailInTheEnd) {
  FakeServer silent(&loop_, [](const Query&, std::string_view, bool) { return std::string(); });
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool) { return q.name == "gone.org" ? "" : Answer(q, p, "1.2.3.4"); });
  config_.forward = true;
  config_.resolvers = {silent.address, up.address};
  config_.resolver_timeout_ns = base::kSecond;  // half a second each
  Start();
  auto r = Ask("example.org", kA);
  ASSERT_EQ(r.addresses.size(), 1u);
  EXPECT_EQ(r.addresses[0].ToString(), "1.2.3.4");
  EXPECT_EQ(Ask("gone.org", kA).rcode, Rcode::kServFail);
  EXPECT_EQ(server_->count(Server::external_unanswered), 1u);
}

TEST_F(ServerTest, ForgedAndMalformedAnswersAreIgnored) {
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool) {
    Query other = q;
    if (q.name == "id.org") other.id ^= 1;
    std::string a = Answer(other, p, "6.6.6.6");
    if (q.name == "name.org") a[13] = 'x';
    if (q.name == "query.org") a[2] = 1;
    return a;
  });
  config_.forward = true;
  config_.resolvers = {up.address};
  config_.resolver_timeout_ns = 60 * base::kMs;
  Start();
  for (auto name : {"id.org", "name.org", "query.org"}) EXPECT_EQ(Ask(name, kA).rcode, Rcode::kServFail) << name;
}

TEST_F(ServerTest, PendingLookupsAreBounded) {
  FakeServer silent(&loop_, [](const Query&, std::string_view, bool) { return std::string(); });
  config_.forward = true;
  config_.resolvers = {silent.address};
  config_.max_pending_lookups = 3;
  Start();
  io::Fd fd(io::BindUdp(io::SockAddr::Loopback(0)));
  io::SockAddr to = io::SockAddr::Loopback(port());
  for (uint16_t i = 0; i < 5; ++i) {
    std::string p = BuildQuery(i, "n" + std::to_string(i) + ".org", kA);
    sendto(fd.get(), p.data(), p.size(), 0, to.get(), to.length);
  }
  ASSERT_TRUE(RunUntil(loop_, [&] { return server_->count(Server::external_overflow) == 2; }));
  EXPECT_EQ(Ask("cart", kA).addresses.size(), 1u);  // the table still answers
}

TEST_F(ServerTest, MalformedPacketsGetTheirCodeOrSilence) {
  Start();
  std::string update = BuildQuery(5, "cart", kA);
  update[2] = 0x28;
  EXPECT_EQ(Exchange(update)[3] & 15, static_cast<int>(Rcode::kNotImp));
  EXPECT_EQ(Exchange(BuildQuery(5, "cart", kA) + "x")[3] & 15, static_cast<int>(Rcode::kFormErr));
  io::Fd fd(io::BindUdp(io::SockAddr::Loopback(0)));
  io::SockAddr to = io::SockAddr::Loopback(port());
  std::string response = BuildQuery(5, "cart", kA);
  response[2] = static_cast<char>(0x80);
  for (std::string junk : {std::string("x"), std::string(), response, std::string(5000, 'j')}) {
    sendto(fd.get(), junk.data(), junk.size(), 0, to.get(), to.length);
  }
  EXPECT_EQ(Ask("cart", kA).addresses.size(), 1u);
  char buf[16];
  EXPECT_LT(recv(fd.get(), buf, sizeof buf, 0), 0);
}

std::string Framed(const std::string& p) { return std::string{static_cast<char>(p.size() >> 8), static_cast<char>(p.size())} + p; }

TEST_F(ServerTest, TcpPipelinesAndSplits) {
  FakeServer up(&loop_, [](const Query& q, std::string_view p, bool tcp) { return tcp ? Answer(q, p, "8.8.4.4") : ""; });
  config_.forward = true;
  config_.resolvers = {up.address};
  config_.names.push_back({"big", std::vector<model::Ip>(200, MakeIp("fd00::1")), 30});
  Start();
  Response r;
  ASSERT_TRUE(ParseResponse(Exchange(BuildQuery(1, "big", kAaaa)), "big", kAaaa, &r));
  EXPECT_TRUE(r.truncated);

  bool in_progress;
  io::Fd fd(io::Connect(io::SockAddr::Loopback(port()), {}, &in_progress));
  std::string wire = Framed(BuildQuery(1, "big", kAaaa)) + Framed(BuildQuery(2, "example.org", kA)) + Framed(BuildQuery(3, "cart", kA));
  io::Buffer out, in;
  for (char c : wire) {
    out.Append(std::string_view(&c, 1));
    io::WriteFrom(fd.get(), out);
    loop_.RunOnce(0);
  }
  std::map<uint16_t, std::string> answers;
  ASSERT_TRUE(RunUntil(loop_, [&] {
    io::ReadInto(fd.get(), in, 1 << 20, true);
    while (in.size() >= 2) {
      std::string all = in.ToString();
      size_t n = static_cast<size_t>(static_cast<uint8_t>(all[0])) << 8 | static_cast<uint8_t>(all[1]);
      if (all.size() < n + 2) break;
      in.Consume(n + 2);
      answers[MessageId(std::string_view(all).substr(2))] = all.substr(2, n);
    }
    return answers.size() == 3;
  }));
  ASSERT_TRUE(ParseResponse(answers[1], "big", kAaaa, &r));
  EXPECT_EQ(r.addresses.size(), 200u);
  EXPECT_FALSE(r.truncated);
  ASSERT_TRUE(ParseResponse(answers[2], "example.org", kA, &r));
  EXPECT_EQ(r.addresses[0].ToString(), "8.8.4.4");
  ASSERT_TRUE(ParseResponse(answers[3], "cart", kA, &r));

  // A length that cannot be: closed.
  out.Append(std::string_view("\xff\xff", 2));
  io::WriteFrom(fd.get(), out);
  EXPECT_TRUE(RunUntil(loop_, [&] { return io::ReadInto(fd.get(), in, 10, true).eof; }));
}

// A client that asks without reading is held up; once it reads, the query that had arrived last is answered too, although
// nothing more comes from the client.
TEST_F(ServerTest, TcpGoesOnWhenTheClientReadsAgain) {
  config_.names.push_back({"big", std::vector<model::Ip>(2000, MakeIp("fd00::1")), 30});
  Start();
  bool in_progress;
  io::Fd fd(io::Connect(io::SockAddr::Loopback(port()), {}, &in_progress));
  io::Buffer out, in;
  const std::string query = Framed(BuildQuery(1, "big", kAaaa));
  uint64_t sent = 0, answered = 0;
  auto taken = [&] {
    for (int turns = 0; turns < 50 && server_->count(Server::downstream_rx_queries) != sent; ++turns) loop_.RunOnce(base::kMs);
    return server_->count(Server::downstream_rx_queries) == sent;
  };
  do {
    out.Append(query), ++sent;
    io::WriteFrom(fd.get(), out);
  } while (taken());
  ASSERT_TRUE(RunUntil(loop_, [&] {
    io::ReadInto(fd.get(), in, 64 << 20, true);
    for (char length[2]; in.CopyOut(0, length, 2) == 2;) {
      size_t n = static_cast<size_t>(static_cast<uint8_t>(length[0])) << 8 | static_cast<uint8_t>(length[1]);
      if (in.size() < n + 2) break;
      in.Consume(n + 2), ++answered;
    }
    return answered == sent;
  })) << answered << " of " << sent;
}

TEST_F(ServerTest, TcpConnectionsAreBoundedAndIdleOnesClosed) {
  base::ManualClock clock;
  io::Loop loop(&clock);
  auto s = Server::Create(&loop, config_, {*model::Address::FromIp("127.0.0.1", 0)}, {});
  ASSERT_TRUE(s);
  std::vector<io::Fd> fds;
  for (int i = 0; i < 70; ++i) {
    bool in_progress;
    fds.emplace_back(io::Connect(io::SockAddr::Loopback((*s)->addresses()[0].port), {}, &in_progress));
  }
  ASSERT_TRUE(RunUntil(loop, [&] { return (*s)->count(Server::tcp_connections_refused) == 6; }));
  clock.Advance(11 * base::kSecond);
  io::Buffer in;
  EXPECT_TRUE(RunUntil(loop, [&] { return io::ReadInto(fds[0].get(), in, 10, true).eof; }));
}

TEST_F(ServerTest, BindErrorsNameTheAddress) {
  Start();
  auto again = Server::Create(&loop_, config_, server_->addresses(), {});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().message(), "dns: cannot bind udp " + server_->addresses()[0].ToString() + ": Address already in use");
}

TEST(NameServers, ReadsResolvConf) {
  std::string path = testing::TempDir() + "/resolv.conf";
  std::ofstream(path) << "# c\nsearch a.b\nnameserver 10.0.0.53\n nameserver fe80::1%eth0\nnameserver junk\n";
  auto s = NameServers(path);
  ASSERT_EQ(s.size(), 2u);
  EXPECT_EQ(s[0].ToString(), "10.0.0.53:53");
  EXPECT_TRUE(NameServers("/nonexistent").empty());
}

}  // namespace
}  // namespace weft::dns
