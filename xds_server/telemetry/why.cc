#include "xds_server/telemetry/why.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "xds_server/telemetry/topology.h"

namespace weft::insight {
namespace {

std::string Ms(int64_t us) {
  char buf[32];
  if (us < 1'000) {
    snprintf(buf, sizeof buf, "%lld µs", static_cast<long long>(us));
  } else if (us < 10'000) {
    snprintf(buf, sizeof buf, "%.1f ms", static_cast<double>(us) / 1e3);
  } else if (us < 1'000'000) {
    snprintf(buf, sizeof buf, "%.0f ms", static_cast<double>(us) / 1e3);
  } else {
    snprintf(buf, sizeof buf, "%.2f s", static_cast<double>(us) / 1e6);
  }
  return buf;
}

std::string Percent(uint64_t part, uint64_t whole) {
  if (whole == 0) return "0 %";
  double p = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  char buf[16];
  snprintf(buf, sizeof buf, p < 10 && p > 0 ? "%.1f %%" : "%.0f %%", p);
  return buf;
}

bool Failed(const Event& e) { return IsError(e.outcome) || IsDenial(e.outcome); }

std::string Answer(const Event& e) {
  if (e.grpc_status > 0) return "gRPC status " + std::to_string(e.grpc_status);
  return e.status ? "status " + std::to_string(e.status) : "no response";
}

std::string Endpoint(const Attempt& a) {
  std::string s = a.endpoint.empty() ? "no endpoint" : a.endpoint;
  std::string more = a.workload;
  if (!a.version.empty()) more += (more.empty() ? "version " : ", version ") + a.version;
  return more.empty() ? s : s + " (" + more + ")";
}

std::string Who(const Event& e) { return e.source_identity.empty() ? e.source : e.source_identity; }

std::string PolicyName(const PolicyRef& p) {
  std::string s = p.kind + " " + p.name;
  if (p.ns != "default") s += " (namespace " + p.ns + ")";
  if (!p.rule.empty()) s += ", rule " + p.rule;
  if (p.revision) s += ", revision " + std::to_string(p.revision);
  return s;
}

const Attempt* LastAttempt(const Event& e) { return e.attempts.empty() ? nullptr : &e.attempts.back(); }

bool OutcomeIs(const Attempt* a, std::string_view prefix) { return a && std::string_view(a->outcome).starts_with(prefix); }

// The cause one view of the failing hop speaks for. "" when the view has nothing to say but a status.
std::string CauseOf(const Event& e) {
  const Attempt* last = LastAttempt(e);
  const std::string& flags = e.response_flags;
  if (e.outcome == Outcome::kRefused || OutcomeIs(last, "tls_")) return "identity";
  if (e.outcome == Outcome::kDenied) return "denied_by_policy";
  if (e.fault.starts_with("abort") || HasFlag(flags, "FI")) return "fault_injected";
  if (HasFlag(flags, "RL")) return "rate_limited";
  if (HasFlag(flags, "UO") || OutcomeIs(last, "overflow")) return "open_breaker";
  if (HasFlag(flags, "NR") || HasFlag(flags, "NC")) return "no_route";
  if (HasFlag(flags, "UH")) return "no_healthy_endpoint";
  if (HasFlag(flags, "UT") || HasFlag(flags, "SI") || HasFlag(flags, "UMSDR") || HasFlag(flags, "DT") ||
      OutcomeIs(last, "connect_timeout") || OutcomeIs(last, "per_try_timeout")) {
    return "timeout";
  }
  if (OutcomeIs(last, "connect_refused")) return "connection_refused";
  if (OutcomeIs(last, "reset") || HasFlag(flags, "UC") || HasFlag(flags, "UR") || HasFlag(flags, "LR") || HasFlag(flags, "UPE")) {
    return "reset";
  }
  if (HasFlag(flags, "UF")) return "connection_refused";
  if (HasFlag(flags, "DC") || HasFlag(flags, "DR") || e.outcome == Outcome::kCancelled) return "caller_cancelled";
  if (e.outcome == Outcome::kReset) return "reset";
  return "";
}

class Explainer {
 public:
  Explainer(const std::string& id, const std::vector<Event>& events, const std::vector<Span>& spans,
            const std::vector<Cell>& cells, const PolicyLookup& lookup)
      : id_(id), events_(events), cells_(cells), lookup_(lookup) {
    std::string trace;
    for (const Event& e : events) {
      if (e.request_id == id || e.trace_id == id) trace = trace.empty() ? e.trace_id : trace;
    }
    view_ = BuildTrace(trace, events, spans);
  }

  std::optional<Explanation> Run();

 private:
  const Event* EventOf(int hop) const { return view_.hops[hop].event < 0 ? nullptr : &events_[view_.hops[hop].event]; }
  std::vector<int> EventChildren(int hop) const;
  int Start() const;
  int Descend(int hop, bool (*take)(const Event&)) const;
  void Place(int hop);
  void Decide();
  bool BadRollout();
  void Say();
  void SayTimeout(const Event& e);
  void Attempts();
  void Policy();
  std::string Callee() const { return out_.failing_destination; }
  std::string Caller() const { return out_.failing_source; }

  const std::string& id_;
  const std::vector<Event>& events_;
  const std::vector<Cell>& cells_;
  const PolicyLookup& lookup_;
  TraceView view_;
  Explanation out_;
  int hop_ = -1;
  const Event* client_ = nullptr;
  const Event* server_ = nullptr;
  const Event* speaker_ = nullptr;  // the view the cause was read from
};

// Nearest events below `hop`, looking through the applications' own spans.
std::vector<int> Explainer::EventChildren(int hop) const {
  std::vector<int> out;
  for (int i = hop + 1; i < static_cast<int>(view_.hops.size()) && view_.hops[i].depth > view_.hops[hop].depth; ++i) {
    if (view_.hops[i].event < 0) continue;
    int up = view_.hops[i].parent;
    while (up != hop && up >= 0 && view_.hops[up].event < 0) up = view_.hops[up].parent;
    if (up == hop) out.push_back(i);
  }
  return out;
}

int Explainer::Start() const {
  int first = -1, failed = -1;
  for (int i = 0; i < static_cast<int>(view_.hops.size()); ++i) {
    const Event* e = EventOf(i);
    if (!e || (e->request_id != id_ && e->trace_id != id_)) continue;
    if (first < 0) first = i;
    if (failed < 0 && Failed(*e)) failed = i;
  }
  return failed >= 0 ? failed : first;
}

// To the deepest hop that `take` accepts, at each fork to the one that ended last: its end ended the parent.
int Explainer::Descend(int hop, bool (*take)(const Event&)) const {
  for (;;) {
    int best = -1;
    int64_t best_end = INT64_MIN;
    for (int c : EventChildren(hop)) {
      const Event* e = EventOf(c);
      if (take(*e) && e->end_ns >= best_end) best = c, best_end = e->end_ns;
    }
    if (best < 0) return hop;
    hop = best;
  }
}

// Finds the two views of the hop and the way to it.
void Explainer::Place(int hop) {
  hop_ = hop;
  const Event* e = EventOf(hop);
  if (e->direction == Direction::kOutbound) {
    client_ = e;
    int64_t latest = INT64_MIN;
    for (int c : EventChildren(hop)) {
      const Event* s = EventOf(c);
      if (s->direction == Direction::kInbound && s->destination == e->destination && s->end_ns >= latest) {
        server_ = s, latest = s->end_ns;
      }
    }
  } else {
    server_ = e;
    int up = view_.hops[hop].parent;
    if (up >= 0 && EventOf(up) && EventOf(up)->direction == Direction::kOutbound) client_ = EventOf(up);
  }
  if (client_) out_.client = static_cast<int>(client_ - events_.data());
  if (server_) out_.server = static_cast<int>(server_ - events_.data());
  const Event* any = client_ ? client_ : server_;
  out_.failing_source = server_ && !client_ ? server_->source : any->source;
  out_.failing_destination = any->destination;
  std::vector<std::string> up;
  for (int i = hop; i >= 0; i = view_.hops[i].parent) {
    const Event* h = EventOf(i);
    if (!h) continue;
    if (up.empty()) up.push_back(h->destination);
    if (up.back() != h->source) up.push_back(h->source);
  }
  out_.path.assign(up.rbegin(), up.rend());
}

void Explainer::Decide() {
  std::string from_server = server_ ? CauseOf(*server_) : "", from_client = client_ ? CauseOf(*client_) : "";
  // A callee that only saw its caller leave says nothing about why it left.
  bool server_knows = server_ && Failed(*server_) && !from_server.empty() && from_server != "caller_cancelled";
  if (server_knows) {
    out_.cause = from_server, speaker_ = server_;
  } else if (!from_client.empty()) {
    out_.cause = from_client, speaker_ = client_;
  } else if (server_ && !client_ && !from_server.empty()) {
    out_.cause = from_server, speaker_ = server_;
  } else {
    speaker_ = server_ ? server_ : client_;
    out_.cause = Failed(*speaker_) || (client_ && Failed(*client_)) ? "application_error" : "ok";
  }
  if (out_.cause == "ok" && (speaker_->outcome == Outcome::kClientError)) out_.cause = "application_error";
  if (out_.cause == "application_error" && !server_ && client_ && client_->tls_version.empty() &&
      client_->destination_identity.empty() && NodeOfCluster(client_->cluster).empty()) {
    out_.cause = "external";
  }
  if ((out_.cause == "application_error" || out_.cause == "timeout" || out_.cause == "reset") && Failed(*speaker_)) BadRollout();
}

// Errors concentrated on the version that served this request, while other versions do well.
bool Explainer::BadRollout() {
  std::string version = client_ ? client_->destination_version : server_->destination_version;
  if (version.empty()) return false;
  std::map<std::string, Red> versions;
  bool from_callers = client_ != nullptr;
  for (const Cell& c : cells_) {
    if (c.key.destination != Callee() || (c.key.direction == Direction::kOutbound) != from_callers) continue;
    if (!c.key.destination_version.empty() && !IsDenial(c.outcome)) versions[c.key.destination_version].Add(c);
  }
  Red others;
  for (const auto& [v, red] : versions) {
    if (v != version) others.requests += red.requests, others.errors += red.errors;
  }
  const Red& own = versions[version];
  if (own.requests < 3 || others.requests < 3) return false;
  double bad = static_cast<double>(own.errors) / static_cast<double>(own.requests);
  double rest = static_cast<double>(others.errors) / static_cast<double>(others.requests);
  if (bad < 0.1 || bad < 3 * rest) return false;
  const Event& e = client_ ? *client_ : *server_;
  PolicyRef route = ParsePolicy(e.policy, e.policy_revision);
  if (route.kind != "Route") {
    // The weight may be named by the cluster only.
    if (VersionOfCluster(e.cluster) != version) return false;
    route = {};
    route.kind = "Route";
    size_t dot = Callee().find('.');
    route.name = Callee().substr(0, dot), route.ns = dot == std::string::npos ? "default" : Callee().substr(dot + 1);
  }
  out_.policy = route;
  out_.policy_text = lookup_ ? lookup_(route) : std::nullopt;
  if (route.revision == 0 && !out_.policy_text) return false;
  if (route.revision == 0) out_.policy.revision = out_.policy_text->revision;
  out_.cause = "bad_rollout";
  std::string counts;
  for (const auto& [v, red] : versions) {
    counts += (counts.empty() ? "" : "; ") + ("version " + v) + ": " + std::to_string(red.errors) + " errors in " +
              std::to_string(red.requests) + " requests (" + Percent(red.errors, red.requests) + ")";
  }
  out_.evidence.push_back("Around that time, " + counts + ".");
  out_.sentence = "Version " + version + " of " + Callee() + " is broken: " + Percent(own.errors, own.requests) +
                  " of its requests fail against " + Percent(others.errors, others.requests) + " elsewhere, and " +
                  PolicyName(out_.policy) + ", sends traffic to it.";
  out_.next = "Take the weight from version " + version + " (weft rollback to the revision before " +
              std::to_string(out_.policy.revision) + "), then look at that version's own errors.";
  return true;
}

void Explainer::SayTimeout(const Event& e) {
  const Attempt* last = LastAttempt(e);
  bool at_callee = &e == server_;
  std::string who = at_callee ? "The application of " + Callee() : Callee();
  if (OutcomeIs(last, "connect_timeout")) {
    out_.sentence = "A connection to " + Callee() + " at " + Endpoint(*last) + " was not accepted within " + Ms(last->duration_us) + ".";
    out_.next = "Check that the host is up and that nothing drops packets to it.";
    return;
  }
  bool per_try = OutcomeIs(last, "per_try_timeout") && !HasFlag(e.response_flags, "UT");
  int64_t waited = last && last->duration_us > 0 ? last->duration_us : e.duration_us;
  out_.sentence = who + " did not answer within " + Ms(waited) +
                  (per_try ? " (per-try timeout)" : HasFlag(e.response_flags, "SI") ? " (idle timeout)" : " (request timeout)") +
                  (e.attempts.size() > 1 ? ", on the last of " + std::to_string(e.attempts.size()) + " attempts" : "") + ".";
  // Where the time went: hops below that were still open when the caller gave up.
  int slow = Descend(hop_, [](const Event& c) { return c.outcome == Outcome::kCancelled || Failed(c); });
  const Event* s = EventOf(slow);
  if (s && s->destination != Callee()) {
    out_.evidence.push_back(Callee() + " was itself waiting: " + s->source + " → " + s->destination + " had been open for " +
                            Ms(s->duration_us) + ".");
    out_.next = "Look at " + s->destination + ": the time was spent there.";
  } else if (server_ && server_ != &e) {
    out_.evidence.push_back(Callee() + "'s sidecar had the request for " + Ms(server_->duration_us) +
                            " and its application had not finished when the caller left.");
    out_.next = "Look at what " + Callee() + " does for this path, or raise the timeout of its Route.";
  }
}

void Explainer::Say() {
  const Event& e = *speaker_;
  const Attempt* last = LastAttempt(e);
  bool at_callee = speaker_ == server_;
  std::string tries = e.attempts.size() > 1 ? " on the last of " + std::to_string(e.attempts.size()) + " attempts" : "";
  const std::string& cause = out_.cause;
  if (cause == "connection_refused") {
    bool refused = OutcomeIs(last, "connect_refused");
    std::string where = last ? Endpoint(*last) : "its endpoint";
    if (at_callee) {
      out_.sentence = "The application of " + Callee() + " refused the connection at " + where + ": " + Callee() +
                      "'s sidecar was reached, but nothing listens behind it.";
      out_.next = "Check that the application of " + Callee() + " runs and listens on that port.";
    } else {
      out_.sentence = Callee() + " could not be reached: " + where + (refused ? " refused the connection" : " could not be connected to") + tries + ".";
      out_.next = "Check that the instance " + (last && !last->workload.empty() ? last->workload : Callee()) + " is running.";
    }
  } else if (cause == "reset") {
    out_.sentence = (at_callee ? "The application of " + Callee() : Callee() + (last ? " at " + Endpoint(*last) : "")) +
                    " cut the connection " + Ms(last && last->duration_us ? last->duration_us : e.duration_us) +
                    " into the request, before the response was complete" + tries + ".";
    out_.next = "Look for a crash or restart of " + Callee() + " at that time.";
  } else if (cause == "timeout") {
    SayTimeout(e);
  } else if (cause == "open_breaker") {
    out_.sentence = "The circuit breaker for " + Callee() + " was open";
    if (last && last->max_requests) {
      out_.sentence += ": " + std::to_string(last->active_requests) + " of at most " + std::to_string(last->max_requests) + " requests were in flight";
    }
    out_.sentence += ", so " + Caller() + "'s sidecar answered at once instead of adding to the load.";
    out_.next = "Find out why " + Callee() + " is slow or flooded; raise the limit in its Traffic policy only if it has room.";
  } else if (cause == "no_healthy_endpoint") {
    out_.sentence = "No healthy endpoint of " + Callee() + " was left";
    if (last && last->total_hosts) {
      out_.sentence += ": " + std::to_string(last->healthy_hosts) + " of " + std::to_string(last->total_hosts) + " hosts were healthy" +
                       (last->ejected || last->healthy_hosts < last->total_hosts ? ", the others ejected after errors in a row" : "");
    } else if (last || client_) {
      out_.sentence += ": none of its instances is ready";
    }
    out_.sentence += ".";
    out_.next = "See the errors before this one that led to the ejection (weft traces --errors --service " + Callee() + ").";
  } else if (cause == "denied_by_policy") {
    PolicyRef p = ParsePolicy(e.policy, e.policy_revision);
    if (!p) {
      size_t at = e.response_detail.find('['), end = e.response_detail.rfind(']');
      if (at != std::string::npos && end != std::string::npos && end > at) {
        p = ParsePolicy(e.response_detail.substr(at + 1, end - at - 1), e.policy_revision);
      }
    }
    out_.policy = p;
    std::string what = e.protocol == "tcp" ? "connect" : e.method + " " + e.path;
    out_.sentence = p ? Callee() + "'s policy " + PolicyName(p) + ", does not let " + Who(e) + " " + what + "."
                      : "No rule that allows calls to " + Callee() + " matches " + Who(e) + " (" + what + ").";
    out_.next = "If the call is meant to be, add " + e.source + " to an ALLOW rule of Authorization " + Callee() + ".";
  } else if (cause == "identity") {
    if (e.outcome == Outcome::kRefused && e.tls_failure.empty()) {
      out_.sentence = Callee() + "'s sidecar refused the connection from " + (e.downstream_address.empty() ? "an unknown address" : e.downstream_address) +
                      (e.original_destination.empty() ? "" : " to " + e.original_destination) +
                      ": it came without mutual TLS, or to a port " + Callee() + " does not serve.";
      out_.next = "Give the caller a sidecar (weft run), or set MeshTls of " + Callee() + " to PERMISSIVE while it moves in.";
    } else if (e.outcome == Outcome::kRefused) {
      out_.sentence = Callee() + "'s sidecar refused the TLS handshake (" + e.tls_failure + "): the caller at " +
                      (e.downstream_address.empty() ? "an unknown address" : e.downstream_address) +
                      (e.source_identity.empty() ? " proved no identity of this mesh." : " came as " + e.source_identity + ".");
      out_.next = "Give the caller a sidecar (weft run), or set MeshTls of " + Callee() + " to PERMISSIVE while it moves in.";
    } else {
      std::string failure = last ? last->outcome.substr(std::min<size_t>(4, last->outcome.size())) : "";
      out_.sentence = Caller() + "'s sidecar did not accept " + Callee() + (last ? " at " + Endpoint(*last) : "") +
                      " as who it should be: TLS failed (" + failure + (last && !last->detail.empty() ? ": " + last->detail : "") + ").";
      out_.next = "Compare the identity that endpoint presents with the one expected of " + Callee() + ", and the trust bundles of both ends.";
    }
  } else if (cause == "fault_injected") {
    out_.policy = ParsePolicy(e.policy, e.policy_revision);
    out_.sentence = "This failure was injected on purpose: a Fault policy answered for " + Callee() + (e.fault.empty() ? "" : " (" + e.fault + ")") + ".";
    out_.next = "Delete the Fault policy when the drill is over.";
  } else if (cause == "rate_limited") {
    out_.policy = ParsePolicy(e.policy, e.policy_revision);
    out_.sentence = "A rate limit of " + Callee() + " refused the request.";
  } else if (cause == "no_route") {
    out_.sentence = "No route of " + Caller() + "'s sidecar fits " + e.method + " " + e.authority + e.path + ".";
    out_.next = "Check the Route of " + Callee() + " and the name that was called.";
  } else if (cause == "caller_cancelled") {
    out_.sentence = (client_ ? "The application of " + Caller() : Caller()) + " left after " + Ms(e.duration_us) + ", before " + Callee() + " had answered.";
    out_.next = "See whether the caller's own timeout is shorter than " + Callee() + " needs.";
  } else if (cause == "application_error") {
    const std::string& v = client_ ? client_->destination_version : server_->destination_version;
    out_.sentence = "The application of " + Callee() + (v.empty() ? "" : " (version " + v + ")") + " itself answered with " + Answer(e) +
                    " after " + Ms(e.duration_us) + "; the way to it was fine.";
    out_.next = "Look at the logs of " + Callee() + " for this request id.";
  } else if (cause == "external") {
    out_.sentence = Callee() + ", which is outside the mesh, answered with " + Answer(e) + ".";
  } else if (cause == "ok") {
    out_.sentence = "The request did not fail: " + Callee() + " answered with " + Answer(e) + " in " + Ms(e.duration_us) +
                    (e.attempts.size() > 1 ? ", after " + std::to_string(e.attempts.size()) + " attempts" : "") + ".";
  }
}

void Explainer::Attempts() {
  const Event* e = client_ ? client_ : server_;
  for (size_t i = 0; i < e->attempts.size() && i < 20; ++i) {
    const Attempt& a = e->attempts[i];
    if (e->attempts.size() == 1 && a.outcome == "ok") break;
    std::string s = "Attempt " + std::to_string(i + 1) + " at +" + Ms(a.start_us) + ": " + Endpoint(a) + ", " +
                    (a.outcome.empty() ? "no outcome" : a.outcome) + (a.status ? " " + std::to_string(a.status) : "") +
                    (a.detail.empty() ? "" : " (" + a.detail + ")") + " after " + Ms(a.duration_us);
    if (a.total_hosts) s += ", " + std::to_string(a.healthy_hosts) + "/" + std::to_string(a.total_hosts) + " hosts healthy";
    if (a.ejected) s += ", this one ejected";
    if (a.max_requests) s += ", " + std::to_string(a.active_requests) + "/" + std::to_string(a.max_requests) + " requests in flight";
    out_.evidence.push_back(s + ".");
  }
  if (client_) {
    out_.evidence.push_back("Caller's view (" + client_->workload + "): " + Answer(*client_) + " after " + Ms(client_->duration_us) +
                            (client_->response_flags.empty() ? "" : ", flags " + client_->response_flags) +
                            (client_->response_detail.empty() ? "" : ", " + client_->response_detail) + ".");
  }
  if (server_) {
    out_.evidence.push_back("Callee's view (" + server_->workload + "): " +
                            (server_->outcome != Outcome::kRefused ? Answer(*server_)
                             : server_->tls_failure.empty() ? "connection refused" : "handshake refused, " + server_->tls_failure) + " after " +
                            Ms(server_->duration_us) + (server_->response_flags.empty() ? "" : ", flags " + server_->response_flags) +
                            (server_->response_detail.empty() ? "" : ", " + server_->response_detail) + ".");
  } else if (client_) {
    out_.evidence.push_back("The callee has no view of it: the request did not reach a sidecar of " + Callee() + ".");
  }
  const Event& any = client_ ? *client_ : *server_;
  if (!any.source_identity.empty() || !any.destination_identity.empty()) {
    out_.evidence.push_back("Identities: " + (any.source_identity.empty() ? "(none)" : any.source_identity) + " → " +
                            (any.destination_identity.empty() ? "(none)" : any.destination_identity) +
                            (any.tls_version.empty() ? ", plaintext." : ", " + any.tls_version + "."));
  }
}

void Explainer::Policy() {
  if (!out_.policy) {
    // What decided is worth showing even where it is not to blame.
    const Event& e = client_ && ParsePolicy(client_->policy, 0) ? *client_ : *speaker_;
    out_.policy = ParsePolicy(e.policy, e.policy_revision);
  }
  if (out_.policy && !out_.policy_text && lookup_) out_.policy_text = lookup_(out_.policy);
  if (out_.policy_text && out_.policy.revision == 0) out_.policy.revision = out_.policy_text->revision;
}

std::optional<Explanation> Explainer::Run() {
  int start = Start();
  if (start < 0) return std::nullopt;
  const Event* first = EventOf(start);
  out_.request_id = first->request_id, out_.trace_id = first->trace_id;
  Place(Failed(*first) ? Descend(start, Failed) : start);
  Decide();
  if (out_.sentence.empty()) Say();
  Attempts();
  Policy();
  return std::move(out_);
}

}  // namespace

PolicyRef ParsePolicy(std::string_view text, uint64_t revision) {
  PolicyRef p;
  p.revision = revision;
  if (size_t at = text.rfind('@'); at != std::string_view::npos) {
    uint64_t n = 0;
    bool digits = at + 1 < text.size();
    for (char c : text.substr(at + 1)) {
      digits = digits && c >= '0' && c <= '9' && n < UINT64_MAX / 10 - 1;
      n = n * 10 + static_cast<uint64_t>(c - '0');
    }
    if (digits) {
      if (n) p.revision = n;
      text = text.substr(0, at);
    }
  }
  std::string* parts[] = {&p.kind, &p.ns, &p.name, &p.rule};
  size_t n = 0;
  while (n < 4) {
    size_t slash = n == 3 ? std::string_view::npos : text.find('/');  // a rule's name may hold slashes
    *parts[n++] = std::string(text.substr(0, slash));
    if (slash == std::string_view::npos) break;
    text.remove_prefix(slash + 1);
  }
  if (n < 3 || p.kind.empty() || p.name.empty()) return {};
  return p;
}

std::optional<Explanation> Explain(const std::string& id, const std::vector<Event>& events, const std::vector<Span>& spans,
                                   const std::vector<Cell>& cells, const PolicyLookup& lookup) {
  return Explainer(id, events, spans, cells, lookup).Run();
}

}  // namespace weft::insight
