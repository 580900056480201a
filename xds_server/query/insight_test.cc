// The whole telemetry half in one process: real store, real gRPC ingest, the REST handlers.
#include "xds_server/query/insight.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/weft/telemetry/v1/telemetry.grpc.pb.h"
#include "xds_server/rest/router.h"

namespace weft::insight {
namespace {

using Json = nlohmann::json;
namespace pb = weft::telemetry::v1;

class InsightTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string t = std::string(getenv("TEST_TMPDIR") ? getenv("TEST_TMPDIR") : "/tmp") + "/insightXXXXXX";
    dir_ = mkdtemp(t.data());
    Open();
  }
  void TearDown() override {
    Close();
    std::filesystem::remove_all(dir_);
  }
  void Open() {
    auto started = Insight::Start({.directory = dir_, .otlp_grpc_address = "", .otlp_http_address = "", .policy = [](const PolicyRef& p) {
                                     PolicyText text;
                                     text.text = "kind: " + p.kind, text.diff = "+ deny", text.revision = p.revision;
                                     return text;
                                   }});
    ASSERT_TRUE(static_cast<bool>(started)) << started.error().ToString();
    insight_ = *std::move(started);
    router_ = server::Router();
    insight_->RegisterRoutes(router_);
    grpc::ServerBuilder b;
    int port = 0;
    b.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    b.RegisterService(insight_->telemetry_service());
    server_ = b.BuildAndStart();
    stub_ = pb::Telemetry::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  }
  void Close() {
    stub_.reset();
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    server_.reset();
    insight_.reset();
  }
  // Sends the batches on one stream and waits for every acknowledgement.
  void Send(const std::vector<pb::EventBatch>& batches) {
    grpc::ClientContext context;
    auto stream = stub_->Stream(&context);
    for (const auto& b : batches) ASSERT_TRUE(stream->Write(b));
    stream->WritesDone();
    pb::BatchAck ack;
    size_t n = 0;
    while (stream->Read(&ack)) ++n;
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(n, batches.size());
  }
  server::Response Get(const std::string& path, std::map<std::string, std::string> query = {}) {
    server::Request q;
    q.method = "GET", q.path = path, q.query = std::move(query);
    return router_.Dispatch(q);
  }
  Json GetJson(const std::string& path, std::map<std::string, std::string> query = {}) {
    auto r = Get(path, std::move(query));
    EXPECT_EQ(r.status, 200) << path << ": " << r.body;
    return Json::parse(r.body, nullptr, false);
  }

  std::string dir_;
  std::unique_ptr<Insight> insight_;
  server::Router router_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::Telemetry::Stub> stub_;
};

uint64_t NowNs() { return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()); }

pb::EventBatch Batch(const std::string& service, uint64_t sequence, const std::string& epoch = "e1") {
  pb::EventBatch b;
  b.set_sequence(sequence), b.set_workload_id(service + "-1"), b.set_service(service), b.set_namespace_("default");
  b.set_version("v1"), b.set_epoch(epoch);
  return b;
}

pb::RequestEvent* Add(pb::EventBatch& b, uint64_t number, bool outbound, const std::string& peer, uint32_t status, const std::string& trace = "") {
  auto* e = b.add_events();
  e->set_number(number), e->set_direction(outbound ? pb::OUTBOUND : pb::INBOUND), e->set_status(status), e->set_grpc_status(-1);
  e->set_protocol("http/1.1"), e->set_method("GET"), e->set_path("/x"), e->set_start_unix_ns(NowNs() - 2'000'000), e->set_duration_us(1'500);
  std::string own = "spiffe://mesh/ns/default/sa/" + b.service(), other = "spiffe://mesh/ns/default/sa/" + peer;
  e->set_source_identity(outbound ? own : other), e->set_destination_identity(outbound ? other : own), e->set_tls_version("TLSv1.3");
  if (outbound) e->set_cluster("outbound|80||" + peer + ".default");
  if (!trace.empty()) {
    e->set_trace_id(trace), e->set_request_id("req-" + std::to_string(number));
    e->set_span_id(outbound ? "client00" : "server00");
    if (!outbound) e->set_parent_span_id("client00");
  }
  return e;
}

TEST_F(InsightTest, FromStreamToMapTraceAndWhy) {
  std::string trace(16, 'T'), hex = "54545454545454545454545454545454";
  auto web = Batch("web", 1), cart = Batch("cart", 1);
  for (uint64_t i = 1; i <= 50; ++i) Add(web, i, true, "cart", 200), Add(cart, i, false, "web", 200);
  Add(web, 51, true, "cart", 403, trace);
  auto* denied = Add(cart, 51, false, "web", 403, trace);
  denied->set_policy("Authorization/default/cart/no-web@7"), denied->set_response_detail("rbac_access_denied_matched_policy[x]");
  web.set_dropped_events_total(3);
  Send({web}), Send({cart});

  Json t = GetJson("/api/v1/topology");
  ASSERT_EQ(t["edges"].size(), 1u) << t.dump(1);
  const Json& edge = t["edges"][0];
  EXPECT_EQ(edge["source"], "web");
  EXPECT_EQ(edge["destination"], "cart");
  EXPECT_EQ(edge["requests"], 51);
  EXPECT_EQ(edge["denied"], 1);
  EXPECT_EQ(edge["denials"][0]["reason"], "Authorization/default/cart/no-web@7");
  EXPECT_EQ(edge["mtls"], true);
  EXPECT_EQ(edge["source_identity"], "spiffe://mesh/ns/default/sa/web");
  EXPECT_EQ(edge["destination_identity"], "spiffe://mesh/ns/default/sa/cart");
  EXPECT_EQ(t["nodes"].size(), 2u);
  EXPECT_EQ(t["telemetry"]["dropped"]["by_sidecars"], 3);
  // The same from the store, and from a server started anew on the same folder.
  EXPECT_EQ(GetJson("/api/v1/topology", {{"window", "0"}})["edges"][0]["requests"], 51);
  Close();
  Open();
  // The last minutes come back in the background.
  Json again = GetJson("/api/v1/topology");
  for (int i = 0; i < 1'000 && again["edges"].empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    again = GetJson("/api/v1/topology");
  }
  EXPECT_EQ(again["edges"][0]["requests"], 51);
  Send({web, cart});  // everything once more: nothing counts twice
  EXPECT_EQ(GetJson("/api/v1/topology", {{"window", "0"}})["edges"][0]["requests"], 51);
  EXPECT_EQ(GetJson("/api/v1/topology")["edges"][0]["requests"], 51);
  EXPECT_EQ(GetJson("/api/v1/telemetry")["duplicates"], 102);

  Json services = GetJson("/api/v1/services")["services"];
  ASSERT_EQ(services.size(), 2u);
  EXPECT_EQ(services[0]["versions"][0]["version"], "v1");

  Json traces = GetJson("/api/v1/traces", {{"service", "cart"}, {"errors", "true"}})["traces"];
  ASSERT_EQ(traces.size(), 1u);
  EXPECT_EQ(traces[0]["trace_id"], hex);
  Json one = GetJson("/api/v1/traces/" + hex);
  ASSERT_EQ(one["hops"].size(), 2u);
  EXPECT_EQ(one["hops"][0]["kind"], "client");
  EXPECT_EQ(one["hops"][1]["kind"], "server");
  EXPECT_EQ(one["hops"][1]["parent"], 0);

  for (const std::string& id : {std::string("req-51"), hex}) {
    Json why = GetJson("/api/v1/why/" + id);
    EXPECT_EQ(why["cause"], "denied_by_policy") << why.dump(1);
    EXPECT_EQ(why["policy"]["revision"], 7);
    EXPECT_EQ(why["policy"]["diff"], "+ deny");
    EXPECT_EQ(why["client"]["workload"], "web-1");
    EXPECT_EQ(why["server"]["workload"], "cart-1");
  }
  EXPECT_NE(insight_->Metrics().find("weft_telemetry_events_total 0\n"), std::string::npos);
}

TEST_F(InsightTest, RefusesBadQuestions) {
  for (auto [path, query] : std::vector<std::pair<std::string, std::map<std::string, std::string>>>{
           {"/api/v1/topology", {{"window", "-1"}}}, {"/api/v1/topology", {{"window", "x"}}}, {"/api/v1/topology", {{"window", "99999999999999999999"}}},
           {"/api/v1/topology", {{"from", "5"}, {"to", "5"}}}, {"/api/v1/traces", {{"limit", "0"}}}, {"/api/v1/traces", {{"limit", "100000"}}},
           {"/api/v1/traces", {{"errors", "maybe"}}}, {"/api/v1/traces/xyz", {}}}) {
    EXPECT_EQ(Get(path, query).status, 400) << path;
  }
  EXPECT_EQ(Get("/api/v1/traces/00000000000000000000000000000000").status, 404);
  EXPECT_EQ(Get("/api/v1/why/nothing").status, 404);
  EXPECT_EQ(Get("/").status, 200);
  EXPECT_EQ(Get("/app.js").status, 200);
  EXPECT_EQ(Get("/../etc/passwd").status, 404);
  EXPECT_FALSE(Json::parse(InsightOpenApiPaths(), nullptr, false).is_discarded());
}

TEST_F(InsightTest, CountsAreExactThroughResends) {
  // Each of two clients sends 20,000 events in batches, breaks off, and sends the last ten batches again.
  std::vector<std::thread> clients;
  for (const char* service : {"web", "shop"}) {
    clients.emplace_back([this, service] {
      std::vector<pb::EventBatch> batches;
      for (uint64_t s = 1; s <= 40; ++s) {
        auto b = Batch(service, s);
        for (uint64_t i = 0; i < 500; ++i) Add(b, (s - 1) * 500 + i + 1, true, "cart", i % 10 == 0 ? 503 : 200);
        batches.push_back(std::move(b));
      }
      Send(batches);
      std::vector<pb::EventBatch> again(batches.end() - 10, batches.end());
      Send(again);
    });
  }
  for (auto& c : clients) c.join();
  for (const char* window : {"300", "0"}) {
    Json edges = GetJson("/api/v1/topology", {{"window", window}})["edges"];
    ASSERT_EQ(edges.size(), 2u);
    for (const Json& e : edges) {
      EXPECT_EQ(e["requests"], 20'000);
      EXPECT_EQ(e["errors"], 2'000);
      EXPECT_EQ(e["outcomes"]["server_error"], 2'000);
    }
  }
}

}  // namespace
}  // namespace weft::insight
