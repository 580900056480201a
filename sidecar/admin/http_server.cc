#include "sidecar/admin/http_server.h"

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "sidecar/base/log.h"
#include "sidecar/codec/codec.h"
#include "sidecar/http/status.h"
#include "sidecar/io/socket.h"

namespace weft::admin {

namespace {

constexpr size_t kLarge = 1 << 20;  // an answer whose memory is given back to the system

std::string Decode(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    unsigned v = 0;
    if (s[i] == '+') out += ' ';
    else if (s[i] == '%' && i + 2 < s.size() && std::from_chars(s.data() + i + 1, s.data() + i + 3, v, 16).ptr == s.data() + i + 3)
      out += static_cast<char>(v), i += 2;
    else out += s[i];
  }
  return out;
}

// An IP address (with or without port) or localhost: names can be rebound to us by a hostile page.
bool HostAllowed(std::string_view host) {
  if (host.empty()) return true;
  if (host.front() == '[') return host.find(']') != std::string_view::npos;
  std::string_view name = host.substr(0, host.rfind(':'));
  if (name == "localhost") return true;
  return std::all_of(name.begin(), name.end(), [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
}

}  // namespace

class HttpServer::Connection final : public io::Handler, public codec::StreamHost {
 public:
  Connection(HttpServer* s, int f, bool local)
      : server_(s), fd_(f), unix_(local), advance_(this), flush_(this), reap_(this), idle_(this) {
    codec::Limits limits;
    limits.max_buffered_per_stream = kMaxBody + 1;
    codec_ = codec::NewHttp1Server(limits, this);
    server_->loop_->Watch(fd_, this);
    server_->loop_->Arm(&idle_, kIdleNs);
    server_->loop_->Schedule(io::Beat::kAdvance, &advance_);
  }
  ~Connection() {
    if (fd_ < 0) return;
    server_->loop_->Unwatch(fd_, this);
    close(fd_);
  }

  void OnReady(uint32_t events) override {
    if (events & (io::kReadable | io::kHangup)) readable_ = true;
    server_->loop_->Schedule(io::Beat::kAdvance, &advance_);
  }
  codec::Inbound* OnNewStream(codec::StreamId id) override {
    id_ = id;
    in_ = codec::Inbound();
    answered_ = false;
    return &in_;
  }

 private:
  template <void (Connection::*kRun)()>
  struct Own : io::Task {
    explicit Own(Connection* c) : io::Task([](io::Task* t) { (static_cast<Own*>(t)->connection->*kRun)(); }), connection(c) {}
    Connection* connection;
  };
  struct Idle : io::Timer {
    explicit Idle(Connection* c)
        : io::Timer([](io::Timer* t) { static_cast<Idle*>(t)->connection->End(); }), connection(c) {}
    Connection* connection;
  };

  void End() { server_->loop_->Schedule(io::Beat::kReap, &reap_); }
  void Reap() {
    auto& all = server_->connections_;
    for (auto it = all.begin(); it != all.end(); ++it) {
      if (it->get() == this) return (void)all.erase(it);
    }
  }

  void Advance() {
    if (readable_) {
      readable_ = false;
      io::IoResult got = io::ReadInto(fd_, wire_in_, 1 << 20, true);
      if (got.error) return End();
      if (got.more) readable_ = true, server_->loop_->Schedule(io::Beat::kAdvance, &advance_);
      if (got.eof) eof_ = true;
      if (got.bytes) server_->loop_->Arm(&idle_, kIdleNs);
    }
    for (;;) {  // all that one read brought: no event comes for what is left
      if (!closing_ && !wire_in_.empty() && !codec_->Feed(wire_in_)) closing_ = true;
      if (eof_ && !eof_fed_) {
        eof_fed_ = true;
        if (!codec_->FeedEof()) closing_ = true;
      }
      codec_->ready().clear(), codec_->writable().clear();
      if (id_ == 0) break;
      if (in_.bits & codec::Inbound::kReset) return End();
      if (!answered_) {
        if (in_.bits & codec::Inbound::kMalformed) {
          Send({in_.error_status, std::string(in_.error_detail) + "\n"});
          closing_ = true;
        } else if (in_.body.size() > kMaxBody) {
          Send({413, "request body too large\n"});
          closing_ = true;
        } else if ((in_.bits & codec::Inbound::kHead) && (in_.bits & codec::Inbound::kEnd)) {
          Dispatch();
        } else {
          break;
        }
      }
      PushBody();
      if (pending()) break;
      codec_->Release(id_);
      id_ = 0;
      if (closing_ || wire_in_.empty()) break;
    }
    server_->loop_->Schedule(io::Beat::kFlush, &flush_);
  }

  void Dispatch() {
    if (in_.body_bytes) codec_->Consumed(id_, in_.body_bytes);
    std::string_view target = in_.head.Value(http::Token::kPath), host = in_.head.Value(http::Token::kAuthority);
    if (!unix_ && server_->audience_ == kAdmin && !HostAllowed(host)) {
      base::Cells::Local().Add(server_->refused_);
      return Send({403, "the admin answers to an IP address or \"localhost\" only, not to the name \"" + std::string(host) + "\"\n"});
    }
    Request request = Parse(in_.head.Value(http::Token::kMethod), target);
    request.body = in_.body.ToString();
    base::Cells::Local().Add(server_->requests_);
    Send(server_->Answer(request));
  }

  void Send(Response r) {
    answered_ = true;
    http::HeaderMap head;
    head.Add(http::Token::kStatus, std::to_string(r.status));
    head.Add(http::Token::kContentType, r.content_type);
    head.Add("cache-control", "no-cache, max-age=0");
    head.Add("x-content-type-options", "nosniff");
    bool none = in_.head.Value(http::Token::kMethod) == "HEAD";
    head.Add(http::Token::kContentLength, std::to_string(r.body.size()));
    codec_->SendHead(id_, head, none || r.body.empty());
    if (!none) body_ = std::move(r.body), sent_ = 0;
  }

  // A body may be many megabytes: it is copied a piece at a time, as the client takes it.
  void PushBody() {
    while (pending()) {
      if (out_.empty()) {
        const std::string_view piece = std::string_view(body_).substr(sent_, 64 * 1024);
        out_.Append(piece);
        sent_ += piece.size();
      }
      size_t n = std::min(out_.size(), codec_->SendRoom(id_));
      if (n == 0) return;
      codec_->SendBody(id_, out_, n, n == out_.size() && sent_ == body_.size());
    }
    const bool large = body_.capacity() > kLarge;
    std::string().swap(body_), sent_ = 0;  // an assignment would keep the memory
    if (large) malloc_trim(0);  // what writing it took is not needed again soon
  }
  bool pending() const { return !out_.empty() || sent_ < body_.size(); }

  void Flush() {
    for (;;) {  // until the socket is full, whose event brings us back, or nothing is left
      if (wire_out_.size() < 256 * 1024) codec_->Emit(wire_out_);
      if (id_ && pending() && wire_out_.size() < 256 * 1024) {
        PushBody();
        if (!pending()) server_->loop_->Schedule(io::Beat::kAdvance, &advance_);
        codec_->Emit(wire_out_);
      }
      if (wire_out_.empty()) break;
      io::IoResult put = io::WriteFrom(fd_, wire_out_);
      if (put.error) return End();
      if (!wire_out_.empty()) return;
      server_->loop_->Arm(&idle_, kIdleNs);
    }
    codec_->writable().clear();
    if (wire_out_.empty() && !pending() && !codec_->wants_emit() && (closing_ || codec_->closed() || (eof_ && id_ == 0))) {
      shutdown(fd_, SHUT_WR);
      End();
    }
  }

  HttpServer* const server_;
  int fd_;
  const bool unix_;
  std::unique_ptr<codec::Codec> codec_;
  codec::Inbound in_;
  codec::StreamId id_ = 0;
  io::Buffer wire_in_, wire_out_, out_;
  std::string body_;   // the answer's; what is before sent_ went into out_
  size_t sent_ = 0;
  bool readable_ = true, eof_ = false, eof_fed_ = false, answered_ = false, closing_ = false;
  Own<&Connection::Advance> advance_;
  Own<&Connection::Flush> flush_;
  Own<&Connection::Reap> reap_;
  Idle idle_;
};

class HttpServer::Acceptor final : public io::Handler {
 public:
  Acceptor(HttpServer* s, int f, std::string path) : server(s), fd(f), unix_path(std::move(path)) { server->loop_->WatchAccept(fd, this); }
  ~Acceptor() {
    server->loop_->Unwatch(fd, this);
    close(fd);
    if (!unix_path.empty() && unix_path[0] == '/') unlink(unix_path.c_str());
  }
  void OnReady(uint32_t) override {
    for (int i = 0; i < 16; ++i) {
      io::SockAddr peer;
      int c = io::Accept(fd, &peer);
      if (c < 0) return;
      if (server->connections_.size() >= kMaxConnections) {
        base::Cells::Local().Add(server->refused_);
        close(c);
        continue;
      }
      server->connections_.push_back(std::make_unique<Connection>(server, c, !unix_path.empty()));
    }
  }
  HttpServer* server;
  int fd;
  std::string unix_path;
};

HttpServer::HttpServer(io::Loop* loop, Audience audience) : loop_(loop), audience_(audience) {
  refused_ = base::Stats::Get().Counter("http.admin.downstream_cx_refused", "http.downstream_cx_refused", {{"envoy_http_conn_manager_prefix", "admin"}});
  requests_ = base::Stats::Get().Counter("http.admin.downstream_rq_total", "http.downstream_rq_total", {{"envoy_http_conn_manager_prefix", "admin"}});
}
HttpServer::~HttpServer() { Close(); }

void HttpServer::Close() {
  acceptor_.reset();
  connections_.clear();
}

void HttpServer::Handle(const std::string& path, const std::string& help, Access access, Handler handler) {
  endpoints_[path] = {help, access, std::move(handler)};
}

base::Result<std::string> HttpServer::Listen(const std::string& address) {
  std::optional<io::SockAddr> at;
  io::ListenOptions options;
  options.backlog = 64;
  std::string path;
  if (!address.empty() && (address[0] == '/' || address[0] == '@')) {
    at = io::SockAddr::Unix(address);
    options.unix_mode = 0600;
    path = address;
  } else if (size_t colon = address.rfind(':'); colon != std::string::npos) {
    std::string host = address.substr(0, colon);
    if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
    unsigned port = 65536;
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    if (port < 65536) at = io::SockAddr::Ip(host, static_cast<uint16_t>(port));
  }
  if (!at) return base::Error("admin address \"" + address + "\" is neither ip:port nor the path of a unix socket");
  int fd = io::Listen(*at, options);
  if (fd < 0) return base::Error("admin: cannot listen on " + address + ": " + strerror(-fd));
  std::string bound = address;
  if (path.empty()) bound = address.substr(0, address.rfind(':') + 1) + std::to_string(io::LocalAddress(fd).port());
  acceptor_ = std::make_unique<Acceptor>(this, fd, path);
  return bound;
}

Request HttpServer::Parse(std::string_view method, std::string_view target) {
  Request r;
  r.method = std::string(method);
  size_t q = target.find('?');
  r.path = Decode(target.substr(0, q));
  while (q != std::string_view::npos && q + 1 < target.size()) {
    std::string_view rest = target.substr(q + 1);
    size_t end = rest.find('&');
    std::string_view pair = rest.substr(0, end);
    size_t eq = pair.find('=');
    if (!pair.empty()) r.query[Decode(pair.substr(0, eq))] = eq == std::string_view::npos ? "" : Decode(pair.substr(eq + 1));
    q = end == std::string_view::npos ? end : q + 1 + end;
  }
  return r;
}

Response HttpServer::Answer(const Request& request) const {
  if (request.path == "/" || request.path == "/help") return StartPage();
  auto it = endpoints_.find(request.path);
  if (it == endpoints_.end()) {
    Response r = StartPage();
    return {404, "invalid path. " + r.body};
  }
  if (it->second.access == kWrite && request.method != "POST")
    return {405, "Method " + request.method + " not allowed, POST required.\n"};
  if (it->second.access == kRead && request.method != "GET" && request.method != "HEAD" && request.method != "POST")
    return {405, "Method " + request.method + " not allowed.\n"};
  return it->second.handler(request);
}

Response HttpServer::StartPage() const {
  std::string text = "admin commands are:\n  /: Admin home page\n";
  for (const auto& [path, e] : endpoints_) text += "  " + path + (e.access == kWrite ? " (POST)" : "") + ": " + e.help + "\n";
  return {200, text};
}

}  // namespace weft::admin
