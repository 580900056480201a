// The walk to the failing hop, its two views, and the ties that no header makes.
#include "xds_server/telemetry/why.h"

#include <algorithm>
#include <cstdio>

#include "xds_server/telemetry/why_parts.h"

namespace weft::insight {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kSkewNs = 5 * kSecondNs;  // between two ends' clocks, and between two ends of one connection

class Explainer {
 public:
  Explainer(const std::string& id, std::vector<Event> events, const std::vector<Span>& spans, const std::vector<Cell>& cells,
            const Sources& sources)
      : id_(id), events_(std::move(events)), spans_(spans), cells_(cells), sources_(sources) {
    Join();
  }

  std::optional<Explanation> Run();

 private:
  const Event* EventOf(int hop) const { return view_.hops[hop].event < 0 ? nullptr : &events_[view_.hops[hop].event]; }
  std::vector<int> EventChildren(int hop) const;
  void Join();
  int Start() const;
  int Descend(int hop, bool (*take)(const Event&)) const;
  void Locate();
  void Place(int hop);
  void Decide();
  void SayWaiting();
  bool Known(const Event& e) const;
  bool Add(std::vector<Event> more, const std::string& parent_span);
  bool TieEnds();
  bool TieCalls();
  void Because();

  const std::string& id_;
  std::vector<Event> events_;
  const std::vector<Span>& spans_;
  const std::vector<Cell>& cells_;
  const Sources& sources_;
  TraceView view_;
  Explanation out_;
  int hop_ = -1;
  Finding f_;
  std::vector<std::string> because_;  // what the hops between say, when the failure was found behind an application
};

void Explainer::Join() {
  std::string trace;
  for (const Event& e : events_) {
    if (e.request_id == id_ || e.trace_id == id_) trace = trace.empty() ? e.trace_id : trace;
  }
  view_ = BuildTrace(trace, events_, spans_);
}

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

void Explainer::Locate() {
  int start = Start();
  Place(Failed(*EventOf(start)) ? Descend(start, Failed) : start);
}

// Finds the two views of the hop and the way to it.
void Explainer::Place(int hop) {
  hop_ = hop;
  f_ = {};
  const Event* e = EventOf(hop);
  if (e->direction == Direction::kOutbound) {
    f_.client = e;
    int64_t latest = INT64_MIN;
    for (int c : EventChildren(hop)) {
      const Event* s = EventOf(c);
      if (s->direction == Direction::kInbound && (s->destination == e->destination || s->outcome == Outcome::kRefused) && s->end_ns >= latest) {
        f_.server = s, latest = s->end_ns;
      }
    }
  } else {
    f_.server = e;
    int up = view_.hops[hop].parent;
    if (up >= 0 && EventOf(up) && EventOf(up)->direction == Direction::kOutbound) f_.client = EventOf(up);
  }
  const Event* any = f_.client ? f_.client : f_.server;
  f_.caller = out_.failing_source = any->source;
  f_.callee = out_.failing_destination = any->destination;
  std::vector<std::string> up;
  for (int i = hop; i >= 0; i = view_.hops[i].parent) {
    const Event* h = EventOf(i);
    if (!h || (h == f_.server && f_.client)) continue;  // one hop, once
    if (up.empty()) up.push_back(h->destination);
    if (up.back() != h->source) up.push_back(h->source);
  }
  out_.path.assign(up.rbegin(), up.rend());
}

void Explainer::Decide() {
  const Event *client = f_.client, *server = f_.server;
  std::string from_server = server ? CauseOf(*server) : "", from_client = client ? CauseOf(*client) : "";
  // A callee that only saw its caller leave says nothing about why it left: neither at the end of a request nor in a
  // handshake that the caller broke off because of whom it met.
  bool server_knows = server && Failed(*server) && !from_server.empty() && from_server != "caller_cancelled";
  const Attempt* last = client ? LastAttempt(*client) : nullptr;
  if (OutcomeIs(last, "tls_") && last->outcome != "tls_peer_alert" && last->outcome != "tls_peer_closed") server_knows = false;
  if (server_knows) {
    out_.cause = from_server, f_.speaker = server;
  } else if (!from_client.empty()) {
    out_.cause = from_client, f_.speaker = client;
  } else if (server && !client && !from_server.empty()) {
    out_.cause = from_server, f_.speaker = server;
  } else {
    f_.speaker = server ? server : client;
    out_.cause = Failed(*f_.speaker) || (client && Failed(*client)) ? "application_error" : "ok";
  }
  if (out_.cause == "ok" && f_.speaker->outcome == Outcome::kClientError) out_.cause = "application_error";
  if (out_.cause == "application_error" && !server && client && client->tls_version.empty() && client->destination_identity.empty() &&
      NodeOfCluster(client->cluster).empty()) {
    out_.cause = "external";
  }
}

bool Explainer::Known(const Event& e) const {
  return std::any_of(events_.begin(), events_.end(), [&](const Event& k) {
    return (!e.span_id.empty() && k.span_id == e.span_id) || (e.number && k.workload == e.workload && k.epoch == e.epoch && k.number == e.number);
  });
}

// Takes events in below a span; those that are known stay where they are. True when there was something new.
bool Explainer::Add(std::vector<Event> more, const std::string& parent_span) {
  bool changed = false;
  for (Event& e : more) {
    if (e.span_id.empty() || Known(e)) continue;
    if (!parent_span.empty()) e.parent_span_id = parent_span;
    events_.push_back(std::move(e));
    changed = true;
  }
  if (changed) Join(), Locate();
  return changed;
}

// The other end's view of a connection, by the caller's address: TCP carries no headers, a refused handshake neither.
bool Explainer::TieEnds() {
  if (f_.client && !f_.server && sources_.arrivals) {
    const Event& c = *f_.client;
    for (auto a = c.attempts.rbegin(); a != c.attempts.rend(); ++a) {
      if (a->local_address.empty()) continue;
      auto found = sources_.arrivals(a->local_address, c.start_ns - kSkewNs, c.end_ns + kSkewNs);
      if (found.size() > 1) found.erase(found.begin(), found.end() - 1);  // an address used again: its latest use
      if (!found.empty()) return Add(std::move(found), std::string(c.span_id));
    }
  }
  if (f_.server && !f_.client && f_.server->protocol == "tcp" && !f_.server->downstream_address.empty() && sources_.departures) {
    auto found = sources_.departures(f_.server->downstream_address, f_.server->start_ns - kSkewNs, f_.server->end_ns + kSkewNs);
    if (found.empty() || found.back().span_id.empty()) return false;
    Event caller = found.back();
    for (Event& e : events_) {
      if (e.span_id == f_.server->span_id) e.parent_span_id = caller.span_id;
    }
    // Its own trace may have other ids: the answer keeps to the one that was asked for.
    if (!Known(caller)) events_.push_back(std::move(caller));
    Join(), Locate();
    return true;
  }
  return false;
}

// An application that answers with an error has often just been let down itself: a call of the same workload that failed
// while the request was with it. Calls that carry the trace are found without this.
bool Explainer::TieCalls() {
  if (out_.cause != "application_error" || !f_.server || !Failed(*f_.server) || !sources_.failed_calls) return false;
  const Event server = *f_.server;
  auto calls = sources_.failed_calls(server.workload, server.start_ns, server.end_ns + kSecondNs / 1000);
  std::erase_if(calls, [&](const Event& e) { return Known(e) || e.span_id.empty() || !Failed(e); });
  if (calls.empty()) return false;
  Event call = *std::max_element(calls.begin(), calls.end(), [](const Event& a, const Event& b) { return a.end_ns < b.end_ns; });
  bool tcp = call.protocol == "tcp";
  const std::string what = tcp ? "TCP connection to " + call.destination : call.method + " " + call.path + " to " + call.destination;
  auto alike = std::count_if(calls.begin(), calls.end(), [&](const Event& e) { return e.destination == call.destination; });
  // With other requests at the workload at that moment the call may be one of theirs.
  auto meanwhile = sources_.requests ? sources_.requests(server.workload, call.start_ns, server.end_ns + kSkewNs) : std::vector<Event>();
  auto others = std::count_if(meanwhile.begin(), meanwhile.end(), [&](const Event& e) {
    return e.span_id != server.span_id && e.outcome != Outcome::kRefused && e.start_ns < call.end_ns;
  });
  because_.push_back(f_.callee + " answered " + f_.caller + " with " + Answer(server) + (others ? ", most likely" : "") + " because its " + what + " ");
  out_.evidence.push_back(server.workload + " made its " + what + " at +" + Ms((call.start_ns - server.start_ns) / 1000) +
                          " into the request and lost it at +" + Ms((call.end_ns - server.start_ns) / 1000) +
                          (alike > 1 ? ", the last of " + std::to_string(alike) + " such failures meanwhile" : "") +
                          "; the two are tied by workload and time" +
                          (others ? ", while " + std::to_string(others) + (others == 1 ? " other request was" : " other requests were") + " with it." : "."));
  std::vector<Event> with_trace;
  if (!tcp && !call.trace_id.empty() && sources_.trace) with_trace = sources_.trace(call.trace_id);
  Add({std::move(call)}, server.span_id);
  Add(std::move(with_trace), "");
  return true;
}

// "cart answered client with status 503 because its TCP connection to redis was denied. ..."
void Explainer::Because() {
  if (because_.empty()) return;
  std::string way;
  for (size_t i = 0; i < because_.size(); ++i) {
    bool last = i + 1 == because_.size();
    way += because_[i] + (last && out_.cause == "denied_by_policy" ? "was denied" : "failed") + ". ";
  }
  out_.sentence = way + out_.sentence;
}

// Where the time of a timeout went: hops below that were still open when the caller gave up.
void Explainer::SayWaiting() {
  int slow = Descend(hop_, [](const Event& c) { return c.outcome == Outcome::kCancelled || Failed(c); });
  const Event* s = EventOf(slow);
  if (!s || s->destination == f_.callee) return;
  out_.evidence.push_back(f_.callee + " was itself waiting: " + s->source + " → " + s->destination + " had been open for " + Ms(s->duration_us) + ".");
  out_.next = "Look at " + s->destination + ": the time was spent there.";
}

std::optional<Explanation> Explainer::Run() {
  int start = Start();
  if (start < 0) return std::nullopt;
  out_.request_id = EventOf(start)->request_id, out_.trace_id = EventOf(start)->trace_id;
  Locate();
  for (int round = 0; round < 4; ++round) {
    if (Failed(f_.client ? *f_.client : *f_.server)) TieEnds();
    Decide();
    bool own = out_.cause == "application_error" || out_.cause == "timeout" || out_.cause == "reset";
    if (own && Failed(*f_.speaker) && BadRollout(f_, cells_, sources_.policy, out_)) break;
    if (!TieCalls()) break;
  }
  if (out_.cause == "timeout") SayWaiting();
  Say(f_, sources_, out_);
  Because();
  Evidence(f_, out_);
  if (!out_.policy) {
    // What took part is worth showing even where it is not to blame.
    const Event& e = f_.client && ParsePolicy(f_.client->policy, 0) ? *f_.client : *f_.speaker;
    out_.policy = ParsePolicy(e.policy, e.policy_revision);
    if (out_.policy && sources_.policy) out_.policy_text = sources_.policy(out_.policy);
    if (out_.policy_text && out_.policy.revision == 0) out_.policy.revision = out_.policy_text->revision;
  } else if (out_.decided_by.empty()) {
    out_.decided_by = PolicyName(out_.policy);
  }
  if (f_.client) out_.client = *f_.client;
  if (f_.server) out_.server = *f_.server;
  return std::move(out_);
}

}  // namespace

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

std::string Clock(int64_t unix_ms) {
  int64_t ms = unix_ms % 86'400'000;
  char buf[32];
  snprintf(buf, sizeof buf, "%02d:%02d:%02d.%03d UTC", static_cast<int>(ms / 3'600'000 % 24), static_cast<int>(ms / 60'000 % 60),
           static_cast<int>(ms / 1'000 % 60), static_cast<int>(ms % 1'000));
  return buf;
}

std::string Percent(uint64_t part, uint64_t whole) {
  if (whole == 0) return "0 %";
  double p = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  char buf[16];
  snprintf(buf, sizeof buf, p < 10 && p > 0 ? "%.1f %%" : "%.0f %%", p);
  return buf;
}

std::string Answer(const Event& e) {
  if (e.grpc_status > 0) return "gRPC status " + std::to_string(e.grpc_status);
  return e.status ? "status " + std::to_string(e.status) : "no response";
}

std::string PolicyName(const PolicyRef& p) {
  std::string s = p.kind + " " + p.name;
  if (p.ns != "default") s += " (namespace " + p.ns + ")";
  if (!p.rule.empty()) s += ", rule " + p.rule;
  if (p.revision) s += ", revision " + std::to_string(p.revision);
  return s;
}

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

std::optional<Explanation> Explain(const std::string& id, std::vector<Event> events, const std::vector<Span>& spans,
                                   const std::vector<Cell>& cells, const Sources& sources) {
  return Explainer(id, std::move(events), spans, cells, sources).Run();
}

}  // namespace weft::insight
