#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "sidecar/telemetry/access_log_files.h"
#include "sidecar/telemetry/access_log_writer.h"
#include "sidecar/telemetry/stats_text.h"

namespace weft::telemetry {
namespace {

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
  proxy::Record r;
  r.status = 503, r.method = "GET", r.path = "/\x01\xff\n";
  r.access_logs = logs;
  AccessLogWriter writer;
  Portion portion{EventOptions()};
  writer.Write(r, &portion);
  AccessLogFiles files;
  for (auto& l : portion.lines) files.Append(l.path, &l.text);
  files.Flush();
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

TEST(StatsText, IstiosNamesStandAloneAndLabelsAreUtf8) {
  auto labels = std::make_shared<const base::TagList>(base::TagList{{"host", "caf\xe9\n"}});
  base::Cells::Local().Add(base::Stats::Get().Define(base::StatKind::kCounter, "ti.one", "istiocustom.istio_ti_total", labels), 1);
  StatsFilter f;
  ASSERT_TRUE(f.SetRegex("^ti\\."));
  EXPECT_EQ("# TYPE istio_ti_total counter\nistio_ti_total{host=\"caf?\\n\"} 1\n\n", PrometheusText(f));
}

}  // namespace
}  // namespace weft::telemetry
