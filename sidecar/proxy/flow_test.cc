// Bodies go on moving: whoever stopped because the other side was full goes on by itself, without a further event.
#include <gtest/gtest.h>

#include "sidecar/proxy/testing/peers.h"

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

}  // namespace
}  // namespace weft::proxy::testing
