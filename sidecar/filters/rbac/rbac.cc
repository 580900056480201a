// The idea: a rule that cannot be evaluated must never let a request through. Evaluation is three-valued (yes, no,
// unknown); unknown spreads through and/or/not as in Kleene's logic, and at the top counts as "no" for ALLOW and as "yes"
// for DENY. Repeated headers get the same care: a value list is read in the way that is worse for the caller (`grant`:
// whether a match of this node would help it).
#include "sidecar/filters/rbac/rbac.h"

#include <algorithm>

namespace weft::filters::rbac {
namespace {

using model::RbacNode;
enum class Tri : uint8_t { kNo, kYes, kUnknown };

Tri Of(bool b) { return b ? Tri::kYes : Tri::kNo; }
Tri Not(Tri t) { return t == Tri::kUnknown ? t : Of(t == Tri::kNo); }

std::string_view PathWithoutQuery(const http::HeaderMap& h) {
  std::string_view p = h.Value(http::Token::kPath);
  return p.substr(0, p.find_first_of("?#"));
}

bool MatchHeader(const model::HeaderMatcher& m, const http::HeaderMap& h, bool grant) {
  bool joined = m.Match(h);
  if (m.kind == model::HeaderMatcher::kPresent) return joined;
  // Several lines of the name: the joined value and each line may disagree ("a" and "b" against "not b").
  int lines = 0;
  bool all = true, any = false;
  for (const auto& e : h) {
    if (e.name() != m.name) continue;
    ++lines;
    http::HeaderMap one;
    one.Add(e.name(), e.value());
    bool ok = m.Match(one);
    all = all && ok, any = any || ok;
  }
  if (lines < 2) return joined;
  return grant ? joined && all : joined || any;
}

bool MatchIdentity(const RbacNode& n, const tls::PeerInfo* peer) {
  if (!peer) return false;
  if (n.any_identity) return true;
  // As Envoy: URI SANs, else DNS SANs, else the subject.
  auto any = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& s) { return n.string.Match(s); });
  };
  if (!peer->uri_sans.empty()) return any(peer->uri_sans);
  if (!peer->dns_sans.empty()) return any(peer->dns_sans);
  return n.string.Match(peer->subject);
}

// grant: a yes of this node makes access more likely (ALLOW rules, flipped below each not).
Tri Eval(const RbacNode& n, const Input& in, bool grant) {
  switch (n.kind) {
    case RbacNode::kUnknown: return Tri::kUnknown;
    case RbacNode::kAny: return Tri::kYes;
    case RbacNode::kAnd: {
      Tri out = Tri::kYes;
      for (const auto& c : n.children) {
        Tri t = Eval(c, in, grant);
        if (t == Tri::kNo) return t;
        if (t == Tri::kUnknown) out = t;
      }
      return out;
    }
    case RbacNode::kOr: {
      Tri out = Tri::kNo;
      for (const auto& c : n.children) {
        Tri t = Eval(c, in, grant);
        if (t == Tri::kYes) return t;
        if (t == Tri::kUnknown) out = t;
      }
      return out;
    }
    case RbacNode::kNot: return n.children.empty() ? Tri::kUnknown : Not(Eval(n.children[0], in, !grant));
    // A network filter sees no request: it counts as one without headers, as in Envoy.
    case RbacNode::kHeader: {
      static const http::HeaderMap kNone;
      return Of(MatchHeader(n.header, in.headers ? *in.headers : kNone, grant));
    }
    case RbacNode::kUrlPath: return Of(in.headers && n.string.Match(PathWithoutQuery(*in.headers)));
    case RbacNode::kMetadata: return Of(n.invert);  // no filter here produces dynamic metadata
    case RbacNode::kDestinationIp: return Of(in.destination && in.destination->kind == model::Address::kIp && n.cidr.Contains(in.destination->ip));
    case RbacNode::kDestinationPort: return Of(in.destination && in.destination->port == n.port);
    case RbacNode::kDestinationPortRange: return Of(in.destination && in.destination->port >= n.port && in.destination->port < n.port_end);
    case RbacNode::kRequestedServerName: return Of(n.string.Match(in.server_name));
    case RbacNode::kAuthenticated: return Of(MatchIdentity(n, in.peer));
    case RbacNode::kDirectRemoteIp: return Of(in.direct_remote && in.direct_remote->kind == model::Address::kIp && n.cidr.Contains(in.direct_remote->ip));
    case RbacNode::kRemoteIp: {
      const model::Address* a = in.remote ? in.remote : in.direct_remote;
      return Of(a && a->kind == model::Address::kIp && n.cidr.Contains(a->ip));
    }
  }
  return Tri::kUnknown;
}

Tri AnyOf(const std::vector<RbacNode>& nodes, const Input& in, bool grant) {
  Tri out = Tri::kNo;
  for (const auto& n : nodes) {
    Tri t = Eval(n, in, grant);
    if (t == Tri::kYes) return t;
    if (t == Tri::kUnknown) out = t;
  }
  return out;
}

// The first policy (by name) that matches; unknown counts by the action.
const model::RbacPolicy* FindPolicy(const model::RbacRules& rules, const Input& in) {
  bool deny = rules.action == model::RbacRules::kDeny;
  for (const auto& p : rules.policies) {
    Tri permission = AnyOf(p.permissions, in, !deny);
    if (permission == Tri::kNo) continue;
    Tri principal = AnyOf(p.principals, in, !deny);
    if (principal == Tri::kNo) continue;
    bool sure = permission == Tri::kYes && principal == Tri::kYes;
    if (sure || deny) return &p;
  }
  return nullptr;
}

bool Allowed(const model::RbacRules& rules, const Input& in, std::string_view& policy) {
  const model::RbacPolicy* p = FindPolicy(rules, in);
  policy = p ? std::string_view(p->name) : std::string_view();
  if (rules.action == model::RbacRules::kLog) return true;
  return (rules.action == model::RbacRules::kDeny) == (p == nullptr);
}

}  // namespace

Verdict Evaluate(const model::RbacConfig& config, const Input& input) {
  Verdict v;
  if (config.shadow_rules) {
    v.shadow_evaluated = true;
    v.shadow_allowed = Allowed(*config.shadow_rules, input, v.shadow_policy);
  }
  if (config.rules) v.allowed = Allowed(*config.rules, input, v.policy);
  return v;
}

}  // namespace weft::filters::rbac
