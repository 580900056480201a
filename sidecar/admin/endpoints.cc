#include "sidecar/admin/endpoints.h"

#include "sidecar/base/log.h"
#include "sidecar/telemetry/stats_text.h"

namespace weft::admin {

namespace {

Response Stats(const AdminState& state, const Request& r, bool prometheus) {
  telemetry::StatsFilter filter;
  filter.used_only = r.Has("usedonly");
  if (r.Has("filter")) {
    if (auto s = filter.SetRegex(r.Get("filter")); !s) return {400, s.error().ToString() + "\n"};
  }
  std::string type = r.Get("type");
  if (type == "Counters") filter.kinds = telemetry::StatsFilter::kCounters;
  else if (type == "Gauges") filter.kinds = telemetry::StatsFilter::kGauges;
  else if (type == "Histograms") filter.kinds = telemetry::StatsFilter::kHistograms;
  else if (!type.empty() && type != "All") return {404, "invalid &type= choice\n"};
  std::string format = r.Get("format");
  if (!format.empty() && format != "json" && format != "text" && format != "prometheus") return {400, "usage: /stats?format=(json|prometheus|text)\n"};
  const auto snapshot = state.builder->current();
  static const model::ConfigSnapshot kNone;
  ConfigStatsReader rows = state.config_stats->Read(snapshot ? *snapshot : kNone);
  if (prometheus || format == "prometheus") return {200, telemetry::PrometheusText(filter, &rows), "text/plain; version=0.0.4; charset=UTF-8"};
  if (format == "json") return {200, telemetry::StatsJson(filter, &rows), "application/json"};
  return {200, telemetry::StatsText(filter, &rows)};
}

Response Logging(const Request& r) {
  for (const auto& [key, value] : r.query) {
    if (key == "level") {
      auto level = base::ParseLevel(value);
      if (!level) return {400, "error: unknown logger level\n"};
      base::SetAllLevels(*level);
    } else if (key == "paths") {
      if (auto s = base::SetComponentLevels(value); !s) return {400, "error: " + s.error().ToString() + "\n"};
    } else {
      auto level = base::ParseLevel(value);
      if (!level) return {400, "error: unknown logger level\n"};
      if (auto s = base::SetComponentLevel(key, *level); !s) return {400, "error: unknown logger name\n"};
    }
  }
  std::string out = "active loggers:\n";
  for (int i = 0; i < static_cast<int>(base::Component::kCount); ++i) {
    auto c = static_cast<base::Component>(i);
    out += "  " + std::string(base::ComponentName(c)) + ": " + std::string(base::LevelName(base::GetLevel(c))) + "\n";
  }
  return {200, out + "\n"};
}

const char* PhaseName(AdminState::Phase p) {
  static const char* const names[] = {"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"};
  return names[p];
}

}  // namespace

void RegisterPrometheus(HttpServer* s, const AdminState* state) {
  s->Handle("/stats/prometheus", "print server stats in prometheus format", HttpServer::kRead, [state](const Request&) { return Stats(*state, {}, true); });
}

void RegisterEndpoints(HttpServer* s, const AdminState* state) {
  auto read = HttpServer::kRead, write = HttpServer::kWrite;
  s->Handle("/ready", "print server state, return 200 if LIVE, otherwise return 503", read, [state](const Request&) {
    auto phase = state->phase();
    bool live = phase == AdminState::kLive && state->healthy();
    std::string body = std::string(PhaseName(phase)) + "\n";
    if (!live && !state->why_not_ready().empty()) body += state->why_not_ready() + "\n";
    return Response{static_cast<uint16_t>(live ? 200 : 503), body};
  });
  s->Handle("/stats", "print server stats (?filter=<regex>&usedonly&format=text|json|prometheus&type=Counters|Gauges|Histograms)", read,
            [state](const Request& r) { return Stats(*state, r, false); });
  s->Handle("/stats/prometheus", "print server stats in prometheus format", read,
            [state](const Request& r) { return Stats(*state, r, true); });
  s->Handle("/config_dump", "dump current configs (?resource=, name_regex=, include_eds)", read,
            [state](const Request& r) { return ConfigDump(*state, r); });
  s->Handle("/clusters", "upstream cluster status (?format=json)", read, [state](const Request& r) { return Clusters(*state, r); });
  s->Handle("/listeners", "print listener info (?format=json)", read, [state](const Request& r) { return Listeners(*state, r); });
  s->Handle("/certs", "print certs on machine", read, [state](const Request& r) { return Certs(*state, r); });
  s->Handle("/server_info", "print server version/status information", read, [state](const Request&) { return ServerInfo(*state); });
  s->Handle("/memory", "print current allocation/heap usage", read, [](const Request&) { return Memory(); });
  s->Handle("/hot_restart_version", "print the hot restart compatibility version", read, [](const Request&) { return Response{200, "disabled"}; });
  s->Handle("/init_dump", "print what is not ready yet", read, [state](const Request&) {
    return Response{200, state->builder->WarmingText() + "\n"};
  });
  s->Handle("/weft/status", "state of this sidecar: identity, discovery, readiness", read, [state](const Request&) { return WeftStatus(*state); });
  s->Handle("/logging", "query/change logging levels (?level=, ?<logger>=, ?paths=a:debug,b:info)", write, Logging);
  s->Handle("/drain_listeners", "drain listeners", write, [state](const Request&) {
    state->drain_listeners();
    return Response{200, "OK\n"};
  });
  s->Handle("/healthcheck/fail", "cause the server to fail health checks", write, [state](const Request&) {
    state->set_health(false);
    return Response{200, "OK\n"};
  });
  s->Handle("/healthcheck/ok", "cause the server to pass health checks", write, [state](const Request&) {
    state->set_health(true);
    return Response{200, "OK\n"};
  });
  s->Handle("/quitquitquit", "exit the server", write, [state](const Request&) {
    state->quit();
    return Response{200, "OK\n"};
  });
  s->Handle("/reset_counters", "reset all counters to zero", write, [state](const Request&) {
    base::Stats::Get().ResetCounters();
    if (auto snapshot = state->builder->current()) state->config_stats->ResetCounters(*snapshot);
    return Response{200, "OK\n"};
  });
  s->Handle("/reopen_logs", "reopen access logs", write, [state](const Request&) {
    state->reopen_logs();
    return Response{200, "OK\n"};
  });
}

}  // namespace weft::admin
