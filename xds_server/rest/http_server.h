// Serves a Router over HTTP/1.1 (cpp-httplib) with the rules that every request is held to.
//
//   HttpServer http({.address = "127.0.0.1:8080", .write_token = token}, router);
//   auto r = http.Start();          // its own threads
//   http.Stop();
//
// Every request: a Host header on the allow-list (421), no cross-site Origin or Sec-Fetch-Site (403), at most 8 MiB.
// Every method but GET and HEAD: Authorization: Bearer <write_token> (401), a JSON or YAML body (415).
// Every answer: nosniff, no-store, and for the page's files a strict Content-Security-Policy.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "sidecar/base/result.h"
#include "xds_server/rest/router.h"

namespace weft::server {

class HttpServer {
 public:
  struct Options {
    std::string address = "127.0.0.1:8080";  // port 0 picks one; not used with fd
    int fd = -1;                              // a listening socket made elsewhere (another network namespace); owned
    std::vector<std::string> allowed_hosts;   // beside localhost, 127.0.0.1 and [::1]; names without port
    std::string write_token;
    std::string page_csp;
    size_t threads = 16;
  };
  HttpServer(Options options, const Router& router);
  ~HttpServer();
  base::Status Start();
  void Stop();
  int port() const { return port_; }

 private:
  struct Impl;
  Options options_;
  std::unique_ptr<Impl> impl_;
  std::thread thread_;
  int port_ = 0;
};

// "cart.local:8080" -> "cart.local", "[::1]:80" -> "[::1]"
std::string HostWithoutPort(std::string_view host);

}  // namespace weft::server
