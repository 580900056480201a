// Decoding, the pipeline, and the real gRPC and HTTP listeners in one process.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <zlib.h>

#include <filesystem>
#include <future>
#include <thread>

#include "api/weft/telemetry/v1/telemetry.grpc.pb.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.grpc.pb.h"
#include "xds_server/ingest/decode.h"
#include "xds_server/ingest/otlp_server.h"
#include "xds_server/ingest/pipeline.h"
#include "xds_server/ingest/service.h"

namespace weft::insight {
namespace {

// Debian's gRPC is not instrumented: what it carries from thread to thread looks like a race.
#ifdef __SANITIZE_THREAD__
#define WEFT_NEEDS_GRPC() GTEST_SKIP() << "gRPC is not instrumented"
#else
#define WEFT_NEEDS_GRPC() (void)0
#endif

namespace pb = weft::telemetry::v1;
namespace collector = opentelemetry::proto::collector::trace::v1;

// Keeps what it is given; can be told to fail or to block.
class FakeStore final : public Store {
 public:
  base::Result<AppendStats> Append(std::vector<Event>& e, std::vector<Span>& s) override {
    std::unique_lock lock(mu);
    cv.wait(lock, [this] { return !blocked; });
    if (fail) return base::Error("disk full");
    events.insert(events.end(), e.begin(), e.end());
    spans.insert(spans.end(), s.begin(), s.end());
    cv.notify_all();
    AppendStats out;
    out.events = e.size(), out.spans = s.size();
    return out;
  }
  base::Result<std::vector<Event>> Events(const EventQuery&) override { return std::vector<Event>(); }
  base::Result<std::vector<Span>> Spans(const std::string&, size_t) override { return std::vector<Span>(); }
  base::Result<std::vector<TraceSummary>> Traces(const TraceQuery&) override { return std::vector<TraceSummary>(); }
  base::Result<std::vector<Cell>> Cells(int64_t, int64_t) override { return std::vector<Cell>(); }
  base::Result<std::vector<std::pair<int64_t, Cell>>> CellsBySecond(int64_t, int64_t) override { return std::vector<std::pair<int64_t, Cell>>(); }
  base::Status Seal(int64_t) override { return base::Ok{}; }
  base::Status Retain(int64_t) override { return base::Ok{}; }

  std::mutex mu;
  std::condition_variable cv;
  std::vector<Event> events;
  std::vector<Span> spans;
  bool fail = false, blocked = false;
};

pb::EventBatch Batch(uint64_t sequence, int events) {
  pb::EventBatch b;
  b.set_sequence(sequence), b.set_workload_id("web-1"), b.set_service("web"), b.set_namespace_("default"), b.set_epoch("e");
  for (int i = 0; i < events; ++i) {
    auto* e = b.add_events();
    e->set_number(sequence * 1'000 + static_cast<uint64_t>(i)), e->set_direction(pb::OUTBOUND), e->set_status(200);
    e->set_start_unix_ns(static_cast<uint64_t>(NowNs())), e->set_protocol("http/1.1"), e->set_path("/a?secret=1");
    e->set_trace_id(std::string(16, '\x01')), e->set_span_id(std::string(8, '\x02')), e->set_grpc_status(-1);
    e->set_cluster("outbound|80||cart.default"), e->set_source_identity("spiffe://mesh/ns/default/sa/bank");
  }
  return b;
}

TEST(Decode, CertificateOverridesClaims) {
  Reporter web;
  ASSERT_TRUE(ReporterOf("spiffe://mesh/ns/shop/sa/web", &web));
  EXPECT_FALSE(ReporterOf("spiffe://mesh/x", &web));
  auto batch = Batch(1, 1);
  batch.set_service("bank"), batch.set_workload_id("bank-7");
  std::vector<Event> events;
  DecodeEvents(batch, web, events);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].service, "web");
  EXPECT_EQ(events[0].ns, "shop");
  EXPECT_EQ(events[0].source, "web.shop");
  EXPECT_EQ(events[0].workload, "web/bank-7");
  EXPECT_EQ(events[0].source_identity, "spiffe://mesh/ns/shop/sa/web");
  EXPECT_EQ(events[0].path, "/a");  // no query string
  EXPECT_EQ(events[0].trace_id, "01010101010101010101010101010101");
}

TEST(Decode, EverythingIsBounded) {
  auto batch = Batch(1, 1);
  auto* e = batch.mutable_events(0);
  e->set_path(std::string(100'000, 'a')), e->set_response_detail(std::string(100'000, 'b'));
  e->set_duration_us(UINT64_MAX), e->set_start_unix_ns(UINT64_MAX), e->set_status(4'000'000'000u), e->set_trace_id("short");
  e->set_grpc_status(-5'000), e->set_policy_revision(UINT64_MAX);
  for (int i = 0; i < 1'000; ++i) e->add_attempts()->set_detail(std::string(5'000, 'c'));
  std::vector<Event> events;
  DecodeEvents(batch, {}, events);
  EXPECT_LE(events[0].path.size(), 2'048u);
  EXPECT_LE(events[0].response_detail.size(), 1'024u);
  EXPECT_EQ(events[0].attempts.size(), 32u);
  EXPECT_EQ(events[0].trace_id, "");
  EXPECT_GE(events[0].duration_us, 0);
  EXPECT_GE(events[0].start_ns, 0);
  EXPECT_LE(events[0].status, 999);

  collector::ExportTraceServiceRequest request;
  auto* spans = request.add_resource_spans()->add_scope_spans();
  auto* big = spans->add_spans();
  big->set_trace_id(std::string(16, 'x')), big->set_span_id(std::string(8, 'x')), big->set_name(std::string(2 << 20, 'n'));
  auto* tags = spans->add_spans();
  tags->set_trace_id(std::string(16, 'x')), tags->set_span_id(std::string(8, 'y'));
  for (int i = 0; i < 1'000; ++i) {
    auto* kv = tags->add_attributes();
    kv->set_key("k" + std::to_string(i)), kv->mutable_value()->set_string_value("v");
  }
  spans->add_spans()->set_name("no ids");
  std::vector<Span> out;
  EXPECT_EQ(DecodeSpans(request, out), 2u);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_LE(std::count(out[0].attributes.begin(), out[0].attributes.end(), ':'), 128);
}

TEST(Pipeline, CountsRollupsAndShowsWhatIsOpenWithoutStoringIt) {
  FakeStore store;
  Live live;
  std::promise<bool> told;
  Pipeline p(&store, &live, {.commit_ms = 5});
  Item item;
  item.bytes = 100;
  item.decode = [](std::vector<Event>& e, std::vector<Span>&) {
    auto batch = Batch(1, 3);
    auto* rollup = batch.mutable_events(1);
    rollup->set_count(500), rollup->set_destination_version("v2"), rollup->set_retries(7);
    rollup->clear_trace_id();
    auto* open = batch.mutable_events(2);
    open->set_interim(true), open->set_open(4), open->set_number(0), open->set_status(0);
    DecodeEvents(batch, {}, e);
  };
  item.done = [&](bool ok) { told.set_value(ok); };
  ASSERT_TRUE(p.Push(item));
  ASSERT_TRUE(told.get_future().get());
  EXPECT_EQ(p.stats().events, 501u);
  EXPECT_EQ(p.stats().without_detail, 500u);
  ASSERT_EQ(store.events.size(), 2u);
  EXPECT_EQ(store.events[1].count, 500u);
  EXPECT_EQ(store.events[1].destination_version, "v2");
  uint64_t count = 0, open = 0;
  for (const Cell& c : live.Window(60, NowNs())) count += c.count, open += c.open;
  EXPECT_EQ(count, 501u);
  EXPECT_EQ(open, 4u);
}

TEST(Decode, OtlpJson) {
  std::vector<Span> out;
  EXPECT_EQ(DecodeSpansJson(R"({"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}},
    {"key":"service.namespace","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":[
    {"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"","name":"load","kind":2,
     "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","status":{"code":2,"message":"no"},
     "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"s","value":{"stringValue":"x"}}]},
    {"traceId":"zz","spanId":"1"}, 5]}]}]})", out), 2);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].trace_id, "5b8efff798038103d269b633813fc60c");
  EXPECT_EQ(out[0].service, "cart.shop");
  EXPECT_EQ(out[0].kind, "server");
  EXPECT_TRUE(out[0].error);
  EXPECT_EQ(out[0].end_ns - out[0].start_ns, 1'000'000'000);
  EXPECT_EQ(out[0].attributes, R"({"n":7,"s":"x"})");
  for (const char* bad : {"", "[]", "{}", "{\"resourceSpans\":5}", "{\"resourceSpans\":[", "nul"}) {
    EXPECT_EQ(DecodeSpansJson(bad, out), -1) << bad;
  }
  EXPECT_EQ(DecodeSpansJson("{\"resourceSpans\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}", out), -1);
  EXPECT_EQ(DecodeSpansJson("{\"resourceSpans\":[5,{},{\"scopeSpans\":[7,{\"spans\":3}]}]}", out), 0);
}

std::string Gzip(const std::string& in) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY);
  std::string out(in.size() + 1'024, 0);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data())), z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data()), z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

TEST(Decode, GunzipIsBounded) {
  std::string out;
  EXPECT_TRUE(Gunzip(Gzip("hello"), 1'000, &out));
  EXPECT_EQ(out, "hello");
  EXPECT_FALSE(Gunzip(Gzip(std::string(50 << 20, 0)), 16 << 20, &out));  // ratio about 1000
  EXPECT_LE(out.size(), 16u << 20);
  EXPECT_FALSE(Gunzip("not gzip", 1'000, &out));
  EXPECT_FALSE(Gunzip(Gzip("hello world, cut short").substr(0, 20), 1'000, &out));
}

TEST(Pipeline, CommitsThenTellsAndDropsBadClocks) {
  FakeStore store;
  Live live;
  std::promise<bool> told;
  {
    Pipeline p(&store, &live, {.commit_ms = 5});
    Item item;
    item.bytes = 100;
    item.decode = [](std::vector<Event>& e, std::vector<Span>&) {
      DecodeEvents(Batch(1, 3), {}, e);
      e[0].end_ns = 0, e[1].end_ns = NowNs() * 2;
    };
    item.done = [&](bool ok) { told.set_value(ok); };
    ASSERT_TRUE(p.Push(item));
    EXPECT_TRUE(told.get_future().get());
    EXPECT_EQ(p.stats().bad_time, 2u);
    EXPECT_EQ(p.stats().events, 1u);
  }
  EXPECT_EQ(store.events.size(), 1u);
  EXPECT_EQ(live.Window(60, NowNs()).size(), 1u);
}

TEST(Pipeline, FullQueueRefusesAndTellsWhenThereIsRoom) {
  FakeStore store;
  store.blocked = true;
  Live live;
  Pipeline p(&store, &live, {.commit_ms = 1, .max_items = 4});
  int taken = 0;
  for (int i = 0; i < 100; ++i) {
    Item item;
    item.bytes = 1;
    item.decode = [](auto&, auto&) {};
    if (!p.Push(item)) break;
    ++taken;
  }
  EXPECT_GE(taken, 4);
  EXPECT_LE(taken, 9);  // one commit may have left the queue already
  EXPECT_EQ(p.stats().refused_items, 1u);
  std::promise<void> room;
  p.WhenRoom([&] { room.set_value(); });
  {
    std::lock_guard lock(store.mu);
    store.blocked = false;
  }
  store.cv.notify_all();
  room.get_future().get();
}

// What waits for room pushes again at once, and waits again when refused, as a stream does: the end must not chase it.
TEST(Pipeline, EndsWhileSomebodyWaitsForRoom) {
  FakeStore store;
  store.blocked = true;
  Live live;
  auto p = std::make_unique<Pipeline>(&store, &live, PipelineOptions{.commit_ms = 1, .max_items = 1});
  std::function<void()> push = [&push, pipeline = p.get()] {
    for (bool taken = true; taken;) {
      Item item;
      item.bytes = 1;
      item.decode = [](auto&, auto&) {};
      taken = pipeline->Push(item);
    }
    pipeline->WhenRoom(push);
  };
  push();
  std::thread ends([&] { p.reset(); });
  {
    std::lock_guard lock(store.mu);
    store.blocked = false;
  }
  store.cv.notify_all();
  ends.join();
}

struct Loopback {
  Loopback() : pipeline(&store, &live, {.commit_ms = 5}) {
    service = MakeTelemetryService(&pipeline, &drops, &counters);
    grpc::ServerBuilder b;
    b.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    b.RegisterService(service.get());
    server = b.BuildAndStart();
    stub = pb::Telemetry::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  }
  ~Loopback() { server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1)); }
  FakeStore store;
  Live live;
  DropBook drops;
  IngestCounters counters;
  Pipeline pipeline;
  std::unique_ptr<grpc::Service> service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<pb::Telemetry::Stub> stub;
};

TEST(Telemetry, AcknowledgesInOrderAfterCommit) {
  WEFT_NEEDS_GRPC();
  Loopback l;
  grpc::ClientContext context;
  auto stream = l.stub->Stream(&context);
  std::thread writer([&] {
    for (uint64_t s = 1; s <= 200; ++s) {
      auto b = Batch(s, 10);
      if (s == 7) b.set_dropped_events_total(42);
      ASSERT_TRUE(stream->Write(b));
    }
    stream->WritesDone();
  });
  uint64_t want = 1;
  pb::BatchAck ack;
  while (want <= 200 && stream->Read(&ack)) {
    EXPECT_EQ(ack.sequence(), want++);
    std::lock_guard lock(l.store.mu);
    ASSERT_GE(l.store.events.size(), ack.sequence() * 10);
  }
  writer.join();
  EXPECT_EQ(want, 201u);
  stream->Finish();
  EXPECT_EQ(l.drops.Total(), 42u);
  EXPECT_EQ(l.counters.batches, 200u);
}

TEST(Telemetry, FailedCommitEndsTheStreamWithoutAck) {
  WEFT_NEEDS_GRPC();
  Loopback l;
  l.store.fail = true;
  grpc::ClientContext context;
  auto stream = l.stub->Stream(&context);
  stream->Write(Batch(1, 1));
  pb::BatchAck ack;
  EXPECT_FALSE(stream->Read(&ack));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(Telemetry, CancelledStreamsLeaveNothingBehind) {
  WEFT_NEEDS_GRPC();
  Loopback l;
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    auto stream = l.stub->Stream(&context);
    stream->Write(Batch(static_cast<uint64_t>(i) + 1, 1));
    context.TryCancel();
    stream->Finish();
  }
}

collector::ExportTraceServiceRequest OneSpan() {
  collector::ExportTraceServiceRequest request;
  auto* rs = request.add_resource_spans();
  auto* kv = rs->mutable_resource()->add_attributes();
  kv->set_key("service.name"), kv->mutable_value()->set_string_value("cart");
  auto* s = rs->add_scope_spans()->add_spans();
  s->set_trace_id(std::string(16, 'x')), s->set_span_id(std::string(8, 'x')), s->set_name("load");
  s->set_start_time_unix_nano(static_cast<uint64_t>(NowNs())), s->set_end_time_unix_nano(static_cast<uint64_t>(NowNs()));
  return request;
}

TEST(Otlp, GrpcAndHttp) {
  WEFT_NEEDS_GRPC();
  FakeStore store;
  Live live;
  IngestCounters counters;
  Pipeline pipeline(&store, &live, {.commit_ms = 5});
  auto server = OtlpServer::Start("127.0.0.1:0", "127.0.0.1:0", &pipeline, &counters);
  ASSERT_TRUE(static_cast<bool>(server)) << server.error().ToString();
  auto stub = collector::TraceService::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string((*server)->grpc_port()), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  collector::ExportTraceServiceResponse response;
  EXPECT_TRUE(stub->Export(&context, OneSpan(), &response).ok());
  EXPECT_EQ(store.spans.size(), 1u);

  httplib::Client http("127.0.0.1", (*server)->http_port());
  std::string body = OneSpan().SerializeAsString();
  auto r = http.Post("/v1/traces", body, "application/x-protobuf");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 200);
  r = http.Post("/v1/traces", {{"Content-Encoding", "gzip"}}, Gzip(body), "application/x-protobuf");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 200) << r->body;
  EXPECT_EQ(store.spans.size(), 3u);
  EXPECT_EQ(http.Post("/v1/traces", R"({"resourceSpans":[]})", "application/json")->status, 200);
  EXPECT_EQ(http.Post("/v1/traces", "{", "application/json")->status, 400);
  EXPECT_EQ(http.Post("/v1/traces", "\xFF\xFF\xFF", "application/x-protobuf")->status, 400);
  EXPECT_EQ(http.Post("/v1/traces", "a=b", "application/x-www-form-urlencoded")->status, 415);
  EXPECT_EQ(http.Post("/v1/traces", {{"Content-Encoding", "gzip"}}, "\x1f\x8b broken", "application/x-protobuf")->status, 400);
}

// httplib forgets a stop that comes before its thread listens: the end would wait for ever.
TEST(Otlp, EndsRightAfterItsStart) {
  FakeStore store;
  Live live;
  IngestCounters counters;
  Pipeline pipeline(&store, &live, {.commit_ms = 5});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(static_cast<bool>(OtlpServer::Start("", "127.0.0.1:0", &pipeline, &counters)));
}

}  // namespace
}  // namespace weft::insight
