// A cut at every point of an exchange's life: each way in which a caller, a server or the sidecar itself can end things,
// after each step of a request that is retried once, through each filter and each pair of protocols.
//
// What must hold in every run is checked in Drive(). What the record and the caller see is listed in
// testdata/lifecycle.txt, a row for each way and a column for each step; WEFT_WRITE_GOLDEN=file writes it anew.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "sidecar/io/buffer.h"
#include "sidecar/proxy/testing/stage.h"

namespace weft::proxy::testing {
namespace {

using codec::Inbound;

enum Step { kOpen, kHalfHead, kHead, kDelay, kBody, kEnd, kAnswer503, kBackoff, kInterim, kAnswerHead, kAnswerBody, kAnswerEnd, kSteps };

enum Cut {
  kNoCut, kCallerResets, kCallerCloses, kCallerHalfCloses, kCallerTalksRubbish, kServerResets, kServerCloses, kServerLeaves,
  kServerTalksRubbish, kTime, kNewConfig, kDrain, kCuts,
};
constexpr const char* kCutNames[] = {"none", "caller resets", "caller closes", "caller half-closes", "caller rubbish", "server resets",
                                     "server closes", "server goes away", "server rubbish", "10 s pass", "new config", "drain"};

enum Filter { kNone, kRbac, kDelayed, kLimit, kBuffered, kDenied, kLimited, kAborted, kTooLarge, kFilters };
constexpr const char* kFilterNames[] = {"none", "rbac", "delay", "limit", "buffered", "denied", "limited", "aborted", "too large"};
constexpr uint64_t kDelayNs = 100 * base::kMs;

struct Case {
  bool down_h2, up_h2;
  Filter filter;
  Cut cut;
  int after;  // the step
  std::string Name() const {
    return std::string(down_h2 ? "h2" : "h1") + (up_h2 ? "-h2 " : "-h1 ") + kFilterNames[filter] + ", " + kCutNames[cut] + " after step " +
           std::to_string(after);
  }
};

void AddFilter(Mesh& mesh, const char* name, decltype(model::HttpFilter::config) config) {
  model::HttpFilter f;
  f.name = name, f.config = std::move(config);
  mesh.hcm.filters.insert(mesh.hcm.filters.begin(), f);
}

void Configure(Mesh& mesh, const Case& c) {
  mesh.AddCluster("app", {}).protocol = c.up_h2 ? model::Cluster::kHttp2 : model::Cluster::kHttp1;
  mesh.hcm.stream_idle_timeout_ns = 5 * base::kSecond;
  mesh.forward().timeout_ns = 3 * base::kSecond, mesh.forward().timeout_set = true;
  auto retry = std::make_shared<model::RetryPolicy>();
  retry->on = model::kRetry5xx, retry->num_retries = 4;
  retry->backoff_base_ns = 5 * base::kMs, retry->backoff_max_ns = 20 * base::kMs;
  mesh.forward().retry = retry;
  switch (c.filter) {
    case kRbac:
    case kDenied: {
      auto rules = std::make_shared<model::RbacRules>();
      rules->action = model::RbacRules::kDeny;
      model::RbacPolicy policy;
      policy.name = "Authorization/default/no-post/0@1";
      model::RbacNode method, any;
      method.kind = model::RbacNode::kHeader, method.header.kind = model::HeaderMatcher::kString, method.header.name = ":method";
      method.header.string.kind = model::StringMatcher::kExact, method.header.string.value = c.filter == kDenied ? "POST" : "DELETE";
      any.kind = model::RbacNode::kAny;
      policy.permissions.push_back(method), policy.principals.push_back(any);
      rules->policies.push_back(policy);
      auto rbac = std::make_shared<model::RbacConfig>();
      rbac->rules = rules;
      return AddFilter(mesh, "rbac", std::shared_ptr<const model::RbacConfig>(rbac));
    }
    case kDelayed:
    case kAborted: {
      auto fault = std::make_shared<model::FaultConfig>();
      fault->has_delay = c.filter == kDelayed, fault->delay_ns = kDelayNs, fault->delay_percent = {100, 100};
      fault->has_abort = c.filter == kAborted, fault->http_status = 418, fault->abort_percent = {100, 100};
      return AddFilter(mesh, "fault", std::shared_ptr<const model::FaultConfig>(fault));
    }
    case kLimit:
    case kLimited: {
      auto limit = std::make_shared<model::LocalRateLimitConfig>();
      limit->max_tokens = limit->tokens_per_fill = c.filter == kLimit ? 100 : 1, limit->fill_interval_ns = 3600 * base::kSecond;
      limit->enabled = limit->enforced = {100, 100}, limit->key = "lifecycle";
      return AddFilter(mesh, "limit", std::shared_ptr<const model::LocalRateLimitConfig>(limit));
    }
    case kBuffered:
    case kTooLarge: {
      auto buffer = std::make_shared<model::BufferConfig>();
      buffer->max_request_bytes = c.filter == kBuffered ? 100 : 4;
      return AddFilter(mesh, "buffer", std::shared_ptr<const model::BufferConfig>(buffer));
    }
    default:
      return;
  }
}

class Play {
 public:
  explicit Play(const Case& c) : case_(c) {
    Configure(mesh_, c);
    stage_ = std::make_unique<Stage>(&mesh_, c.down_h2, c.up_h2);
  }

  // The row's cell: what the record says and what the caller got.
  std::string Drive() {
    if (case_.filter == kLimited) UseUpTheLimit();
    for (int step = 0; step < kSteps; ++step) {
      Do(static_cast<Step>(step));
      stage_->Settle();
      if (step == case_.after) {
        DoCut();
        stage_->Settle();
        stage_->Wait(50 * base::kMs);  // the back-off of a retry
      }
    }
    std::string seen = Outcome();
    CheckNothingIsHeld();
    CheckNextRequest();
    CheckAllGoes();
    return seen;
  }

 private:
  Peer& caller() { return stage_->caller(); }
  bool CallerCanSend() {
    return request_ && caller().usable(request_) && !caller_spoilt_ && head_.empty() && caller().codec->SendRoom(request_->id) > 0;
  }

  http::HeaderMap RequestHead(const char* method) {
    http::HeaderMap h;
    h.Add(Token::kMethod, method), h.Add(Token::kScheme, "http"), h.Add(Token::kAuthority, "shop.test"), h.Add(Token::kPath, "/cart");
    return h;
  }

  void Do(Step step) {
    Stage::Served s = stage_->served();
    bool serve = s.peer && s.peer->usable(s.message) && stage_->served().message != done_;
    switch (step) {
      case kOpen:
        stage_->Open();
        break;
      case kHalfHead: {
        if (!caller().open() || caller_spoilt_ || caller().codec->OpenRoom() == 0) break;
        request_ = caller().NewRequest();
        caller().codec->SendHead(request_->id, RequestHead("POST"), false);
        head_ = caller().TakeOutput();
        SendHeadPart(head_.size() / 2);
        break;
      }
      case kHead:
        if (!head_.empty() && caller().open() && !caller_spoilt_) SendHeadPart(head_.size());
        head_sent_ = head_.empty();
        break;
      case kDelay:
        stage_->Wait(kDelayNs + 5 * base::kMs);
        break;
      case kBody:
        if (CallerCanSend()) SendBody(caller(), request_, "first ", false);
        break;
      case kEnd:
        if (!CallerCanSend()) break;
        if (case_.down_h2) {
          SendBody(caller(), request_, "second", false);
          http::HeaderMap trailers;
          trailers.Add("x-sum", "12");
          caller().codec->SendTrailers(request_->id, trailers);
        } else {
          SendBody(caller(), request_, "second", true);
        }
        break;
      case kAnswer503:
        if (serve) Answer(s, "503", true), done_ = s.message;
        break;
      case kBackoff:
        stage_->Wait(60 * base::kMs);
        break;
      case kInterim:
        if (serve) Answer(s, "103", false);
        break;
      case kAnswerHead:
        if (serve) Answer(s, "200", false), answering_ = s.message;
        break;
      case kAnswerBody:
        if (serve && s.message == answering_) SendBody(*s.peer, s.message, "reply ", false);
        break;
      case kAnswerEnd:
        if (!serve || s.message != answering_) break;
        s.message->answered = true;
        if (case_.up_h2) {
          http::HeaderMap trailers;
          trailers.Add("x-sum", "6");
          s.peer->codec->SendTrailers(s.message->id, trailers);
        } else {
          SendBody(*s.peer, s.message, "end", true);
        }
        break;
      case kSteps:
        break;
    }
  }

  void SendHeadPart(size_t n) {
    caller().hold = n < head_.size();  // no other frame between the halves of one
    caller().AppendWire(head_.substr(0, n));
    head_.erase(0, n);
  }

  static void Answer(Stage::Served s, const char* status, bool end) {
    http::HeaderMap h;
    h.Add(Token::kStatus, status);
    s.peer->codec->SendHead(s.message->id, h, end);
    s.message->answered |= end;
  }

  static void SendBody(Peer& p, Peer::Message* m, const char* bytes, bool end) {
    io::Buffer b;
    b.Append(bytes);
    ASSERT_GE(p.codec->SendRoom(m->id), b.size());
    p.codec->SendBody(m->id, b, b.size(), end);
  }

  void DoCut() {
    Stage::Served s = stage_->served();
    const std::string h2_rubbish(9, '\0');  // DATA on stream 0
    switch (case_.cut) {
      case kCallerResets:
        if (CallerCanReset()) caller().Reset(request_), caller_spoilt_ = !case_.down_h2;
        break;
      case kCallerCloses:
        caller().Close();
        break;
      case kCallerHalfCloses:
        caller().HalfClose(), caller_spoilt_ = true;
        break;
      case kCallerTalksRubbish:
        if (caller().open()) caller().SendRaw(case_.down_h2 ? h2_rubbish : std::string("\0rubbish\r\n\r\n", 12)), caller_spoilt_ = true;
        break;
      case kServerResets:
        if (s.peer && s.peer->usable(s.message)) s.peer->Reset(s.message);
        break;
      case kServerCloses:
        stage_->CloseServers();
        break;
      case kServerLeaves:
        if (s.peer && !s.peer->codec->closed()) s.peer->codec->StartDrain(), s.peer->codec->StartDrain();
        break;
      case kServerTalksRubbish:
        if (s.peer) s.peer->SendRaw(case_.up_h2 ? h2_rubbish : std::string("\0rubbish\r\n\r\n", 12));
        break;
      case kTime:
        stage_->Wait(10 * base::kSecond);
        break;
      case kNewConfig:
        mesh_.listener.key = "changed";
        mesh_.clusters["app"].config = std::make_shared<model::Cluster>(*mesh_.clusters["app"].config);
        stage_->Publish();
        break;
      case kDrain:
        stage_->core().StartDrain(base::kSecond);
        stage_->Wait(2 * base::kSecond);
        break;
      default:
        break;
    }
  }
  bool CallerCanReset() { return request_ && caller().usable(request_) && head_.empty(); }

  std::string Outcome() {
    std::string out;
    if (case_.cut == kCallerTalksRubbish && !case_.down_h2 && stage_->records.size() == 2) {
      // Behind a whole request the rubbish is a request of its own, and a bad one.
      const Record& own = stage_->records[stage_->records[0].detail == "http1.bad_request_line" ? 0 : 1];
      EXPECT_EQ(own.status, 400u);
      EXPECT_EQ(own.flags.ToString(), "DPE");
      stage_->records.erase(stage_->records.begin() + (&own - stage_->records.data()));
    }
    EXPECT_LE(stage_->records.size(), 1u);
    if (stage_->records.empty()) {
      out = "-";
    } else {
      const Record& r = stage_->records[0];
      out = std::to_string(r.status);
      if (!r.flags.empty()) out += "," + r.flags.ToString();
      if (r.attempt_count) out += "*" + std::to_string(r.attempt_count);
      EXPECT_FALSE(r.detail.empty());
      EXPECT_TRUE(r.attempt_count == 0 || !r.cluster.empty());
      for (uint32_t i = 0; i < r.attempt_count; ++i) EXPECT_STRNE(r.attempts[i].outcome, "");
    }
    // The caller: whole answer, cut answer, no answer.
    if (request_ && request_->ended()) {
      out += "=";
      EXPECT_EQ(stage_->records.size(), 1u);
      for (const Record& r : stage_->records) EXPECT_EQ(request_->in.head.Value(Token::kStatus), std::to_string(r.status));
    } else if (request_ && request_->head()) {
      out += "!";
    }
    return out;
  }

  void CheckNothingIsHeld() {
    // A request of which only a part has come may still be open, if its caller is.
    bool begun = !head_sent_ && !head_.empty();
    if (begun) caller().Close(), stage_->Settle();
    EXPECT_EQ(stage_->worker().active_requests(), 0u);
    EXPECT_EQ(stage_->core().active_faults, 0u);
    cluster::Breakers& b = stage_->cells().breakers[0];
    EXPECT_EQ(b.requests, 0u);
    EXPECT_EQ(b.pending, 0u);
    EXPECT_EQ(b.retries, 0u);
    EXPECT_EQ(b.connections, stage_->server_connections());
    for (const auto& [address, weak] : stage_->cells().hosts) {
      auto host = weak.lock();
      EXPECT_TRUE(!host || host->active_requests == 0);
    }
    for (const Record& r : stage_->records) EXPECT_EQ(r.retries + (r.attempt_count ? 1 : 0), r.attempt_count);
  }

  // The pools are as good as before.
  void CheckNextRequest() {
    if (case_.cut == kDrain) return;  // nobody is let in any more
    stage_->records.clear();
    Peer& next = stage_->Open();
    Peer::Message* m = next.NewRequest();
    next.codec->SendHead(m->id, RequestHead("GET"), true);
    stage_->Settle();
    stage_->Wait(kDelayNs + 5 * base::kMs);
    if (Stage::Served s = stage_->served(); s.peer && s.peer->usable(s.message) && !s.message->over) Answer(s, "200", true);
    stage_->Settle();
    const char* want = case_.filter == kLimited ? "429" : case_.filter == kAborted ? "418" : "200";
    EXPECT_EQ(m->in.head.Value(Token::kStatus), want);
    EXPECT_TRUE(m->ended());
    EXPECT_EQ(stage_->records.size(), 1u);
    for (const Record& r : stage_->records) EXPECT_EQ(r.attempt_count, case_.filter == kLimited || case_.filter == kAborted ? 0u : 1u);
  }

  void CheckAllGoes() {
    stage_->CloseCallers();
    stage_->Settle();
    stage_->Wait(5 * base::kSecond);
    EXPECT_EQ(stage_->worker().active_connections(), 0u);
    EXPECT_EQ(stage_->worker().active_requests(), 0u);
    stage_->WaitLong(90 * base::kSecond);  // past the idle time of pooled connections
    EXPECT_EQ(stage_->server_connections(), 0u);
    EXPECT_EQ(stage_->cells().breakers[0].connections, 0u);
  }

  void UseUpTheLimit() {
    Stage::Served s;
    Peer& first = stage_->Open();
    Peer::Message* m = first.NewRequest();
    first.codec->SendHead(m->id, RequestHead("GET"), true);
    stage_->Settle();
    s = stage_->served();
    ASSERT_TRUE(s.peer);
    Answer(s, "200", true);
    stage_->Settle();
    stage_->CloseCallers();
    stage_->Settle();
    stage_->ForgetCallers();
    stage_->records.clear();
  }

  const Case case_;
  Mesh mesh_;
  std::unique_ptr<Stage> stage_;
  Peer::Message* request_ = nullptr;
  Peer::Message *done_ = nullptr, *answering_ = nullptr;  // the server's
  std::string head_;
  bool head_sent_ = false, caller_spoilt_ = false;
};

TEST(Lifecycle, ACutAfterEachStep) {
  std::ostringstream text;
  size_t runs = 0;
  for (bool down_h2 : {false, true}) {
    for (bool up_h2 : {false, true}) {
      for (int cut = 0; cut < kCuts; ++cut) {
        std::vector<std::pair<std::string, std::string>> lines;  // filters, cells
        for (int filter = 0; filter < kFilters; ++filter) {
          std::string cells;
          for (int after = 0; after < kSteps; ++after) {
            Case c{down_h2, up_h2, static_cast<Filter>(filter), static_cast<Cut>(cut), after};
            SCOPED_TRACE(c.Name());
            size_t blocks = io::Block::live();
            cells += " " + Play(c).Drive();
            EXPECT_EQ(io::Block::live(), blocks) << "memory is still held";
            ++runs;
          }
          auto same = std::find_if(lines.begin(), lines.end(), [&](const auto& l) { return l.second == cells; });
          if (same == lines.end()) lines.emplace_back(kFilterNames[filter], cells);
          else same->first += std::string(" ") + kFilterNames[filter];
        }
        text << (down_h2 ? "h2-" : "h1-") << (up_h2 ? "h2" : "h1") << " " << kCutNames[cut] << "\n";
        for (const auto& [filters, cells] : lines) text << "  " << filters << ":" << cells << "\n";
      }
    }
  }
  printf("%zu runs\n", runs);
  std::ifstream golden("sidecar/proxy/testdata/lifecycle.txt");
  std::string expected, remarks, line;
  while (std::getline(golden, line)) (line.starts_with('#') ? remarks : expected) += line + "\n";
  if (const char* to = getenv("WEFT_WRITE_GOLDEN")) std::ofstream(to) << remarks + text.str();
  EXPECT_EQ(text.str(), expected);
}

}  // namespace
}  // namespace weft::proxy::testing
