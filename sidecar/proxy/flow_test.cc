// Bodies go on moving: whoever stopped because the other side was full goes on by itself, without a further event.
#include <gtest/gtest.h>

#include <tuple>

#include "sidecar/proxy/testing/peers.h"
#include "sidecar/proxy/testing/stage.h"

namespace weft::proxy::testing {
namespace {

// The harness itself: a handler that takes its body late, when all of it has arrived and no event will come any more.
TEST(TestServers, GoOnWithBytesTheyHaveReadAlready) {
  bool go = false;
  ServerStream* held = nullptr;
  TestServer app({.handler = [&](ServerStream& s) {
    held = &s;
    if (!s.responded) s.Head("200");
    if (go) s.EchoBody();
  }});
  const std::string body(200'000, 'x');  // several times what a codec holds for a stream
  TestClient c(app.port());
  auto* call = c.Open("POST", "/", {{"content-length", std::to_string(body.size())}}, false);
  ASSERT_TRUE(call);
  c.Send(call, body, true);
  ASSERT_TRUE(c.Until([&] { return app.received() >= body.size(); }));
  app.Post([&] { go = true, held->EchoBody(); });
  EXPECT_EQ(c.Finish(call).body.size(), body.size());
}

// The counters of bytes move while one direction is silent: nothing is sent that would bring them along.
TEST(ByteCounters, MoveWithBodiesUnderWay) {
  TestServer app({.handler = [](ServerStream& s) {
    if (s.path() == "/down" && !s.responded) s.Head("200"), s.Body(std::string(50'000, 'd'), false);
  }});
  Mesh mesh;
  mesh.AddCluster("app", {app.port()});
  mesh.Start();
  auto value = [](const char* name) { return base::Stats::Get().Value(name); };
  auto down_rx = [&] { return value("http.test.downstream_cx_rx_bytes_total"); };
  auto up_rx = [&] { return value("cluster.app.upstream_cx_rx_bytes_total"); };
  const int64_t before = down_rx(), before_up = up_rx();
  TestClient up(mesh.port());
  auto* sent = up.Open("POST", "/up", {{"content-length", "100000"}}, false);
  up.Send(sent, std::string(50'000, 'u'), false);
  EXPECT_TRUE(up.Until([&] { return down_rx() - before >= 50'000; }));
  TestClient down(mesh.port());
  down.Open("GET", "/down", {}, true);
  EXPECT_TRUE(down.Until([&] { return up_rx() - before_up >= 50'000; }));
}

struct Case { bool down_h2, up_h2, tls, tcp; };
class Flow : public ::testing::TestWithParam<Case> {
 protected:
  // A request whose body has not begun, and the head of its answer.
  void Begin() {
    const Case& p = GetParam();
    stage_.reset();
    mesh_ = std::make_unique<Mesh>();
    const std::vector<std::string> down_alpn{p.down_h2 ? "h2" : "http/1.1"}, up_alpn{p.up_h2 ? "h2" : "http/1.1"};
    auto& cluster = mesh_->AddCluster("app", {}, p.tls ? pki_.Client(kFront, kCart, up_alpn) : nullptr);
    cluster.protocol = p.up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
    if (p.tls) mesh_->server_tls = pki_.Server(kFront);
    if (p.tcp) mesh_->tcp = std::make_unique<model::TcpProxy>(), mesh_->tcp->cluster = "app";
    stage_ = std::make_unique<Stage>(mesh_.get(), p.down_h2, p.up_h2);
    if (p.tls) stage_->caller_tls = pki_.Client(kCart, kFront, down_alpn), stage_->server_tls = pki_.Server(kCart);
    caller_ = &stage_->Open();
    stage_->Settle();
    asked_ = caller_->NewRequest();
    http::HeaderMap head;
    head.Add(Token::kMethod, "POST"), head.Add(Token::kScheme, p.tls ? "https" : "http");
    head.Add(Token::kAuthority, "shop.test"), head.Add(Token::kPath, "/");
    caller_->codec->SendHead(asked_->id, head, false);
    stage_->Settle();
    std::tie(server_, served_) = std::pair(stage_->served().peer, stage_->served().message);
    ASSERT_TRUE(served_);
    head.Clear();
    head.Add(Token::kStatus, "200");
    server_->codec->SendHead(served_->id, head, false);
    stage_->Settle();
    ASSERT_TRUE(asked_->head());
  }
  // Gives the peer's codec what it takes, until it takes no more.
  void Push(Peer* peer, Peer::Message* m, io::Buffer& body) {
    for (size_t before = SIZE_MAX; body.size() < before && !body.empty(); stage_->Settle()) {
      before = body.size();
      if (size_t n = std::min(peer->codec->SendRoom(m->id), before)) peer->codec->SendBody(m->id, body, n, false);
    }
  }
  // Nobody reads while both bodies are sent, and then both ends do.
  void StopAndGoOn(size_t up_size, size_t down_size) {
    SCOPED_TRACE(::testing::Message() << up_size << " up, " << down_size << " down");
    ASSERT_NO_FATAL_FAILURE(Begin());
    const std::string question(up_size, 'q'), answer(down_size, 'a');
    io::Buffer up, down, none;
    up.Append(question), down.Append(answer);
    caller_->deaf = server_->deaf = true;
    Push(caller_, asked_, up), Push(server_, served_, down);
    EXPECT_LT(caller_->sent(), kHeldAtMost);
    EXPECT_LT(server_->sent(), kHeldAtMost);
    EXPECT_EQ(served_->body.size() + asked_->body.size(), 0u);
    caller_->deaf = server_->deaf = false;
    stage_->Settle();
    Push(caller_, asked_, up), Push(server_, served_, down);
    EXPECT_TRUE(served_->body == question) << served_->body.size();
    EXPECT_TRUE(asked_->body == answer) << asked_->body.size();
    caller_->codec->SendBody(asked_->id, none, 0, true);
    stage_->Settle();
    EXPECT_TRUE(served_->ended());
    server_->codec->SendBody(served_->id, none, 0, true);
    stage_->Settle();
    EXPECT_TRUE(asked_->ended());
  }

  static constexpr size_t kHeldAtMost = 2'000'000, kMuch = 4'000'000;  // kernel buffers included
  Pki pki_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Stage> stage_;
  Peer *caller_ = nullptr, *server_ = nullptr;
  Peer::Message *asked_ = nullptr, *served_ = nullptr;
};

// In one direction at a time, so that no event of the other helps; sizes by which the last byte waits in each of the
// places between the ends, after which nothing more comes.
TEST_P(Flow, GoesOnAfterAStop) {
  for (size_t size = 50'000; size < 1'500'000; size += 50'000) StopAndGoOn(size, 0), StopAndGoOn(0, size);
  StopAndGoOn(kMuch, 0), StopAndGoOn(0, kMuch), StopAndGoOn(kMuch, kMuch);
}

INSTANTIATE_TEST_SUITE_P(All, Flow,
                         ::testing::Values(Case{false, false, false, false}, Case{false, true, false, false}, Case{true, false, false, false},
                                           Case{true, true, false, false}, Case{false, false, true, false}, Case{false, true, true, false},
                                           Case{true, false, true, false}, Case{true, true, true, false}, Case{false, false, false, true},
                                           Case{true, true, true, true}),
                         [](const auto& i) {
                           return std::string(i.param.tcp ? "tcp_" : "") + (i.param.down_h2 ? "h2" : "h1") + (i.param.up_h2 ? "_h2" : "_h1") +
                                  (i.param.tls ? "_tls" : "");
                         });

}  // namespace
}  // namespace weft::proxy::testing
