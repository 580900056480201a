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

// Slow heads are cut after ten seconds (Slowloris), but a pool's spare connection, which has said nothing yet, is no slow head.
TEST_P(IdleTimes, OfASilentConnectionAreThoseOfAnyOther) {
  mesh_.hcm.common.idle_timeout_ns = 100 * base::kSecond;
  Begin();
  stage_->caller().hold = true;  // HTTP/2's preface too
  stage_->Settle();
  stage_->Wait(90 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  stage_->caller().hold = false;
  AskAndAnswer();
  stage_->Wait(90 * base::kSecond);
  AskAndAnswer();
  Peer& spare = stage_->Open();
  spare.hold = true;
  stage_->Wait(101 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

TEST_P(IdleTimes, ASilentConnectionDoesNotHoldUpADrain) {
  Begin();
  Peer& spare = stage_->Open();
  spare.hold = true;
  AskAndAnswer();
  EXPECT_EQ(stage_->worker().active_connections(), 2u);
  stage_->core().StartDrain(600 * base::kSecond);
  stage_->Settle();
  stage_->Wait(5 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

TEST_P(IdleTimes, AConnectionThatIsOldEnoughEnds) {
  mesh_.hcm.common.max_connection_duration_ns = 30 * base::kSecond;
  Begin();
  stage_->Wait(10 * base::kSecond);
  Peer& spare = stage_->Open();  // says nothing at all
  spare.hold = true;
  AskAndAnswer();
  stage_->Wait(15 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 2u);
  Peer::Message* m = Ask();
  stage_->Wait(10 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 2u);  // it is being answered
  Answer();
  EXPECT_EQ(m->in.head.Value(Token::kStatus), "200");
  stage_->Wait(3 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  stage_->Wait(5 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

TEST_P(IdleTimes, AnIdleConnectionThatIsOldEnoughEnds) {
  mesh_.hcm.common.max_connection_duration_ns = 30 * base::kSecond;
  Begin();
  AskAndAnswer();
  stage_->Wait(33 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

TEST_P(IdleTimes, AfterItsLastRequestAConnectionEnds) {
  mesh_.hcm.common.max_requests_per_connection = 2;
  Begin();
  AskAndAnswer();
  stage_->Wait(3 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 1u);
  AskAndAnswer();
  stage_->Wait(3 * base::kSecond);
  EXPECT_EQ(stage_->worker().active_connections(), 0u);
}

// A default timeout is over once the response has begun, also when the request ends after that.
TEST_P(IdleTimes, TheDefaultTimeoutLeavesAStreamAloneThatWasAnsweredEarly) {
  for (bool is_set : {false, true}) {
    mesh_.forward().timeout_ns = 10 * base::kSecond, mesh_.forward().timeout_set = is_set;
    mesh_.clusters.clear();
    mesh_.AddCluster("app", {}).protocol = model::Cluster::kHttp1;
    stage_ = std::make_unique<Stage>(&mesh_, GetParam(), false);
    stage_->Open();
    http::HeaderMap head;
    head.Add(Token::kMethod, "POST"), head.Add(Token::kScheme, "http"), head.Add(Token::kAuthority, "shop.test"), head.Add(Token::kPath, "/");
    Peer::Message* m = stage_->caller().NewRequest();
    stage_->caller().codec->SendHead(m->id, head, false);
    stage_->Settle();
    Stage::Served s = stage_->served();
    ASSERT_TRUE(s.peer);
    http::HeaderMap answer;
    answer.Add(Token::kStatus, "200");
    s.peer->codec->SendHead(s.message->id, answer, false);
    stage_->Settle();
    io::Buffer last;
    last.Append("last");
    stage_->caller().codec->SendBody(m->id, last, last.size(), true);
    stage_->Settle();
    stage_->Wait(11 * base::kSecond);
    EXPECT_EQ(m->in.head.Value(Token::kStatus), "200");
    EXPECT_EQ(stage_->worker().active_requests(), is_set ? 0u : 1u) << "a timeout that the route names goes on";
    stage_->CloseCallers(), stage_->CloseServers();
    stage_->Settle();
    EXPECT_EQ(stage_->worker().active_requests(), 0u);
  }
}

// The beginning of HTTP/2's preface, and no more of it: a head of HTTP/1 that does not come in time.
TEST(HeadTimes, AFewBytesAreTheBeginningOfAHead) {
  Mesh mesh;
  mesh.AddCluster("app", {});
  Stage stage(&mesh, false, false);
  Peer& caller = stage.Open();
  Peer::Message* m = caller.NewRequest();
  http::HeaderMap head;
  head.Add(Token::kMethod, "PRINT"), head.Add(Token::kScheme, "http"), head.Add(Token::kAuthority, "shop.test"), head.Add(Token::kPath, "/");
  caller.codec->SendHead(m->id, head, true);
  caller.AppendWire(caller.TakeOutput().substr(0, 2));
  stage.Settle();
  stage.Wait(9 * base::kSecond);
  EXPECT_FALSE(m->head());
  stage.Wait(2 * base::kSecond);
  EXPECT_EQ(m->in.head.Value(Token::kStatus), "408");
  stage.Wait(3 * base::kSecond);
  EXPECT_EQ(stage.worker().active_connections(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Http1AndHttp2, IdleTimes, ::testing::Bool());

}  // namespace
}  // namespace weft::proxy::testing
