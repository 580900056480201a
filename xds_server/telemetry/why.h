// Why a request failed: one cause, one sentence, and the evidence for it. Pure: events in, explanation out.
//
// The request is followed through its trace to the deepest hop that failed, for that is where the failure was made; the
// hops above only passed it on. What no header ties together is tied by facts: both ends of a connection by its address,
// and an application's error to a call that failed at the same workload meanwhile. At the failing hop both ends' views are
// read: the callee's first (it knows why it refused), then the caller's attempts. Causes:
//   ok                   it did not fail (attempts that did are listed)
//   connection_refused   nobody listened at the endpoint, or the application beside the callee's sidecar did not
//   reset                the connection was cut before the response was complete
//   timeout              no answer in time (request, per-try, connect or idle timeout)
//   open_breaker         the caller's circuit breaker was full
//   no_healthy_endpoint  every endpoint was ejected or gone
//   denied_by_policy     an Authorization refused the caller
//   missing_identity     the caller proved none: plaintext under STRICT, TLS without a certificate
//   wrong_identity       a certificate was shown and not accepted, at either end
//   bad_rollout          the application's errors are concentrated on one version that a route sends traffic to
//   application_error    the application itself answered so
//   fault_injected, rate_limited, no_route, caller_cancelled, external, unknown
//
// Files: why.cc (the walk, both views), why_cause.cc (what one view speaks for), why_say.cc (sentences).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "xds_server/telemetry/aggregate.h"
#include "xds_server/telemetry/traces.h"

namespace weft::insight {

struct PolicyRef {
  std::string kind, ns, name, rule;
  uint64_t revision = 0;  // 0: not known, the newest
  explicit operator bool() const { return !kind.empty(); }
};
// "Authorization/default/cart/deny@12", "Route/default/cart"; nothing when the text has another form ("none").
PolicyRef ParsePolicy(std::string_view text, uint64_t revision);
// "Authorization cart, rule deny, revision 12"
std::string PolicyName(const PolicyRef& p);

// What the configuration store knows of the revision that brought a policy.
struct PolicyText {
  std::string text;     // the object as YAML or JSON, as of that revision
  std::string diff;     // what that revision changed, "" when it was created
  std::string time;     // RFC 3339
  std::string message;
  uint64_t revision = 0;
};
using PolicyLookup = std::function<std::optional<PolicyText>(const PolicyRef&)>;

// What an explanation may ask for beyond the request's own events. Any of them may be empty; times are Unix nanoseconds
// of the end of an event.
struct Sources {
  PolicyLookup policy;
  // "client-x1 of service client": who is registered at an IP address; "" nobody.
  std::function<std::string(const std::string& ip)> workload_at;
  std::function<std::vector<Event>(const std::string& trace_id)> trace;
  // OUTBOUND events of a workload that failed; INBOUND ones, failed or not.
  std::function<std::vector<Event>(const std::string& workload, int64_t from_ns, int64_t to_ns)> failed_calls, requests;
  // The two ends of a connection by the caller's "ip:port": INBOUND events that came from it; OUTBOUND ones with an
  // attempt that left from it.
  std::function<std::vector<Event>(const std::string& address, int64_t from_ns, int64_t to_ns)> arrivals, departures;
};

struct Explanation {
  std::string cause, sentence;
  std::vector<std::string> evidence;     // sentences, most telling first
  std::string request_id, trace_id;
  std::optional<Event> client, server;   // the two views of the failing hop
  std::string failing_source, failing_destination;
  std::vector<std::string> path;         // node names from the entry to the failing hop's destination
  PolicyRef policy;
  std::optional<PolicyText> policy_text;
  std::string decided_by;                // the policy with its revision, or which default; "" when no rule decided
  std::string next;                      // what to look at or do, "" when there is nothing to say
};

// Events and spans of the request's trace (or of the request id alone); `cells` are counts around the time of the
// request, of all services, and may be empty. Nothing when `events` holds neither the id as a request nor as a trace.
std::optional<Explanation> Explain(const std::string& id, std::vector<Event> events, const std::vector<Span>& spans,
                                   const std::vector<Cell>& cells, const Sources& sources);

}  // namespace weft::insight
