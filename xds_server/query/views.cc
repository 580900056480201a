#include "xds_server/query/views.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "xds_server/telemetry/columns.h"

namespace weft::insight {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

double Round(double v, double unit) { return std::round(v / unit) * unit; }

void PutRed(Json& out, const Red& r, int64_t rate_s) {
  Quantiles q = r.Latency();
  out["requests"] = r.requests;
  out["errors"] = r.errors;
  out["denied"] = r.denied;
  out["rps"] = Round(static_cast<double>(r.requests) / static_cast<double>(std::max<int64_t>(1, rate_s)), 0.001);
  out["error_rate"] = r.requests ? Round(static_cast<double>(r.errors) / static_cast<double>(r.requests), 0.00001) : 0.0;
  out["p50_ms"] = Round(q.p50_ms, 0.001), out["p95_ms"] = Round(q.p95_ms, 0.001), out["p99_ms"] = Round(q.p99_ms, 0.001);
  out["open"] = r.open;
  out["retries"] = r.retries, out["request_bytes"] = r.request_bytes, out["response_bytes"] = r.response_bytes;
  Json outcomes = Json::object();
  for (int i = 0; i < kOutcomes; ++i) outcomes[std::string(OutcomeName(static_cast<Outcome>(i)))] = r.outcomes[i];
  out["outcomes"] = std::move(outcomes);
}

Json Versions(const std::map<std::string, Red>& versions, int64_t rate_s) {
  Json out = Json::array();
  for (const auto& [version, red] : versions) {
    Json v = {{"version", version}};
    PutRed(v, red, rate_s);
    out.push_back(std::move(v));
  }
  return out;
}

Json EventJson(const Event& e) {
  Json attempts = Json::array();
  for (const Attempt& a : e.attempts) {
    Json& o = attempts.emplace_back(Json::object());
    AttemptFields(a, [&](const char* name, const auto& v) { o[name] = v; });
    o["ejections"] = Json::array();
    for (const Ejection& j : a.ejections) {
      Json& e = o["ejections"].emplace_back(Json::object());
      EjectionFields(j, [&](const char* name, const auto& v) { e[name] = v; });
    }
  }
  return {{"workload", e.workload}, {"service", e.service}, {"namespace", e.ns}, {"version", e.version},
          {"direction", e.direction == Direction::kInbound ? "inbound" : "outbound"}, {"request_id", e.request_id},
          {"trace_id", e.trace_id}, {"span_id", e.span_id}, {"parent_span_id", e.parent_span_id}, {"start_us", e.start_ns / 1000},
          {"duration_us", e.duration_us}, {"protocol", e.protocol}, {"method", e.method}, {"path", e.path},
          {"authority", e.authority}, {"status", e.status}, {"grpc_status", e.grpc_status}, {"response_flags", e.response_flags},
          {"response_detail", e.response_detail}, {"route", e.route}, {"cluster", e.cluster}, {"source", e.source},
          {"destination", e.destination}, {"destination_version", e.destination_version}, {"source_identity", e.source_identity},
          {"destination_identity", e.destination_identity}, {"tls_version", e.tls_version}, {"policy", e.policy},
          {"policy_revision", e.policy_revision}, {"config_revision", e.config_revision},
          {"outcome", std::string(OutcomeName(e.outcome))}, {"retries", e.retries}, {"fault", e.fault}, {"tls_failure", e.tls_failure},
          {"request_bytes", e.request_bytes}, {"response_bytes", e.response_bytes}, {"downstream_address", e.downstream_address},
          {"original_destination", e.original_destination}, {"attempts", std::move(attempts)}};
}

}  // namespace

std::string TopologyJson(const Topology& t, const WindowInfo& w, const std::string& telemetry_json) {
  Json out = {{"window_s", w.window_s}, {"rate_s", w.rate_s}, {"now_ms", w.now_ms}};
  Json nodes = Json::array(), edges = Json::array();
  for (const Node& n : t.nodes) {
    Json j = {{"name", n.name}, {"versions", n.versions}, {"in_mesh", n.in_mesh}};
    PutRed(j, n.inbound, w.rate_s);
    nodes.push_back(std::move(j));
  }
  for (const Edge& e : t.edges) {
    Json j = {{"source", e.source}, {"destination", e.destination}};
    PutRed(j, e.red, w.rate_s);
    j["denied"] = e.denied;
    j["protocol"] = e.protocols.empty() ? "" : e.protocols[0];
    j["protocols"] = e.protocols;
    j["mtls"] = e.mtls;
    j["tls_version"] = e.tls_version;
    j["source_identity"] = e.source_identity, j["destination_identity"] = e.destination_identity;
    j["reported_by"] = e.reported_by_caller ? "caller" : "callee";
    Json denials = Json::array();
    for (const Denial& d : e.denials) denials.push_back({{"reason", d.reason}, {"count", d.count}, {"examples", d.examples}});
    j["denials"] = std::move(denials);
    j["versions"] = Versions(e.versions, w.rate_s);
    edges.push_back(std::move(j));
  }
  out["nodes"] = std::move(nodes), out["edges"] = std::move(edges);
  out["telemetry"] = Json::parse(telemetry_json, nullptr, false);
  return Dump(out);
}

std::string ServicesJson(const std::vector<ServiceStats>& services, const WindowInfo& w) {
  Json list = Json::array();
  for (const ServiceStats& s : services) {
    Json j = {{"name", s.name}, {"in_mesh", s.in_mesh}, {"callers", s.callers}, {"callees", s.callees}};
    PutRed(j, s.total, w.rate_s);
    j["versions"] = Versions(s.versions, w.rate_s);
    list.push_back(std::move(j));
  }
  return Dump({{"window_s", w.window_s}, {"rate_s", w.rate_s}, {"now_ms", w.now_ms}, {"services", std::move(list)}});
}

std::string TracesJson(const std::vector<TraceSummary>& traces) {
  Json list = Json::array();
  for (const TraceSummary& t : traces) {
    list.push_back({{"trace_id", t.trace_id}, {"request_id", t.request_id}, {"service", t.service}, {"name", t.name},
                    {"start_us", t.start_ns / 1000}, {"duration_us", t.duration_us}, {"hops", t.hops}, {"error", t.error},
                    {"status", t.status}, {"services", t.services}});
  }
  return Dump({{"traces", std::move(list)}});
}

std::string TraceJson(const TraceView& v, const std::vector<Event>& events, const std::vector<Span>& spans) {
  Json hops = Json::array();
  std::set<std::string> requests;
  for (const Event& e : events) {
    if (!e.request_id.empty() && requests.size() < 100) requests.insert(e.request_id);
  }
  for (const Hop& h : v.hops) {
    Json j = {{"span_id", h.span_id}, {"parent_span_id", h.parent_span_id}, {"parent", h.parent}, {"depth", h.depth},
              {"kind", h.kind}, {"service", h.service}, {"peer", h.peer}, {"name", h.name},
              {"offset_us", (h.start_ns - v.start_ns) / 1000}, {"start_us", h.start_ns / 1000}, {"duration_us", h.duration_us},
              {"error", h.error}};
    if (h.event >= 0) j["event"] = EventJson(events[static_cast<size_t>(h.event)]);
    if (h.span >= 0) {
      const Span& s = spans[static_cast<size_t>(h.span)];
      Json attributes = Json::parse(s.attributes, nullptr, false);
      j["attributes"] = attributes.is_object() ? std::move(attributes) : Json::object();
      j["status_message"] = s.status_message;
    }
    hops.push_back(std::move(j));
  }
  return Dump({{"trace_id", v.trace_id}, {"start_us", v.start_ns / 1000}, {"duration_us", v.duration_us}, {"services", v.services},
               {"error", v.error}, {"request_ids", requests}, {"cycle", v.cycle}, {"left_out", v.left_out}, {"hops", std::move(hops)}});
}

std::string WhyJson(const std::string& id, const Explanation& e) {
  Json out = {{"id", id}, {"cause", e.cause}, {"sentence", e.sentence}, {"evidence", e.evidence}, {"next", e.next}, {"path", e.path},
              {"source", e.failing_source}, {"destination", e.failing_destination}, {"request_id", e.request_id},
              {"trace_id", e.trace_id}, {"decided_by", e.decided_by}, {"client", nullptr}, {"server", nullptr}, {"policy", nullptr}};
  if (e.client) out["client"] = EventJson(*e.client);
  if (e.server) out["server"] = EventJson(*e.server);
  if (e.policy) {
    Json p = {{"kind", e.policy.kind}, {"namespace", e.policy.ns}, {"name", e.policy.name}, {"rule", e.policy.rule},
              {"revision", e.policy.revision}};
    if (e.policy_text) {
      p["text"] = e.policy_text->text, p["diff"] = e.policy_text->diff, p["time"] = e.policy_text->time;
      p["message"] = e.policy_text->message;
    }
    out["policy"] = std::move(p);
  }
  return Dump(out);
}

}  // namespace weft::insight
