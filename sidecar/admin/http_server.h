// The admin's HTTP/1.1 server on the main loop: small requests, whole answers, TCP or a unix socket (mode 0600).
//
//   HttpServer server(loop);
//   server.Handle("/ready", "print server state", HttpServer::kRead, [](const Request&) { return Response{200, "LIVE\n"}; });
//   auto bound = server.Listen("127.0.0.1:9901");      // or "/run/x.sock"; the address as bound
//
// A kWrite path needs POST (405 otherwise). On TCP the Host must be an IP address or "localhost": a page in a browser
// cannot reach the admin by a name it rebinds. Bounds: connections, request body, idle time.
// Threads: the loop's. Handlers run in the advance beat and answer at once.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"

namespace weft::admin {

struct Request {
  std::string method, path;                   // path without query
  std::map<std::string, std::string> query;   // decoded; a key without value is ""
  std::string body;
  bool Has(const std::string& key) const { return query.count(key) != 0; }
  std::string Get(const std::string& key, const std::string& otherwise = "") const {
    auto it = query.find(key);
    return it == query.end() ? otherwise : it->second;
  }
};
struct Response {
  uint16_t status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=UTF-8";
};

class HttpServer {
 public:
  enum Access { kRead, kWrite };
  using Handler = std::function<Response(const Request&)>;

  // kPublic: answers under any name.
  enum Audience { kAdmin, kPublic };
  explicit HttpServer(io::Loop* loop, Audience audience = kAdmin);
  ~HttpServer();
  void Handle(const std::string& path, const std::string& help, Access access, Handler handler);
  // "ip:port" (port 0: any), or the path of a unix socket. Returns where it listens.
  base::Result<std::string> Listen(const std::string& address);
  void Close();
  // The answer to a request, without a socket: tests, and the start page.
  Response Answer(const Request& request) const;
  static Request Parse(std::string_view method, std::string_view target);

 private:
  friend class Connection;
  class Connection;
  class Acceptor;
  struct Endpoint {
    std::string help;
    Access access;
    Handler handler;
  };
  Response StartPage() const;

  static constexpr size_t kMaxConnections = 64, kMaxBody = 64 * 1024;
  static constexpr uint64_t kIdleNs = 60'000'000'000;
  io::Loop* const loop_;
  const Audience audience_;
  std::map<std::string, Endpoint> endpoints_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::unique_ptr<Acceptor> acceptor_;
  base::StatId refused_, requests_;
};

}  // namespace weft::admin
