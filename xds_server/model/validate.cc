// What a well-formed policy must mean to be served. Each check names the field; its line comes from the reader's places.
#include <arpa/inet.h>
#include <google/protobuf/duration.pb.h>
#include <re2/re2.h>

#include <algorithm>
#include <set>

#include "api/weft/policy/v1/policy.pb.h"
#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

namespace pb = policy::v1;

bool IsToken(std::string_view s) {
  constexpr std::string_view kExtra = "!#$%&'*+-.^_`|~";
  return !s.empty() && s.size() <= 256 && std::all_of(s.begin(), s.end(), [&](unsigned char c) {
    return isalnum(c) || kExtra.find(static_cast<char>(c)) != std::string_view::npos;
  });
}

bool IsPrintable(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

bool IsEndpoint(std::string_view s) {
  size_t colon = s.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::string host(s.substr(0, colon)), port(s.substr(colon + 1));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  unsigned char buf[16];
  if (inet_pton(AF_INET, host.c_str(), buf) != 1 && inet_pton(AF_INET6, host.c_str(), buf) != 1) return false;
  if (port.empty() || port.size() > 5 || !std::all_of(port.begin(), port.end(), [](unsigned char c) { return isdigit(c); })) return false;
  int n = std::stoi(port);
  return n >= 1 && n <= 65535;
}

bool IsServiceRef(std::string_view s) {
  size_t dot = s.find('.');
  if (dot == std::string_view::npos) return IsDnsLabel(s);
  return IsDnsLabel(s.substr(0, dot)) && IsDnsLabel(s.substr(dot + 1));
}

bool IsDnsName(std::string_view s) {
  if (s.empty() || s.size() > 253) return false;
  while (true) {
    size_t dot = s.find('.');
    if (!IsDnsLabel(s.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    s.remove_prefix(dot + 1);
  }
}

class Checker {
 public:
  Checker(const ParsedObject& o, std::string_view file, std::vector<Issue>& issues) : o_(o), file_(file), issues_(issues) {}

  void Run() {
    const pb::Object& m = *o_.object;
    if (m.metadata().name().empty()) Fail("metadata.name", "missing");
    else if (!IsDnsLabel(m.metadata().name())) Fail("metadata.name", "must be a DNS label (a-z, 0-9, '-'; at most 63)");
    if (!IsDnsLabel(m.metadata().namespace_())) Fail("metadata.namespace", "must be a DNS label");
    switch (m.spec_case()) {
      case pb::Object::kService: return Service(m.service());
      case pb::Object::kRoute: return Route(m.route());
      case pb::Object::kTraffic: return Traffic(m.traffic());
      case pb::Object::kMeshTls: return MeshTls(m.mesh_tls());
      case pb::Object::kAuthorization: return Authorization(m.authorization());
      case pb::Object::kFault: return Fault(m.fault());
      case pb::Object::SPEC_NOT_SET: return;
    }
  }

 private:
  void Fail(const std::string& field, std::string reason) {
    std::pair<int, int> at{0, 0};
    // The field itself may not be written: then the nearest thing around it that is.
    for (std::string path = field;; path = path.substr(0, path.find_last_of(".["))) {
      if (auto it = o_.places.find(path); it != o_.places.end()) {
        at = it->second;
        break;
      }
      if (path.find_last_of(".[") == std::string::npos) {
        if (auto it = o_.places.find(""); it != o_.places.end()) at = it->second;
        break;
      }
    }
    issues_.push_back({std::string(file_), at.first, at.second, o_.kind + "/" + o_.name.ns + "/" + o_.name.name, field, std::move(reason)});
  }

  static std::string At(const std::string& path, int i) { return path + "[" + std::to_string(i) + "]"; }

  void Duration(const google::protobuf::Duration& d, const std::string& path, bool zero_ok) {
    if (d.seconds() < 0 || d.nanos() < 0) return Fail(path, "must not be negative");
    if (!zero_ok && d.seconds() == 0 && d.nanos() == 0) return Fail(path, "must be more than 0s");
    if (d.seconds() > 86400) Fail(path, "must be at most 24 h");
  }

  void Regex(const std::string& text, const std::string& path) {
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(1 << 20);
    RE2 re(text, options);
    if (!re.ok()) Fail(path, "bad regular expression: " + re.error());
  }

  void Header(const pb::Route::HeaderMatch& h, const std::string& path) {
    if (!IsToken(h.name()) && !(h.name().size() > 1 && h.name()[0] == ':' && IsToken(h.name().substr(1)))) {
      Fail(path + ".name", h.name().empty() ? "missing" : "not a header name");
    }
    int kinds = !h.exact().empty() + !h.prefix().empty() + !h.regex().empty() + h.present();
    if (kinds != 1) Fail(path, "needs exactly one of exact, prefix, regex and present");
    if (!h.regex().empty()) Regex(h.regex(), path + ".regex");
  }

  void Service(const pb::Service& s) {
    std::set<uint32_t> seen;
    for (int i = 0; i < s.ports_size(); ++i) {
      const auto& p = s.ports(i);
      const std::string path = At("spec.ports", i);
      if (p.port() < 1 || p.port() > 65535) Fail(path + ".port", "must be 1..65535");
      if (p.target_port() > 65535) Fail(path + ".target_port", "must be 1..65535");
      if (!seen.insert(p.port()).second) Fail(path + ".port", "given twice");
      enum Protocol protocol;
      if (!p.protocol().empty() && !ParseProtocol(p.protocol(), protocol)) {
        Fail(path + ".protocol", "is \"" + p.protocol() + "\"; one of http, http2, grpc, tcp");
      }
    }
    std::set<std::string> hosts;
    for (int i = 0; i < s.hosts_size(); ++i) {
      if (!IsDnsName(s.hosts(i))) Fail(At("spec.hosts", i), "not a DNS name");
      if (!hosts.insert(s.hosts(i)).second) Fail(At("spec.hosts", i), "given twice");
    }
    for (int i = 0; i < s.endpoints_size(); ++i) {
      if (!IsEndpoint(s.endpoints(i))) Fail(At("spec.endpoints", i), "must be \"ip:port\"");
    }
    if (s.endpoints_size() > 0 && s.ports_size() == 0) Fail("spec.ports", "needed with endpoints");
  }

  void Match(const pb::Route::Match& m, const std::string& path) {
    int kinds = !m.path().empty() + !m.prefix().empty() + !m.regex().empty();
    if (kinds > 1) Fail(path, "takes only one of path, prefix and regex");
    if (!m.path().empty() && m.path()[0] != '/') Fail(path + ".path", "must begin with \"/\"");
    if (!m.prefix().empty() && m.prefix()[0] != '/') Fail(path + ".prefix", "must begin with \"/\"");
    if (!m.regex().empty()) Regex(m.regex(), path + ".regex");
    for (int i = 0; i < m.methods_size(); ++i) {
      if (!IsToken(m.methods(i))) Fail(At(path + ".methods", i), "not a method");
    }
    for (int i = 0; i < m.headers_size(); ++i) Header(m.headers(i), At(path + ".headers", i));
  }

  void Retry(const pb::Route::Retry& r, const std::string& path) {
    static const std::set<std::string> kWords = {
        "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
        "envoy-ratelimited",
        "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"};
    if (r.attempts() > 10) Fail(path + ".attempts", "must be 0..10");
    for (int i = 0; i < r.on_size(); ++i) {
      if (!kWords.count(r.on(i))) Fail(At(path + ".on", i), "unknown condition \"" + r.on(i) + "\"");
    }
    if (r.has_per_try_timeout()) Duration(r.per_try_timeout(), path + ".per_try_timeout", false);
  }

  void Route(const pb::Route& route) {
    std::set<std::string> names;
    for (int i = 0; i < route.rules_size(); ++i) {
      const auto& rule = route.rules(i);
      const std::string path = At("spec.rules", i);
      if (!rule.name().empty() && !IsDnsLabel(rule.name())) Fail(path + ".name", "must be a DNS label");
      if (!rule.name().empty() && !names.insert(rule.name()).second) Fail(path + ".name", "given twice");
      for (int j = 0; j < rule.matches_size(); ++j) Match(rule.matches(j), At(path + ".matches", j));
      uint64_t sum = 0;
      std::set<std::string> targets;
      for (int j = 0; j < rule.to_size(); ++j) {
        const auto& to = rule.to(j);
        const std::string at = At(path + ".to", j);
        if (!to.service().empty() && !IsServiceRef(to.service())) Fail(at + ".service", "must be \"name\" or \"name.namespace\"");
        if (!to.version().empty() && !IsDnsLabel(to.version())) Fail(at + ".version", "must be a DNS label");
        if (to.port() > 65535) Fail(at + ".port", "must be 1..65535");
        if (to.weight() > 1'000'000) Fail(at + ".weight", "must be at most 1000000");
        Name target = to.service().empty() ? o_.name : ParseServiceRef(to.service(), o_.name.ns);
        if (!targets.insert(target.ToString() + "|" + to.version() + "|" + std::to_string(to.port())).second) {
          Fail(at, "the same destination is given twice");
        }
        sum += to.weight();
      }
      if (rule.to_size() > 1 && sum == 0) Fail(path + ".to", "several destinations need weights that are not all 0");
      if (rule.has_timeout()) Duration(rule.timeout(), path + ".timeout", true);
      if (rule.has_retry()) Retry(rule.retry(), path + ".retry");
      if (!rule.rewrite_prefix().empty()) {
        if (rule.rewrite_prefix()[0] != '/') Fail(path + ".rewrite_prefix", "must begin with \"/\"");
        for (const auto& m : rule.matches()) {
          if (!m.regex().empty()) Fail(path + ".rewrite_prefix", "does not go with a regex match");
        }
      }
      if (rule.respond_status() != 0) {
        if (rule.respond_status() < 200 || rule.respond_status() > 599) Fail(path + ".respond_status", "must be 200..599");
        if (rule.to_size() > 0) Fail(path + ".to", "a rule answers directly or forwards, not both");
      } else if (!rule.respond_body().empty()) {
        Fail(path + ".respond_body", "needs respond_status");
      }
      if (rule.respond_body().size() > 4096) Fail(path + ".respond_body", "must be at most 4096 bytes");
    }
  }

  void Traffic(const pb::Traffic& t) {
    if (t.has_outlier()) {
      const auto& o = t.outlier();
      if (o.has_base_ejection()) Duration(o.base_ejection(), "spec.outlier.base_ejection", false);
      if (o.has_max_ejection()) Duration(o.max_ejection(), "spec.outlier.max_ejection", false);
      if (o.has_interval()) Duration(o.interval(), "spec.outlier.interval", false);
      if (o.max_ejection_percent() > 100) Fail("spec.outlier.max_ejection_percent", "must be 0..100");
    }
    if (t.has_retry_budget() && (t.retry_budget().percent() < 0 || t.retry_budget().percent() > 100)) {
      Fail("spec.retry_budget.percent", "must be 0..100");
    }
    if (t.has_connect_timeout()) Duration(t.connect_timeout(), "spec.connect_timeout", false);
    const std::string& lb = t.load_balancer();
    if (!lb.empty() && lb != "least_request" && lb != "round_robin" && lb != "random") {
      Fail("spec.load_balancer", "is \"" + lb + "\"; one of least_request, round_robin, random");
    }
  }

  void MeshTls(const pb::MeshTls& t) {
    if (t.mode() != "STRICT" && t.mode() != "PERMISSIVE") Fail("spec.mode", "must be STRICT or PERMISSIVE");
  }

  void Authorization(const pb::Authorization& a) {
    if (a.action() != "ALLOW" && a.action() != "DENY") Fail("spec.action", "must be ALLOW or DENY");
    if (a.action() == "DENY" && a.rules_size() == 0) Fail("spec.rules", "a DENY without rules denies nothing");
    std::set<std::string> names;
    for (int i = 0; i < a.rules_size(); ++i) {
      const auto& rule = a.rules(i);
      const std::string path = At("spec.rules", i);
      if (!rule.name().empty() && !IsDnsLabel(rule.name())) Fail(path + ".name", "must be a DNS label");
      if (!rule.name().empty() && !names.insert(rule.name()).second) Fail(path + ".name", "given twice");
      for (int j = 0; j < rule.from_size(); ++j) {
        const std::string from = At(path + ".from", j);
        if (rule.from(j).services_size() + rule.from(j).identities_size() == 0) Fail(from, "names nobody: give services or identities");
        for (int k = 0; k < rule.from(j).services_size(); ++k) {
          const std::string& s = rule.from(j).services(k);
          if (s != "*" && !IsServiceRef(s)) Fail(At(from + ".services", k), "must be \"name\", \"name.namespace\" or \"*\"");
        }
        for (int k = 0; k < rule.from(j).identities_size(); ++k) {
          const std::string& s = rule.from(j).identities(k);
          if (s.rfind("spiffe://", 0) != 0 || !IsPrintable(s)) Fail(At(from + ".identities", k), "must begin with spiffe://");
          if (s.find('*') < s.size() - 1) Fail(At(from + ".identities", k), "\"*\" only at the end");
        }
      }
      for (int j = 0; j < rule.to_size(); ++j) {
        const std::string to = At(path + ".to", j);
        if (rule.to(j).paths_size() + rule.to(j).methods_size() + rule.to(j).ports_size() == 0) Fail(to, "names nothing: give paths, methods or ports");
        for (int k = 0; k < rule.to(j).paths_size(); ++k) {
          const std::string& s = rule.to(j).paths(k);
          const bool prefix = !s.empty() && s.back() == '*', suffix = !s.empty() && s.front() == '*';
          if (s.empty() || (!suffix && s[0] != '/')) Fail(At(to + ".paths", k), "must begin with \"/\" or \"*\"");
          if (prefix && suffix && s.size() > 1) Fail(At(to + ".paths", k), "\"*\" at one end only");
          if (std::count(s.begin(), s.end(), '*') > 1) Fail(At(to + ".paths", k), "\"*\" once only");
          else if (!prefix && !suffix && s.find('*') != std::string::npos) Fail(At(to + ".paths", k), "\"*\" only at an end");
        }
        for (int k = 0; k < rule.to(j).methods_size(); ++k) {
          if (!IsToken(rule.to(j).methods(k))) Fail(At(to + ".methods", k), "not a method");
        }
        for (int k = 0; k < rule.to(j).ports_size(); ++k) {
          if (rule.to(j).ports(k) < 1 || rule.to(j).ports(k) > 65535) Fail(At(to + ".ports", k), "must be 1..65535");
        }
      }
    }
  }

  void Fault(const pb::Fault& f) {
    if (f.abort_percent() < 0 || f.abort_percent() > 100) Fail("spec.abort_percent", "must be 0..100");
    if (f.delay_percent() < 0 || f.delay_percent() > 100) Fail("spec.delay_percent", "must be 0..100");
    if (f.abort_percent() > 0 && (f.abort_status() < 200 || f.abort_status() > 599)) Fail("spec.abort_status", "must be 200..599");
    if (f.delay_percent() > 0 && !f.has_delay()) Fail("spec.delay", "needed with delay_percent");
    if (f.has_delay()) Duration(f.delay(), "spec.delay", false);
    for (int i = 0; i < f.headers_size(); ++i) Header(f.headers(i), At("spec.headers", i));
  }

  const ParsedObject& o_;
  std::string_view file_;
  std::vector<Issue>& issues_;
};

}  // namespace

void ValidateObject(const ParsedObject& object, std::string_view file, std::vector<Issue>& issues) {
  Checker(object, file, issues).Run();
}

std::vector<std::string> ReferenceWarnings(const ParsedObject& o, const World& world) {
  std::vector<std::string> out;
  const std::string self = o.kind + "/" + o.name.ns + "/" + o.name.name;
  auto unknown = [&](const Name& n) {
    if (!world.FindService(n)) out.push_back(self + ": service " + n.ToString() + " is not known yet");
  };
  if (o.kind == "Route") {
    unknown(o.name);
    for (const auto& rule : o.object->route().rules()) {
      for (const auto& to : rule.to()) {
        Name target = to.service().empty() ? o.name : ParseServiceRef(to.service(), o.name.ns);
        const Service* s = world.FindService(target);
        if (!s) {
          if (target != o.name) unknown(target);
          continue;
        }
        const bool has = std::any_of(s->workloads.begin(), s->workloads.end(), [&](const auto& w) { return w->version == to.version(); });
        if (!to.version().empty() && !has) out.push_back(self + ": no instance of " + target.ToString() + " has version " + to.version());
        if (to.port() && !s->FindPort(static_cast<uint16_t>(to.port()))) {
          out.push_back(self + ": " + target.ToString() + " has no port " + std::to_string(to.port()));
        }
      }
    }
  } else if (o.kind != "Service" && o.name.name != "default") {
    unknown(o.name);
  }
  return out;
}

}  // namespace weft::server
