// The configuration half of /api/v1 (docs/api.md): objects, apply, diff, history, rollback, status, workloads, tokens.
// Handlers run on HTTP threads; the store has its lock, the control thread is asked.
#pragma once

#include <functional>
#include <string>

#include "sidecar/base/clock.h"
#include "xds_server/ca/authority.h"
#include "xds_server/rest/router.h"
#include "xds_server/serve/control.h"
#include "xds_server/store/store.h"

namespace weft::server {

inline constexpr char kVersion[] = "0.1.0";

struct ConfigApi {
  Store* store = nullptr;
  Control* control = nullptr;
  const Authority* authority = nullptr;
  base::Clock* clock = nullptr;
  std::function<std::string()> more_metrics;    // appended to /metrics; may be empty
  std::string more_openapi_paths;               // members of "paths", e.g. InsightOpenApiPaths()
};
// `api` is copied.
void RegisterConfigRoutes(Router& router, const ConfigApi& api);

// For tests: lines removed and added, with up to three lines of context; "" when equal.
std::string UnifiedDiff(const std::string& before, const std::string& after);
// Readable YAML of a stored object.
std::string StoredToYaml(const std::string& json);
std::string IsoTime(int64_t unix_ms);  // "2026-11-23T05:10:11.123Z", "" for 0
std::string OpenApi(const std::string& more_paths);

}  // namespace weft::server
