#include "xds_server/query/insight.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>

#include "xds_server/ingest/otlp_server.h"
#include "xds_server/ingest/pipeline.h"
#include "xds_server/ingest/service.h"
#include "xds_server/query/views.h"
#include "xds_server/rest/router.h"
#include "xds_server/telemetry/denials.h"
#include "xds_server/ui/assets.h"

#include <grpcpp/impl/codegen/service_type.h>

namespace weft::insight {
namespace {

using server::ErrorResponse;
using server::Request;
using server::Response;

constexpr int64_t kSecondNs = 1'000'000'000;

Response Answer(std::string body) {
  Response r;
  r.body = std::move(body);
  return r;
}

Response Refuse(const base::Error& error) {
  const std::string& m = error.message();
  int status = m.starts_with("busy") ? 429 : m.starts_with("timed out") ? 504 : 500;
  Response r = ErrorResponse(status, error.ToString());
  if (status == 429) r.headers["Retry-After"] = "1";
  return r;
}

// Decimal digits only; `fallback` for "", nothing for anything else or what is out of [low, high].
bool Number(const Request& q, const char* name, int64_t fallback, int64_t low, int64_t high, int64_t* out) {
  std::string text = q.Query(name);
  if (text.empty()) {
    *out = fallback;
    return true;
  }
  if (text.size() > 16 || text.find_first_not_of("0123456789") != std::string::npos) return false;
  *out = std::stoll(text);
  return *out >= low && *out <= high;
}

class Impl final : public Insight {
 public:
  ~Impl() override {
    otlp_.reset();
    pipeline_.reset();  // commits what is queued
    if (seeding_.joinable()) seeding_.join();
  }

  base::Status Begin(const InsightOptions& options) {
    policy_ = options.policy, workload_at_ = options.workload_at;
    base::Result<std::unique_ptr<Store>> store = base::Error("not opened");
    // Opened on a thread of low priority: DuckDB's own threads inherit it, and configuration keeps the cores.
    std::thread([&] {
      LowerPriority();
      store = OpenDuckDbStore({.directory = options.directory});
    }).join();
    if (!store) return store.error();
    store_ = *std::move(store);
    // The last minutes again into memory, so that the map does not restart empty; ingest need not wait for it. What is
    // committed from here on the pipeline counts itself.
    int64_t start = NowNs();
    seeding_ = std::thread([this, start] {
      LowerPriority();
      auto recent = store_->CellsBySecond(start - live_.seconds() * kSecondNs, start / 1'000'000);
      if (recent) live_.Seed(*recent, NowNs());
    });
    pipeline_ = std::make_unique<Pipeline>(store_.get(), &live_, PipelineOptions{.retain_hours = options.retain_hours});
    service_ = MakeTelemetryService(pipeline_.get(), &drops_, &counters_);
    auto otlp = OtlpServer::Start(options.otlp_grpc_address, options.otlp_http_address, pipeline_.get(), &counters_);
    if (!otlp) return otlp.error();
    otlp_ = *std::move(otlp);
    return base::Ok{};
  }

  grpc::Service* telemetry_service() override { return service_.get(); }
  int otlp_grpc_port() const override { return otlp_->grpc_port(); }
  int otlp_http_port() const override { return otlp_->http_port(); }

  void RegisterRoutes(server::Router& r) override {
    r.Add("GET", "/api/v1/topology", [this](const Request& q) { return Windowed(q, true); });
    r.Add("GET", "/api/v1/services", [this](const Request& q) { return Windowed(q, false); });
    r.Add("GET", "/api/v1/traces", [this](const Request& q) { return Traces(q); });
    r.Add("GET", "/api/v1/traces/{id}", [this](const Request& q) { return Trace(q.params.at("id")); });
    r.Add("GET", "/api/v1/why/{id}", [this](const Request& q) { return Why(q.params.at("id")); });
    r.Add("GET", "/api/v1/telemetry", [this](const Request&) { return Answer(TelemetryJson()); });
    for (const ui::Asset& a : ui::Assets()) r.AddAsset(std::string(a.path), std::string(a.content_type), a.body, a.gzip);
  }

  std::string Metrics() override {
    PipelineStats s = pipeline_->stats();
    std::string out;
    auto put = [&](const char* name, const char* type, const char* help, uint64_t value) {
      out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n" + name + " " + std::to_string(value) + "\n";
    };
    put("weft_telemetry_events_total", "counter", "Requests counted.", s.events);
    put("weft_telemetry_events_without_detail_total", "counter", "Requests counted of which a busy sidecar kept no details.", s.without_detail);
    put("weft_telemetry_duplicate_events_total", "counter", "Events sent again and left out.", s.duplicates);
    put("weft_telemetry_spans_total", "counter", "OTLP spans stored.", s.spans);
    put("weft_telemetry_commits_total", "counter", "Batches committed.", s.commits);
    put("weft_telemetry_failed_commits_total", "counter", "Batches the store could not keep.", s.failed_commits);
    put("weft_telemetry_dropped_by_sidecars_total", "counter", "Events sidecars dropped before sending.", drops_.Total());
    put("weft_telemetry_dropped_bad_time_total", "counter", "Events and spans more than a day off our clock.", s.bad_time);
    put("weft_telemetry_dropped_otlp_spans_total", "counter", "OTLP spans without ids, too big or too many.", counters_.otlp_left_out);
    put("weft_telemetry_refused_total", "counter", "Times the full queue refused an item.", s.refused_items);
    put("weft_telemetry_unauthenticated_total", "counter", "Streams without a workload's certificate.", counters_.unauthenticated);
    put("weft_telemetry_claims_overridden_total", "counter", "Batches that claimed another service than the certificate.",
        counters_.claims_overridden);
    put("weft_telemetry_queue_items", "gauge", "Items waiting for the writer.", s.queue_items);
    put("weft_telemetry_queue_bytes", "gauge", "Bytes waiting for the writer.", s.queue_bytes);
    put("weft_telemetry_streams", "gauge", "Sidecars streaming events.", counters_.streams);
    put("weft_telemetry_series", "gauge", "Series of the live counts.", live_.series());
    return out;
  }

 private:
  std::string TelemetryJson() {
    PipelineStats s = pipeline_->stats();
    std::string by_workload;
    for (const auto& [workload, n] : drops_.ByWorkload()) {
      std::string quoted;
      for (char c : workload) {
        if (c == '"' || c == '\\') quoted += '\\';
        quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
      }
      by_workload += (by_workload.empty() ? "\"" : ",\"") + quoted + "\":" + std::to_string(n);
    }
    auto n = [](uint64_t v) { return std::to_string(v); };
    return "{\"events\":" + n(s.events) + ",\"without_detail\":" + n(s.without_detail) + ",\"duplicates\":" + n(s.duplicates) + ",\"spans\":" + n(s.spans) + ",\"commits\":" + n(s.commits) +
           ",\"failed_commits\":" + n(s.failed_commits) + ",\"dropped\":{\"by_sidecars\":" + n(drops_.Total()) + ",\"bad_time\":" +
           n(s.bad_time) + ",\"otlp\":" + n(counters_.otlp_left_out) + "},\"dropped_by_workload\":{" + by_workload + "},\"queue\":{\"items\":" +
           n(s.queue_items) + ",\"bytes\":" + n(s.queue_bytes) + ",\"refused\":" + n(s.refused_items) + "},\"streams\":" +
           n(counters_.streams) + ",\"stalls\":" + n(counters_.stalls) + ",\"series\":" + n(live_.series()) + ",\"last_commit_ms\":" +
           n(static_cast<uint64_t>(s.last_commit_us) / 1000) + "}";
  }

  Response Windowed(const Request& q, bool topology) {
    int64_t window, from_ms, to_ms, now = NowNs();
    if (!Number(q, "window", 60, 0, 400ll * 86'400, &window)) return ErrorResponse(400, "window: seconds, 0 to 34560000");
    if (!Number(q, "from", 0, 0, INT64_MAX / 1'000'000, &from_ms) || !Number(q, "to", 0, 0, INT64_MAX / 1'000'000, &to_ms)) {
      return ErrorResponse(400, "from, to: Unix milliseconds");
    }
    WindowInfo info;
    info.window_s = window, info.now_ms = now / 1'000'000;
    int64_t to = to_ms ? to_ms * 1'000'000 : now + 5 * kSecondNs;  // clocks of sidecars may be a little ahead
    int64_t from = from_ms ? from_ms * 1'000'000 : window ? now - window * kSecondNs : 0;
    std::vector<Cell> cells;
    if (from_ms == 0 && to_ms == 0 && window > 0 && window <= live_.seconds()) {
      cells = live_.Window(static_cast<int>(window), now);
      info.rate_s = live_.Span(static_cast<int>(window), now);
    } else {
      if (from >= to) return ErrorResponse(400, "from is not before to");
      auto stored = store_->Cells(from, to);
      if (!stored) return Refuse(stored.error());
      cells = *std::move(stored);
      if (to_ms == 0) {
        for (Cell& c : live_.OpenNow(now)) cells.push_back(std::move(c));
      }
      info.window_s = from ? (to - from) / kSecondNs : 0;
      info.rate_s = std::max<int64_t>(1, from ? (std::min(to, now) - from) / kSecondNs : 1);
    }
    if (!topology) return Answer(ServicesJson(BuildServices(cells), info));
    Topology t = BuildTopology(cells);
    if (std::any_of(t.edges.begin(), t.edges.end(), [](const Edge& e) { return e.denied > 0; })) {
      if (auto denied = store_->Events({.from_ns = from, .to_ns = to, .denials = true, .limit = 200})) AddExamples(*denied, t);
    }
    return Answer(TopologyJson(t, info, TelemetryJson()));
  }

  Response Traces(const Request& q) {
    int64_t limit, window, now = NowNs();
    if (!Number(q, "limit", 50, 1, 500, &limit)) return ErrorResponse(400, "limit: 1 to 500");
    if (!Number(q, "window", 900, 1, 400ll * 86'400, &window)) return ErrorResponse(400, "window: seconds, 1 to 34560000");
    std::string errors = q.Query("errors");
    if (!errors.empty() && errors != "true" && errors != "false" && errors != "1" && errors != "0") {
      return ErrorResponse(400, "errors: true or false");
    }
    TraceQuery t;
    t.service = q.Query("service"), t.errors_only = errors == "true" || errors == "1";
    if (t.service.ends_with(".default")) t.service.resize(t.service.size() - 8);
    t.from_ns = now - window * kSecondNs, t.to_ns = now + 60 * kSecondNs, t.limit = static_cast<size_t>(limit);
    auto traces = store_->Traces(t);
    if (!traces) return Refuse(traces.error());
    return Answer(TracesJson(*traces));
  }

  // By id: the last hour first, all that is stored only when the id is older (or began near the hour's edge).
  base::Result<std::vector<Event>> Find(EventQuery q) {
    int64_t hour_ago = NowNs() - 3'600 * kSecondNs;
    q.from_ns = hour_ago;
    auto found = store_->Events(q);
    if (!found || (!found->empty() && found->front().start_ns > hour_ago + 600 * kSecondNs)) return found;
    q.from_ns = 0;
    return store_->Events(q);
  }

  Response Trace(std::string id) {
    std::transform(id.begin(), id.end(), id.begin(), [](unsigned char c) { return static_cast<char>(tolower(c)); });
    if (id.size() != 32 || id.find_first_not_of("0123456789abcdef") != std::string::npos) {
      return ErrorResponse(400, "a trace id is 32 hex digits");
    }
    auto events = Find({.trace_id = id, .limit = kMaxHops});
    if (!events) return Refuse(events.error());
    auto spans = store_->Spans(id, kMaxHops);
    if (!spans) return Refuse(spans.error());
    if (events->empty() && spans->empty()) return ErrorResponse(404, "no trace " + id);
    return Answer(TraceJson(BuildTrace(id, *events, *spans), *events, *spans));
  }

  Response Why(const std::string& given) {
    if (given.empty() || given.size() > 256) return ErrorResponse(400, "a request id or a trace id");
    std::string id = given, lower = given;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(tolower(c)); });
    std::vector<Event> events;
    auto by_request = Find({.request_id = id, .limit = 1'000});
    if (!by_request) return Refuse(by_request.error());
    std::string trace;
    for (const Event& e : *by_request) {
      if (!e.trace_id.empty()) trace = e.trace_id;
    }
    if (by_request->empty()) trace = id = lower;
    std::vector<Span> spans;
    if (!trace.empty()) {
      auto all = Find({.trace_id = trace, .limit = kMaxHops});
      if (!all) return Refuse(all.error());
      events = *std::move(all);
      auto s = store_->Spans(trace, kMaxHops);
      if (!s) return Refuse(s.error());
      spans = *std::move(s);
    }
    // A request id may span views that carry no trace.
    for (Event& e : *by_request) {
      if (e.trace_id != trace || trace.empty()) events.push_back(std::move(e));
    }
    if (events.empty()) {
      return ErrorResponse(404, spans.empty() ? "no request or trace " + given : "trace " + given + " holds only the applications' spans, none of a sidecar");
    }
    int64_t around = events[0].end_ns;
    for (const Event& e : events) around = std::max(around, e.end_ns);
    auto cells = store_->Cells(around - 300 * kSecondNs, around + 60 * kSecondNs);
    auto why = Explain(id, std::move(events), spans, cells ? *cells : std::vector<Cell>(), WhySources());
    if (!why) return ErrorResponse(404, "no request or trace " + given);
    return Answer(WhyJson(given, *why));
  }

  // An answer with less in it is better than none: what the store cannot tell now is left out.
  Sources WhySources() {
    auto events = [this](EventQuery q) {
      auto found = store_->Events(q);
      return found ? *std::move(found) : std::vector<Event>();
    };
    Sources s;
    s.policy = policy_, s.workload_at = workload_at_;
    s.trace = [events](const std::string& id) { return events({.trace_id = id, .limit = kMaxHops}); };
    s.failed_calls = [events](const std::string& workload, int64_t from, int64_t to) {
      return events({.from_ns = from, .to_ns = to, .workload = workload, .direction = Direction::kOutbound, .failed = true, .limit = 500});
    };
    s.requests = [events](const std::string& workload, int64_t from, int64_t to) {
      return events({.from_ns = from, .to_ns = to, .workload = workload, .direction = Direction::kInbound, .limit = 500});
    };
    s.arrivals = [events](const std::string& address, int64_t from, int64_t to) {
      return events({.from_ns = from, .to_ns = to, .came_from = address, .limit = 10});
    };
    s.departures = [events](const std::string& address, int64_t from, int64_t to) {
      return events({.from_ns = from, .to_ns = to, .left_from = address, .limit = 10});
    };
    return s;
  }

  PolicyLookup policy_;
  std::function<std::string(const std::string&)> workload_at_;
  std::unique_ptr<Store> store_;
  Live live_;
  DropBook drops_;
  IngestCounters counters_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<OtlpServer> otlp_;
  std::thread seeding_;
};

}  // namespace

base::Result<std::unique_ptr<Insight>> Insight::Start(const InsightOptions& options) {
  auto impl = std::make_unique<Impl>();
  if (auto s = impl->Begin(options); !s) return s.error();
  return std::unique_ptr<Insight>(std::move(impl));
}

std::string InsightOpenApiPaths() {
  auto parameter = [](const char* name, const char* type, const char* text, bool path = false) {
    return std::string("{\"name\":\"") + name + "\",\"in\":\"" + (path ? "path" : "query") + "\"" + (path ? ",\"required\":true" : "") +
           ",\"schema\":{\"type\":\"" + type + "\"},\"description\":\"" + text + "\"}";
  };
  auto get = [](const char* id, const char* summary, const std::string& parameters, const char* codes) {
    std::string out = std::string("{\"get\":{\"operationId\":\"") + id + "\",\"summary\":\"" + summary + "\",\"parameters\":[" + parameters +
                      "],\"responses\":{\"200\":{\"description\":\"OK\",\"content\":{\"application/json\":{\"schema\":{\"type\":\"object\"}}}}";
    for (std::string_view rest = codes; !rest.empty();) {
      out += ",\"" + std::string(rest.substr(0, 3)) + "\":{\"description\":\"error\"}";
      rest.remove_prefix(std::min<size_t>(4, rest.size()));
    }
    return out + "}}}";
  };
  std::string window = parameter("window", "integer", "seconds until now; 0: everything stored") + "," +
                       parameter("from", "integer", "Unix ms") + "," + parameter("to", "integer", "Unix ms");
  return "{\"/api/v1/topology\":" + get("topology", "Who calls whom, how often and how well", window, "400 429 504") +
         ",\"/api/v1/services\":" + get("services", "Rate, errors and duration of every service and version", window, "400 429 504") +
         ",\"/api/v1/traces\":" +
         get("traces", "Recent traces, newest first",
             parameter("service", "string", "any hop of it") + "," + parameter("errors", "boolean", "failed ones only") + "," +
                 parameter("limit", "integer", "1 to 500") + "," + parameter("window", "integer", "seconds until now"),
             "400 429 504") +
         ",\"/api/v1/traces/{id}\":" + get("trace", "One trace as a tree of hops", parameter("id", "string", "32 hex digits", true), "400 404 429 504") +
         ",\"/api/v1/why/{id}\":" +
         get("why", "Root cause of a failed request, with the evidence", parameter("id", "string", "request id or trace id", true), "400 404 429 504") +
         ",\"/api/v1/telemetry\":" + get("telemetry", "State of the intake: stored, dropped, queued", "", "429") + "}";
}

}  // namespace weft::insight
