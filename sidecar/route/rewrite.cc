// What a route changes in the request, and where a redirect points.
#include <algorithm>

#include "sidecar/http/authority.h"
#include "sidecar/route/route_table.h"

namespace weft::route {
namespace {

using http::Token;
using model::RouteMatch;

// The path part of target after the rewrite of what the match covered; the query is kept.
std::string ReplacePrefix(const RouteMatch& match, std::string_view target, std::string_view with) {
  size_t path_end = std::min(target.find_first_of("?#"), target.size());
  size_t n = match.path == RouteMatch::kPrefix || match.path == RouteMatch::kSeparatedPrefix ? std::min(match.value.size(), path_end) : path_end;
  std::string out(with);
  out += target.substr(n);
  return out;
}

std::string ReplaceRegex(const model::RegexRewrite& r, std::string_view target) {
  size_t path_end = std::min(target.find_first_of("?#"), target.size());
  std::string out = r.regex.ReplaceAll(target.substr(0, path_end), r.substitution);
  out += target.substr(path_end);
  return out;
}

}  // namespace

void RewriteRequest(const Found& found, http::HeaderMap& headers, std::string_view upstream_hostname) {
  if (!found.route || found.route->action != model::Route::kForward) return;
  const model::Forward& f = found.route->forward;

  // Once: a second call (for the host's name) finds the path already changed.
  if (!headers.Has(Token::kEnvoyOriginalPath)) {
    std::string path;
    std::string_view old = headers.Value(Token::kPath);
    if (!f.prefix_rewrite.empty()) path = ReplacePrefix(found.route->match, old, f.prefix_rewrite);
    else if (f.regex_rewrite.regex) path = ReplaceRegex(f.regex_rewrite, old);
    if (!path.empty() && path != old) {
      std::string original(old);
      headers.Set(Token::kPath, path);
      headers.Set(Token::kEnvoyOriginalPath, original);
    }
  }

  std::string host;
  if (found.weighted && !found.weighted->host_rewrite.empty()) host = found.weighted->host_rewrite;
  else if (!f.host_rewrite.empty()) host = f.host_rewrite;
  else if (!f.host_rewrite_header.empty()) host = headers.Get(f.host_rewrite_header).value_or("");
  else if (f.auto_host_rewrite) host = upstream_hostname;
  if (host.empty()) return;
  std::string old(headers.Value(Token::kAuthority));
  if (old.empty()) old = headers.Value(Token::kHost);
  if (host == old) return;
  if (f.append_x_forwarded_host && !old.empty()) headers.Add(Token::kXForwardedHost, old);
  headers.Remove(Token::kHost);
  headers.Set(Token::kAuthority, host);
}

std::string RedirectLocation(const model::Redirect& redirect, const model::RouteMatch& match, const http::HeaderMap& headers, bool tls) {
  std::string_view old_scheme = tls ? "https" : "http";
  std::string scheme = redirect.scheme.empty() ? std::string(old_scheme) : redirect.scheme;
  std::string_view authority = headers.Value(Token::kAuthority);
  if (authority.empty()) authority = headers.Value(Token::kHost);

  std::string host;
  uint32_t port = 0;
  if (auto hp = http::ParseAuthority(authority)) {
    host = hp->ipv6 ? "[" + std::string(hp->host) + "]" : std::string(hp->host);
    port = hp->port;
    // A port that was the old scheme's default would be wrong under the new one.
    if (scheme != old_scheme && port == (tls ? 443u : 80u)) port = 0;
  }
  if (!redirect.host.empty()) host = redirect.host, port = 0;
  if (redirect.port) port = *redirect.port;

  std::string_view target = headers.Value(Token::kPath);
  std::string path;
  if (!redirect.path.empty()) {
    path = redirect.path;
    size_t q = target.find('?');
    if (path.find('?') == std::string::npos && q != std::string_view::npos) path += target.substr(q);
  } else if (!redirect.prefix_rewrite.empty()) {
    path = ReplacePrefix(match, target, redirect.prefix_rewrite);
  } else if (redirect.regex_rewrite.regex) {
    path = ReplaceRegex(redirect.regex_rewrite, target);
  } else {
    path = target;
  }
  if (redirect.strip_query) path = path.substr(0, path.find('?'));

  std::string out = scheme + "://" + host;
  if (port) out += ":" + std::to_string(port);
  return out + path;
}

}  // namespace weft::route
