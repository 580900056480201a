// The HTTP API's routing table, free of any HTTP library: handlers are plain functions that tests call directly.
//
//   void RegisterRoutes(Router& r, Topology& t) {
//     r.Add("GET", "/api/v1/why/{id}", [&t](const Request& q) { return Json(t.Why(q.params.at("id"))); });
//   }
//
// Handlers run on the HTTP server's threads (several at once): they lock what they share. Before a handler runs the
// server has checked the Host header, the size of the body, and, for every method but GET and HEAD, the bearer token and
// the content type (JSON or YAML). A handler that throws answers 500.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weft::server {

struct Request {
  std::string method, path;                  // path without query, decoded
  std::map<std::string, std::string> params;  // from {name} in the pattern
  std::map<std::string, std::string> query;   // last value wins
  std::string content_type, body;
  std::string accept_encoding, if_none_match;
  std::string Query(const std::string& key, std::string_view fallback = "") const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::map<std::string, std::string> headers;
};

// {"error": {"message": ...}} with the status.
Response ErrorResponse(int status, std::string_view message);

using Handler = std::function<Response(const Request&)>;

class Router {
 public:
  // Pattern segments are literal or {name} (one segment, not empty).
  void Add(std::string method, std::string pattern, Handler handler);
  // A static file of the page, held in memory for the life of the program. Path "/" is the page itself. It is answered with
  // an ETag (304 to whoever has it), and compressed to whoever takes gzip when `gzip` is given.
  void AddAsset(std::string path, std::string content_type, std::string_view body, std::string_view gzip = {});

  // Finds and runs the handler; 404 for no such path, 405 (with Allow) for no such method.
  Response Dispatch(Request& request) const;
  // True when the path belongs to an asset (served with the page's CSP).
  bool IsAsset(std::string_view path) const { return assets_.count(std::string(path)) > 0; }

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
  };
  struct Asset {
    std::string content_type, etag;
    std::string_view body, gzip;
  };
  std::vector<Route> routes_;
  std::map<std::string, Asset> assets_;
};

}  // namespace weft::server
