// From a request's headers to a route: Envoy's rules for domains, route order and matchers; pure, no I/O.
//
//   auto table = RouteTable::Compile(std::move(config));          // Result; at translation time
//   Found f = table->Find(headers, random, {.tls = true});        // per request
//   if (!f.route) 404;  switch (f.route->action) ...
//   RewriteRequest(f, headers);                                   // path, host
//
// Domains: exact, then longest "*.suffix", then longest "prefix.*", then "*". Routes: the first that matches wins; tables
// with many plain prefix or exact routes are indexed, so that the cost does not grow with their number.
// Ownership: what Found points to lives as long as the table. Threads: any (immutable).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/http/headers.h"
#include "sidecar/model/route_config.h"

namespace weft::route {

struct Found {
  const model::VirtualHost* vhost = nullptr;   // null: no domain matched
  const model::Route* route = nullptr;         // null: 404 (or tls_required)
  const model::ClusterWeight* weighted = nullptr;  // the picked entry of weighted clusters
  std::string_view cluster;                    // of a forward; "" when a cluster header is missing
  bool tls_required = false;                   // the virtual host wants TLS: redirect with 301 to https
};

class RouteTable {
 public:
  // Fails on a domain named twice and on what cannot be compiled; the error names the place.
  static base::Result<std::shared_ptr<const RouteTable>> Compile(model::RouteConfig config);
  ~RouteTable();

  // random decides weighted clusters and runtime fractions. tls: the request came over TLS (for require_tls).
  Found Find(const http::HeaderMap& headers, uint64_t random, bool tls) const;
  const model::RouteConfig& config() const { return config_; }
  // Whether any header that it adds holds operators.
  bool operators() const { return operators_; }

 private:
  struct Index;
  RouteTable();
  const model::VirtualHost* FindHost(std::string_view authority) const;
  model::RouteConfig config_;
  bool operators_ = false;
  std::unique_ptr<Index> index_;
};

// Whether one route matches (without the index): explain and tests.
bool Matches(const model::Route& route, const http::HeaderMap& headers, uint64_t random, bool ignore_path_parameters = false);

// Applies prefix/regex/host rewrites of a forward to the request (x-envoy-original-path when the path changes).
// upstream_hostname: of the picked host, for auto_host_rewrite ("" when unknown; call again when it is).
void RewriteRequest(const Found& found, http::HeaderMap& headers, std::string_view upstream_hostname = {});

// The Location value of a redirect for this request.
std::string RedirectLocation(const model::Redirect& redirect, const model::RouteMatch& match, const http::HeaderMap& headers, bool tls);

// The innermost per-filter configuration for a filter instance: weighted cluster, route, virtual host, table.
const model::PerFilterConfig* PerFilter(const RouteTable& table, const Found& found, const std::string& filter_name);

// The retry policy in force: the route's, else the virtual host's, else null.
inline const model::RetryPolicy* Retry(const Found& found) {
  if (found.route && found.route->forward.retry) return found.route->forward.retry.get();
  return found.vhost ? found.vhost->retry.get() : nullptr;
}

}  // namespace weft::route
