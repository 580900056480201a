// A server's HTTP/1.1 codec may be lent to another connection exactly when nothing of this one is left in it.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "sidecar/codec/codec.h"

namespace weft::codec {
namespace {

constexpr char kGet[] = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

struct Host : StreamHost {
  Inbound* OnNewStream(StreamId id) override {
    ids.push_back(id);
    inbounds.push_back(std::make_unique<Inbound>());
    return inbounds.back().get();
  }
  std::vector<StreamId> ids;
  std::vector<std::unique_ptr<Inbound>> inbounds;
};

class Rest : public ::testing::Test {
 protected:
  bool Feed(const std::string& bytes) {
    in_.Append(bytes);
    bool ok = codec_->Feed(in_);
    codec_->ready().clear(), codec_->writable().clear();
    return ok;
  }
  std::string Answer(Host& host, const char* status = "200") {
    http::HeaderMap head;
    head.Add(http::Token::kStatus, status);
    codec_->SendHead(host.ids.back(), head, true);
    codec_->Release(host.ids.back());
    io::Buffer out;
    codec_->Emit(out);
    codec_->ready().clear(), codec_->writable().clear();
    codec_->Feed(in_);  // the connection's turn after an answer
    codec_->ready().clear();
    return out.ToString();
  }
  bool rests() const { return Http1ServerRests(*codec_); }

  Host host_;
  std::unique_ptr<Codec> codec_ = NewHttp1Server({}, &host_);
  io::Buffer in_;
};

TEST_F(Rest, BetweenMessagesAndThenServesAnotherAsANewOneWould) {
  EXPECT_TRUE(rests());
  Feed(kGet);
  EXPECT_FALSE(rests());
  EXPECT_TRUE(Answer(host_).starts_with("HTTP/1.1 200 OK\r\n"));
  ASSERT_TRUE(rests());

  Host other;
  Limits limits;
  limits.max_header_count = 1;
  LendHttp1Server(*codec_, limits, &other);
  Feed("GET /b HTTP/1.1\r\nHost: b.test\r\n\r\n");
  ASSERT_EQ(other.ids, std::vector<StreamId>{1});
  EXPECT_EQ(host_.ids.size(), 1u);
  EXPECT_EQ(other.inbounds[0]->head.Value(http::Token::kAuthority), "b.test");
  EXPECT_EQ(codec_->counters().streams, 1u);
  EXPECT_TRUE(Answer(other).starts_with("HTTP/1.1 200 OK\r\n"));
  Feed("GET /b HTTP/1.1\r\nHost: b.test\r\nX-A: 1\r\n\r\n");
  EXPECT_EQ(other.inbounds[1]->error_status, 431);  // by its own limits
}

TEST_F(Rest, NotInsideAMessage) {
  for (const char* part : {"\r", "\r\n", "G", "GET / HTTP/1.1\r\nHost"}) {
    codec_ = NewHttp1Server({}, &host_);
    in_.Clear();
    Feed(part);
    EXPECT_FALSE(rests()) << part;
  }
  codec_ = NewHttp1Server({}, &host_);
  in_.Clear();
  Feed("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nab");
  Answer(host_);  // early: the rest of the body is still thrown away
  EXPECT_FALSE(rests());
  Feed("cde");
  EXPECT_TRUE(rests());
}

TEST_F(Rest, NotWithTheNextRequestBegun) {
  Feed(std::string(kGet) + kGet);
  Answer(host_);
  EXPECT_EQ(host_.ids.size(), 2u);
  EXPECT_FALSE(rests());
  Answer(host_);
  EXPECT_TRUE(rests());
}

TEST_F(Rest, NotWhenTheConnectionEnds) {
  Feed("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
  Answer(host_);
  EXPECT_FALSE(rests());
  codec_ = NewHttp1Server({}, &host_);
  codec_->StartDrain();
  EXPECT_FALSE(rests());
  codec_ = NewHttp1Server({}, &host_);
  codec_->FeedEof();
  EXPECT_FALSE(rests());
  codec_ = NewHttp1Server({}, &host_);
  Feed("GET / HTTP/1.1\r\n\r\n");  // no Host
  Answer(host_, "400");
  EXPECT_FALSE(rests());
}

TEST_F(Rest, NotAfterATunnel) {
  Feed("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
  http::HeaderMap head;
  head.Add(http::Token::kStatus, "200");
  codec_->SendHead(1, head, false);
  io::Buffer nothing;
  codec_->SendBody(1, nothing, 0, true);
  codec_->Release(1);
  io::Buffer out;
  codec_->Emit(out);
  codec_->ready().clear(), codec_->writable().clear();
  EXPECT_FALSE(rests());
}

}  // namespace
}  // namespace weft::codec
