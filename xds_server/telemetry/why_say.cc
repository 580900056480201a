// The words: one sentence a cause, what decided, what to do next.
#include <algorithm>

#include "xds_server/telemetry/why_parts.h"

namespace weft::insight {
namespace {

std::string Endpoint(const std::string& endpoint, const std::string& workload, const std::string& version) {
  std::string s = endpoint.empty() ? "no endpoint" : endpoint;
  std::string more = workload;
  if (!version.empty()) more += (more.empty() ? "version " : ", version ") + version;
  return more.empty() ? s : s + " (" + more + ")";
}
std::string Endpoint(const Attempt& a) { return Endpoint(a.endpoint, a.workload, a.version); }

std::string Who(const Event& e) { return e.source_identity.empty() ? e.source : e.source_identity; }

// "10.77.0.9:51234" -> "10.77.0.9", "[::1]:80" -> "::1"
std::string IpOf(const std::string& address) {
  std::string ip = address.substr(0, address.rfind(':'));
  return ip.size() > 2 && ip.front() == '[' ? ip.substr(1, ip.size() - 2) : ip;
}

// The words between two marks of a text, "" when they are not there.
std::string Between(const std::string& s, std::string_view from, std::string_view to) {
  size_t a = s.find(from);
  if (a == std::string::npos) return "";
  a += from.size();
  size_t b = to.empty() ? std::string::npos : s.find(to, a);
  return b == std::string::npos && !to.empty() ? "" : s.substr(a, b == std::string::npos ? b : b - a);
}

// "timeout,connect_failure" and 3 -> "3 errors in a row (timeouts and connection failures)"; one kind: "3 timeouts in a row"
std::string Errors(const Ejection& e) {
  if (e.errors == 0) return e.rule == "success_rate" ? "a success rate far below the others'" : "too high a share of failures";
  std::vector<std::string> kinds;
  for (std::string_view rest = e.kinds; !rest.empty();) {
    std::string_view k = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), k.size() + 1));
    kinds.push_back(k == "timeout"           ? "timeouts"
                    : k == "connect_failure" ? "connection failures"
                    : k == "connect_timeout" ? "connect timeouts"
                    : k == "reset"           ? "resets"
                    : k == "refused_stream"  ? "refused streams"
                                             : "answers like " + std::string(k));
  }
  std::string n = std::to_string(e.errors);
  if (kinds.size() == 1) return n + " " + kinds[0] + " in a row";
  std::string list;
  for (size_t i = 0; i < kinds.size(); ++i) list += (i == 0 ? "" : i + 1 == kinds.size() ? " and " : ", ") + kinds[i];
  return n + " errors in a row" + (list.empty() ? "" : " (" + list + ")");
}

class Speaker {
 public:
  Speaker(const Finding& f, const Sources& sources, Explanation& out)
      : f_(f), sources_(sources), out_(out), e_(*f.speaker), last_(LastAttempt(e_)), at_callee_(f.speaker == f.server) {}
  void Say();

 private:
  void ConnectionRefused();
  void Reset();
  void Timeout();
  void OpenBreaker();
  void NoHealthyEndpoint();
  void Denied();
  void RefusedByCallee(bool wrong);
  void WrongIdentity();
  void RetriesStopped();
  // Whose text out_.policy is; `otherwise`: what decided when no policy did.
  void Decide(const PolicyRef& p, const std::string& otherwise);
  std::string Where(const std::string& address) const;
  std::string Tries() const {
    return e_.attempts.size() > 1 ? " on the last of " + std::to_string(e_.attempts.size()) + " attempts" : "";
  }
  const std::string& callee() const { return f_.callee; }

  const Finding& f_;
  const Sources& sources_;
  Explanation& out_;
  const Event& e_;
  const Attempt* const last_;
  const bool at_callee_;
};

void Speaker::Decide(const PolicyRef& p, const std::string& otherwise) {
  if (p) {
    out_.policy = p;
    if (sources_.policy && !out_.policy_text) out_.policy_text = sources_.policy(p);
    if (out_.policy_text && out_.policy.revision == 0) out_.policy.revision = out_.policy_text->revision;
    out_.decided_by = PolicyName(out_.policy);
  } else {
    out_.decided_by = otherwise;
  }
}

std::string Speaker::Where(const std::string& address) const {
  if (address.empty()) return "an unknown address";
  std::string who = sources_.workload_at ? sources_.workload_at(IpOf(address)) : "";
  return address + " (" + (who.empty() ? "no workload of the mesh" : "workload " + who) + ")";
}

void Speaker::ConnectionRefused() {
  bool refused = OutcomeIs(last_, "connect_refused");
  std::string where = last_ ? Endpoint(*last_) : "its endpoint";
  if (at_callee_) {
    out_.sentence = "The application of " + callee() + " refused the connection at " + where + ": " + callee() +
                    "'s sidecar was reached, but nothing listens behind it.";
    out_.next = "Check that the application of " + callee() + " runs and listens on that port.";
  } else {
    out_.sentence = callee() + " could not be reached: " + where + (refused ? " refused the connection" : " could not be connected to") + Tries() + ".";
    out_.next = "Check that the instance " + (last_ && !last_->workload.empty() ? last_->workload : callee()) + " is running.";
  }
}

void Speaker::Reset() {
  out_.sentence = (at_callee_ ? "The application of " + callee() : callee() + (last_ ? " at " + Endpoint(*last_) : "")) + " cut the connection " +
                  Ms(last_ && last_->duration_us ? last_->duration_us : e_.duration_us) + " into the request, before the response was complete" +
                  Tries() + ".";
  out_.next = "Look for a crash or restart of " + callee() + " at that time.";
}

void Speaker::Timeout() {
  if (OutcomeIs(last_, "connect_timeout")) {
    Decide(ParsePolicy(e_.policy, e_.policy_revision), "the default connect timeout (no Traffic policy applies)");
    out_.sentence = "A connection to " + callee() + " at " + Endpoint(*last_) + " was not accepted within " + Ms(last_->duration_us) +
                    ", the time that " + out_.decided_by + " gives it.";
    out_.next = "Check that the host is up and that nothing drops packets to it.";
    return;
  }
  bool idle = HasFlag(e_.response_flags, "SI");
  bool per_try = OutcomeIs(last_, "per_try_timeout") && !HasFlag(e_.response_flags, "UT") && !idle;
  PolicyRef route = ParsePolicy(e_.policy, e_.policy_revision);
  if (route.kind == "Route") Decide(route, "");
  int64_t waited = last_ && last_->duration_us > 0 ? last_->duration_us : e_.duration_us;
  out_.sentence = (at_callee_ ? "The application of " + callee() : callee()) + " did not answer within " + Ms(waited) + " (" +
                  (per_try ? "per-try timeout" : idle ? "idle timeout" : "request timeout") +
                  (out_.decided_by.empty() ? "" : " of " + out_.decided_by) + ")" +
                  (e_.attempts.size() > 1 ? "," + Tries() : "") + ".";
  if (f_.server && f_.server != &e_ && out_.next.empty()) {
    out_.evidence.push_back(callee() + "'s sidecar had the request for " + Ms(f_.server->duration_us) +
                            " and its application had not finished when the caller left.");
    out_.next = "Look at what " + callee() + " does for this path, or raise the timeout of its Route.";
  }
}

void Speaker::OpenBreaker() {
  PolicyRef p = ParsePolicy(e_.policy, e_.policy_revision);
  Decide(p.kind == "Traffic" ? p : PolicyRef(), "the default limits (no Traffic policy applies)");
  out_.sentence = "The circuit breaker for " + callee() + " was open";
  if (last_ && last_->max_requests) {
    out_.sentence += last_->detail == "pending requests" ? ": no more requests may wait for a connection"
                     : last_->detail == "connections"    ? ": no more connections may be made"
                                                      : ": " + std::to_string(last_->active_requests) + " of at most " +
                                                            std::to_string(last_->max_requests) + " requests were in flight";
  }
  out_.sentence += " (" + out_.decided_by + "), so " + f_.caller + "'s sidecar answered at once instead of adding to the load.";
  out_.next = "Find out why " + callee() + " is slow or flooded; raise the limit in its Traffic policy only if it has room.";
}

void Speaker::NoHealthyEndpoint() {
  out_.sentence = "No healthy endpoint of " + callee() + " was left";
  if (last_ && !last_->ejections.empty()) {
    PolicyRef p = ParsePolicy(e_.policy, e_.policy_revision);
    Decide(p.kind == "Traffic" ? p : PolicyRef(), "the default outlier limits (no Traffic policy applies)");
    size_t n = last_->ejections.size();
    out_.sentence += ": " + f_.caller + "'s sidecar had ejected " +
                     (n == last_->total_hosts ? (n == 1 ? "its only instance" : "all " + std::to_string(n) + " instances")
                                              : std::to_string(n) + " of " + std::to_string(last_->total_hosts) + " instances") + ", ";
    for (size_t i = 0; i < n && i < 3; ++i) {
      const Ejection& j = last_->ejections[i];
      out_.sentence += (i ? "; " : "") + Endpoint(j.endpoint, j.workload, j.version) + " at " + Clock(j.at_ms) + " after " + Errors(j) +
                       ", until " + Clock(j.until_ms);
    }
    out_.sentence += (n > 3 ? "; and others" : "") + std::string(", by ") + out_.decided_by + ".";
    out_.next = "See the errors that led to it (weft traces --errors --service " + callee() + ").";
    return;
  }
  if (last_ && last_->total_hosts) {
    out_.sentence += ": " + std::to_string(last_->healthy_hosts) + " of " + std::to_string(last_->total_hosts) + " hosts were healthy" +
                     (last_->ejected ? ", the others ejected after errors in a row" : "") + ".";
  } else {
    out_.sentence += ": none of its instances is ready.";
  }
  out_.next = "Look whether an instance of " + callee() + " runs and passes its check (weft get workloads " + callee() + ").";
}

void Speaker::Denied() {
  PolicyRef p = ParsePolicy(e_.policy, e_.policy_revision);
  if (!p) p = ParsePolicy(Between(e_.response_detail, "[", "]"), e_.policy_revision);
  std::string what = e_.protocol == "tcp" ? "connect" : e_.method + " " + e_.path;
  if (p) {
    Decide(p, "");
    out_.sentence = callee() + "'s policy " + out_.decided_by + ", does not let " + Who(e_) + " " + what + ".";
  } else {
    // Allow rules decide by matching nothing; they are the service's.
    PolicyRef own;
    size_t dot = callee().find('.');
    own.kind = "Authorization", own.name = callee().substr(0, dot), own.ns = dot == std::string::npos ? "default" : callee().substr(dot + 1);
    if (sources_.policy) out_.policy_text = sources_.policy(own);
    Decide(out_.policy_text ? own : PolicyRef(), "the ALLOW rules of its namespace");
    out_.sentence = "No rule that allows calls to " + callee() + " (" + out_.decided_by + ") matches " + Who(e_) + " (" + what + ").";
  }
  out_.next = "If the call is meant to be, add " + e_.source + " to an ALLOW rule of Authorization " + callee() + ".";
}

// The callee's sidecar did not let the connection in.
void Speaker::RefusedByCallee(bool wrong) {
  const std::string& failure = e_.tls_failure;
  std::string claimed = Between(e_.response_detail, "spiffe://", "");
  if (!claimed.empty()) claimed = "spiffe://" + claimed.substr(0, claimed.find_first_of(" ,)"));
  std::string did = failure == "plaintext"               ? "spoke plaintext"
                    : failure.find("no_") == 0           ? "showed no certificate (" + failure + ")"
                    : failure == "peer_closed"           ? "left during the handshake"
                    : failure == "handshake_timeout"     ? "did not finish the handshake in time"
                    : failure == "peer_alert"            ? "did not accept " + callee() + "'s own certificate"
                    : failure == "unknown_ca"            ? "showed a certificate of another authority"
                    : failure == "certificate_expired"   ? "showed a certificate that has expired"
                    : failure == "san_mismatch"          ? "showed an identity that is not of this mesh"
                                                         : "failed in the handshake (" + failure + ")";
  out_.sentence = callee() + "'s sidecar refused the connection from " + Where(e_.downstream_address) +
                  (e_.original_destination.empty() ? "" : " to " + e_.original_destination) + ": it " + did +
                  (claimed.empty() ? "" : ", claiming " + claimed) + ".";
  PolicyRef mode = ParsePolicy(e_.policy, e_.policy_revision);
  Decide(mode.kind == "MeshTls" ? mode : PolicyRef(), "the default mode STRICT (no MeshTls policy applies)");
  bool permissive = out_.policy_text && out_.policy_text->text.find("PERMISSIVE") != std::string::npos;
  out_.sentence += permissive ? " Who speaks TLS must prove an identity of the mesh; plaintext would be let in (mode PERMISSIVE by " + out_.decided_by + ")."
                              : " Mutual TLS with an identity of the mesh is required by " +
                                    (out_.policy ? "mode STRICT of " + out_.decided_by : out_.decided_by) + ".";
  if (!e_.response_detail.empty() && failure != "plaintext") out_.evidence.push_back("TLS: " + failure + ", " + e_.response_detail + ".");
  out_.next = wrong ? "Compare the certificate that the caller showed with the trust bundle and the clock of " + callee() + "."
                    : "Give the caller a sidecar (weft run), or set MeshTls of " + callee() + " to PERMISSIVE while it moves in.";
}

// The caller's sidecar did not get through the handshake.
void Speaker::WrongIdentity() {
  std::string failure = last_ ? last_->outcome.substr(std::min<size_t>(4, last_->outcome.size())) : "";
  std::string detail = last_ ? last_->detail : "";
  std::string presented = Between(detail, "peer is ", ", expected "), expected = Between(detail, ", expected ", "");
  if (!presented.empty() && !expected.empty()) {
    std::string there = sources_.workload_at ? sources_.workload_at(IpOf(last_->endpoint)) : "";
    out_.sentence = f_.caller + "'s sidecar expected " + expected + " at " + Endpoint(*last_) + ", but " + presented +
                    " presented itself there, so nothing was sent" + Tries() + ".";
    out_.evidence.push_back("Expected identity " + expected + "; presented identity " + presented + "." +
                            (there.empty() ? "" : " Registered at that address: " + there + "."));
    out_.decided_by = "mutual TLS between sidecars (always on for services of the mesh)";
    out_.next = "The endpoint is stale or registered wrongly: see who has that address (weft get workloads).";
    return;
  }
  out_.sentence = f_.caller + "'s sidecar and " + callee() + (last_ ? " at " + Endpoint(*last_) : "") + " did not accept each other: TLS failed (" +
                  failure + (detail.empty() || detail == failure ? "" : ": " + detail) + ")" + Tries() + ".";
  out_.decided_by = "mutual TLS between sidecars (always on for services of the mesh)";
  out_.next = "Compare the identity that endpoint presents with the one expected of " + callee() + ", and the trust bundles of both ends.";
}

// A retry was due and the mesh did not make it: that is not the failure, but without it there might have been none.
void Speaker::RetriesStopped() {
  const Attempt* a = f_.client ? LastAttempt(*f_.client) : nullptr;
  if (!a || (a->not_retried != "retry_budget" && a->not_retried != "max_retries")) return;
  PolicyRef p = ParsePolicy(f_.client->policy, f_.client->policy_revision);
  std::string by = p.kind == "Traffic" ? PolicyName(p) : "the default limits (no Traffic policy applies)";
  char percent[16];
  snprintf(percent, sizeof percent, "%.3g %%", a->retry_budget_percent);
  out_.sentence += a->not_retried == "retry_budget" ? " Retries stopped: the retry budget of " + std::string(percent) + " was spent"
                                                     : " Retries stopped: the limit of parallel retries was reached";
  out_.sentence += " (it allowed " + std::to_string(a->max_retries) + " at a time just then, and as many were under way; " + by + ").";
  if (out_.decided_by.empty()) Decide(p.kind == "Traffic" ? p : PolicyRef(), by);
}

void Speaker::Say() {
  const std::string& cause = out_.cause;
  if (!out_.sentence.empty()) return RetriesStopped();
  if (cause == "connection_refused") {
    ConnectionRefused();
  } else if (cause == "reset") {
    Reset();
  } else if (cause == "timeout") {
    Timeout();
  } else if (cause == "open_breaker") {
    OpenBreaker();
  } else if (cause == "no_healthy_endpoint") {
    NoHealthyEndpoint();
  } else if (cause == "denied_by_policy") {
    Denied();
  } else if (e_.outcome == Outcome::kRefused && cause != "no_route") {
    RefusedByCallee(cause == "wrong_identity");
  } else if (cause == "wrong_identity" || cause == "missing_identity") {
    WrongIdentity();
  } else if (cause == "fault_injected") {
    Decide(ParsePolicy(e_.policy, e_.policy_revision), "");
    out_.sentence = "This failure was injected on purpose: a Fault policy answered for " + callee() + (e_.fault.empty() ? "" : " (" + e_.fault + ")") + ".";
    out_.next = "Delete the Fault policy when the drill is over.";
  } else if (cause == "rate_limited") {
    Decide(ParsePolicy(e_.policy, e_.policy_revision), "");
    out_.sentence = "A rate limit of " + callee() + " refused the request.";
  } else if (cause == "no_route" && at_callee_) {
    out_.sentence = callee() + "'s sidecar refused the connection from " + Where(e_.downstream_address) + ": " + callee() + " serves nothing at " +
                    (e_.original_destination.empty() ? "that port" : e_.original_destination) + ".";
    out_.next = "Compare the port with those of weft get workloads " + callee() + ".";
  } else if (cause == "no_route") {
    out_.sentence = "No route of " + f_.caller + "'s sidecar fits " + e_.method + " " + e_.authority + e_.path + ".";
    out_.next = "Check the Route of " + callee() + " and the name that was called.";
  } else if (cause == "caller_cancelled") {
    out_.sentence = (f_.client ? "The application of " + f_.caller : f_.caller) + " left after " + Ms(e_.duration_us) + ", before " + callee() +
                    " had answered.";
    out_.next = "See whether the caller's own timeout is shorter than " + callee() + " needs.";
  } else if (cause == "application_error") {
    const std::string& v = f_.client ? f_.client->destination_version : f_.server->destination_version;
    out_.sentence = "The application of " + callee() + (v.empty() ? "" : " (version " + v + ")") + " itself answered with " + Answer(e_) +
                    " after " + Ms(e_.duration_us) + "; the way to it was fine.";
    out_.next = "Look at the logs of " + callee() + " for this request id.";
  } else if (cause == "external") {
    out_.sentence = callee() + ", which is outside the mesh, answered with " + Answer(e_) + ".";
  } else if (cause == "ok") {
    out_.sentence = "The request did not fail: " + callee() + " answered with " + Answer(e_) + " in " + Ms(e_.duration_us) +
                    (e_.attempts.size() > 1 ? ", after " + std::to_string(e_.attempts.size()) + " attempts" : "") + ".";
  }
  RetriesStopped();
}

}  // namespace

void Say(const Finding& f, const Sources& sources, Explanation& out) { Speaker(f, sources, out).Say(); }

void Evidence(const Finding& f, Explanation& out) {
  const Event* e = f.client ? f.client : f.server;
  for (size_t i = 0; i < e->attempts.size() && i < 20; ++i) {
    const Attempt& a = e->attempts[i];
    std::string s = "Attempt " + std::to_string(i + 1) + " at +" + Ms(a.start_us) + ": " + Endpoint(a) + ", " +
                    (a.outcome.empty() ? "no outcome" : a.outcome) + (a.status ? " " + std::to_string(a.status) : "") +
                    (a.detail.empty() ? "" : " (" + a.detail + ")") + " after " + Ms(a.duration_us);
    if (a.total_hosts) s += ", " + std::to_string(a.healthy_hosts) + "/" + std::to_string(a.total_hosts) + " hosts healthy";
    if (a.ejected) s += ", this one ejected and used all the same, because too few others were left";
    if (a.max_requests) s += ", " + std::to_string(a.active_requests) + "/" + std::to_string(a.max_requests) + " requests in flight";
    if (a.not_retried == "attempts") s += ", no attempt left";
    out.evidence.push_back(s + ".");
    for (const Ejection& j : a.ejections) {
      out.evidence.push_back("Ejected: " + Endpoint(j.endpoint, j.workload, j.version) + " at " + Clock(j.at_ms) + " after " + Errors(j) + " (" +
                             j.rule + "), until " + Clock(j.until_ms) + ".");
    }
  }
  auto more = [](const Event& v) {
    return (v.response_flags.empty() ? "" : ", flags " + v.response_flags) + (v.response_detail.empty() ? "" : ", " + v.response_detail) + ".";
  };
  if (f.client) {
    out.evidence.push_back("Caller's view (" + f.client->workload + "): " + Answer(*f.client) + " after " + Ms(f.client->duration_us) + more(*f.client));
  } else if (f.server->outcome == Outcome::kRefused) {
    out.evidence.push_back("The caller has no view of it: no sidecar reported a connection from " +
                           (f.server->downstream_address.empty() ? "there" : f.server->downstream_address) + ".");
  }
  if (f.server) {
    out.evidence.push_back("Callee's view (" + f.server->workload + "): " +
                           (f.server->outcome != Outcome::kRefused ? Answer(*f.server)
                            : f.server->tls_failure.empty()        ? "connection refused"
                                                                   : "handshake refused, " + f.server->tls_failure) +
                           " after " + Ms(f.server->duration_us) + more(*f.server));
  } else {
    out.evidence.push_back("The callee has no view of it: the request did not reach a sidecar of " + f.callee + ".");
  }
  const Event& any = f.client ? *f.client : *f.server;
  if (!any.source_identity.empty() || !any.destination_identity.empty()) {
    out.evidence.push_back("Identities: " + (any.source_identity.empty() ? "(none)" : any.source_identity) + " → " +
                           (any.destination_identity.empty() ? "(none)" : any.destination_identity) +
                           (any.outcome == Outcome::kRefused ? "." : any.tls_version.empty() ? ", plaintext." : ", " + any.tls_version + "."));
  }
}

}  // namespace weft::insight
