#include "sidecar/route/route_table.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "sidecar/model/snapshot.h"

namespace weft::route {
namespace {

using http::Token;
using model::NameMap;
using model::RouteMatch;

constexpr size_t kIndexFrom = 16;  // virtual hosts with fewer routes are scanned

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

bool StartsWith(std::string_view text, std::string_view prefix, bool case_sensitive) {
  if (text.size() < prefix.size()) return false;
  if (case_sensitive) return text.starts_with(prefix);
  for (size_t i = 0; i < prefix.size(); ++i) {
    auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (low(text[i]) != low(prefix[i])) return false;
  }
  return true;
}

std::string_view PathOnly(std::string_view target) { return target.substr(0, target.find_first_of("?#")); }

// "/a;x=1/b" -> "/a/b"; without parameters the view itself.
std::string_view WithoutParameters(std::string_view path, std::string& scratch) {
  if (path.find(';') == std::string_view::npos) return path;
  scratch.clear();
  bool skip = false;
  for (char c : path) {
    if (c == '/') skip = false;
    if (c == ';') skip = true;
    if (!skip) scratch += c;
  }
  return scratch;
}

bool IsGrpc(const http::HeaderMap& headers) {
  std::string_view t = headers.Value(Token::kContentType);
  if (!t.starts_with("application/grpc")) return false;
  return t.size() == 16 || t[16] == '+' || t[16] == ';';
}

bool PathMatches(const RouteMatch& m, std::string_view path, const http::HeaderMap& headers) {
  switch (m.path) {
    case RouteMatch::kPrefix: return StartsWith(path, m.value, m.case_sensitive);
    case RouteMatch::kExact: return path.size() == m.value.size() && StartsWith(path, m.value, m.case_sensitive);
    case RouteMatch::kSeparatedPrefix:
      return StartsWith(path, m.value, m.case_sensitive) && (path.size() == m.value.size() || path[m.value.size()] == '/');
    case RouteMatch::kRegex: return !path.empty() && m.regex.FullMatch(path);
    case RouteMatch::kConnect: return headers.Value(Token::kMethod) == "CONNECT" && !headers.Has(Token::kProtocol);
  }
  return false;
}

bool MatchesPath(const model::Route& route, std::string_view path, const http::HeaderMap& headers, uint64_t random) {
  const RouteMatch& m = route.match;
  if (!PathMatches(m, path, headers)) return false;
  if (m.grpc_only && !IsGrpc(headers)) return false;
  // High bits: weighted clusters use the low ones, so that both choices are independent.
  if (m.runtime_fraction && !m.runtime_fraction->Sample(random >> 24)) return false;
  if (!model::MatchAll(m.headers, headers)) return false;
  for (const auto& q : m.query)
    if (!q.Match(headers.Value(Token::kPath))) return false;
  return true;
}

const model::ClusterWeight* PickWeighted(const model::Forward& f, uint64_t random) {
  if (f.weighted.empty() || f.total_weight == 0) return nullptr;
  uint64_t r = (random & 0xffffff'ffffffull) % f.total_weight;
  for (const auto& w : f.weighted) {
    if (r < w.weight) return &w;
    r -= w.weight;
  }
  return nullptr;
}

// Routes of one virtual host by path; lists hold route numbers in order.
struct HostIndex {
  using List = std::vector<uint32_t>;
  NameMap<List> exact;
  std::map<size_t, NameMap<List>> prefix;  // by length
  List rest;                               // regex, CONNECT, case-insensitive
};

}  // namespace

struct RouteTable::Index {
  using HostMap = NameMap<const model::VirtualHost*>;
  HostMap exact;
  std::map<size_t, HostMap, std::greater<>> suffix, prefix;  // by length, longest first
  const model::VirtualHost* any = nullptr;
  std::unordered_map<const model::VirtualHost*, HostIndex> routes;
};

RouteTable::RouteTable() : index_(std::make_unique<Index>()) {}
RouteTable::~RouteTable() = default;

base::Result<std::shared_ptr<const RouteTable>> RouteTable::Compile(model::RouteConfig config) {
  std::shared_ptr<RouteTable> table(new RouteTable());
  table->config_ = std::move(config);
  Index& index = *table->index_;
  auto& hosts = table->config_.virtual_hosts;
  auto note = [&](const model::HeaderMutations& m) {
    for (const auto* list : {&m.request_add, &m.response_add}) {
      table->operators_ |= std::any_of(list->begin(), list->end(), [](const auto& o) { return o.format != nullptr; });
    }
  };
  note(table->config_.headers);
  std::unordered_map<std::string, size_t> names;
  for (size_t h = 0; h < hosts.size(); ++h) {
    const model::VirtualHost& v = hosts[h];
    std::string where = "virtual_hosts[" + std::to_string(h) + "]";
    if (!names.emplace(v.name, h).second) return base::Error("virtual host \"" + v.name + "\" is there twice").In("name").In(where);
    if (v.domains.empty()) return base::Error("needs at least one domain").In("domains").In(where);
    for (size_t d = 0; d < v.domains.size(); ++d) {
      std::string domain = Lower(v.domains[d]);
      bool fresh = true;
      if (domain.empty()) return base::Error("must not be empty").In("domains[" + std::to_string(d) + "]").In(where);
      if (domain == "*") {
        fresh = !index.any;
        index.any = &v;
      } else if (domain[0] == '*') {
        fresh = index.suffix[domain.size() - 1].emplace(domain.substr(1), &v).second;
      } else if (domain.back() == '*') {
        fresh = index.prefix[domain.size() - 1].emplace(domain.substr(0, domain.size() - 1), &v).second;
      } else {
        fresh = index.exact.emplace(domain, &v).second;
      }
      if (!fresh) return base::Error("domain \"" + domain + "\" is there twice").In("domains[" + std::to_string(d) + "]").In(where);
    }
    note(v.headers);
    for (const auto& r : v.routes) {
      note(r->headers);
      for (const auto& w : r->forward.weighted) note(w.headers);
    }
    if (v.routes.size() < kIndexFrom) continue;
    HostIndex& hi = index.routes[&v];
    for (uint32_t r = 0; r < v.routes.size(); ++r) {
      const RouteMatch& m = v.routes[r]->match;
      if (!m.case_sensitive || m.path == RouteMatch::kRegex || m.path == RouteMatch::kConnect) hi.rest.push_back(r);
      else if (m.path == RouteMatch::kExact) hi.exact[m.value].push_back(r);
      else hi.prefix[m.value.size()][m.value].push_back(r);
    }
  }
  return std::shared_ptr<const RouteTable>(std::move(table));
}

const model::VirtualHost* RouteTable::FindHost(std::string_view authority) const {
  const Index& x = *index_;
  if (x.exact.empty() && x.suffix.empty() && x.prefix.empty()) return x.any;
  std::string lowered;
  if (std::any_of(authority.begin(), authority.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) authority = lowered = Lower(authority);
  if (config_.ignore_port_in_host) {
    size_t colon = authority.rfind(':');
    if (colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos) authority = authority.substr(0, colon);
  }
  if (auto it = x.exact.find(authority); it != x.exact.end()) return it->second;
  // A wildcard stands for at least one character.
  for (const auto& [n, map] : x.suffix)
    if (authority.size() > n)
      if (auto it = map.find(authority.substr(authority.size() - n)); it != map.end()) return it->second;
  for (const auto& [n, map] : x.prefix)
    if (authority.size() > n)
      if (auto it = map.find(authority.substr(0, n)); it != map.end()) return it->second;
  return x.any;
}

Found RouteTable::Find(const http::HeaderMap& headers, uint64_t random, bool tls) const {
  Found f;
  std::string_view authority = headers.Value(Token::kAuthority);
  if (authority.empty()) authority = headers.Value(Token::kHost);
  f.vhost = FindHost(authority);
  if (!f.vhost) return f;
  if (f.vhost->require_tls != model::VirtualHost::kNoTls && !tls) {
    f.tls_required = true;
    return f;
  }
  std::string scratch;
  std::string_view path = PathOnly(headers.Value(Token::kPath));
  if (config_.ignore_path_parameters) path = WithoutParameters(path, scratch);

  const auto& routes = f.vhost->routes;
  auto hit = index_->routes.find(f.vhost);
  if (hit == index_->routes.end()) {
    for (const auto& r : routes) {
      if (!MatchesPath(*r, path, headers, random)) continue;
      f.route = r.get();
      break;
    }
  } else {
    // Merge the few lists that can hold a match, so that the order of the table decides.
    const HostIndex& hi = hit->second;
    struct Cursor { const uint32_t *at, *end; };
    static thread_local std::vector<Cursor> cursors;
    cursors.clear();
    auto add = [](const HostIndex::List& l) { if (!l.empty()) cursors.push_back({l.data(), l.data() + l.size()}); };
    add(hi.rest);
    if (auto it = hi.exact.find(path); it != hi.exact.end()) add(it->second);
    for (const auto& [n, map] : hi.prefix) {
      if (n > path.size()) break;
      if (auto it = map.find(path.substr(0, n)); it != map.end()) add(it->second);
    }
    while (!cursors.empty()) {
      auto least = std::min_element(cursors.begin(), cursors.end(), [](const Cursor& a, const Cursor& b) { return *a.at < *b.at; });
      const model::Route& r = *routes[*least->at];
      if (MatchesPath(r, path, headers, random)) {
        f.route = &r;
        break;
      }
      if (++least->at == least->end) cursors.erase(least);
    }
  }

  if (!f.route || f.route->action != model::Route::kForward) return f;
  const model::Forward& fw = f.route->forward;
  if (!fw.weighted.empty()) {
    f.weighted = PickWeighted(fw, random);
    if (f.weighted) f.cluster = f.weighted->cluster_header.empty() ? std::string_view(f.weighted->cluster) : headers.Get(f.weighted->cluster_header).value_or("");
  } else {
    f.cluster = fw.cluster_header.empty() ? std::string_view(fw.cluster) : headers.Get(fw.cluster_header).value_or("");
  }
  return f;
}

bool Matches(const model::Route& route, const http::HeaderMap& headers, uint64_t random, bool ignore_path_parameters) {
  std::string scratch;
  std::string_view path = PathOnly(headers.Value(Token::kPath));
  if (ignore_path_parameters) path = WithoutParameters(path, scratch);
  return MatchesPath(route, path, headers, random);
}

const model::PerFilterConfig* PerFilter(const RouteTable& table, const Found& found, const std::string& filter_name) {
  if (found.weighted)
    if (auto* p = model::FindPerFilter(found.weighted->per_filter, filter_name)) return p;
  if (found.route)
    if (auto* p = model::FindPerFilter(found.route->per_filter, filter_name)) return p;
  if (found.vhost)
    if (auto* p = model::FindPerFilter(found.vhost->per_filter, filter_name)) return p;
  return model::FindPerFilter(table.config().per_filter, filter_name);
}

}  // namespace weft::route
