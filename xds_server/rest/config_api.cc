#include "xds_server/rest/config_api.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

using Json = nlohmann::ordered_json;

Response Ok(const Json& j) {
  Response r;
  r.body = j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return r;
}

Json ObjectJson(const std::string& content, uint64_t revision) {
  Json j = Json::parse(content, nullptr, false);
  if (!j.is_object()) return nullptr;
  if (revision) j["metadata"]["revision"] = revision;
  return j;
}

Json ChangeJson(const Change& c) {
  return {{"kind", c.kind}, {"namespace", c.name.ns}, {"name", c.name.name}, {"action", c.action()}};
}

Json RevisionJson(const Revision& r, bool with_content) {
  Json j = {{"revision", r.number}, {"time", IsoTime(r.time_unix_ms)}, {"action", r.action}, {"message", r.message}, {"changes", Json::array()}};
  for (const Change& c : r.changes) {
    Json change = ChangeJson(c);
    if (with_content) {
      change["old"] = c.old_content ? ObjectJson(*c.old_content, 0) : Json();
      change["new"] = c.new_content ? ObjectJson(*c.new_content, 0) : Json();
    }
    j["changes"].push_back(std::move(change));
  }
  return j;
}

Response RefusedPolicies(const std::vector<Issue>& issues) {
  std::string message = issues[0].ToString();
  if (issues.size() > 1) message += " (and " + std::to_string(issues.size() - 1) + " more)";
  Json details = Json::array();
  for (const Issue& i : issues) {
    details.push_back({{"file", i.file}, {"line", i.line}, {"column", i.column}, {"object", i.object}, {"field", i.field}, {"reason", i.reason}});
  }
  Response r = Ok({{"error", {{"message", message}, {"details", details}}}});
  r.status = 400;
  return r;
}

bool Flag(const Request& q, const char* name) {
  const std::string v = q.Query(name);
  return v == "true" || v == "1";
}

class Handlers {
 public:
  explicit Handlers(const ConfigApi& api) : api_(api) {}

  Response Objects(const Request& q) const {
    const std::string kind = q.Query("kind"), ns = q.Query("namespace"), name = q.Query("name");
    Json list = Json::array();
    for (const StoredObject& o : api_.store->Objects()) {
      if (!kind.empty() && o.kind != kind) continue;
      if (!ns.empty() && o.name.ns != ns) continue;
      if (!name.empty() && o.name.name != name) continue;
      list.push_back(ObjectJson(o.content, o.revision));
    }
    return Ok({{"revision", api_.store->revision()}, {"objects", list}});
  }

  Response Object(const Request& q) const {
    for (const StoredObject& o : api_.store->Objects()) {
      if (o.kind == q.params.at("kind") && o.name.ns == q.params.at("ns") && o.name.name == q.params.at("name")) return Ok(ObjectJson(o.content, o.revision));
    }
    return ErrorResponse(404, "no " + q.params.at("kind") + " " + q.params.at("ns") + "/" + q.params.at("name"));
  }

  Response Apply(const Request& q) const {
    ParseOutcome parsed = ParsePolicies(q.body, q.Query("file", "body"));
    if (!parsed.issues.empty()) return RefusedPolicies(parsed.issues);
    if (parsed.objects.empty()) return ErrorResponse(400, "no object in the body");
    std::vector<Store::Write> writes;
    std::vector<std::string> warnings;
    auto world = api_.control->world();
    for (const ParsedObject& o : parsed.objects) {
      writes.push_back({o.kind, o.name, ToStoredJson(*o.object)});
      if (!world) continue;
      for (std::string& w : ReferenceWarnings(o, *world)) warnings.push_back(std::move(w));
    }
    const bool dry_run = Flag(q, "dry_run");
    auto r = api_.store->Commit("apply", q.Query("message").substr(0, 1000), writes, NowMs(), dry_run);
    return Committed(r, dry_run, warnings, std::clamp(atoi(q.Query("wait_ms", "0").c_str()), 0, 10'000));
  }

  Response Diff(const Request& q) const {
    ParseOutcome parsed = ParsePolicies(q.body, q.Query("file", "body"));
    if (!parsed.issues.empty()) return RefusedPolicies(parsed.issues);
    std::vector<Store::Write> writes;
    for (const ParsedObject& o : parsed.objects) writes.push_back({o.kind, o.name, ToStoredJson(*o.object)});
    auto r = api_.store->Commit("diff", "", writes, NowMs(), true);
    if (!r) return ErrorResponse(503, r.error().ToString());
    Json list = Json::array();
    for (const Change& c : r->changes) {
      Json j = ChangeJson(c);
      j["diff"] = UnifiedDiff(c.old_content ? StoredToYaml(*c.old_content) : "", c.new_content ? StoredToYaml(*c.new_content) : "");
      j["old"] = c.old_content ? ObjectJson(*c.old_content, 0) : Json();
      j["new"] = c.new_content ? ObjectJson(*c.new_content, 0) : Json();
      list.push_back(std::move(j));
    }
    return Ok({{"objects", list}});
  }

  Response Delete(const Request& q) const {
    const Name name{q.params.at("ns"), q.params.at("name")};
    auto r = api_.store->Commit("delete", "", {{q.params.at("kind"), name, std::nullopt}}, NowMs(), false);
    if (r && !r->changes[0].old_content) return ErrorResponse(404, "no " + q.params.at("kind") + " " + name.ns + "/" + name.name);
    return Committed(r, false, {});
  }

  Response History(const Request& q) const {
    const int limit = std::clamp(atoi(q.Query("limit", "50").c_str()), 1, 1000);
    Json list = Json::array();
    for (const Revision& r : api_.store->History(static_cast<size_t>(limit))) list.push_back(RevisionJson(r, false));
    return Ok({{"revisions", list}});
  }

  Response HistoryOne(const Request& q) const {
    auto r = api_.store->GetRevision(strtoull(q.params.at("revision").c_str(), nullptr, 10));
    if (!r) return ErrorResponse(404, "no revision " + q.params.at("revision"));
    return Ok(RevisionJson(*r, true));
  }

  Response Rollback(const Request& q) const {
    Json body = Json::parse(q.body, nullptr, false);
    if (!body.is_object() || !body.contains("revision") || !body["revision"].is_number_unsigned()) {
      return ErrorResponse(400, "the body must be {\"revision\": number}");
    }
    auto r = api_.store->Rollback(body["revision"].get<uint64_t>(), NowMs());
    if (!r && r.error().message().rfind("there is no revision", 0) == 0) return ErrorResponse(404, r.error().ToString());
    return Committed(r, false, {}, std::clamp(atoi(q.Query("wait_ms", "0").c_str()), 0, 10'000));
  }

  Response Status(const Request&) const {
    Json list = Json::array();
    const auto status = api_.control->Status();
    if (!status) return ErrorResponse(503, "the control thread does not answer");
    for (const SidecarStatus& s : *status) list.push_back(SidecarJson(s));
    return Ok({{"revision", api_.store->revision()}, {"trust_domain", api_.authority->trust_domain()}, {"sidecars", list}});
  }

  Response Workloads(const Request& q) const {
    const std::string service = q.Query("service"), ns = q.Query("namespace");
    Json list = Json::array();
    const auto workloads = api_.control->Workloads();
    if (!workloads) return ErrorResponse(503, "the control thread does not answer");
    for (const WorkloadStatus& s : *workloads) {
      const Workload& w = s.workload;
      if (!service.empty() && w.service.name != service) continue;
      if (!ns.empty() && w.service.ns != ns) continue;
      Json ports = Json::array();
      for (const Port& p : w.ports) ports.push_back({{"number", p.target_port}, {"service_port", p.service_port}, {"protocol", ProtocolName(p.protocol)}});
      list.push_back({{"id", w.id}, {"service", w.service.name}, {"namespace", w.service.ns}, {"version", w.version}, {"address", w.address},
                      {"ports", ports}, {"labels", w.labels}, {"ready", w.ready}, {"draining", w.draining}, {"connected", s.connected},
                      {"active", w.active()}, {"sidecar_version", w.sidecar_version}, {"last_seen", IsoTime(s.last_seen_unix_ms)}});
    }
    return Ok({{"workloads", list}});
  }

  Response Services(const Request&) const {
    Json list = Json::array();
    auto world = api_.control->world();
    for (const auto& [name, s] : world->services) {
      Json ports = Json::array();
      for (const Port& p : s.ports) ports.push_back({{"port", p.service_port}, {"target_port", p.target_port}, {"protocol", ProtocolName(p.protocol)}});
      const auto active = std::count_if(s.workloads.begin(), s.workloads.end(), [](const auto& w) { return w->active(); });
      list.push_back({{"name", name.name}, {"namespace", name.ns}, {"vip", s.vip}, {"ports", ports}, {"hosts", s.hosts}, {"versions", s.versions},
                      {"workloads", s.workloads.size()}, {"active", active}, {"external", s.external()}});
    }
    return Ok({{"services", list}});
  }

  Response ForgetService(const Request& q) const {
    const std::string problem = api_.control->ForgetService({q.params.at("ns"), q.params.at("name")});
    if (problem.empty()) return Ok(Json::object());
    return ErrorResponse(problem == "no such service" ? 404 : 409, problem);
  }

  Response MakeToken(const Request& q) const {
    Json body = Json::parse(q.body, nullptr, false);
    if (!body.is_object()) return ErrorResponse(400, "the body must be {\"service\": \"…\", \"namespace\", \"ttl_s\", \"uses\"}");
    for (const auto& [key, value] : body.items()) {
      const bool text = key == "service" || key == "namespace";
      if (!text && key != "ttl_s" && key != "uses") return ErrorResponse(400, "unknown field " + key);
      if (text ? !value.is_string() : !value.is_number_integer()) return ErrorResponse(400, key + " is of the wrong kind");
    }
    TokenRecord t;
    t.service = {body.value("namespace", "default"), body.value("service", "")};
    const int64_t ttl = body.value("ttl_s", int64_t{3600});
    t.uses_left = body.value("uses", int64_t{1});
    if (!IsDnsLabel(t.service.name)) return ErrorResponse(400, "service must be a DNS label");
    if (!IsDnsLabel(t.service.ns)) return ErrorResponse(400, "namespace must be a DNS label");
    if (t.service.ns == "weft-system") return ErrorResponse(403, "weft-system is the server's own namespace");
    if (ttl < 1 || ttl > 365 * 86400) return ErrorResponse(400, "ttl_s must be 1 s to 365 days");
    if (t.uses_left < 1 || t.uses_left > 1'000'000) return ErrorResponse(400, "uses must be 1..1000000");
    t.id = RandomHex(8);
    const std::string secret = RandomHex(24);
    t.secret_sha256_hex = Sha256Hex(secret);
    t.expires_unix_s = NowMs() / 1000 + ttl;
    api_.store->RemoveExpiredTokens(NowMs() / 1000);
    if (auto r = api_.store->PutToken(t); !r) return ErrorResponse(503, r.error().ToString());
    return Ok({{"token", t.id + "." + secret + "." + api_.authority->root_spki_sha256_hex()}, {"id", t.id}, {"service", t.service.name},
               {"namespace", t.service.ns}, {"expires", IsoTime(t.expires_unix_s * 1000)}, {"uses", t.uses_left}});
  }

  Response DropToken(const Request& q) const {
    if (!api_.store->RemoveToken(q.params.at("id"))) return ErrorResponse(404, "no token " + q.params.at("id"));
    return Ok(Json::object());
  }

  Response TrustBundle(const Request&) const {
    return Ok({{"trust_domain", api_.authority->trust_domain()}, {"pem", api_.authority->bundle_pem()}, {"root_sha256", api_.authority->root_spki_sha256_hex()}});
  }

  Response Metrics(const Request&) const {
    Response r;
    r.content_type = "text/plain; version=0.0.4";
    r.body = api_.control->MetricsText();
    if (api_.more_metrics) r.body += api_.more_metrics();
    return r;
  }

  const ConfigApi& api() const { return api_; }

 private:
  int64_t NowMs() const { return static_cast<int64_t>(api_.clock->UnixNs() / base::kMs); }

  // How many of the connected sidecars have everything of at least this revision; waits up to wait_ms for all of them.
  Json Served(uint64_t revision, int wait_ms) const {
    const uint64_t until = api_.clock->MonotonicNs() + static_cast<uint64_t>(wait_ms) * base::kMs;
    while (true) {
      size_t connected = 0, served = 0, rejected = 0;
      const auto status = api_.control->Status();
      if (!status) return nullptr;
      for (const SidecarStatus& s : *status) {
        connected += s.connected;
        served += s.connected && s.synced && s.revision >= revision;
        rejected += s.connected && std::any_of(std::begin(s.types), std::end(s.types), [](const TypeStatus& t) { return t.nack.has_value(); });
      }
      if (served + rejected >= connected || api_.clock->MonotonicNs() >= until) return {{"connected", connected}, {"served", served}, {"rejected", rejected}};
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  Response Committed(base::Result<Revision>& r, bool dry_run, const std::vector<std::string>& warnings, int wait_ms = 0) const {
    if (!r) return ErrorResponse(503, r.error().ToString());
    if (!dry_run) api_.control->PoliciesChanged();
    Json objects = Json::array();
    for (const Change& c : r->changes) {
      Json j = ChangeJson(c);
      j["revision"] = r->number;
      objects.push_back(std::move(j));
    }
    Json answer = {{"revision", r->number}, {"dry_run", dry_run}, {"objects", objects}, {"warnings", warnings}};
    if (wait_ms > 0 && !dry_run) answer["sidecars"] = Served(r->number, wait_ms);
    return Ok(answer);
  }

  static Json SidecarJson(const SidecarStatus& s) {
    Json types = Json::object();
    for (int i = 0; i < kTypeCount; ++i) {
      const TypeStatus& t = s.types[i];
      if (!t.subscribed) continue;
      Json nack;
      if (t.nack) nack = {{"reason", t.nack->reason}, {"time", IsoTime(s.nack_unix_ms[i])}, {"names", t.nack->names}};
      types[std::string(TypeName(static_cast<Type>(i)))] = {{"acked", t.acked_version}, {"sent", t.sent_version}, {"revision", t.acked_revision},
                                                            {"resources", t.resources}, {"pending", t.pending}, {"nack", nack}};
    }
    return {{"node", s.node}, {"service", s.service.name}, {"namespace", s.service.ns}, {"version", s.version}, {"address", s.address},
            {"connected", s.connected}, {"synced", s.synced}, {"protocol", s.protocol}, {"revision", s.revision},
            {"last_seen", IsoTime(s.last_seen_unix_ms)}, {"connected_since", IsoTime(s.connected_since_unix_ms)}, {"ready", s.ready},
            {"draining", s.draining}, {"active", s.active}, {"reporting", s.reporting},
            {"certificate_expiry", IsoTime(s.certificate_not_after_unix_s * 1000)}, {"sidecar_version", s.sidecar_version}, {"types", types}};
  }

  const ConfigApi api_;
};

}  // namespace

std::string IsoTime(int64_t unix_ms) {
  if (unix_ms <= 0) return "";
  const time_t s = unix_ms / 1000;
  tm t{};
  gmtime_r(&s, &t);
  char buf[64];
  const size_t n = strftime(buf, sizeof buf, "%Y-%m-%dT%H:%M:%S", &t);
  snprintf(buf + n, sizeof buf - n, ".%03dZ", static_cast<int>(unix_ms % 1000));
  return buf;
}

void RegisterConfigRoutes(Router& router, const ConfigApi& api) {
  auto h = std::make_shared<const Handlers>(api);
  auto add = [&](const char* method, const char* pattern, Response (Handlers::*f)(const Request&) const) {
    router.Add(method, pattern, [h, f](const Request& q) { return (*h.*f)(q); });
  };
  add("GET", "/api/v1/objects", &Handlers::Objects);
  add("GET", "/api/v1/objects/{kind}/{ns}/{name}", &Handlers::Object);
  add("DELETE", "/api/v1/objects/{kind}/{ns}/{name}", &Handlers::Delete);
  add("POST", "/api/v1/apply", &Handlers::Apply);
  add("POST", "/api/v1/diff", &Handlers::Diff);
  add("GET", "/api/v1/history", &Handlers::History);
  add("GET", "/api/v1/history/{revision}", &Handlers::HistoryOne);
  add("POST", "/api/v1/rollback", &Handlers::Rollback);
  add("GET", "/api/v1/status", &Handlers::Status);
  add("GET", "/api/v1/workloads", &Handlers::Workloads);
  add("GET", "/api/v1/mesh/services", &Handlers::Services);
  add("DELETE", "/api/v1/mesh/services/{ns}/{name}", &Handlers::ForgetService);
  add("POST", "/api/v1/tokens", &Handlers::MakeToken);
  add("DELETE", "/api/v1/tokens/{id}", &Handlers::DropToken);
  add("GET", "/api/v1/trust-bundle", &Handlers::TrustBundle);
  add("GET", "/metrics", &Handlers::Metrics);
  router.Add("GET", "/api/v1/version", [h](const Request&) {
    return Ok({{"version", kVersion}, {"trust_domain", h->api().authority->trust_domain()}});
  });
  router.Add("GET", "/healthz", [](const Request&) { return Response{200, "text/plain", "ok\n", {}}; });
  router.Add("GET", "/api/v1/openapi.json", [text = OpenApi(api.more_openapi_paths)](const Request&) { return Response{200, "application/json", text, {}}; });
}

}  // namespace weft::server
