#include "xds_server/rest/router.h"

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

void Router::AddAsset(std::string path, std::string content_type, std::string_view body) {
  assets_[std::move(path)] = {std::move(content_type), body};
}

Response Router::Dispatch(Request& request) const {
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (auto it = assets_.find(request.path); it != assets_.end()) {
    if (!get) return ErrorResponse(405, "only GET is possible here");
    Response r;
    r.content_type = it->second.content_type;
    r.body = std::string(it->second.body);
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
