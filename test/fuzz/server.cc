// What the server reads: policies of people, its own stored form, spans of applications, events of sidecars, request paths.
#include <string>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "opentelemetry/proto/collector/trace/v1/trace_service.pb.h"
#include "sidecar/base/check.h"
#include "test/fuzz/fuzz.h"
#include "xds_server/ingest/decode.h"
#include "xds_server/model/policy.h"
#include "xds_server/rest/router.h"

namespace weft::fuzz {
namespace {

// What is taken comes back from the store as the same object.
void PolicyYaml(std::string_view bytes) {
  server::ParseOutcome r = server::ParsePolicies(bytes, "fuzz.yaml");
  for (const auto& i : r.issues) WEFT_CHECK(!i.reason.empty() && i.file == "fuzz.yaml");
  if (!r.issues.empty()) return;
  for (const auto& o : r.objects) {
    WEFT_CHECK(o.object && !o.kind.empty() && !o.name.name.empty());
    std::string stored = server::ToStoredJson(*o.object);
    auto back = server::ParseStored(stored);
    WEFT_CHECK(back && server::ToStoredJson(*back) == stored, stored);
  }
}

void StoredJson(std::string_view bytes) {
  auto object = server::ParseStored(bytes);
  if (object) WEFT_CHECK(server::ParseStored(server::ToStoredJson(*object)), "its own form is not read");
}

bool Utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    unsigned char c = static_cast<unsigned char>(s[i]);
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || i + n > s.size()) return false;
    for (size_t k = 1; k < n; ++k) {
      if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return false;
    }
    i += n;
  }
  return true;
}

void CheckSpans(const std::vector<insight::Span>& spans) {
  for (const auto& s : spans) {
    WEFT_CHECK(s.trace_id.size() == 32 && s.span_id.size() == 16, s.trace_id, " ", s.span_id);
    WEFT_CHECK(Utf8(s.name) && Utf8(s.service), "a text is not UTF-8");
  }
}

void OtlpProto(std::string_view bytes) {
  opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  std::vector<insight::Span> spans;
  insight::DecodeSpans(request, spans);
  CheckSpans(spans);
}

void OtlpJson(std::string_view bytes) {
  std::vector<insight::Span> spans;
  if (insight::DecodeSpansJson(bytes, spans) >= 0) CheckSpans(spans);
}

void Gzip(std::string_view bytes) {
  std::string out;
  constexpr size_t kMax = 256 * 1024;
  if (insight::Gunzip(bytes, kMax, &out)) WEFT_CHECK(out.size() <= kMax && out.size() <= 100 * bytes.size() + 1024);
}

void Events(std::string_view bytes) {
  telemetry::v1::EventBatch batch;
  if (!batch.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  insight::Reporter reporter;
  WEFT_CHECK(insight::ReporterOf("spiffe://mesh/ns/default/sa/cart", &reporter));
  std::vector<insight::Event> events;
  insight::DecodeEvents(batch, reporter, events);
  WEFT_CHECK(events.size() <= static_cast<size_t>(batch.events_size()));
  for (const auto& e : events) {
    WEFT_CHECK(e.service == "cart" && e.ns == "default", "a batch names another service than its certificate");
    WEFT_CHECK(Utf8(e.path) && Utf8(e.method) && Utf8(e.authority) && Utf8(e.request_id) && Utf8(e.response_detail) && e.attempts.size() <= 32);
  }
}

void Identity(std::string_view bytes) {
  insight::Reporter r;
  if (insight::ReporterOf(std::string(bytes), &r)) WEFT_CHECK(!r.service.empty() && !r.ns.empty() && r.service.find('/') == std::string::npos);
}

void RestPath(std::string_view bytes) {
  static const server::Router* router = [] {
    auto* r = new server::Router;
    r->Add("GET", "/api/v1/objects/{kind}/{ns}/{name}", [](const server::Request& q) {
      WEFT_CHECK(!q.params.at("kind").empty() && q.params.at("name").find('/') == std::string::npos);
      return server::Response{};
    });
    r->Add("POST", "/api/v1/apply", [](const server::Request&) { return server::Response{}; });
    r->AddAsset("/", "text/html", "page");
    return r;
  }();
  server::Request q;
  q.method = bytes.size() % 2 ? "GET" : "POST";
  q.path = "/" + std::string(bytes);
  server::Response r = router->Dispatch(q);
  WEFT_CHECK(r.status == 200 || r.status == 404 || r.status == 405);
}

}  // namespace

std::vector<Target> ServerTargets() {
  return {{"policy_yaml", PolicyYaml}, {"stored_json", StoredJson}, {"otlp_proto", OtlpProto}, {"otlp_json", OtlpJson},
          {"gzip", Gzip},              {"events", Events},          {"identity", Identity},    {"rest_path", RestPath}};
}

}  // namespace weft::fuzz
