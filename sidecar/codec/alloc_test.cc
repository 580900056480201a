// The steady state allocates nothing on our side: warm connections reuse what they hold. (nghttp2's own malloc is not
// counted.)
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"

namespace {
uint64_t allocations = 0;
}

void* operator new(size_t n) {
  ++allocations;
  if (void* p = malloc(n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }

namespace weft::codec {
namespace {

using http::Token;

// One Inbound for every stream, as an exchange from a slab would offer.
struct OneHost : StreamHost {
  Inbound in;
  StreamId id = 0;
  Inbound* OnNewStream(StreamId i) override {
    id = i;
    Clear(in);
    return &in;
  }
  static void Clear(Inbound& i) {
    i.bits = 0, i.body_bytes = 0;
    i.head.Clear(), i.trailers.Clear(), i.interim.Clear(), i.body.Clear();
  }
};

uint64_t AllocationsOfWarmRequests(bool h2, bool sized) {
  OneHost host;
  auto client = h2 ? NewHttp2Client({}) : NewHttp1Client({});
  auto server = h2 ? NewHttp2Server({}, &host) : NewHttp1Server({}, &host);
  http::HeaderMap request, answer;
  request.Add(Token::kMethod, "POST"), request.Add(Token::kScheme, "http"), request.Add(Token::kAuthority, "cart.shop:8000"), request.Add(Token::kPath, "/items/42?full=1");
  request.Add(Token::kUserAgent, "test/1.0"), request.Add("x-some-custom-header", "a value of some length, longer than a short string");
  request.Add(Token::kXRequestId, "0b6a4f3e-8f0b-4c1e-9d55-3f1f0d2f9a10"), request.Add(Token::kCookie, "session=0123456789abcdef0123456789abcdef");
  answer.Add(Token::kStatus, "200"), answer.Add(Token::kContentType, "application/json"), answer.Add("x-answer", "yes");
  if (sized) request.Add(Token::kContentLength, "2000"), answer.Add(Token::kContentLength, "2000");
  Inbound in;
  io::Buffer up, down, body;
  const std::string text(2000, 'b');
  uint64_t counted = 0;
  for (int i = 0; i < 300; ++i) {
    if (i == 100) allocations = 0;
    OneHost::Clear(in);
    const StreamId id = client->Open(&in);
    client->SendHead(id, request, false);
    body.Append(text);
    client->SendBody(id, body, body.size(), true);
    client->Emit(up);
    server->Feed(up);
    EXPECT_TRUE(host.in.bits & Inbound::kEnd);
    server->ready().clear();
    server->Consumed(host.id, host.in.body.size());
    server->SendHead(host.id, answer, false);
    server->SendBody(host.id, host.in.body, host.in.body.size(), true);
    server->Release(host.id);
    server->Emit(down);
    client->Feed(down);
    EXPECT_TRUE(in.bits & Inbound::kEnd);
    EXPECT_EQ(in.body.size(), 2000u);
    client->ready().clear();
    client->Consumed(id, in.body.size());
    client->Release(id);
    client->Emit(up);
    counted = allocations;
  }
  return counted;
}

TEST(Allocations, Http1) {
  EXPECT_EQ(AllocationsOfWarmRequests(false, true), 0u);
  EXPECT_EQ(AllocationsOfWarmRequests(false, false), 0u);
}

TEST(Allocations, Http2) {
  EXPECT_EQ(AllocationsOfWarmRequests(true, true), 0u);
  EXPECT_EQ(AllocationsOfWarmRequests(true, false), 0u);
}

}  // namespace
}  // namespace weft::codec
