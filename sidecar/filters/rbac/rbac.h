// Role-based access control, for HTTP requests and for connections. Pure: everything it looks at is in Input.
//
//   Verdict v = Evaluate(config, input);
//   if (!v.allowed) 403 (or reset), policy v.policy decides; v.shadow_* is what the shadow rules would have done.
//
// ALLOW rules: allowed when a policy matches. DENY rules: denied when one does. LOG: always allowed.
// Fails closed: a matcher that was not understood makes its part unknown; unknown never allows, and under DENY it denies.
// Repeated headers are read in the way that grants less: under ALLOW every line must match, under DENY one suffices.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sidecar/http/headers.h"
#include "sidecar/model/filters.h"
#include "sidecar/tls/engine.h"

namespace weft::filters::rbac {

struct Input {
  const http::HeaderMap* headers = nullptr;        // null for a network filter
  const tls::PeerInfo* peer = nullptr;             // verified client certificate; null: none
  const model::Address* destination = nullptr;     // restored original destination
  const model::Address* direct_remote = nullptr;   // the socket's peer
  const model::Address* remote = nullptr;          // after x-forwarded-for; null: direct_remote
  std::string_view server_name;                    // SNI
};

struct Verdict {
  bool allowed = true;
  std::string_view policy;          // that matched ("" when none did); lives as long as the configuration
  bool shadow_evaluated = false;
  bool shadow_allowed = true;
  std::string_view shadow_policy;
};

Verdict Evaluate(const model::RbacConfig& config, const Input& input);

}  // namespace weft::filters::rbac
