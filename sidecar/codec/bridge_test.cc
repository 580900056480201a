// Translation between the protocols: a client codec, a server codec, a relay as thin as can be, a client codec, a
// server codec. What arrives at the far end, and what comes back, for every pair.
#include <gtest/gtest.h>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"

namespace weft::codec {
namespace {

using http::HeaderMap;
using http::Token;
using testing::Head;

struct Bridge {
  testing::Pair left, right;  // caller <-> our downstream side; our upstream side <-> callee
  Inbound answer, upstream;   // at the caller; at our upstream side
  StreamId call = 0, forward = 0;
  bool head_up = false, end_up = false, head_down = false, end_down = false;

  Bridge(bool h2_left, bool h2_right) {
    Limits l;
    l.allow_connect_protocol = true;
    left.client = h2_left ? NewHttp2Client(l) : NewHttp1Client(l);
    left.server = h2_left ? NewHttp2Server(l, &left.host) : NewHttp1Server(l, &left.host);
    right.client = h2_right ? NewHttp2Client(l) : NewHttp1Client(l);
    right.server = h2_right ? NewHttp2Server(l, &right.host) : NewHttp1Server(l, &right.host);
    left.Run(), right.Run();
    call = left.client->Open(&answer);
  }
  Inbound& request() { return left.host.at(left.host.last); }  // at our downstream side
  Inbound& callee() { return right.host.at(right.host.last); }
  // One direction of the relay.
  static void Relay(Codec& from, StreamId from_id, Inbound& in, Codec& to, StreamId to_id, bool& head, bool& end) {
    if (!(in.bits & Inbound::kHead) || end) return;
    const bool last = in.bits & Inbound::kEnd, trailers = in.bits & Inbound::kTrailers;
    if (!head) {
      head = true;
      end = last && in.body.empty() && !trailers;
      to.SendHead(to_id, in.head, end);
      if (end) return;
    }
    const size_t n = std::min(in.body.size(), to.SendRoom(to_id));
    end = last && n == in.body.size() && !trailers;
    if (n > 0 || end) to.SendBody(to_id, in.body, n, end);
    from.Consumed(from_id, n);
    if (last && trailers && in.body.empty()) to.SendTrailers(to_id, in.trailers), end = true;
  }
  void Run() {
    for (int i = 0; i < 20; ++i) {
      left.Run();
      if (left.host.last != 0) {
        if (forward == 0 && (request().bits & Inbound::kHead)) {
          forward = right.client->Open(&upstream);
          http::HeaderMap& head = request().head;  // HTTP/1 has no scheme: the proxy's part
          if (!head.Has(Token::kScheme) && head.Has(Token::kPath)) head.Add(Token::kScheme, "http");
        }
        if (forward != 0) {
          Relay(*left.server, left.host.last, request(), *right.client, forward, head_up, end_up);
          Relay(*right.client, forward, upstream, *left.server, left.host.last, head_down, end_down);
        }
        if ((upstream.bits & Inbound::kReset) && !end_down) left.server->Reset(left.host.last, ResetCode::kInternal), end_down = true;
      }
      right.Run();
      // Both ends read what they get.
      if (right.host.last != 0) {
        right.server->Consumed(right.host.last, callee().body.size());
        callee().body.Clear();
      }
      left.client->Consumed(call, answer.body.size());
      answer.body.Clear();
    }
  }
};

std::string Text(const HeaderMap& h) {
  std::string s;
  for (const auto& e : h) {
    if (e.name()[0] != ':') s.append(e.name()).append("=").append(e.value()).append(";");
  }
  return s;
}

TEST(Bridge, RequestsAndAnswersOfEveryBodyKind) {
  for (int pair = 0; pair < 4; ++pair) {
    for (int kind = 0; kind < 12; ++kind) {
      SCOPED_TRACE(std::to_string(pair) + "/" + std::to_string(kind));
      const bool body = kind % 4 != 0, sized = kind % 4 == 1, trailers = kind % 4 == 3;
      const size_t size = kind < 4 ? 5 : kind < 8 ? 70000 : 0;  // an empty body is a body too
      Bridge b(pair & 1, pair & 2);
      HeaderMap head = Head({{":method", body ? "PUT" : "GET"}, {":scheme", "http"}, {":authority", "cart"}, {":path", "/x?y=z"}, {"x-a", "1"}, {"cookie", "c=d"}});
      if (sized) head.Add("content-length", std::to_string(size));
      const std::string text(size, 'q');
      io::Buffer data;
      b.left.client->SendHead(b.call, head, !body);
      for (size_t at = 0; body && at < size;) {
        const size_t n = std::min(size - at, b.left.client->SendRoom(b.call));
        data.Append(std::string_view(text).substr(at, n));
        at += n;
        b.left.client->SendBody(b.call, data, n, false);
        b.Run();
      }
      if (trailers) {
        b.left.client->SendTrailers(b.call, Head({{"x-sum", "9"}}));
      } else if (body) {
        b.left.client->SendBody(b.call, data, 0, true);
      }
      b.Run();
      Inbound& q = b.callee();
      EXPECT_TRUE(q.bits & Inbound::kEnd);
      EXPECT_EQ(q.head.Value(Token::kAuthority), "cart");
      EXPECT_EQ(q.head.Value(Token::kPath), "/x?y=z");
      EXPECT_EQ(q.head.Get(Token::kCookie), "c=d");
      EXPECT_EQ(q.body_bytes, body ? size : 0);
      EXPECT_EQ(Text(q.trailers), trailers ? "x-sum=9;" : "");

      HeaderMap reply = Head({{":status", "200"}, {"x-b", "2"}});
      if (sized) reply.Add("content-length", std::to_string(size));
      b.right.server->SendHead(b.right.host.last, reply, !body);
      for (size_t at = 0; body && at < size;) {
        const size_t n = std::min(size - at, b.right.server->SendRoom(b.right.host.last));
        data.Append(std::string_view(text).substr(at, n));
        at += n;
        b.right.server->SendBody(b.right.host.last, data, n, false);
        b.Run();
      }
      if (trailers) {
        b.right.server->SendTrailers(b.right.host.last, Head({{"grpc-status", "0"}}));
      } else if (body) {
        b.right.server->SendBody(b.right.host.last, data, 0, true);
      }
      b.Run();
      EXPECT_TRUE(b.answer.bits & Inbound::kEnd);
      EXPECT_FALSE(b.answer.bits & Inbound::kReset);
      EXPECT_EQ(b.answer.head.Value(Token::kStatus), "200");
      EXPECT_EQ(b.answer.body_bytes, body ? size : 0);
      EXPECT_EQ(Text(b.answer.trailers), trailers ? "grpc-status=0;" : "");
    }
  }
}

TEST(Bridge, WebSocketsAcrossEveryPair) {
  for (int pair = 0; pair < 4; ++pair) {
    SCOPED_TRACE(pair);
    Bridge b(pair & 1, pair & 2);
    b.left.client->SendHead(b.call, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":authority", "chat"}, {":path", "/ws"}, {"sec-websocket-protocol", "v1"}}), false);
    b.Run();
    Inbound& q = b.callee();
    EXPECT_EQ(q.bits, Inbound::kHead);
    EXPECT_EQ(q.head.Value(Token::kProtocol), "websocket");
    EXPECT_EQ(q.head.Get("sec-websocket-protocol"), "v1");
    EXPECT_FALSE(q.head.Get("sec-websocket-key"));
    b.right.server->SendHead(b.right.host.last, Head({{":status", "200"}, {"sec-websocket-protocol", "v1"}}), false);
    b.Run();
    EXPECT_EQ(b.answer.bits, Inbound::kHead | Inbound::kUpgraded);
    EXPECT_EQ(Text(b.answer.head), "sec-websocket-protocol=v1;");
    uint64_t sent = 0;
    for (int i = 0; i < 50; ++i) {
      io::Buffer data;
      data.Append(std::string(3000, 'w'));
      b.left.client->SendBody(b.call, data, 3000, false);
      data.Append(std::string(2000, 'v'));
      b.right.server->SendBody(b.right.host.last, data, 2000, false);
      b.Run();
      sent += 1;
      ASSERT_EQ(q.body_bytes, sent * 3000);
      ASSERT_EQ(b.answer.body_bytes, sent * 2000);
    }
  }
}

// A cut answer must look cut: a reset in HTTP/2, no last chunk in HTTP/1, never a clean end.
TEST(Bridge, TruncatedAnswers) {
  for (int pair = 0; pair < 4; ++pair) {
    SCOPED_TRACE(pair);
    Bridge b(pair & 1, pair & 2);
    b.left.client->SendHead(b.call, Head({{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}}), true);
    b.Run();
    b.right.server->SendHead(b.right.host.last, Head({{":status", "200"}}), false);
    io::Buffer data;
    data.Append("half");
    b.right.server->SendBody(b.right.host.last, data, 4, false);
    b.Run();
    EXPECT_EQ(b.answer.body_bytes, 4u);
    b.right.client->FeedEof();  // the callee's connection is gone
    b.Run();
    if (b.left.client->is_http2()) {
      EXPECT_EQ(b.answer.bits, Inbound::kHead | Inbound::kReset);
    } else {
      EXPECT_TRUE(b.left.server->closed());
      b.left.client->FeedEof();
      EXPECT_EQ(b.answer.bits, Inbound::kHead | Inbound::kReset);
      EXPECT_EQ(b.answer.reset, ResetCode::kTruncated);
    }
  }
}

}  // namespace
}  // namespace weft::codec
