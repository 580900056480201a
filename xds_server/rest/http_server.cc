#include "xds_server/rest/http_server.h"

#include <httplib.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace weft::server {
namespace {

bool SameSecret(const std::string& a, const std::string& b) {
  unsigned char difference = a.size() != b.size();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  return difference == 0 && !a.empty();
}

std::string Lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(tolower(c)); });
  return s;
}

bool IsReading(const std::string& method) { return method == "GET" || method == "HEAD"; }

}  // namespace

std::string HostWithoutPort(std::string_view host) {
  size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos) host = host.substr(0, colon);
  return Lower(std::string(host));
}

// httplib keeps its listening socket protected: this is where an inherited one is put.
struct HttpServer::Impl : httplib::Server {
  void Adopt(int fd) { svr_sock_ = fd; }
};

HttpServer::HttpServer(Options options, const Router& router) : options_(std::move(options)), impl_(std::make_unique<Impl>()) {
  std::vector<std::string> hosts = {"localhost", "127.0.0.1", "[::1]"};
  for (const std::string& h : options_.allowed_hosts) hosts.push_back(Lower(h));
  auto refuse = [](httplib::Response& out, int status, const char* message) {
    Response r = ErrorResponse(status, message);
    out.status = status;
    out.set_content(r.body, "application/json");
    if (status == 401) out.set_header("WWW-Authenticate", "Bearer");
    return httplib::Server::HandlerResponse::Handled;
  };
  // Before the body is read.
  impl_->set_pre_routing_handler([this, hosts, refuse](const httplib::Request& q, httplib::Response& out) {
    out.set_header("X-Content-Type-Options", "nosniff");
    out.set_header("Cache-Control", "no-store");
    out.set_header("Referrer-Policy", "no-referrer");
    out.set_header("Cross-Origin-Resource-Policy", "same-origin");
    if (q.get_header_value_count("Host") != 1) return refuse(out, 400, "one Host header is needed");
    const std::string host = q.get_header_value("Host");
    if (std::find(hosts.begin(), hosts.end(), HostWithoutPort(host)) == hosts.end()) {
      return refuse(out, 421, "this host name is not served here; see --http-allowed-host");
    }
    const std::string origin = q.get_header_value("Origin"), site = q.get_header_value("Sec-Fetch-Site");
    if (!origin.empty() && Lower(origin) != "http://" + Lower(host)) return refuse(out, 403, "requests of other sites are refused");
    if (!site.empty() && site != "same-origin" && site != "none" && !(site == "same-site" && IsReading(q.method))) {
      // A person may follow a link to the page from elsewhere.
      if (!(IsReading(q.method) && q.get_header_value("Sec-Fetch-Mode") == "navigate")) return refuse(out, 403, "requests of other sites are refused");
    }
    if (IsReading(q.method)) return httplib::Server::HandlerResponse::Unhandled;
    const std::string authorization = q.get_header_value("Authorization");
    if (authorization.rfind("Bearer ", 0) != 0 || !SameSecret(authorization.substr(7), options_.write_token)) {
      return refuse(out, 401, "a write needs \"Authorization: Bearer <token>\"; the token is in <data-dir>/api-token");
    }
    const std::string type = Lower(q.get_header_value("Content-Type"));
    const bool known = type.rfind("application/json", 0) == 0 || type.rfind("application/yaml", 0) == 0 ||
                       type.rfind("application/x-yaml", 0) == 0 || type.rfind("text/yaml", 0) == 0;
    if (q.method != "DELETE" && !known) return refuse(out, 415, "the body must be application/json or application/yaml");
    return httplib::Server::HandlerResponse::Unhandled;
  });
  auto handle = [this, &router](const httplib::Request& q, httplib::Response& out) {
    Request request;
    request.method = q.method, request.path = q.path, request.body = q.body;
    request.content_type = q.get_header_value("Content-Type");
    request.accept_encoding = q.get_header_value("Accept-Encoding"), request.if_none_match = q.get_header_value("If-None-Match");
    for (const auto& [k, v] : q.params) request.query[k] = v;
    Response r;
    try {
      r = router.Dispatch(request);
    } catch (const std::exception& e) {
      r = ErrorResponse(500, e.what());
    }
    out.status = r.status;
    for (const auto& [k, v] : r.headers) {
      out.headers.erase(k);  // instead of the general one
      out.set_header(k.c_str(), v);
    }
    if (router.IsAsset(request.path) && !options_.page_csp.empty()) out.set_header("Content-Security-Policy", options_.page_csp);
    if (r.headers.count("Content-Encoding")) {
      // As it is: httplib would compress a plain body of this type once more.
      auto body = std::make_shared<const std::string>(std::move(r.body));
      out.set_content_provider(body->size(), r.content_type.c_str(), [body](size_t offset, size_t length, httplib::DataSink& sink) {
        return sink.write(body->data() + offset, length);
      });
    } else {
      out.set_content(r.body, r.content_type.c_str());
    }
  };
  impl_->Get(".*", handle);
  impl_->Post(".*", handle);
  impl_->Put(".*", handle);
  impl_->Patch(".*", handle);
  impl_->Delete(".*", handle);
  impl_->set_payload_max_length(8 << 20);
  impl_->set_read_timeout(10);
  impl_->set_write_timeout(10);
  impl_->set_keep_alive_timeout(5);
  impl_->set_tcp_nodelay(true);
  impl_->set_error_handler([](const httplib::Request&, httplib::Response& out) {
    if (out.body.empty()) out.set_content(ErrorResponse(out.status, out.status == 413 ? "the body is larger than 8 MiB" : "refused").body, "application/json");
  });
  impl_->new_task_queue = [this] { return new httplib::ThreadPool(options_.threads); };
  // Not SO_REUSEPORT (httplib's default), which would let two servers share the port without a word.
  impl_->set_socket_options([](socket_t s) {
    int yes = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
}

HttpServer::~HttpServer() { Stop(); }

base::Status HttpServer::Start() {
  if (options_.fd >= 0) {
    int listening = 0;
    socklen_t n = sizeof listening;
    if (getsockopt(options_.fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) != 0 || !listening) {
      return base::Error("--http-fd " + std::to_string(options_.fd) + " is not a listening socket");
    }
    sockaddr_storage a{};
    socklen_t len = sizeof a;
    getsockname(options_.fd, reinterpret_cast<sockaddr*>(&a), &len);
    port_ = ntohs(a.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&a)->sin6_port : reinterpret_cast<sockaddr_in*>(&a)->sin_port);
    impl_->Adopt(options_.fd);
  } else {
    const size_t colon = options_.address.rfind(':');
    const char* const end = options_.address.data() + options_.address.size();
    uint16_t port = 0;
    std::from_chars_result read{end, std::errc::invalid_argument};
    if (colon != std::string::npos) read = std::from_chars(options_.address.data() + colon + 1, end, port);
    if (read.ec != std::errc() || read.ptr != end) {
      return base::Error("--http-address " + options_.address + " must be host:port");
    }
    std::string host = options_.address.substr(0, colon);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    if (host != "localhost" && host.rfind("127.", 0) != 0 && host != "::1") {
      return base::Error("--http-address " + options_.address + ": the page and the API are served on the loopback only");
    }
    port_ = port == 0 ? impl_->bind_to_any_port(host) : impl_->bind_to_port(host, port) ? port : -1;
    if (port_ <= 0) return base::Error("cannot listen on " + options_.address + ": " + strerror(errno));
  }
  thread_ = std::thread([this] { impl_->listen_after_bind(); });
  while (!impl_->is_running()) std::this_thread::yield();
  return base::Ok{};
}

void HttpServer::Stop() {
  if (!thread_.joinable()) return;
  impl_->stop();
  thread_.join();
}

}  // namespace weft::server
