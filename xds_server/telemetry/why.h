// Why a request failed: one cause, one sentence, and the evidence for it. Pure: events in, explanation out.
//
// The request is followed through its trace to the deepest hop that failed, for that is where the failure was made; the
// hops above only passed it on. There both ends' views are read: the callee's first (it knows why it refused), then the
// caller's attempts. Causes:
//   ok                   it did not fail (attempts that did are listed)
//   connection_refused   nobody listened at the endpoint, or the application beside the callee's sidecar did not
//   reset                the connection was cut before the response was complete
//   timeout              no answer in time (request, per-try, connect or idle timeout)
//   open_breaker         the caller's circuit breaker was full
//   no_healthy_endpoint  every endpoint was ejected or gone
//   denied_by_policy     an Authorization refused the caller
//   identity             a TLS handshake failed: wrong or missing identity, plaintext under STRICT
//   bad_rollout          the application's errors are concentrated on one version that a route sends traffic to
//   application_error    the application itself answered so
//   fault_injected, rate_limited, no_route, caller_cancelled, external, unknown
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

// What the configuration store knows of the revision that brought a policy.
struct PolicyText {
  std::string text;     // the object as YAML or JSON, as of that revision
  std::string diff;     // what that revision changed, "" when it was created
  std::string time;     // RFC 3339
  std::string message;
  uint64_t revision = 0;
};
using PolicyLookup = std::function<std::optional<PolicyText>(const PolicyRef&)>;

struct Explanation {
  std::string cause, sentence;
  std::vector<std::string> evidence;     // sentences, most telling first
  std::string request_id, trace_id;
  int client = -1, server = -1;          // indices of the two views of the failing hop in the input events
  std::string failing_source, failing_destination;
  std::vector<std::string> path;         // node names from the entry to the failing hop's destination
  PolicyRef policy;
  std::optional<PolicyText> policy_text;
  std::string next;                      // what to look at or do, "" when there is nothing to say
};

// Events and spans of the request's trace (or of the request id alone); `cells` are counts around the time of the
// request, of all services, and may be empty. Nothing when `events` holds neither the id as a request nor as a trace.
std::optional<Explanation> Explain(const std::string& id, const std::vector<Event>& events, const std::vector<Span>& spans,
                                   const std::vector<Cell>& cells, const PolicyLookup& lookup);

}  // namespace weft::insight
