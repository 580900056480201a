// A policy's header match as Envoy's.
#pragma once

#include "api/weft/policy/v1/policy.pb.h"
#include "envoy/config/route/v3/route_components.pb.h"

namespace weft::server::compile {

inline void SetHeaderMatch(const policy::v1::Route::HeaderMatch& h, envoy::config::route::v3::HeaderMatcher* out) {
  out->set_name(h.name());
  if (!h.exact().empty()) out->mutable_string_match()->set_exact(h.exact());
  else if (!h.prefix().empty()) out->mutable_string_match()->set_prefix(h.prefix());
  else if (!h.regex().empty()) out->mutable_string_match()->mutable_safe_regex()->set_regex(h.regex());
  else out->set_present_match(true);
}

}  // namespace weft::server::compile
