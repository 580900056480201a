// Timers outlive requests and are armed anew only when they fire: idle times must count from the last activity all the same.
#include <gtest/gtest.h>

#include "sidecar/proxy/testing/stage.h"

namespace weft::proxy::testing {
namespace {

using http::Token;

class IdleTimes : public ::testing::TestWithParam<bool> {
 protected:
  void Begin() {
    mesh_.AddCluster("app", {}).protocol = model::Cluster::kHttp1;
    mesh_.forward().timeout_ns = 0, mesh_.forward().timeout_set = true;
    stage_ = std::make_unique<Stage>(&mesh_, GetParam(), false);
    stage_->Open();
  }
  Peer::Message* Ask() {
    http::HeaderMap head;
    head.Add(Token::kMethod, "GET"), head.Add(Token::kScheme, "http"), head.Add(Token::kAuthority, "shop.test"), head.Add(Token::kPath, "/");
    Peer::Message* m = stage_->caller().NewRequest();
    stage_->caller().codec->SendHead(m->id, head, true);
    m->answered = true;  // over once the answer has ended
    stage_->Settle();
    return m;
  }
  void Answer() {
    Stage::Served s = stage_->served();
    ASSERT_TRUE(s.peer);
    http::HeaderMap head;
    head.Add(Token::kStatus, "200");
    s.peer->codec->SendHead(s.message->id, head, true);
    s.message->answered = true;
    stage_->Settle();
  }
  void AskAndAnswer() {
    Peer::Message* m = Ask();
    Answer();
    EXPECT_EQ(m->in.head.Value(Token::kStatus), "200");
  }
  Mesh mesh_;
  std::unique_ptr<Stage> stage_;
};

TEST_P(IdleTimes, OfAConnectionCountFromItsLastRequest) {
  mesh_.hcm.common.idle_timeout_ns = 20 * base::kSecond;
  Begin();
  AskAndAnswer();
  stage_->Wait(15 * base::kSecond);
  AskAndAnswer();
  stage_->Wait(15 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  Ask();
  stage_->Wait(25 * base::kSecond);  // the answer takes its time: that is not idle
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  Answer();
  stage_->Wait(18 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  stage_->Wait(5 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

TEST_P(IdleTimes, OfAPooledConnectionToo) {
  Begin();
  for (int i = 0; i < 4; ++i) {
    AskAndAnswer();
    EXPECT_EQ(stage_->server_connections(), 1u);
    stage_->Wait(50 * base::kSecond);  // of 60
  }
  EXPECT_EQ(stage_->server_connections(), 1u);
  stage_->Wait(15 * base::kSecond);
  EXPECT_EQ(stage_->server_connections(), 0u);
}

TEST_P(IdleTimes, OfAStreamAreItsOwn) {
  mesh_.hcm.stream_idle_timeout_ns = 20 * base::kSecond;
  Begin();
  AskAndAnswer();
  stage_->Wait(15 * base::kSecond);
  Peer::Message* m = Ask();  // in the place of the first, whose timer is still armed
  stage_->Wait(18 * base::kSecond);
  EXPECT_FALSE(m->head());
  stage_->Wait(3 * base::kSecond);
  EXPECT_EQ(m->in.head.Value(Token::kStatus), "504");
}

TEST_P(IdleTimes, OfAStreamMayBecomeShorter) {
  mesh_.hcm.stream_idle_timeout_ns = 300 * base::kSecond;
  Begin();
  AskAndAnswer();
  mesh_.forward().idle_timeout_ns = 5 * base::kSecond;
  stage_->Publish();
  Peer::Message* m = Ask();
  stage_->Wait(4 * base::kSecond);
  EXPECT_FALSE(m->head());
  stage_->Wait(2 * base::kSecond);
  EXPECT_EQ(m->in.head.Value(Token::kStatus), "504");
}

INSTANTIATE_TEST_SUITE_P(Http1AndHttp2, IdleTimes, ::testing::Bool());

}  // namespace
}  // namespace weft::proxy::testing
