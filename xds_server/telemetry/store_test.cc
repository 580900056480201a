#include "xds_server/telemetry/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace weft::insight {
namespace {

namespace fs = std::filesystem;

struct Dir {
  Dir() {
    std::string t = std::string(getenv("TEST_TMPDIR") ? getenv("TEST_TMPDIR") : "/tmp") + "/storeXXXXXX";
    path = mkdtemp(t.data());
  }
  ~Dir() {
    std::error_code ec;
    fs::remove_all(path, ec);
  }
  std::string path;
};

int64_t Now() { return std::chrono::system_clock::now().time_since_epoch().count(); }

Event Make(uint64_t number, int64_t end_ns, const std::string& trace = "") {
  Event e;
  e.workload = "web-1", e.epoch = "e1", e.number = number, e.service = "web", e.ns = "default";
  e.direction = Direction::kOutbound, e.cluster = "outbound|80|v1|cart.default", e.protocol = "http/1.1";
  e.method = "GET", e.path = "/cart", e.status = 200, e.trace_id = trace, e.request_id = "r" + std::to_string(number);
  e.duration_us = 1500, e.start_ns = end_ns - 1'500'000;
  e.attempts.push_back({});
  e.attempts[0].endpoint = "10.0.0.1:80";
  Derive(e);
  return e;
}

std::unique_ptr<Store> Open(const std::string& dir, int timeout_ms = 10'000) {
  auto s = OpenDuckDbStore({.directory = dir, .threads = 1, .readers = 2, .query_timeout_ms = timeout_ms});
  if (!s) {
    ADD_FAILURE() << s.error().ToString();
    return nullptr;
  }
  return *std::move(s);
}

uint64_t Count(Store& s) {
  auto cells = s.Cells(0, INT64_MAX);
  EXPECT_TRUE(static_cast<bool>(cells));
  uint64_t n = 0;
  for (const Cell& c : *cells) n += c.count;
  return n;
}

TEST(Store, AppendQueryAndDuplicates) {
  Dir d;
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  std::vector<Event> batch;
  for (int i = 1; i <= 100; ++i) batch.push_back(Make(i, Now(), "aa" + std::to_string(i % 10)));
  std::vector<Span> spans(1);
  spans[0].trace_id = "aa1", spans[0].span_id = "01", spans[0].name = "work", spans[0].service = "cart";
  spans[0].attributes = R"({"k":"v"})", spans[0].start_ns = Now(), spans[0].end_ns = Now() + 5;
  auto copy = batch;
  auto r = s->Append(copy, spans);
  ASSERT_TRUE(static_cast<bool>(r)) << r.error().ToString();
  EXPECT_EQ(r->events, 100u);
  // A resend that overlaps: 51..110, the last ten are new.
  std::vector<Event> again(batch.begin() + 50, batch.end());
  for (int i = 101; i <= 110; ++i) again.push_back(Make(i, Now()));
  std::vector<Span> none;
  r = s->Append(again, none);
  ASSERT_TRUE(static_cast<bool>(r));
  EXPECT_EQ(r->events, 10u);
  EXPECT_EQ(r->duplicates, 50u);
  EXPECT_EQ(again.size(), 10u);
  EXPECT_EQ(Count(*s), 110u);

  auto events = s->Events({.trace_id = "aa1"});
  ASSERT_TRUE(static_cast<bool>(events));
  ASSERT_EQ(events->size(), 10u);
  const Event& e = (*events)[0];
  EXPECT_EQ(e.source, "web");
  EXPECT_EQ(e.destination, "cart");
  EXPECT_EQ(e.attempts.size(), 1u);
  EXPECT_EQ(e.attempts[0].endpoint, "10.0.0.1:80");
  EXPECT_EQ(e.grpc_status, -1);
  EXPECT_EQ(e.duration_us, 1500);
  auto by_request = s->Events({.request_id = "r7"});
  ASSERT_TRUE(static_cast<bool>(by_request));
  EXPECT_EQ(by_request->size(), 1u);
  // Values are bound, not pasted.
  auto odd = s->Events({.request_id = "' OR 1=1 --"});
  ASSERT_TRUE(static_cast<bool>(odd));
  EXPECT_TRUE(odd->empty());
  auto found = s->Spans("aa1", 10);
  ASSERT_TRUE(static_cast<bool>(found));
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ((*found)[0].attributes, R"({"k":"v"})");
  auto traces = s->Traces({.service = "cart", .limit = 5});
  ASSERT_TRUE(static_cast<bool>(traces)) << traces.error().ToString();
  ASSERT_EQ(traces->size(), 5u);
  EXPECT_EQ((*traces)[0].service, "web");
  EXPECT_EQ((*traces)[0].name, "GET /cart");
  EXPECT_EQ((*traces)[0].services, (std::vector<std::string>{"cart", "web"}));
  auto failed = s->Traces({.errors_only = true});
  ASSERT_TRUE(static_cast<bool>(failed));
  EXPECT_TRUE(failed->empty());
}

TEST(Store, RollupsCountForMany) {
  Dir d;
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  std::vector<Event> batch = {Make(1, Now()), Make(2, Now())};
  batch[1].count = 41;
  std::vector<Span> none;
  ASSERT_TRUE(static_cast<bool>(s->Append(batch, none)));
  EXPECT_EQ(Count(*s), 42u);
  s.reset();
  s = Open(d.path);
  ASSERT_TRUE(s);
  EXPECT_EQ(Count(*s), 42u);
}

TEST(Store, DuplicatesInOneBatchAndOddOrder) {
  Dir d;
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  std::vector<Event> batch;
  for (int n : {5, 3, 4, 4, 1, 9, 2, 5, 8, 7, 6, 9}) batch.push_back(Make(n, Now()));
  std::vector<Span> none;
  auto r = s->Append(batch, none);
  ASSERT_TRUE(static_cast<bool>(r));
  EXPECT_EQ(r->events, 9u);
  EXPECT_EQ(r->duplicates, 3u);
  batch = {Make(1, Now())};
  batch[0].epoch = "e2";  // the sidecar was started anew
  r = s->Append(batch, none);
  ASSERT_TRUE(static_cast<bool>(r));
  EXPECT_EQ(r->events, 1u);
}

TEST(Store, SealsRetainsAndStaysExact) {
  Dir d;
  int64_t now = Now(), hour = 3'600'000'000'000;
  {
    auto s = Open(d.path);
    ASSERT_TRUE(s);
    std::vector<Event> batch;
    for (int i = 1; i <= 300; ++i) batch.push_back(Make(i, now - (i % 3) * 2 * hour, i == 1 ? "old" : ""));
    std::vector<Span> none;
    ASSERT_TRUE(static_cast<bool>(s->Append(batch, none)));
    ASSERT_TRUE(static_cast<bool>(s->Seal(now + hour / 2)));
    EXPECT_EQ(Count(*s), 300u);
    auto sealed_now = s->Seal(now + hour / 2);  // nothing left to do
    ASSERT_TRUE(static_cast<bool>(sealed_now)) << sealed_now.error().ToString();
  }
  int files = 0;
  for (const auto& f : fs::directory_iterator(d.path)) files += f.path().extension() == ".parquet";
  EXPECT_EQ(files, 1);
  { std::ofstream(d.path + "/events-1-2.parquet.tmp") << "cut short"; }
  { std::ofstream(d.path + "/events-1-3.parquet") << "not entered"; }
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  EXPECT_FALSE(fs::exists(d.path + "/events-1-2.parquet.tmp"));
  EXPECT_FALSE(fs::exists(d.path + "/events-1-3.parquet"));
  EXPECT_EQ(Count(*s), 300u);
  auto e = s->Events({.trace_id = "old"});
  ASSERT_TRUE(static_cast<bool>(e));
  EXPECT_EQ(e->size(), 1u);
  auto status = s->Retain(now + hour);
  ASSERT_TRUE(static_cast<bool>(status)) << status.error().ToString();
  EXPECT_EQ(Count(*s), 0u);
  files = 0;
  for (const auto& f : fs::directory_iterator(d.path)) files += f.path().extension() == ".parquet";
  EXPECT_EQ(files, 0);
}

TEST(Store, AcknowledgedBatchesSurviveKill) {
  Dir d;
  int ack[2];
  ASSERT_EQ(pipe(ack), 0);
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto s = OpenDuckDbStore({.directory = d.path, .threads = 1, .readers = 1});
    if (!s) _exit(1);
    for (uint64_t n = 1;; n += 10) {
      std::vector<Event> batch;
      for (uint64_t i = 0; i < 10; ++i) batch.push_back(Make(n + i, Now()));
      std::vector<Span> none;
      if (!(*s)->Append(batch, none)) _exit(2);
      uint64_t last = n + 9;
      if (write(ack[1], &last, sizeof last) != sizeof last) _exit(3);
    }
  }
  uint64_t last = 0;
  while (last < 300 && read(ack[0], &last, sizeof last) == sizeof last) {}
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ack[1]);
  for (uint64_t n; read(ack[0], &n, sizeof n) == sizeof n;) last = n;
  close(ack[0]);
  ASSERT_GE(last, 300u);
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  EXPECT_GE(Count(*s), last);
  // The sidecar sends again what it had no acknowledgement for, and more than that: nothing is counted twice.
  uint64_t before = Count(*s);
  std::vector<Event> again;
  for (uint64_t n = last - 50; n <= before; ++n) again.push_back(Make(n, Now()));
  std::vector<Span> none;
  auto r = s->Append(again, none);
  ASSERT_TRUE(static_cast<bool>(r));
  EXPECT_EQ(r->events, 0u);
  EXPECT_EQ(Count(*s), before);
}

TEST(Store, DamagedFileIsPutAsideAndALockedOneIsAnError) {
  Dir d;
  { std::ofstream(d.path + "/telemetry.duckdb") << std::string(20'000, 'x'); }
  auto s = Open(d.path);
  ASSERT_TRUE(s);
  EXPECT_EQ(Count(*s), 0u);
  int aside = 0;
  for (const auto& f : fs::directory_iterator(d.path)) aside += f.path().string().find(".broken-") != std::string::npos;
  EXPECT_EQ(aside, 1);
}

TEST(Store, QueriesAreBounded) {
  Dir d;
  {
    auto s = Open(d.path);
    ASSERT_TRUE(s);
    std::vector<Span> none;
    for (int k = 0; k < 4; ++k) {
      std::vector<Event> batch;
      for (int i = 1; i <= 20'000; ++i) batch.push_back(Make(k * 20'000 + i, Now(), std::to_string(k * 20'000 + i)));
      ASSERT_TRUE(static_cast<bool>(s->Append(batch, none)));
    }
    EXPECT_EQ(Count(*s), 80'000u);
    auto limited = s->Events({.limit = 7});
    ASSERT_TRUE(static_cast<bool>(limited));
    EXPECT_EQ(limited->size(), 7u);
  }
  auto s = Open(d.path, 2);
  ASSERT_TRUE(s);
  auto all = s->Events({.limit = 1'000'000});  // reading all of them takes longer than 2 ms
  ASSERT_FALSE(static_cast<bool>(all));
  EXPECT_NE(all.error().ToString().find("timed out"), std::string::npos) << all.error().ToString();
}

}  // namespace
}  // namespace weft::insight
