// What one view of a failing hop speaks for, and whether a rollout is to blame.
#include <map>

#include "xds_server/telemetry/topology.h"
#include "xds_server/telemetry/why_parts.h"

namespace weft::insight {
namespace {

// A handshake or connection that the callee's sidecar refused.
std::string RefusalCause(const Event& e) {
  const std::string& f = e.tls_failure;
  if (f.empty()) return "no_route";  // no chain, and not for want of TLS: nobody serves that port
  bool proved_none = f == "plaintext" || f.find("no_") == 0 || f == "peer_closed" || f == "handshake_timeout" || f == "protocol_error";
  return proved_none ? "missing_identity" : "wrong_identity";
}

}  // namespace

std::string CauseOf(const Event& e) {
  const Attempt* last = LastAttempt(e);
  const std::string& flags = e.response_flags;
  if (e.outcome == Outcome::kRefused) return RefusalCause(e);
  if (OutcomeIs(last, "tls_")) return "wrong_identity";
  if (e.outcome == Outcome::kDenied) return "denied_by_policy";
  if (e.fault.starts_with("abort") || HasFlag(flags, "FI")) return "fault_injected";
  if (HasFlag(flags, "RL")) return "rate_limited";
  // UO also says that a retry was not made for want of room; then the attempt's own failure is the cause.
  bool only_retry = last && !last->not_retried.empty() && last->outcome != "overflow";
  if ((HasFlag(flags, "UO") && !only_retry) || OutcomeIs(last, "overflow")) return "open_breaker";
  if (HasFlag(flags, "NR") || HasFlag(flags, "NC")) return "no_route";
  if (HasFlag(flags, "UH")) return "no_healthy_endpoint";
  if (HasFlag(flags, "UT") || HasFlag(flags, "SI") || HasFlag(flags, "UMSDR") || HasFlag(flags, "DT") ||
      OutcomeIs(last, "timeout") || OutcomeIs(last, "connect_timeout") || OutcomeIs(last, "per_try_timeout")) {
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

bool BadRollout(const Finding& f, const std::vector<Cell>& cells, const PolicyLookup& lookup, Explanation& out) {
  std::string version = f.client ? f.client->destination_version : f.server->destination_version;
  if (version.empty()) return false;
  std::map<std::string, Red> versions;
  bool from_callers = f.client != nullptr;
  for (const Cell& c : cells) {
    if (c.key.destination != f.callee || (c.key.direction == Direction::kOutbound) != from_callers) continue;
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
  const Event& e = f.client ? *f.client : *f.server;
  PolicyRef route = ParsePolicy(e.policy, e.policy_revision);
  if (route.kind != "Route") {
    // The weight may be named by the cluster only.
    if (VersionOfCluster(e.cluster) != version) return false;
    route = {};
    route.kind = "Route";
    size_t dot = f.callee.find('.');
    route.name = f.callee.substr(0, dot), route.ns = dot == std::string::npos ? "default" : f.callee.substr(dot + 1);
  }
  std::optional<PolicyText> text = lookup ? lookup(route) : std::nullopt;
  if (route.revision == 0 && !text) return false;
  out.policy = route, out.policy_text = std::move(text);
  if (route.revision == 0) out.policy.revision = out.policy_text->revision;
  out.cause = "bad_rollout";
  std::string counts;
  for (const auto& [v, red] : versions) {
    counts += (counts.empty() ? "" : "; ") + ("version " + v) + ": " + std::to_string(red.errors) + " errors in " +
              std::to_string(red.requests) + " requests (" + Percent(red.errors, red.requests) + ")";
  }
  out.evidence.push_back("Around that time, " + counts + ".");
  out.sentence = "Version " + version + " of " + f.callee + " is broken: " + Percent(own.errors, own.requests) +
                 " of its requests fail against " + Percent(others.errors, others.requests) + " elsewhere, and " +
                 PolicyName(out.policy) + ", sends traffic to it.";
  out.next = "Take the weight from version " + version + " (weft rollback to the revision before " +
             std::to_string(out.policy.revision) + "), then look at that version's own errors.";
  return true;
}

}  // namespace weft::insight
