// Bodies go on moving: whoever stopped because the other side was full goes on by itself, without a further event.
#include <gtest/gtest.h>

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

struct Case { bool down_h2, up_h2, tls, tcp; };
class Flow : public ::testing::TestWithParam<Case> {};

// Everything between them is full, both ways, while neither end reads; then both do, and only what they take makes room.
TEST_P(Flow, GoesOnWhenBothEndsHadStopped) {
  const Case& p = GetParam();
  Pki pki;
  const std::vector<std::string> down_alpn{p.down_h2 ? "h2" : "http/1.1"}, up_alpn{p.up_h2 ? "h2" : "http/1.1"};
  Mesh mesh;
  auto& cluster = mesh.AddCluster("app", {}, p.tls ? pki.Client(kFront, kCart, up_alpn) : nullptr);
  cluster.protocol = p.up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
  if (p.tls) mesh.server_tls = pki.Server(kFront);
  if (p.tcp) mesh.tcp = std::make_unique<model::TcpProxy>(), mesh.tcp->cluster = "app";
  Stage stage(&mesh, p.down_h2, p.up_h2);
  if (p.tls) stage.caller_tls = pki.Client(kCart, kFront, down_alpn), stage.server_tls = pki.Server(kCart);

  Peer& caller = stage.Open();
  stage.Settle();
  Peer::Message* asked = caller.NewRequest();
  http::HeaderMap head;
  head.Add(Token::kMethod, "POST"), head.Add(Token::kScheme, p.tls ? "https" : "http");
  head.Add(Token::kAuthority, "shop.test"), head.Add(Token::kPath, "/");
  caller.codec->SendHead(asked->id, head, false);
  stage.Settle();
  auto [server, served] = stage.served();
  ASSERT_TRUE(served);
  head.Clear();
  head.Add(Token::kStatus, "200");
  server->codec->SendHead(served->id, head, false);
  stage.Settle();
  ASSERT_TRUE(asked->head());

  // Gives the codec what it takes, until it takes no more.
  auto push = [&](Peer& peer, Peer::Message* m, io::Buffer& body) {
    for (size_t before = SIZE_MAX; body.size() < before && !body.empty(); stage.Settle()) {
      before = body.size();
      const size_t n = std::min(peer.codec->SendRoom(m->id), before);
      if (n) peer.codec->SendBody(m->id, body, n, false);
    }
  };
  const std::string question(6'000'000, 'q'), answer(6'000'000, 'a');
  io::Buffer up, down, none;
  up.Append(question), down.Append(answer);
  caller.deaf = server->deaf = true;
  push(caller, asked, up), push(*server, served, down);
  EXPECT_LT(caller.sent(), question.size());
  EXPECT_LT(server->sent(), answer.size());
  EXPECT_EQ(served->body.size() + asked->body.size(), 0u);
  caller.deaf = server->deaf = false;
  stage.Settle();
  push(caller, asked, up), push(*server, served, down);
  EXPECT_TRUE(served->body == question) << served->body.size();
  EXPECT_TRUE(asked->body == answer) << asked->body.size();
  caller.codec->SendBody(asked->id, none, 0, true);
  stage.Settle();
  EXPECT_TRUE(served->ended());
  server->codec->SendBody(served->id, none, 0, true);
  stage.Settle();
  EXPECT_TRUE(asked->ended());
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
