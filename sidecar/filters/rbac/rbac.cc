#include "sidecar/filters/rbac/rbac.h"

namespace weft::filters::rbac {
namespace {

// Three-valued, so that a matcher that was not understood is not turned into a match by "not".
enum class Truth : uint8_t { kNo, kYes, kUnknown };
Truth Of(bool b) { return b ? Truth::kYes : Truth::kNo; }
Truth Not(Truth t) { return t == Truth::kUnknown ? t : Of(t == Truth::kNo); }

std::string_view PathOnly(const http::HeaderMap& headers) {
  std::string_view path = headers.Value(http::Token::kPath);
  return path.substr(0, path.find_first_of("?#"));
}

Truth Authenticated(const model::RbacNode& n, const tls::PeerInfo* peer) {
  if (!peer) return Truth::kNo;
  if (n.any_identity) return Truth::kYes;
  // Envoy: URI SANs, then DNS SANs, then the subject.
  if (!peer->uri_sans.empty()) {
    for (const auto& uri : peer->uri_sans)
      if (n.string.Match(uri)) return Truth::kYes;
    return Truth::kNo;
  }
  if (!peer->dns_sans.empty()) {
    for (const auto& dns : peer->dns_sans)
      if (n.string.Match(dns)) return Truth::kYes;
    return Truth::kNo;
  }
  return Of(n.string.Match(peer->subject));
}

Truth Match(const model::RbacNode& n, const Input& in) {
  using Node = model::RbacNode;
  switch (n.kind) {
    case Node::kUnknown: return Truth::kUnknown;
    case Node::kAny: return Truth::kYes;
    case Node::kAnd: {
      Truth all = Truth::kYes;
      for (const auto& c : n.children) {
        Truth t = Match(c, in);
        if (t == Truth::kNo) return t;
        if (t == Truth::kUnknown) all = t;
      }
      return all;
    }
    case Node::kOr: {
      Truth any = Truth::kNo;
      for (const auto& c : n.children) {
        Truth t = Match(c, in);
        if (t == Truth::kYes) return t;
        if (t == Truth::kUnknown) any = t;
      }
      return any;
    }
    case Node::kNot: return n.children.size() == 1 ? Not(Match(n.children[0], in)) : Truth::kUnknown;
    case Node::kHeader: {
      static const http::HeaderMap kNone;
      return Of(n.header.Match(in.headers ? *in.headers : kNone));
    }
    case Node::kUrlPath: return Of(in.headers && n.string.Match(PathOnly(*in.headers)));
    // The sidecar has no dynamic metadata of its own; an absent value matches nothing.
    case Node::kMetadata: return Of(n.invert);
    case Node::kDestinationIp: return Of(in.destination && n.cidr.Contains(in.destination->ip));
    case Node::kDestinationPort: return Of(in.destination && in.destination->port == n.port);
    case Node::kDestinationPortRange:
      return Of(in.destination && in.destination->port >= n.port && in.destination->port < n.port_end);
    case Node::kRequestedServerName: return Of(n.string.Match(in.server_name));
    case Node::kAuthenticated: return Authenticated(n, in.peer);
    case Node::kDirectRemoteIp: return Of(in.direct_remote && n.cidr.Contains(in.direct_remote->ip));
    case Node::kRemoteIp: {
      const model::Address* a = in.remote ? in.remote : in.direct_remote;
      return Of(a && n.cidr.Contains(a->ip));
    }
  }
  return Truth::kUnknown;
}

Truth Any(const std::vector<model::RbacNode>& list, const Input& in) {
  Truth any = Truth::kNo;
  for (const auto& n : list) {
    Truth t = Match(n, in);
    if (t == Truth::kYes) return t;
    if (t == Truth::kUnknown) any = t;
  }
  return any;
}

struct One {
  bool allowed;
  std::string_view policy;
};

One Run(const model::RbacRules& rules, const Input& in) {
  bool deny = rules.action == model::RbacRules::kDeny;
  for (const auto& p : rules.policies) {
    Truth permission = Any(p.permissions, in);
    if (permission == Truth::kNo) continue;
    Truth principal = Any(p.principals, in);
    if (principal == Truth::kNo) continue;
    bool certain = permission == Truth::kYes && principal == Truth::kYes;
    if (!certain && !deny) continue;  // what could not be evaluated allows nothing, and denies what DENY may mean
    return {!deny, p.name};
  }
  return {rules.action != model::RbacRules::kAllow, {}};
}

}  // namespace

Verdict Evaluate(const model::RbacConfig& config, const Input& input) {
  Verdict v;
  if (config.rules) {
    One r = Run(*config.rules, input);
    v.allowed = r.allowed || config.rules->action == model::RbacRules::kLog;
    v.policy = r.policy;
  }
  if (config.shadow_rules) {
    One r = Run(*config.shadow_rules, input);
    v.shadow_evaluated = true;
    v.shadow_allowed = r.allowed || config.shadow_rules->action == model::RbacRules::kLog;
    v.shadow_policy = r.policy;
  }
  return v;
}

}  // namespace weft::filters::rbac
