// HTTP/1.1 client and server codecs talking to each other.
#include <gtest/gtest.h>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"
#include "sidecar/codec/websocket.h"

namespace weft::codec {
namespace {

using http::HeaderMap;
using http::Token;
using testing::Head;
using testing::Take;

struct H1 : testing::Pair {
  explicit H1(Limits limits = {}) {
    client = NewHttp1Client(limits);
    server = NewHttp1Server(limits, &host);
  }
};

constexpr uint16_t kHeadEnd = Inbound::kHead | Inbound::kEnd;

TEST(Http1, KeepAliveRequestsOfEveryBodyKind) {
  for (const size_t step : {size_t{1}, size_t{3}, size_t{100000}}) {
    H1 t;
    t.step = step;
    for (int round = 0; round < 8; ++round) {
      Inbound r;
      const StreamId id = t.client->Open(&r);
      ASSERT_EQ(id, round + 1);
      const bool body = round & 1, sized = round & 2, trailers = round & 4;
      HeaderMap head = Head({{":method", body ? "POST" : "GET"}, {":authority", "cart:80"}, {":path", "/x?y"}, {"x-a", "1"}, {"host", "other"}});
      if (body && sized) head.Add("content-length", "5");
      t.client->SendHead(id, head, !body);
      io::Buffer b;
      if (body) {
        b.Append("hello");
        t.client->SendBody(id, b, 2, false);
        if (trailers) {
          t.client->SendBody(id, b, 3, false);
          t.client->SendTrailers(id, Head({{"x-sum", "9"}, {"authorization", "no"}}));
        } else {
          t.client->SendBody(id, b, 3, true);
        }
      }
      t.Run();
      Inbound& q = t.host.at(id);
      EXPECT_EQ(q.bits, kHeadEnd | (body && !sized && trailers ? Inbound::kTrailers : 0)) << round;
      EXPECT_EQ(q.body.ToString(), body ? "hello" : "");
      EXPECT_EQ(q.trailers.ToString(), q.bits & Inbound::kTrailers ? "x-sum: 9\n" : "");
      EXPECT_EQ(q.head.ToString(), std::string(":method: ") + (body ? "POST" : "GET") + "\n:authority: cart:80\n:path: /x?y\nx-a: 1\n" +
                                       (body && sized ? "content-length: 5\n" : ""));
      HeaderMap answer = Head({{":status", "200"}, {"connection", "close"}, {"x-b", "2"}});
      if (sized) answer.Add("content-length", "3");
      t.server->SendHead(id, answer, false);
      b.Append("abc");
      t.server->SendBody(id, b, 3, !trailers);
      if (trailers) t.server->SendTrailers(id, Head({{"grpc-status", "0"}}));
      t.server->Release(id);
      t.Run();
      EXPECT_EQ(r.bits, kHeadEnd | (!sized && trailers ? Inbound::kTrailers : 0)) << round;
      EXPECT_EQ(r.body.ToString(), "abc");
      EXPECT_EQ(r.head.Get("x-b"), "2");
      EXPECT_FALSE(r.head.Has(Token::kConnection));
      t.client->Release(id);
    }
    EXPECT_FALSE(t.client->closed());
    EXPECT_FALSE(t.server->closed());
  }
}

TEST(Http1, BodilessAnswers) {
  H1 t;
  const struct { const char *method, *status, *wire; } rows[] = {
      {"HEAD", "200", "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n"},
      {"GET", "204", "HTTP/1.1 204 No Content\r\n\r\n"},
      {"GET", "304", "HTTP/1.1 304 Not Modified\r\n\r\n"},
  };
  for (const auto& row : rows) {
    Inbound r;
    const StreamId id = t.client->Open(&r);
    ASSERT_GT(id, 0) << row.status;
    t.client->SendHead(id, Head({{":method", row.method}, {":authority", "a"}, {":path", "/"}}), true);
    t.Run();
    t.server->SendHead(id, Head({{":status", row.status}, {"content-length", "12"}}), false);
    io::Buffer b;
    b.Append("twelve bytes");
    t.server->SendBody(id, b, 12, true);
    t.server->Release(id);
    io::Buffer out;
    t.server->Emit(out);
    EXPECT_EQ(out.ToString(), row.wire);
    t.client->Feed(out);
    EXPECT_EQ(r.bits, kHeadEnd);
    t.client->Release(id);
  }
}

TEST(Http1, WebSocketBothWaysAndHalfClose) {
  for (const size_t step : {size_t{1}, size_t{100000}}) {
    H1 t;
    t.step = step;
    Inbound r;
    const StreamId id = t.client->Open(&r);
    t.client->SendHead(id, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":authority", "chat"}, {":path", "/ws"}, {"sec-websocket-protocol", "v1"}}), false);
    EXPECT_EQ(t.client->SendRoom(id), 0u);  // not before the 101
    t.Run();
    Inbound& q = t.host.at(id);
    EXPECT_EQ(q.bits, Inbound::kHead);
    EXPECT_EQ(q.head.ToString(), ":method: CONNECT\n:authority: chat\n:path: /ws\nsec-websocket-protocol: v1\nsec-websocket-version: 13\n:protocol: websocket\n");
    t.server->SendHead(id, Head({{":status", "200"}, {"sec-websocket-protocol", "v1"}}), false);
    t.Run();
    EXPECT_EQ(r.bits, Inbound::kHead | Inbound::kUpgraded);
    EXPECT_EQ(r.head.ToString(), ":status: 200\nsec-websocket-protocol: v1\n");
    ASSERT_EQ(t.client->writable().size(), 1u);
    io::Buffer b;
    b.Append("ping");
    t.client->SendBody(id, b, 4, false);
    b.Append("pong");
    t.server->SendBody(id, b, 4, false);
    t.Run();
    EXPECT_EQ(q.body.ToString(), "ping");
    EXPECT_EQ(r.body.ToString(), "pong");
    t.client->SendBody(id, b, 0, true);
    EXPECT_TRUE(t.client->write_closed());
    EXPECT_TRUE(t.server->FeedEof());
    EXPECT_TRUE(q.bits & Inbound::kEnd);
    EXPECT_FALSE(t.server->closed());
    b.Append("bye");
    t.server->SendBody(id, b, 3, true);
    t.Run();
    EXPECT_TRUE(t.server->closed());
    EXPECT_EQ(r.body.ToString(), "pongbye");
    EXPECT_FALSE(t.client->FeedEof());
    EXPECT_TRUE(r.bits & Inbound::kEnd);
    EXPECT_TRUE(t.client->closed());
  }
}

TEST(Http1, WebSocketRefused) {
  H1 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":authority", "chat"}, {":path", "/ws"}}), false);
  t.Run();
  t.server->SendHead(id, Head({{":status", "403"}}), true);
  t.server->Release(id);
  t.Run();
  EXPECT_EQ(r.bits, kHeadEnd);
  EXPECT_EQ(r.head.Value(Token::kStatus), "403");
  EXPECT_TRUE(t.server->closed());
  t.client->Release(id);
  EXPECT_TRUE(t.client->closed());
}

TEST(Http1, ConnectTunnel) {
  H1 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "CONNECT"}, {":authority", "db:5432"}}), false);
  t.Run();
  EXPECT_EQ(t.host.at(id).head.ToString(), ":method: CONNECT\n:authority: db:5432\n");
  t.server->SendHead(id, Head({{":status", "200"}}), false);
  t.Run();
  EXPECT_EQ(r.bits, Inbound::kHead | Inbound::kUpgraded);
  io::Buffer b;
  b.Append("q");
  t.client->SendBody(id, b, 1, false);
  t.Run();
  EXPECT_EQ(t.host.at(id).body.ToString(), "q");
}

TEST(Http1, RfcHandshakeExample) {
  char accept[kWebSocketAcceptLength], key[kWebSocketKeyLength];
  EXPECT_EQ(WebSocketAccept("dGhlIHNhbXBsZSBub25jZQ==", accept), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  EXPECT_TRUE(ValidWebSocketKey(NewWebSocketKey(key)));
  EXPECT_FALSE(ValidWebSocketKey("dGhlIHNhbXBsZSBub25jZQ="));
}

TEST(Http1, SlowReaderIsBounded) {
  Limits l;
  l.max_buffered_per_stream = 16 * 1024;
  H1 t(l);
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "POST"}, {":authority", "a"}, {":path", "/"}}), false);
  io::Buffer in;
  size_t sent = 0;
  for (int i = 0; i < 10; ++i) {
    const size_t n = t.client->SendRoom(id);
    io::Buffer b;
    b.Append(std::string(n, 'x'));
    t.client->SendBody(id, b, n, false);
    EXPECT_EQ(t.client->SendRoom(id), 0u);
    sent += n;
    t.client->Emit(in);
    ASSERT_EQ(t.client->writable().size(), 1u);
    t.client->writable().clear();
    EXPECT_TRUE(t.server->Feed(in));
  }
  Inbound& q = t.host.at(id);
  EXPECT_EQ(q.body.size(), l.max_buffered_per_stream);
  EXPECT_GT(in.size(), 100000u);  // waits in the connection's buffer, which stops reading
  io::Buffer none;
  t.client->SendBody(id, none, 0, true);
  t.client->Emit(in);
  EXPECT_TRUE(t.server->FeedEof());  // the end of input does not overtake what waits before it
  while (!(q.bits & Inbound::kEnd)) {
    ASSERT_FALSE(q.body.empty());
    q.body.Clear();
    t.server->Feed(in);
  }
  EXPECT_EQ(q.body_bytes, sent);
  EXPECT_FALSE(q.bits & Inbound::kReset);
}

TEST(Http1, PipelinedRequestsWaitTheirTurnAndEofEndsAfterTheLast) {
  Limits l;
  testing::Host host;
  auto s = NewHttp1Server(l, &host);
  io::Buffer in, out;
  in.Append("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(s->Feed(in));
  EXPECT_EQ(host.last, 1);
  EXPECT_TRUE(s->FeedEof());
  s->SendHead(1, Head({{":status", "200"}}), true);
  s->Release(1);
  EXPECT_FALSE(s->closed());
  EXPECT_TRUE(s->Feed(in));
  EXPECT_EQ(host.last, 2);
  EXPECT_EQ(host.at(2).head.Value(Token::kPath), "/2");
  s->SendHead(2, Head({{":status", "200"}}), true);
  s->Release(2);
  s->Emit(out);
  EXPECT_TRUE(s->closed());
  EXPECT_EQ(out.ToString(), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

TEST(Http1, EarlyAnswerDrainsASmallBodyAndClosesOnALargeOne) {
  for (const size_t size : {size_t{1000}, size_t{200000}}) {
    testing::Host host;
    auto s = NewHttp1Server({}, &host);
    io::Buffer in, out;
    in.Append("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n");
    s->Feed(in);
    s->SendHead(1, Head({{":status", "413"}}), true);
    s->Release(1);
    in.Append(std::string(size, 'b'));
    in.Append("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    s->Feed(in);
    s->Emit(out);
    EXPECT_EQ(s->closed(), size > 65536);
    EXPECT_EQ(host.last, size > 65536 ? 1 : 2);
  }
}

TEST(Http1, EarlyAnswerIsDeliveredAndTheClientConnectionNotReused) {
  H1 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "POST"}, {":authority", "a"}, {":path", "/"}}), false);
  t.Run();
  t.server->SendHead(id, Head({{":status", "413"}}), true);
  t.server->Release(id);
  t.Run();
  EXPECT_EQ(r.bits, kHeadEnd);
  t.client->Release(id);
  EXPECT_EQ(t.client->OpenRoom(), 0u);
  EXPECT_TRUE(t.client->closed());
}

TEST(Http1, ResetAndRelease) {
  H1 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "GET"}, {":authority", "a"}, {":path", "/"}}), true);
  t.Run();
  EXPECT_EQ(t.client->ready().size(), 0u);
  ASSERT_EQ(t.server->ready().size(), 1u);
  t.server->Reset(id, ResetCode::kInternal);
  EXPECT_TRUE(t.server->ready().empty());
  EXPECT_TRUE(t.server->closed());
  EXPECT_FALSE(t.client->FeedEof());
  EXPECT_EQ(r.bits, Inbound::kReset);
  EXPECT_EQ(r.reset, ResetCode::kConnectionLost);
}

TEST(Http1, DrainSaysClose) {
  H1 t;
  Inbound r;
  const StreamId id = t.client->Open(&r);
  t.client->SendHead(id, Head({{":method", "GET"}, {":authority", "a"}, {":path", "/"}}), true);
  t.Run();
  t.server->StartDrain();
  t.server->SendHead(id, Head({{":status", "200"}}), true);
  t.server->Release(id);
  t.Run();
  EXPECT_TRUE(t.server->closed());
  EXPECT_EQ(r.bits, kHeadEnd);
  EXPECT_TRUE(t.client->peer_going_away());
  t.client->Release(id);
  EXPECT_EQ(t.client->Open(&r), -1);
}

TEST(Http1, BodiesThatBreakTheirContentLength) {
  for (const size_t n : {size_t{2}, size_t{9}}) {
    testing::Host host;
    auto s = NewHttp1Server({}, &host);
    io::Buffer in, out, b;
    in.Append("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    s->Feed(in);
    s->SendHead(1, Head({{":status", "200"}, {"content-length", "5"}}), false);
    b.Append(std::string(n, 'x'));
    s->SendBody(1, b, n, true);
    s->Emit(out);
    EXPECT_TRUE(s->closed());
    EXPECT_TRUE(host.at(1).bits & Inbound::kReset);
    EXPECT_LE(out.ToString().size(), std::string("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").size() + 5);
  }
}

TEST(Http1, Http10) {
  Limits l;
  l.accept_http_10 = true;
  testing::Host host;
  auto s = NewHttp1Server(l, &host);
  io::Buffer in, out, b;
  in.Append("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  s->Feed(in);
  s->SendHead(1, Head({{":status", "200"}}), true);
  s->Release(1);
  in.Append("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
  s->Feed(in);
  s->SendHead(2, Head({{":status", "200"}}), false);
  b.Append("until eof");
  s->SendBody(2, b, 9, true);
  s->Release(2);
  s->Emit(out);
  EXPECT_EQ(out.ToString(),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\nHTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil eof");
  EXPECT_TRUE(s->closed());
}

TEST(Http1, ExpectContinueIsAnswered) {
  testing::Host host;
  auto s = NewHttp1Server({}, &host);
  io::Buffer in, out;
  in.Append("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
  s->Feed(in);
  s->Emit(out);
  EXPECT_EQ(out.ToString(), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_FALSE(host.at(1).head.Has(Token::kExpect));
}

TEST(Http1, ExpectContinueIsLeftToTheOwner) {
  testing::Host host;
  Limits l;
  l.answer_expect = false;
  auto s = NewHttp1Server(l, &host);
  io::Buffer in, out;
  in.Append("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
  s->Feed(in);
  s->Emit(out);
  EXPECT_EQ(out.ToString(), "");
  EXPECT_TRUE(host.at(1).head.Has(Token::kExpect));
  s->SendHead(1, Head({{":status", "100"}}), false);
  s->Emit(out);
  EXPECT_EQ(out.ToString(), "HTTP/1.1 100 Continue\r\n\r\n");
}

TEST(Http1, AnsweredBeforeTheHeadWasComplete) {
  testing::Host host;
  auto s = NewHttp1Server({}, &host);
  io::Buffer in, out;
  in.Append("GET / HTTP/1.1\r\nHo");
  s->Feed(in);
  ASSERT_EQ(host.last, 1);
  EXPECT_EQ(host.at(1).bits, 0);
  s->SendHead(1, Head({{":status", "408"}}), true);
  s->Release(1);
  s->Emit(out);
  EXPECT_TRUE(s->closed());
  in.Append("st: a\r\n\r\n");
  s->Feed(in);
  EXPECT_EQ(host.last, 1);
}

}  // namespace
}  // namespace weft::codec
