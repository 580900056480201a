#include "xds_server/rest/router.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

namespace weft::server {
namespace {

std::vector<std::string> Split(std::string_view path) {
  std::vector<std::string> out;
  size_t i = 0;
  while (i < path.size()) {
    if (path[i] == '/') {
      ++i;
      continue;
    }
    size_t j = path.find('/', i);
    if (j == std::string_view::npos) j = path.size();
    out.emplace_back(path.substr(i, j - i));
    i = j;
  }
  return out;
}

bool Match(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
           std::map<std::string, std::string>& params) {
  if (pattern.size() != path.size()) return false;
  params.clear();
  for (size_t i = 0; i < path.size(); ++i) {
    const std::string& p = pattern[i];
    if (p.size() > 2 && p.front() == '{' && p.back() == '}') {
      params[p.substr(1, p.size() - 2)] = path[i];
    } else if (p != path[i]) {
      return false;
    }
  }
  return true;
}

// Quoted hexadecimal FNV-1a: names a content, protects nothing.
std::string EtagOf(std::string_view body) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : body) hash = (hash ^ c) * 0x100000001b3;
  char text[24];
  snprintf(text, sizeof text, "\"%016llx\"", static_cast<unsigned long long>(hash));
  return text;
}

// One of the names in a list ("gzip, br;q=0.5"), unless it is weighed 0.
bool Lists(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), item.size() + 1));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    if (!item.starts_with(name)) continue;
    item.remove_prefix(name.size());
    if (item.empty() || item.front() == ' ') return true;
    if (item.front() == ';') return item.find("q=0") == std::string_view::npos || item.find("q=0.") != std::string_view::npos;
  }
  return false;
}

}  // namespace

std::string Request::Query(const std::string& key, std::string_view fallback) const {
  auto it = query.find(key);
  return it == query.end() ? std::string(fallback) : it->second;
}

Response ErrorResponse(int status, std::string_view message) {
  Response r;
  r.status = status;
  r.body = nlohmann::json{{"error", {{"message", message}}}}.dump(-1, ' ', false,
                                                                  nlohmann::json::error_handler_t::replace);
  return r;
}

void Router::Add(std::string method, std::string pattern, Handler handler) {
  routes_.push_back({std::move(method), Split(pattern), std::move(handler)});
}

void Router::AddAsset(std::string path, std::string content_type, std::string_view body, std::string_view gzip) {
  assets_[std::move(path)] = {std::move(content_type), EtagOf(body), body, gzip};
}

Response Router::Dispatch(Request& request) const {
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (auto it = assets_.find(request.path); it != assets_.end()) {
    if (!get) return ErrorResponse(405, "only GET is possible here");
    const Asset& a = it->second;
    Response r;
    r.content_type = a.content_type;
    // Kept by the browser, asked about each time: a new server's page is never an old one's.
    r.headers = {{"ETag", a.etag}, {"Cache-Control", "no-cache"}, {"Vary", "Accept-Encoding"}};
    if (Lists(request.if_none_match, a.etag) || request.if_none_match == "*") {
      r.status = 304;
    } else if (!a.gzip.empty() && Lists(request.accept_encoding, "gzip")) {
      r.headers["Content-Encoding"] = "gzip";
      r.body = std::string(a.gzip);
    } else {
      r.body = std::string(a.body);
    }
    return r;
  }
  const std::vector<std::string> path = Split(request.path);
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    if (!Match(route.segments, path, request.params)) continue;
    if (route.method == request.method || (get && route.method == "GET")) return route.handler(request);
    allowed.insert(route.method);
  }
  if (allowed.empty()) return ErrorResponse(404, "no such path: " + request.path);
  Response r = ErrorResponse(405, "method " + request.method + " is not possible here");
  std::string list;
  for (const std::string& m : allowed) list += (list.empty() ? "" : ", ") + m;
  r.headers["Allow"] = list;
  return r;
}

}  // namespace weft::server
