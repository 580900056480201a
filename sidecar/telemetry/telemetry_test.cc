#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "sidecar/telemetry/access_log.h"
#include "sidecar/telemetry/format.h"
#include "sidecar/telemetry/stats_text.h"

namespace weft::telemetry {
namespace {

proxy::Record Sample() {
  proxy::Record r;
  r.protocol = r.upstream_protocol = proxy::Protocol::kHttp11;
  r.start_unix_ns = 1'700'000'000'123'456'789;
  r.duration_ns = 25'000'000, r.upstream_first_rx_ns = 20'000'000, r.upstream_service_ns = 19'000'000;
  r.request_bytes = 3, r.response_bytes = 40;
  r.method = "GET", r.path = "/a?b=1", r.authority = "cart:80", r.user_agent = "curl/7", r.request_id = "id-1";
  r.status = 503;
  r.flags.Set(proxy::ResponseFlag::kUpstreamOverflow);
  r.upstream_host = "10.0.0.1:8000", r.upstream_local = "10.0.0.9:1234", r.downstream_remote = *model::Address::FromIp("::1", 555), r.cluster = "outbound|80||cart.default";
  r.attempt_count = 2;
  r.grpc_status = 5;
  r.trace_id[0] = 0xab, r.trace_id[15] = 1;
  r.request_headers.Add("x-forwarded-for", "10.9.9.9");
  return r;
}

std::string Render(const char* format, const proxy::Record& r) {
  auto f = Format::Compile(format);
  if (!f) return "error: " + f.error().ToString();
  std::string out;
  f->Append(r, false, &out);
  return out;
}

TEST(AccessLog, EnvoysDefaultLine) {
  EXPECT_EQ(
      "[2023-11-14T22:13:20.123Z] \"GET /a?b=1 HTTP/1.1\" 503 UO 3 40 25 19 \"10.9.9.9\" \"curl/7\" \"id-1\" \"cart:80\" "
      "\"10.0.0.1:8000\"\n",
      Render(kDefaultFormat, Sample()));
}

TEST(AccessLog, OperatorsArgumentsAndLengths) {
  proxy::Record r = Sample();
  EXPECT_EQ("GE 100%", Render("%REQ(:METHOD):2% 100%%", r));
  EXPECT_EQ("- 10.9.9.9", Render("%REQ(X-Nope)% %REQ(X-Nope?X-Forwarded-For)%", r));
  EXPECT_EQ("1700000000.123 1700000000123", Render("%START_TIME(%s.%3f)% %START_TIME(%3s)%", r));
  EXPECT_EQ("::1 555 10.0.0.1", Render("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", r));
  EXPECT_EQ("UpstreamOverflow NotFound NOT_FOUND 5 2", Render("%RESPONSE_FLAGS_LONG% %GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", r));
  r.response_tx_last_ns = 25'000'000;
  EXPECT_EQ("ab000000000000000000000000000001 5 5000", Render("%TRACE_ID% %RESPONSE_TX_DURATION% %COMMON_DURATION(US_RX_BEG:DS_TX_END:us)%", r));
  EXPECT_EQ("1 /a - /a?b=1", Render("%QUERY_PARAM(b)% %PATH(NQ)% %PATH(WQ:ORIG)% %PATH%", r));
  EXPECT_EQ("- -", Render("%REQUEST_DURATION% %DYNAMIC_METADATA(x:y)%", r));
}

TEST(TimeText, SecondsAndFractionsKeepTheirPlaces) {
  auto text = [](TimeText& t, uint64_t ns) {
    std::string out = "<";
    t.Append(ns, &out);
    return out;
  };
  TimeText t("%Y-%m-%dT%H:%M:%S.%3fZ", false);
  EXPECT_EQ("<2023-11-14T22:13:20.123Z", text(t, 1700000000'123456789));
  EXPECT_EQ("<2023-11-14T22:13:20.009Z", text(t, 1700000000'009999999));  // the same second
  EXPECT_EQ("<2023-11-14T22:13:21.000Z", text(t, 1700000001'000000001));
  EXPECT_EQ("<2023-11-14T22:13:20.999Z", text(t, 1700000000'999999999));  // and back
  TimeText more("%f %s %1s%%%H%6f%", false);
  EXPECT_EQ("<000000005 1700000000 17000000000%22000000%", text(more, 1700000000'000000005));
  EXPECT_EQ("<987654321 1700000000 17000000009%22987654%", text(more, 1700000000'987654321));
  TimeText none("", false);
  EXPECT_EQ("<", text(none, 1));
}

TEST(AccessLog, MistakesAreNamed) {
  EXPECT_EQ("error: unknown operator %NOPE%", Render("a %NOPE% b", {}));
  EXPECT_EQ("error: \"%REQ(\" has no closing parenthesis", Render("%REQ(x", {}));
  EXPECT_EQ("error: \"%PROTOCOL\" is not closed by %", Render("%PROTOCOL", {}));
  EXPECT_EQ("error: %DURATION% takes neither argument nor length", Render("%DURATION(x)%", {}));
  EXPECT_EQ("error: %COMMON_DURATION% does not know the moment US_CX_BEG", Render("%COMMON_DURATION(US_CX_BEG:DS_TX_END:ms)%", {}));
  EXPECT_EQ("error: unknown operator %METADATA%", Render("%METADATA(ROUTE:a:b)%", {}));
  EXPECT_EQ("error: %REQ% needs an argument in parentheses", Render("%REQ%", {}));
}

TEST(AccessLog, DynamicMetadataOneValueOrAllOfANamespace) {
  proxy::Record r = Sample();
  EXPECT_EQ("- -", Render("%DYNAMIC_METADATA(a)% %DYNAMIC_METADATA(a:b)%", r));
  r.metadata.Add("a:z", "1"), r.metadata.Add("a:b", "two"), r.metadata.Add("ab:c", "3");
  EXPECT_EQ("{\"b\":\"two\",\"z\":\"1\"} tw - -", Render("%DYNAMIC_METADATA(a)% %DYNAMIC_METADATA(a:b):2% %DYNAMIC_METADATA(a:b:c)% %DYNAMIC_METADATA(b)%", r));
}

TEST(AccessLog, JsonKeepsTypesAndEscapes) {
  std::string dir = getenv("TEST_TMPDIR"), path = dir + "/json.log";
  auto logs = std::make_shared<model::AccessLogs>();
  model::AccessLog log;
  log.path = path, log.json = true;
  using Node = model::JsonNode;
  log.json_format = {{Node::kFormat, "code", "%RESPONSE_CODE%", {}}, {Node::kFormat, "none", "%ROUTE_NAME%", {}},
                     {Node::kObject, "o", "", std::vector<Node>{{Node::kRaw, "n", "5", {}}}}, {Node::kFormat, "text", "%REQ(:METHOD)% \"%REQ(:PATH)%\"", {}}};
  logs->logs.push_back(log);
  log.path = path + ".2", log.omit_empty_values = true, log.filter = model::LogFilter{.kind = model::LogFilter::kStatus, .op = model::LogFilter::kGe, .value = 600};
  logs->logs.push_back(log);
  proxy::Record r = Sample();
  r.path = "/\x01\xff\n";
  r.access_logs = logs;
  AccessLogger logger;
  logger.Log(r);
  logger.Flush();
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  EXPECT_EQ("{\"code\":503,\"none\":null,\"o\":{\"n\":5},\"text\":\"GET \\\"/\\u0001\xef\xbf\xbd\\n\\\"\"}\n", text.str());
  EXPECT_NE(0, access((path + ".2").c_str(), F_OK));
}

TEST(StatsText, PrometheusGroupsByMetricAndEscapes) {
  auto& stats = base::Stats::Get();
  base::Cells::Local().Add(stats.Counter("tt.cart.rq", "tt.rq", {{"name", "cart"}}), 3);
  base::Cells::Local().Add(stats.Counter("tt.pay.rq", "tt.rq", {{"name", "p\"a\\y"}}), 4);
  base::Cells::Local().Record(stats.Histogram("tt.cart.time", "tt.time", {{"name", "cart"}}), 3000);
  stats.Gauge("tt.unused");
  StatsFilter f;
  ASSERT_TRUE(f.SetRegex("^tt\\."));
  f.used_only = true;
  std::string text = PrometheusText(f);
  EXPECT_EQ(0u, text.find("# TYPE envoy_tt_rq counter\nenvoy_tt_rq{name=\"cart\"} 3\nenvoy_tt_rq{name=\"p\\\"a\\\\y\"} 4\n\n"));
  EXPECT_NE(std::string::npos, text.find("envoy_tt_time_bucket{name=\"cart\",le=\"5\"} 1\n"));
  EXPECT_NE(std::string::npos, text.find("envoy_tt_time_bucket{name=\"cart\",le=\"+Inf\"} 1\n"));
  EXPECT_NE(std::string::npos, text.find("envoy_tt_time_sum{name=\"cart\"} 3\n"));
  EXPECT_EQ(std::string::npos, text.find("unused"));
  std::string lines = StatsText(f);
  EXPECT_EQ(0u, lines.find("tt.cart.rq: 3\ntt.pay.rq: 4\ntt.cart.time: P0(nan,1)"));
  EXPECT_FALSE(f.SetRegex("("));
  EXPECT_NE(std::string::npos, StatsJson(f).find("{\"name\":\"tt.pay.rq\",\"value\":4}"));
}

}  // namespace
}  // namespace weft::telemetry
