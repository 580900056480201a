// status, topology, traces, trace, why: what the mesh says about itself.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "tools/weft/cli/waterfall.h"
#include "tools/weft/commands.h"

namespace weft {
namespace {

using cli::Clean;
using cli::Json;
using cli::Text;

void Status(Context& c) {
  const Json answer = c.client().Get("/api/v1/status");
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  const long now = time(nullptr);
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> nacks;
  for (const Json& s : answer.value("sidecars", Json::array())) {
    std::vector<std::string> row = {Text(s, "node"), Text(s, "service") + "." + Text(s, "namespace"), Text(s, "version"),
                                    Text(s, "connected") == "true" ? "yes" : "NO (" + cli::Age(Text(s, "last_seen"), now) + ")",
                                    Text(s, "active") == "true" ? "yes" : Text(s, "ready") == "true" ? "ready" : "no"};
    const Json types = s.value("types", Json::object());
    for (const char* t : {"cds", "eds", "lds", "rds"}) {
      const Json type = types.contains(t) ? types[t] : Json();
      if (!type.is_object()) {
        row.push_back("");
        continue;
      }
      const bool nack = type.contains("nack") && type["nack"].is_object();
      row.push_back(nack ? "NACK" : (Text(type, "pending") == "true" ? "pending " : "") + Text(type, "acked").substr(0, 8));
      if (nack) nacks.push_back(Text(s, "node") + " " + t + ": " + Text(type["nack"], "reason"));
    }
    row.push_back(Text(s, "revision"));
    rows.push_back(std::move(row));
  }
  if (rows.empty()) printf("No sidecar is known.\n");
  else fputs(cli::Table({"SIDECAR", "SERVICE", "VERSION", "CONNECTED", "SERVING", "CDS", "EDS", "LDS", "RDS", "REVISION"}, rows).c_str(),
        stdout);
  for (const auto& n : nacks) printf("\nrefused: %s\n", Clean(n).c_str());
  printf("\nrevision %s, trust domain %s\n", Text(answer, "revision").c_str(), Clean(Text(answer, "trust_domain")).c_str());
}

double Number(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_number() ? object[key].get<double>() : 0;
}

std::string Rate(double v) {
  char buf[32];
  snprintf(buf, sizeof buf, v < 10 ? "%.2f" : "%.1f", v);
  return buf;
}

std::string Percent(double share) {
  char buf[32];
  snprintf(buf, sizeof buf, "%.1f%%", share * 100);
  return buf;
}

void Topology(Context& c, int window) {
  const Json answer = c.client().Get("/api/v1/topology", {{"window", std::to_string(window)}});
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> denials;
  for (const Json& e : answer.value("edges", Json::array())) {
    const bool mtls = e.contains("mtls") && e["mtls"].is_boolean() && e["mtls"].get<bool>();
    std::string protocols;
    for (const Json& p : e.value("protocols", Json::array())) {
      if (p.is_string()) protocols += (protocols.empty() ? "" : ",") + p.get<std::string>();
    }
    rows.push_back({Text(e, "source"), Text(e, "destination"), protocols, Rate(Number(e, "rps")), Text(e, "requests"),
                    Percent(Number(e, "error_rate")), Text(e, "denied"), cli::HumanDuration(Number(e, "p95_ms") * 1000),
                    mtls ? "mTLS" : "PLAINTEXT", Text(e, "destination_identity")});
    for (const Json& d : e.value("denials", Json::array())) {
      const Json examples = d.value("examples", Json::array());
      denials.push_back(Text(e, "source") + " -> " + Text(e, "destination") + ": " + Text(d, "count") + " denied, " + Text(d, "reason") +
                        (examples.empty() || !examples[0].is_string() ? "" : "; the newest: weft why " + examples[0].get<std::string>()));
    }
  }
  if (rows.empty()) return void(fprintf(stderr, "No traffic in the last %d s.\n", window));
  fputs(cli::Table({"FROM", "TO", "PROTOCOL", "REQ/S", "REQUESTS", "ERRORS", "DENIED", "P95", "WIRE", "IDENTITY"}, rows).c_str(), stdout);
  for (const auto& d : denials) printf("%s\n", Clean(d).c_str());
  const Json t = answer.value("telemetry", Json::object());
  const Json dropped = t.value("dropped", Json::object());
  double lost = 0;
  for (const auto& [key, n] : dropped.items()) lost += n.is_number() ? n.get<double>() : 0;
  if (lost > 0) printf("not counted: %.0f events were dropped\n", lost);
}

struct TracesFlags {
  std::string service;
  bool errors = false;
  int limit = 20, window = 900;
};

void Traces(Context& c, const TracesFlags& f) {
  const Json answer = c.client().Get("/api/v1/traces", {{"service", f.service},
                                                        {"errors", f.errors ? "true" : ""},
                                                        {"limit", std::to_string(f.limit)},
                                                        {"window", std::to_string(f.window)}});
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  const long now = time(nullptr);
  std::vector<std::vector<std::string>> rows;
  for (const Json& t : answer.value("traces", Json::array())) {
    std::string services;
    for (const Json& s : t.value("services", Json::array())) {
      if (s.is_string()) services += (services.empty() ? "" : ",") + s.get<std::string>();
    }
    const bool error = t.contains("error") && t["error"].is_boolean() && t["error"].get<bool>();
    rows.push_back({Text(t, "trace_id"), std::to_string(std::max(0L, now - static_cast<long>(Number(t, "start_us") / 1e6))) + "s",
                    Text(t, "service"), Text(t, "name"), Text(t, "status"), error ? "error" : "ok", cli::HumanDuration(Number(t, "duration_us")),
                    Text(t, "hops"), services});
  }
  if (rows.empty()) return void(fprintf(stderr, "No traces found.\n"));
  fputs(cli::Table({"TRACE", "AGE", "FROM", "REQUEST", "STATUS", "RESULT", "DURATION", "HOPS", "SERVICES"}, rows).c_str(), stdout);
}

void Trace(Context& c, const std::string& id) {
  const Json t = c.client().GetOrNull("/api/v1/traces/" + cli::EncodeSegment(id));
  if (t.is_null()) throw cli::Failure("Error from server (NotFound): trace \"" + id + "\" not found");
  if (!c.table()) return void(fputs(cli::Render(t, c.output).c_str(), stdout));
  std::vector<cli::WaterfallRow> rows;
  for (const Json& h : t.value("hops", Json::array())) {
    cli::WaterfallRow row;
    row.label = Text(h, "service") + " " + Text(h, "kind") + "  " + Text(h, "name");
    row.start_us = static_cast<int64_t>(Number(h, "offset_us"));
    row.duration_us = static_cast<int64_t>(Number(h, "duration_us"));
    row.depth = static_cast<int>(Number(h, "depth"));
    row.error = h.contains("error") && h["error"].is_boolean() && h["error"].get<bool>();
    const Json e = h.value("event", Json::object());
    if (Number(e, "status") > 0) row.note = Text(e, "status");
    if (Number(e, "grpc_status") > 0) row.note += " grpc " + Text(e, "grpc_status");
    if (!Text(e, "response_flags").empty()) row.note += " " + Text(e, "response_flags");
    if (Number(e, "retries") > 0) row.note += " " + Text(e, "retries") + " retries";
    if (!Text(h, "status_message").empty()) row.note += " " + Text(h, "status_message");
    rows.push_back(std::move(row));
  }
  printf("trace %s  %s\n", Clean(Text(t, "trace_id")).c_str(), cli::HumanDuration(Number(t, "duration_us")).c_str());
  fputs(cli::Waterfall(rows, 40).c_str(), stdout);
  for (const Json& r : t.value("request_ids", Json::array())) {
    if (r.is_string()) printf("request %s\n", Clean(r.get<std::string>()).c_str());
  }
}

void PrintView(const char* who, const Json& e) {
  if (!e.is_object()) return void(printf("%s: saw nothing of it\n", who));
  printf("%s %s (%s):\n", who, Clean(Text(e, "workload")).c_str(), Clean(Text(e, "version")).c_str());
  // What is not there (the method of a connection, the route of a callee) leaves no gap.
  auto line = [](std::initializer_list<std::pair<const char*, std::string>> parts) {
    std::string out;
    for (const auto& [what, text] : parts) {
      if (!text.empty()) out += (out.empty() ? "  " : " ") + (*what ? std::string(what) + " " : "") + Clean(text);
    }
    printf("%s\n", out.c_str());
  };
  const bool tcp = Text(e, "protocol") == "tcp";
  line({{"", tcp ? "TCP connection" : Text(e, "method") + " " + Text(e, "authority") + Text(e, "path")},
        {"from", tcp ? Text(e, "downstream_address") : ""},
        {"to", tcp ? Text(e, "original_destination") : ""},
        {"->", tcp ? Text(e, "outcome") : Text(e, "status")},
        {"", Text(e, "response_flags")},
        {"", Text(e, "response_detail")}});
  line({{"", cli::HumanDuration(Number(e, "duration_us"))}, {"route", Text(e, "route")}, {"cluster", Text(e, "cluster")}});
  if (!Text(e, "source_identity").empty() || !Text(e, "destination_identity").empty()) {
    printf("  %s => %s %s\n", Clean(Text(e, "source_identity")).c_str(), Clean(Text(e, "destination_identity")).c_str(),
           Clean(Text(e, "tls_version")).c_str());
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& a : e.value("attempts", Json::array())) {
    rows.push_back({"  " + std::to_string(rows.size() + 1), Text(a, "endpoint"), Text(a, "version"), Text(a, "status"), Text(a, "outcome"), Text(a, "detail"),
                    cli::HumanDuration(Number(a, "duration_us")), Text(a, "healthy_hosts") + "/" + Text(a, "total_hosts"),
                    Text(a, "active_requests") + "/" + Text(a, "max_requests")});
  }
  if (!rows.empty()) {
    fputs(cli::Table({"  TRY", "ENDPOINT", "VERSION", "STATUS", "OUTCOME", "DETAIL", "TIME", "HEALTHY", "ACTIVE"}, rows).c_str(), stdout);
  }
}

void Why(Context& c, const std::string& id) {
  const Json w = c.client().GetOrNull("/api/v1/why/" + cli::EncodeSegment(id));
  if (w.is_null()) throw cli::Failure("Error from server (NotFound): request or trace \"" + id + "\" not found");
  if (!c.table()) return void(fputs(cli::Render(w, c.output).c_str(), stdout));
  printf("%s: %s\n", Clean(Text(w, "cause")).c_str(), Clean(Text(w, "sentence")).c_str());
  for (const Json& e : w.value("evidence", Json::array())) {
    if (e.is_string()) printf("  - %s\n", Clean(e.get<std::string>()).c_str());
  }
  std::string path;
  for (const Json& p : w.value("path", Json::array())) {
    if (p.is_string()) path += (path.empty() ? "" : " -> ") + p.get<std::string>();
  }
  if (!path.empty()) printf("path: %s\n", Clean(path).c_str());
  if (!Text(w, "decided_by").empty()) printf("decided by: %s\n", Clean(Text(w, "decided_by")).c_str());
  const Json policy = w.value("policy", Json());
  if (policy.is_object()) {
    printf("policy: %s/%s/%s%s%s, revision %s%s%s\n", Clean(Text(policy, "kind")).c_str(), Clean(Text(policy, "namespace")).c_str(),
           Clean(Text(policy, "name")).c_str(), Text(policy, "rule").empty() ? "" : " rule ", Clean(Text(policy, "rule")).c_str(), Clean(Text(policy, "revision")).c_str(),
           Text(policy, "message").empty() ? "" : ": ", Clean(Text(policy, "message")).c_str());
  }
  PrintView("caller", w.value("client", Json()));
  PrintView("callee", w.value("server", Json()));
  if (!Text(w, "next").empty()) printf("next: %s\n", Clean(Text(w, "next")).c_str());
}

}  // namespace

void AddInsightCommands(CLI::App& app, Context& c) {
  auto* status = app.add_subcommand("status", "every sidecar: connected, last acknowledged per type, refusals");
  AddOutputFlag(status, c);
  status->callback([&c] { Status(c); });
  {
    auto window = std::make_shared<int>(60);
    auto* sub = app.add_subcommand("topology", "who calls whom: rates, errors, latency, identities");
    sub->add_option("--window", *window, "seconds until now; 0: everything kept")->check(CLI::Range(0, 86400));
    AddOutputFlag(sub, c);
    sub->callback([&c, window] { Topology(c, *window); });
  }
  {
    auto f = std::make_shared<TracesFlags>();
    auto* sub = app.add_subcommand("traces", "recent traces, newest first");
    sub->add_option("--service", f->service, "any hop of it");
    sub->add_flag("--errors", f->errors, "only those with an error");
    sub->add_option("--limit", f->limit)->check(CLI::Range(1, 500));
    sub->add_option("--window", f->window, "seconds")->check(CLI::Range(1, 86400));
    AddOutputFlag(sub, c);
    sub->callback([&c, f] { Traces(c, *f); });
  }
  {
    auto id = std::make_shared<std::string>();
    auto* sub = app.add_subcommand("trace", "one trace as a waterfall");
    sub->add_option("id", *id)->required();
    AddOutputFlag(sub, c);
    sub->callback([&c, id] { Trace(c, *id); });
  }
  {
    auto id = std::make_shared<std::string>();
    auto* sub = app.add_subcommand("why", "why a request went as it did: cause, both ends' views, every attempt, the policy");
    sub->add_option("id", *id, "x-request-id or trace id")->required();
    AddOutputFlag(sub, c);
    sub->callback([&c, id] { Why(c, *id); });
  }
}

}  // namespace weft
