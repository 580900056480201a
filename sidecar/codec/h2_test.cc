#include <gtest/gtest.h>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"

namespace weft::codec {
namespace {

using http::HeaderMap;
using http::Token;
using testing::Head;

struct H2 : testing::Pair {
  explicit H2(Limits limits = {}, base::Clock* clock = nullptr) {
    client = NewHttp2Client(limits, clock);
    server = NewHttp2Server(limits, &host, clock);
    Run();
  }
  HeaderMap Get(const char* path = "/") { return Head({{":method", "GET"}, {":scheme", "http"}, {":authority", "cart"}, {":path", path}}); }
  HeaderMap Post(const char* path = "/") { return Head({{":method", "POST"}, {":scheme", "http"}, {":authority", "cart"}, {":path", path}}); }
};

constexpr uint16_t kHeadEnd = Inbound::kHead | Inbound::kEnd;

TEST(H2, GetAndAnswerWithTrailers) {
  for (const size_t step : {size_t{1}, size_t{7}, size_t{100000}}) {
    H2 t;
    t.step = step;
    Inbound r;
    const StreamId id = t.client->Open(&r);
    HeaderMap head = t.Get("/a?b=c");
    head.Add("x-color", "red"), head.Add("cookie", "a=1"), head.Add("cookie", "b=2"), head.Add("te", "trailers");
    head.Add("connection", "x"), head.Add("x-bad", "a\r\nb");
    t.client->SendHead(id, head, true);
    t.Run();
    ASSERT_EQ(t.host.last, 1);
    Inbound& q = t.host.at(1);
    EXPECT_EQ(q.bits, kHeadEnd);
    EXPECT_EQ(q.head.ToString(), ":method: GET\n:scheme: http\n:authority: cart\n:path: /a?b=c\nx-color: red\nte: trailers\ncookie: a=1; b=2\n");
    EXPECT_EQ(t.client->counters().dropped_fields, 1u);

    t.server->SendHead(1, Head({{":status", "200"}, {"content-type", "text/plain"}}), false);
    io::Buffer body;
    body.Append("hello");
    t.server->SendBody(1, body, 5, false);
    t.server->SendTrailers(1, Head({{"grpc-status", "0"}, {"content-length", "9"}}));
    t.Run();
    EXPECT_EQ(r.bits, kHeadEnd | Inbound::kTrailers);
    EXPECT_EQ(r.body.ToString(), "hello");
    EXPECT_EQ(r.trailers.ToString(), "grpc-status: 0\n");
    EXPECT_EQ(t.client->active_streams(), 1u);
    t.client->Release(id), t.server->Release(1);
    EXPECT_EQ(t.client->active_streams(), 0u);
    EXPECT_EQ(t.server->active_streams(), 0u);
    EXPECT_TRUE(t.client_ok && t.server_ok);
  }
}

TEST(H2, FlowControlBoundsASlowReader) {
  Limits l;
  l.stream_window = 64 * 1024;
  H2 t(l);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, t.Post(), false);
  size_t sent = 0;
  const std::string piece(10000, 'x');
  for (int i = 0; i < 100; ++i) {
    const size_t n = std::min(piece.size(), t.client->SendRoom(id));
    io::Buffer b;
    b.Append(std::string_view(piece).substr(0, n));
    t.client->SendBody(id, b, n, false);
    sent += n;
    t.Run();
  }
  Inbound& q = t.host.at(1);
  EXPECT_EQ(q.body.size(), 64u * 1024);            // the window
  EXPECT_EQ(t.client->SendRoom(id), 0u);           // and our own buffer
  EXPECT_EQ(sent, 64u * 1024 + l.max_buffered_per_stream);
  t.client->writable().clear();
  // The reader drains: everything flows, and the writer hears of room.
  q.body.Clear();
  t.server->Consumed(1, 64 * 1024);
  t.Run();
  EXPECT_EQ(q.body.size(), l.max_buffered_per_stream);
  ASSERT_EQ(t.client->writable().size(), 1u);
  EXPECT_EQ(t.client->writable()[0], &r);
  io::Buffer none;
  t.client->SendBody(id, none, 0, true);
  t.server->Consumed(1, q.body.size());
  t.Run();
  EXPECT_TRUE(q.bits & Inbound::kEnd);
  EXPECT_EQ(q.body_bytes, sent);
}

TEST(H2, ReleasedStreamsGiveTheirConnectionCreditBack) {
  Limits l;
  l.stream_window = 64 * 1024, l.connection_window = 64 * 1024;
  H2 t(l);
  for (int i = 0; i < 20; ++i) {
    Inbound r;
    const StreamId id = t.client->Open(&r);
    t.client->SendHead(id, t.Post(), false);
    io::Buffer b;
    b.Append(std::string(30000, 'x'));
    t.client->SendBody(id, b, b.size(), true);
    t.Run();
    Inbound& q = t.host.at(t.host.last);
    ASSERT_EQ(q.body.size(), 30000u) << i;
    // Not consumed: answered and dropped.
    t.server->SendHead(t.host.last, Head({{":status", "200"}}), true);
    t.server->Release(t.host.last);
    t.Run();
    EXPECT_EQ(r.bits, kHeadEnd);
    t.client->Release(id);
  }
}

TEST(H2, StalledStreamsHoldUpOnlyThemselvesUntilTheConnectionIsFull) {
  for (const bool tight : {false, true}) {
    Limits l;
    l.stream_window = 256 * 1024, l.connection_window = 512 * 1024;
    if (tight) l.max_buffered_per_connection = 1024 * 1024;
    H2 t(l);
    Inbound r[9];
    StreamId ids[9];
    for (int i = 0; i < 9; ++i) {
      ids[i] = t.client->Open(&r[i]);
      t.client->SendHead(ids[i], t.Post(), false);
    }
    for (int round = 0; round < 40; ++round) {  // eight writers whose reader sleeps
      for (int i = 0; i < 8; ++i) {
        io::Buffer b;
        const size_t n = t.client->SendRoom(ids[i]);
        b.Append(std::string(n, 'x'));
        t.client->SendBody(ids[i], b, n, false);
      }
      t.Run();
    }
    uint64_t held = 0;
    for (auto& [id, q] : t.host.streams) held += q->body.size();
    EXPECT_LE(held, tight ? 1024u * 1024 + 512 * 1024 : 8u * 256 * 1024);
    io::Buffer b;
    b.Append("hello");
    t.client->SendBody(ids[8], b, 5, true);
    t.Run();
    EXPECT_EQ(t.host.at(ids[8]).body.size(), tight ? 0u : 5u);
    // Everything drains in the end, and the windows are whole again.
    for (int i = 0; i < 8; ++i) t.client->SendBody(ids[i], b, 0, true);
    for (int round = 0; round < 100; ++round) {
      for (auto& [id, q] : t.host.streams) {
        t.server->Consumed(id, q->body.size());
        q->body.Clear();
      }
      t.Run();
    }
    for (auto& [id, q] : t.host.streams) EXPECT_TRUE(q->bits & Inbound::kEnd) << id;
    EXPECT_FALSE(t.client->wants_emit());
  }
}

TEST(H2, EarlyAnswerStopsTheUpload) {
  H2 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, t.Post(), false);
  t.Run();
  t.server->SendHead(1, Head({{":status", "413"}}), true);
  t.server->Release(1);
  t.Run();
  EXPECT_EQ(r.bits, kHeadEnd);  // success, not a reset
  io::Buffer b;
  b.Append("more");
  t.client->SendBody(id, b, 4, true);
  EXPECT_TRUE(b.empty());
  t.Run();
  t.client->Release(id);
  EXPECT_EQ(t.client->active_streams(), 0u);
  EXPECT_EQ(t.server->active_streams(), 0u);
}

TEST(H2, ResetsBothWays) {
  H2 t;
  Inbound r;
  StreamId id = t.client->Open(&r);
  t.client->SendHead(id, t.Get(), true);
  t.Run();
  t.server->Reset(1, ResetCode::kRefused);
  t.Run();
  EXPECT_EQ(r.bits, Inbound::kReset);
  EXPECT_EQ(r.reset, ResetCode::kRefused);
  t.client->Release(id);
  Inbound r2;
  id = t.client->Open(&r2);
  t.client->SendHead(id, t.Get(), true);
  t.Run();
  t.client->Reset(id, ResetCode::kCancel);
  t.Run();
  EXPECT_EQ(t.host.at(3).bits, kHeadEnd | Inbound::kReset);
  EXPECT_EQ(t.host.at(3).reset, ResetCode::kCancel);
  t.server->Release(3);
  EXPECT_EQ(t.client->active_streams() + t.server->active_streams(), 0u);
  EXPECT_EQ(t.server->counters().rx_reset, 1u);
}

TEST(H2, ReleasedAnswerIsStillDelivered) {
  Limits l;
  l.stream_window = 16 * 1024;
  H2 t(l);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, t.Get(), true);
  t.Run();
  t.server->SendHead(1, Head({{":status", "200"}}), false);
  io::Buffer b;
  b.Append(std::string(50000, 'y'));
  t.server->SendBody(1, b, 50000, true);
  t.server->Release(1);
  t.Run();
  EXPECT_EQ(r.body.size(), 16u * 1024);
  while (!(r.bits & Inbound::kEnd)) {
    const size_t n = r.body.size();
    ASSERT_GT(n, 0u);
    r.body.Clear();
    t.client->Consumed(id, n);
    t.Run();
  }
  EXPECT_EQ(r.body_bytes, 50000u);
  EXPECT_EQ(t.server->active_streams(), 0u);
}

TEST(H2, InterimAndExpect) {
  H2 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  HeaderMap head = t.Post();
  head.Add("expect", "100-continue");
  t.client->SendHead(id, head, false);
  t.Run();
  EXPECT_FALSE(t.host.at(1).head.Has(Token::kExpect));
  EXPECT_EQ(r.bits, Inbound::kInterim);  // the server's codec has answered
  EXPECT_EQ(r.interim.ToString(), ":status: 100\n");
  r.bits = 0, r.interim.Clear();
  t.server->SendHead(1, Head({{":status", "103"}, {"link", "</a>"}}), false);
  t.Run();
  EXPECT_EQ(r.bits, Inbound::kInterim);
  EXPECT_EQ(r.interim.ToString(), ":status: 103\nlink: </a>\n");
  t.server->SendHead(1, Head({{":status", "204"}}), true);
  t.Run();
  EXPECT_EQ(r.head.ToString(), ":status: 204\n");
}

TEST(H2, WebSocketTunnelWaitsForSettings) {
  Limits l;
  l.allow_connect_protocol = true;
  testing::Pair t;
  t.client = NewHttp2Client(l);
  t.server = NewHttp2Server(l, &t.host);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "chat"}, {":path", "/ws"}, {"sec-websocket-version", "13"}}), false);
  t.Run();
  Inbound& q = t.host.at(1);
  EXPECT_EQ(q.bits, Inbound::kHead);
  EXPECT_EQ(q.head.Value(Token::kProtocol), "websocket");
  t.server->SendHead(1, Head({{":status", "200"}}), false);
  t.Run();
  EXPECT_EQ(r.bits, Inbound::kHead | Inbound::kUpgraded);
  io::Buffer b;
  b.Append("ping");
  t.client->SendBody(id, b, 4, false);
  b.Append("pong");
  t.server->SendBody(1, b, 4, false);
  t.Run();
  EXPECT_EQ(q.body.ToString(), "ping");
  EXPECT_EQ(r.body.ToString(), "pong");
  t.client->SendBody(id, b, 0, true);
  t.server->SendBody(1, b, 0, true);
  t.Run();
  EXPECT_TRUE((q.bits & Inbound::kEnd) && (r.bits & Inbound::kEnd));
}

TEST(H2, WebSocketToAPeerThatCannot) {
  testing::Pair t;
  t.client = NewHttp2Client({});
  t.server = NewHttp2Server({}, &t.host);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "chat"}, {":path", "/ws"}}), false);
  t.Run();
  EXPECT_EQ(r.bits, Inbound::kReset);
  EXPECT_EQ(r.reset, ResetCode::kHttp11Required);
  t.client->Release(id);
  EXPECT_EQ(t.client->active_streams(), 0u);
}

TEST(H2, GoawayInTwoPhases) {
  H2 t;
  Inbound a, b;
  const StreamId first = t.client->Open(&a);
  t.client->SendHead(first, t.Get(), true);
  t.Run();
  t.server->StartDrain();
  t.Run();
  EXPECT_FALSE(t.server->closed());
  EXPECT_TRUE(t.client->peer_going_away());
  EXPECT_EQ(t.client->OpenRoom(), 0u);
  EXPECT_EQ(a.bits, 0);
  t.server->StartDrain();
  t.Run();
  EXPECT_FALSE(t.server->closed());
  t.server->SendHead(1, Head({{":status", "200"}}), true);
  t.server->Release(1);
  t.Run();
  EXPECT_EQ(a.bits, kHeadEnd);
  EXPECT_TRUE(t.server->closed());
  t.client->Release(first);
}

TEST(H2, StreamAboveGoawayIsSafeToRetry) {
  H2 t;
  t.server->StartDrain();
  t.server->StartDrain();
  io::Buffer goaway;
  t.server->Emit(goaway);
  Inbound r;
  const StreamId id = t.client->Open(&r);  // before the client has seen it
  t.client->SendHead(id, t.Get(), true);
  io::Buffer lost;
  t.client->Emit(lost);
  EXPECT_TRUE(t.client->Feed(goaway));
  EXPECT_EQ(r.bits, Inbound::kReset | Inbound::kGoaway);
  EXPECT_EQ(r.reset, ResetCode::kRefused);
  t.client->Release(id);
}

TEST(H2, RefusesAndCapsStreams) {
  Limits l;
  l.max_concurrent_streams = 2;
  H2 t(l);
  EXPECT_EQ(t.client->OpenRoom(), 2u);
  Inbound r[3];
  for (int i = 0; i < 2; ++i) t.client->SendHead(t.client->Open(&r[i]), t.Get(), true);
  EXPECT_EQ(t.client->Open(&r[2]), -1);
  t.Run();
  t.host.refuse = true;
  t.client->Reset(1, ResetCode::kCancel);
  t.Run();
  t.server->Release(1);
  const StreamId id = t.client->Open(&r[2]);
  t.client->SendHead(id, t.Get(), true);
  t.Run();
  EXPECT_EQ(r[2].bits, Inbound::kReset);
  EXPECT_EQ(r[2].reset, ResetCode::kRefused);
  t.client->Release(id);
}

TEST(H2, PingAndConnectionLoss) {
  H2 t;
  t.client->Ping();
  EXPECT_EQ(t.client->pings_outstanding(), 1);
  t.Run();
  EXPECT_EQ(t.client->pings_outstanding(), 0);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, t.Get(), true);
  t.Run();
  EXPECT_FALSE(t.client->FeedEof());
  EXPECT_EQ(r.reset, ResetCode::kConnectionLost);
  ASSERT_EQ(t.client->ready().size(), 1u);
  t.client->Release(id);
  EXPECT_TRUE(t.client->ready().empty());
  EXPECT_TRUE(t.client->closed());
}

TEST(H2, ManyStreamsShareFairly) {
  H2 t;
  Inbound r[10];
  for (auto& i : r) t.client->SendHead(t.client->Open(&i), t.Get(), true);
  t.Run();
  for (auto& [id, q] : t.host.streams) {
    t.server->SendHead(id, Head({{":status", "200"}}), false);
    io::Buffer b;
    b.Append(std::string(60000, 'z'));
    t.server->SendBody(id, b, b.size(), false);
  }
  io::Buffer out;
  t.server->Emit(out);  // stops near 256 KiB
  EXPECT_TRUE(t.server->wants_emit());
  t.client->Feed(out);
  for (auto& i : r) EXPECT_GT(i.body.size(), 10000u);
}

TEST(H2, AHundredStreamsStayOpenBothWays) {
  Limits l;
  l.allow_connect_protocol = true;
  H2 t(l);
  Inbound r[100];
  StreamId ids[100];
  for (int i = 0; i < 100; ++i) {
    ids[i] = t.client->Open(&r[i]);
    t.client->SendHead(ids[i], t.Post("/stream"), false);
  }
  t.Run();
  for (auto& [id, q] : t.host.streams) t.server->SendHead(id, Head({{":status", "200"}}), false);
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 100; ++i) {
      io::Buffer b;
      b.Append(std::string(1000, 'a'));
      ASSERT_GE(t.client->SendRoom(ids[i]), 1000u);
      t.client->SendBody(ids[i], b, 1000, false);
    }
    t.Run();
    for (auto& [id, q] : t.host.streams) {
      ASSERT_EQ(q->body.size(), 1000u);
      t.server->SendBody(id, q->body, 1000, false);
      t.server->Consumed(id, 1000);
    }
    t.Run();
    for (int i = 0; i < 100; ++i) {
      ASSERT_EQ(r[i].body.size(), 1000u);
      r[i].body.Clear();
      t.client->Consumed(ids[i], 1000);
    }
  }
  EXPECT_EQ(t.server->active_streams(), 100u);
}

}  // namespace
}  // namespace weft::codec
