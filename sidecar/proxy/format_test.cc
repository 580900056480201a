#include "sidecar/proxy/format.h"

#include <gtest/gtest.h>

namespace weft::proxy {
namespace {

Record Sample() {
  Record r;
  r.protocol = r.upstream_protocol = Protocol::kHttp11;
  r.start_unix_ns = 1'700'000'000'123'456'789;
  r.duration_ns = 25'000'000, r.upstream_first_rx_ns = 20'000'000, r.upstream_service_ns = 19'000'000;
  r.request_bytes = 3, r.response_bytes = 40;
  r.method = "GET", r.path = "/a?b=1", r.authority = "cart:80", r.user_agent = "curl/7", r.request_id = "id-1";
  r.status = 503;
  r.flags.Set(ResponseFlag::kUpstreamOverflow);
  r.upstream_host = "10.0.0.1:8000", r.upstream_local = "10.0.0.9:1234", r.downstream_remote = *model::Address::FromIp("::1", 555), r.cluster = "outbound|80||cart.default";
  r.attempt_count = 2;
  r.grpc_status = 5;
  r.trace_id[0] = 0xab, r.trace_id[15] = 1;
  r.request_headers.Add("x-forwarded-for", "10.9.9.9");
  return r;
}

std::string Render(const char* format, const Record& r) {
  auto f = Format::Compile(format);
  if (!f) return "error: " + f.error().ToString();
  std::string out;
  f->Append(r, false, &out);
  return out;
}

TEST(Format, EnvoysDefaultLine) {
  EXPECT_EQ(
      "[2023-11-14T22:13:20.123Z] \"GET /a?b=1 HTTP/1.1\" 503 UO 3 40 25 19 \"10.9.9.9\" \"curl/7\" \"id-1\" \"cart:80\" "
      "\"10.0.0.1:8000\"\n",
      Render(kDefaultFormat, Sample()));
}

TEST(Format, OperatorsArgumentsAndLengths) {
  Record r = Sample();
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

TEST(Format, MistakesAreNamed) {
  EXPECT_EQ("error: unknown operator %NOPE%", Render("a %NOPE% b", {}));
  EXPECT_EQ("error: \"%REQ(\" has no closing parenthesis", Render("%REQ(x", {}));
  EXPECT_EQ("error: \"%PROTOCOL\" is not closed by %", Render("%PROTOCOL", {}));
  EXPECT_EQ("error: %DURATION% takes neither argument nor length", Render("%DURATION(x)%", {}));
  EXPECT_EQ("error: %COMMON_DURATION% does not know the moment US_CX_BEG", Render("%COMMON_DURATION(US_CX_BEG:DS_TX_END:ms)%", {}));
  EXPECT_EQ("error: unknown operator %METADATA%", Render("%METADATA(ROUTE:a:b)%", {}));
  EXPECT_EQ("error: %REQ% needs an argument in parentheses", Render("%REQ%", {}));
}

TEST(Format, DynamicMetadataOneValueOrAllOfANamespace) {
  Record r = Sample();
  EXPECT_EQ("- -", Render("%DYNAMIC_METADATA(a)% %DYNAMIC_METADATA(a:b)%", r));
  r.metadata.Add("a:z", "1"), r.metadata.Add("a:b", "two"), r.metadata.Add("ab:c", "3");
  EXPECT_EQ("{\"b\":\"two\",\"z\":\"1\"} tw - -", Render("%DYNAMIC_METADATA(a)% %DYNAMIC_METADATA(a:b):2% %DYNAMIC_METADATA(a:b:c)% %DYNAMIC_METADATA(b)%", r));
}

// Of a request under way: its heads as they are now, nothing at all where a value is missing.
TEST(Format, HeadersThatRoutesAdd) {
  auto value = [](const char* format, const LiveHeads& heads) {
    std::string out;
    AppendLive(*model::LogFormat::Parse(format), Sample(), heads, &out);
    return out;
  };
  http::HeaderMap request, response;
  request.Add(":path", "/now?c=2"), request.Add(":authority", "other"), request.Add("x-a", "1");
  response.Add("x-b", "2");
  const char* format = "<%REQ(X-A)%%REQ(HOST)%%REQ(X-None)%%PATH(NQ)%%QUERY_PARAM(c)%|%RESP(X-B)%|%RESPONSE_CODE_DETAILS%|%START_TIME(%Y)%|%REQ(:PATH):2%>";
  EXPECT_EQ("<1other/now2|||2023|/n>", value(format, {.request = &request}));
  EXPECT_EQ("1", value("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", {.request = &request}));
  EXPECT_EQ("<1other/now2|2||2023|/n>", value(format, {&request, &response, false}));
  EXPECT_EQ("<1other/now2|2|via_upstream|2023|/n>", value(format, {&request, &response, true}));
}

}  // namespace
}  // namespace weft::proxy
