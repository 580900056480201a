#include "xds_server/delta/stream.h"

#include <gtest/gtest.h>

#include <random>

namespace weft::server {
namespace {

constexpr uint64_t kNow = 1'000'000'000;

std::shared_ptr<Snapshot> Make(std::map<Type, std::map<std::string, std::string>> content) {
  auto s = std::make_shared<Snapshot>();
  for (const auto& [t, m] : content) {
    for (const auto& [name, bytes] : m) Add(*s, t, name, bytes);
  }
  Seal(*s);
  return s;
}

StreamRequest Ask(Type t, std::vector<std::string> subscribe = {}) {
  StreamRequest q;
  q.type = t, q.subscribe = subscribe, q.names = subscribe;
  return q;
}

StreamRequest Ack(const Reply& r, std::vector<std::string> names = {}) {
  StreamRequest q;
  q.type = r.type, q.nonce = r.nonce, q.names = names;
  return q;
}

std::string Show(const std::vector<Reply>& replies) {
  std::string out;
  for (const Reply& r : replies) {
    out += std::string(TypeName(r.type)) + "[";
    for (const auto& x : r.resources) out += x->name + "=" + x->bytes + " ";
    for (const auto& x : r.removed) out += "-" + x + " ";
    if (out.back() == ' ') out.pop_back();
    out += "]";
  }
  return out;
}

TEST(Delta, SendsDifferencesOnly) {
  Stream s(Stream::kDelta);
  s.SetSnapshot(Make({{kCds, {{"a", "1"}, {"b", "1"}}}}));
  s.OnRequest(Ask(kCds), kNow);
  auto r = s.Take(kNow);
  EXPECT_EQ(Show(r), "cds[a=1 b=1]");
  EXPECT_EQ(Show(s.Take(kNow)), "");
  s.OnRequest(Ack(r[0]), kNow);
  s.SetSnapshot(Make({{kCds, {{"a", "1"}, {"b", "2"}, {"c", "1"}}}}));
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "cds[b=2 c=1]");
  // Coalesced: nothing while the answer is out, then one difference to the newest.
  s.SetSnapshot(Make({{kCds, {{"a", "3"}, {"c", "1"}}}}));
  EXPECT_EQ(Show(s.Take(kNow)), "");
  s.SetSnapshot(Make({{kCds, {{"a", "4"}, {"c", "1"}}}}));
  s.OnRequest(Ack(r[0]), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "cds[a=4 -b]");
}

TEST(Delta, NamesUnknownNamesAndReconnect) {
  Stream s(Stream::kDelta);
  auto snapshot = Make({{kEds, {{"a", "1"}, {"b", "1"}}}});
  s.SetSnapshot(snapshot);
  s.OnRequest(Ask(kEds, {"a", "x"}), kNow);
  auto r = s.Take(kNow);
  EXPECT_EQ(Show(r), "eds[a=1 -x]");
  s.OnRequest(Ack(r[0]), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "");
  s.SetSnapshot(Make({{kEds, {{"a", "1"}, {"b", "1"}, {"x", "9"}}}}));
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "eds[x=9]");
  s.OnRequest(Ack(r[0]), kNow);
  s.OnRequest(Ask(kEds, {"a"}), kNow);  // again: sent again
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "eds[a=1]");
  StreamRequest off;
  off.type = kEds, off.unsubscribe = {"a"};
  s.OnRequest(Ack(r[0]), kNow);
  s.OnRequest(off, kNow);
  s.SetSnapshot(Make({{kEds, {{"a", "2"}, {"x", "9"}}}}));
  EXPECT_EQ(Show(s.Take(kNow)), "");

  Stream again(Stream::kDelta);
  again.SetSnapshot(snapshot);
  StreamRequest first = Ask(kEds, {"a", "b", "gone"});
  first.initial_versions = {{"a", snapshot->Find(kEds, "a")->version}, {"b", "old"}, {"gone", "old"}};
  again.OnRequest(first, kNow);
  EXPECT_EQ(Show(again.Take(kNow)), "eds[b=1 -gone]");
}

TEST(Delta, EmptyWildcardIsAnswered) {
  Stream s(Stream::kDelta);
  s.SetSnapshot(Make({}));
  s.OnRequest(Ask(kLds), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "lds[]");
}

TEST(Delta, ARejectedResourceWaitsForItsNextContent) {
  Stream s(Stream::kDelta);
  s.SetSnapshot(Make({{kCds, {{"a", "bad"}}}}));
  s.OnRequest(Ask(kCds), kNow);
  auto r = s.Take(kNow);
  StreamRequest nack = Ack(r[0]);
  nack.nack = true, nack.error = "a: no";
  s.OnRequest(nack, kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "");
  ASSERT_TRUE(s.Status(kCds).nack);
  EXPECT_EQ(s.Status(kCds).nack->reason, "a: no");
  EXPECT_EQ(s.Status(kCds).nack->names, std::vector<std::string>{"a"});
  EXPECT_FALSE(s.Synced());
  s.SetSnapshot(Make({{kCds, {{"a", "bad"}, {"b", "1"}}}}));
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "cds[b=1]");
  s.SetSnapshot(Make({{kCds, {{"a", "good"}, {"b", "1"}}}}));
  s.OnRequest(Ack(r[0]), kNow);
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "cds[a=good]");
  s.OnRequest(Ack(r[0]), kNow);
  EXPECT_FALSE(s.Status(kCds).nack);
}

// Brings a stream to rest on `snapshot`, playing a client that subscribes to the endpoints of its clusters.
void Settle(Stream& s, bool sotw, std::set<std::string>& eds) {
  for (int round = 0; round < 20; ++round) {
    auto replies = s.Take(kNow);
    if (replies.empty()) return;
    for (const Reply& r : replies) {
      std::vector<std::string> names;
      if (sotw && r.type == kEds) names.assign(eds.begin(), eds.end());
      if (sotw && r.type == kRds) names = {"r"};
      s.OnRequest(Ack(r, names), kNow);
      if (r.type != kCds) continue;
      std::vector<std::string> fresh;
      for (const auto& x : r.resources) {
        if (eds.insert(x->name).second) fresh.push_back(x->name);
      }
      if (sotw) fresh.assign(eds.begin(), eds.end());
      if (!fresh.empty()) {
        StreamRequest q = Ask(kEds, fresh);
        s.OnRequest(q, kNow);
      }
    }
  }
}

class Order : public testing::TestWithParam<Stream::Variant> {};

TEST_P(Order, MakesBeforeItBreaks) {
  const bool sotw = GetParam() == Stream::kSotw;
  Stream s(GetParam());
  std::set<std::string> eds;
  s.SetSnapshot(Make({{kCds, {{"v1", "1"}}}, {kEds, {{"v1", "1"}}}, {kLds, {{"l", "1"}}}, {kRds, {{"r", "v1"}}}}));
  s.OnRequest(Ask(kCds), kNow), s.OnRequest(Ask(kLds), kNow), s.OnRequest(Ask(kRds, {"r"}), kNow);
  Settle(s, sotw, eds);
  EXPECT_TRUE(s.Synced());

  s.SetSnapshot(Make({{kCds, {{"v2", "1"}}}, {kEds, {{"v2", "1"}}}, {kLds, {{"l", "1"}}}, {kRds, {{"r", "v2"}}}}));
  auto r = s.Take(kNow);
  EXPECT_EQ(Show(r), sotw ? "cds[v2=1 v1=1]" : "cds[v2=1]");  // the old cluster stays
  s.OnRequest(Ack(r[0]), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "");                           // the client has not asked for v2's endpoints
  EXPECT_EQ(s.WakeAt(), kNow + 5'000'000'000);
  s.OnRequest(Ask(kEds, sotw ? std::vector<std::string>{"v1", "v2"} : std::vector<std::string>{"v2"}), kNow);
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "eds[v2=1]");
  EXPECT_EQ(Show(s.Take(kNow)), "");
  s.OnRequest(Ack(r[0], {"v1", "v2"}), kNow);
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), "rds[r=v2]");
  s.OnRequest(Ack(r[0], {"r"}), kNow);
  r = s.Take(kNow);
  EXPECT_EQ(Show(r), sotw ? "cds[v2=1]" : "cds[-v1]eds[-v1]");
}

TEST_P(Order, PatienceEnds) {
  Stream s(GetParam());
  s.SetSnapshot(Make({{kCds, {{"v1", "1"}}}, {kEds, {{"v1", "1"}}}, {kLds, {{"l", "1"}}}}));
  s.OnRequest(Ask(kCds), kNow), s.OnRequest(Ask(kLds), kNow);
  auto r = s.Take(kNow);
  EXPECT_EQ(Show(r), "cds[v1=1]");
  s.OnRequest(Ack(r[0]), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "");
  EXPECT_EQ(Show(s.Take(s.WakeAt())), "lds[l=1]");  // a client that never asks for endpoints still gets its listeners
}

INSTANTIATE_TEST_SUITE_P(Variants, Order, testing::Values(Stream::kDelta, Stream::kSotw));

TEST(Sotw, StaleNoncesAreIgnored) {
  Stream s(Stream::kSotw);
  s.SetSnapshot(Make({{kEds, {{"a", "1"}, {"b", "1"}}}}));
  s.OnRequest(Ask(kEds, {"a"}), kNow);
  auto r1 = s.Take(kNow);
  s.OnRequest(Ask(kEds, {"a", "b"}), kNow);
  EXPECT_EQ(Show(s.Take(kNow)), "");
  s.OnRequest(Ack(r1[0], {"a", "b"}), kNow);
  auto r2 = s.Take(kNow);
  EXPECT_EQ(Show(r2), "eds[b=1]");
  s.OnRequest(Ack(r1[0], {"a"}), kNow);  // stale
  s.OnRequest(Ack(r2[0], {"a", "b"}), kNow);
  s.SetSnapshot(Make({{kEds, {{"a", "1"}, {"b", "2"}}}}));
  EXPECT_EQ(Show(s.Take(kNow)), "eds[b=2]");
}

// Random worlds, random moments of acknowledgement: what a client has after all replies is what the snapshot holds.
TEST(Delta, RandomChangesConverge) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    Stream s(Stream::kDelta);
    std::map<std::string, std::string> client;
    std::vector<Reply> unanswered;
    s.OnRequest(Ask(kCds), kNow);
    std::shared_ptr<Snapshot> last;
    auto receive = [&] {
      for (Reply& r : s.Take(kNow)) {
        for (const auto& x : r.resources) client[x->name] = x->bytes;
        for (const auto& x : r.removed) client.erase(x);
        unanswered.push_back(r);
      }
      ASSERT_LE(unanswered.size(), 1u);
    };
    for (int step = 0; step < 50; ++step) {
      if (random() % 2) {
        std::map<std::string, std::string> content;
        for (int i = 0; i < 5; ++i) {
          if (random() % 2) content["c" + std::to_string(i)] = std::to_string(random() % 3);
        }
        last = Make({{kCds, content}});
        s.SetSnapshot(last);
      }
      if (!unanswered.empty() && random() % 2) {
        s.OnRequest(Ack(unanswered[0]), kNow);
        unanswered.clear();
      }
      receive();
    }
    while (!unanswered.empty()) {
      s.OnRequest(Ack(unanswered[0]), kNow);
      unanswered.clear();
      receive();
    }
    std::map<std::string, std::string> want;
    for (const auto& [name, r] : last->resources[kCds]) want[name] = r->bytes;
    ASSERT_EQ(client, want) << "seed " << seed;
  }
}

}  // namespace
}  // namespace weft::server
