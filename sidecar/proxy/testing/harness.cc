#include "sidecar/proxy/testing/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>

#include "sidecar/base/check.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/io/socket.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/route/route_table.h"
#include "sidecar/upstream/bind.h"

namespace weft::proxy::testing {

using codec::Inbound;

namespace {
HeaderMap Map(const Headers& fields) {
  HeaderMap m;
  for (const auto& [n, v] : fields) m.Add(n, v);
  return m;
}
constexpr auto kPatience = std::chrono::seconds(10);
}  // namespace

// --- server

struct ServerConnection final : io::Handler, codec::StreamHost {
  ServerConnection(TestServer* s, int fd) : server(s) {
    transport.Open(fd);
    if (s->options_.tls) transport.StartTls(s->options_.tls, tls::Engine::kServer);
    s->loop_.Watch(fd, this);
    if (s->options_.raw) {
      transport.out.Append(s->options_.raw(""));
      Dirty();
    } else {
      codec = s->options_.h2 ? codec::NewHttp2Server(limits(), this) : codec::NewHttp1Server(limits(), this);
      Dirty();
    }
  }
  ~ServerConnection() { Close(); }
  codec::Limits limits() {
    codec::Limits l;
    l.max_concurrent_streams = server->options_.max_streams;
    l.allow_connect_protocol = true;
    return l;
  }
  void Close() {
    if (!transport.open()) return;
    server->loop_.Unwatch(transport.fd(), this);
    transport.Close();
  }
  codec::Inbound* OnNewStream(codec::StreamId id) override {
    auto& s = streams[id];
    s = std::make_unique<ServerStream>();
    s->connection = this, s->id = id, s->in.owner = s.get();
    return &s->in;
  }
  void OnReady(uint32_t events) override {
    transport.OnReady(events);
    Input();
  }
  void Input() {
    if (!transport.open()) return;
    constexpr size_t kReadLimit = 1 << 20;
    const uint64_t rx = transport.rx;
    transport.Read(kReadLimit);
    server->received_ += transport.rx - rx;
    const size_t before = transport.in.size();
    if (server->options_.raw) {
      if (!transport.in.empty()) {
        std::string got = transport.in.ToString();
        transport.in.Clear();
        transport.out.Append(server->options_.raw(got));
      }
      if (transport.eof()) transport.ShutdownWrite();
    } else {
      codec->Feed(transport.in);
      HandleAll(codec->ready());
      HandleAll(codec->writable());
      if (!transport.open()) return;
      if (transport.eof() && transport.in.empty()) codec->FeedEof();
    }
    Dirty();
    if (transport.eof() && transport.in.empty() && (server->options_.raw ? transport.write_shut() : true)) closing = true;
    // No event comes for what is left: bytes that were not fed, or the socket's beyond what one turn reads.
    const bool unfed = transport.in.size() < before && !transport.in.empty();
    if (unfed || (transport.more_to_read() && transport.in.size() < kReadLimit)) Again();
  }
  // A handler took bytes or ended a stream, in whatever beat: the codec may go on with what waited for that.
  void Consumed(codec::StreamId id, size_t n) {
    codec->Consumed(id, n);
    Again();
  }
  void Release(codec::StreamId id) {
    codec->Release(id);
    streams.erase(id);
    Again();
  }
  // One by one: a stream that is released on the way leaves both lists.
  void HandleAll(std::vector<Inbound*>& list) {
    while (!list.empty()) {
      Inbound* in = list.front();
      list.erase(list.begin());
      Handle(static_cast<ServerStream*>(in->owner));
    }
  }
  void Handle(ServerStream* s) {
    if (s->in.bits & (Inbound::kReset | Inbound::kMalformed)) return Release(s->id);
    if (s->head() && s->calls++ == 0) ++server->requests_;
    if (s->head()) server->options_.handler(*s);
    if (s->ended && s->complete() && transport.open()) Release(s->id);
  }
  void Flush() {
    if (!transport.open()) return;
    if (codec) {
      codec->Emit(transport.out);
      HandleAll(codec->writable());
      if (!transport.open()) return;
      codec->Emit(transport.out);
    }
    transport.Write();
    if (codec && codec->wants_emit() && transport.can_send_now()) Dirty();
    if (codec && transport.unsent() == 0) {
      if (codec->closed()) closing = true;
      else if (codec->write_closed()) transport.ShutdownWrite(), transport.Write();
    }
    if (transport.broken()) closing = true;
    if (closing && transport.unsent() == 0) {
      Close();
      server->loop_.Schedule(io::Beat::kReap, &reap);
    }
  }
  void Reap() {
    auto it = server->open_.find(this);
    if (it != server->open_.end()) server->open_.erase(it);
  }
  void Dirty() { server->loop_.Schedule(io::Beat::kFlush, &flush); }
  void Again() { server->loop_.Schedule(io::Beat::kAdvance, &input); }

  TestServer* server;
  upstream::Transport transport;
  std::unique_ptr<codec::Codec> codec;
  std::map<codec::StreamId, std::unique_ptr<ServerStream>> streams;
  bool closing = false;
  upstream::MemberTask<ServerConnection, &ServerConnection::Input> input{this};
  upstream::MemberTask<ServerConnection, &ServerConnection::Flush> flush{this};
  upstream::MemberTask<ServerConnection, &ServerConnection::Reap> reap{this};
};

struct TestServer::Acceptor final : io::Handler {
  explicit Acceptor(TestServer* s) : server(s) { s->loop_.WatchAccept(s->fd_, this); }
  void OnReady(uint32_t) override {
    io::SockAddr peer;
    for (int fd; (fd = io::Accept(server->fd_, &peer)) >= 0;) {
      ++server->connections_;
      if (server->options_.close_at_once) {
        io::SetResetOnClose(fd);
        close(fd);
        continue;
      }
      auto c = std::make_unique<ServerConnection>(server, fd);
      server->open_.emplace(c.get(), std::move(c));
    }
  }
  TestServer* server;
};

TestServer::TestServer(ServerOptions options) : options_(std::move(options)) {
  fd_ = io::Listen(io::SockAddr::Loopback(0), {});
  WEFT_CHECK(fd_ >= 0, "listen");
  port_ = io::LocalAddress(fd_).port();
  thread_ = std::thread([this] {
    acceptor_ = std::make_unique<Acceptor>(this);
    loop_.Run();
    open_.clear();
    loop_.Unwatch(fd_, acceptor_.get());
  });
}

TestServer::~TestServer() {
  loop_.Stop();
  thread_.join();
  close(fd_);
}

void TestServer::Post(std::function<void()> fn) { loop_.Post(std::move(fn)); }

void TestServer::CloseAllConnections() {
  std::atomic<bool> done{false};
  loop_.Post([&] {
    for (auto& [c, owned] : open_) c->Close(), loop_.Schedule(io::Beat::kReap, &c->reap);
    done = true;
  });
  while (!done) std::this_thread::yield();
}

void ServerStream::Head(const std::string& status, const Headers& headers, bool end) {
  HeaderMap h;
  h.Add(Token::kStatus, status);
  for (const auto& [n, v] : headers) h.Add(n, v);
  connection->codec->SendHead(id, h, end);
  responded = true;
  ended |= end;
  connection->Dirty();
}

void ServerStream::Interim(const std::string& status, const Headers& headers) {
  HeaderMap h;
  h.Add(Token::kStatus, status);
  for (const auto& [n, v] : headers) h.Add(n, v);
  connection->codec->SendHead(id, h, false);
  connection->Dirty();
}

void ServerStream::Body(const std::string& bytes, bool end) {
  io::Buffer b;
  b.Append(bytes);
  connection->codec->SendBody(id, b, bytes.size(), end);
  ended |= end;
  connection->Dirty();
}

void ServerStream::Respond(const std::string& status, const std::string& body, const Headers& headers, const Headers& trailers) {
  if (responded) return;
  size_t n = in.body.size();
  in.body.Clear();
  if (n) connection->Consumed(id, n);
  Head(status, headers, body.empty() && trailers.empty());
  if (!body.empty()) Body(body, trailers.empty());
  if (!trailers.empty()) {
    connection->codec->SendTrailers(id, Map(trailers));
    ended = true;
  }
}

void ServerStream::EchoBody() {
  while (!in.body.empty()) {
    size_t n = std::min(connection->codec->SendRoom(id), in.body.size());
    if (n == 0) return;
    bool last = n == in.body.size() && complete() && !(in.bits & Inbound::kTrailers);
    connection->codec->SendBody(id, in.body, n, last);
    connection->Consumed(id, n);
    ended |= last;
  }
  if (complete() && !ended) {
    if (in.bits & Inbound::kTrailers) connection->codec->SendTrailers(id, in.trailers);
    else connection->codec->SendBody(id, in.body, 0, true);
    ended = true;
  }
  connection->Dirty();
}

void ServerStream::Reset(codec::ResetCode code) {
  connection->codec->Reset(id, code);
  connection->Dirty();
  connection->streams.erase(id);
}

void ServerStream::Drain() {
  connection->codec->StartDrain();
  if (connection->codec->is_http2()) connection->codec->StartDrain();
  connection->Dirty();
}

size_t ServerStream::Room() { return connection->codec->SendRoom(id); }

void ServerStream::CloseConnection() { connection->closing = true, connection->Dirty(); }

// --- client

TestClient::TestClient(uint16_t port, bool h2, std::shared_ptr<const tls::Context> tls) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto a = io::SockAddr::Loopback(port);
  WEFT_CHECK(connect(fd, a.get(), a.length) == 0, "connect to ", port);
  io::SetNoDelay(fd);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  transport_.Open(fd);
  if (tls) transport_.StartTls(tls, tls::Engine::kClient);
  codec_ = h2 ? codec::NewHttp2Client({}) : codec::NewHttp1Client({});
}

TestClient::~TestClient() = default;
void TestClient::Close() { transport_.Close(); }

bool TestClient::Turn() {
  codec_->Emit(transport_.out);
  transport_.Write();
  if (codec_->write_closed() && transport_.unsent() == 0 && !transport_.write_shut()) transport_.ShutdownWrite(), transport_.Write();
  if (transport_.eof() || transport_.broken()) return false;
  pollfd p{transport_.fd(), static_cast<short>(POLLIN | (transport_.unsent() ? POLLOUT : 0)), 0};
  poll(&p, 1, 100);
  transport_.OnReady(((p.revents & (POLLIN | POLLHUP | POLLERR)) ? io::kReadable | io::kHangup : 0u) |
                     ((p.revents & POLLOUT) ? io::kWritable : 0u));
  transport_.Read(1 << 20);
  if (!calls_.empty()) {
    codec_->Feed(transport_.in);
    if (transport_.eof()) codec_->FeedEof();
    codec_->ready().clear(), codec_->writable().clear();
    for (auto& c : calls_) {
      while (size_t n = c->hold ? 0 : c->in.body.size()) {
        c->body += c->in.body.ToString();
        c->in.body.Clear();
        if (c->in.bits & Inbound::kReset) break;
        codec_->Consumed(c->id, n);
        codec_->Feed(transport_.in);
      }
      if (c->in.bits & Inbound::kInterim) {
        c->interim.push_back(std::string(c->in.interim.Value(Token::kStatus)));
        c->in.bits &= ~Inbound::kInterim;
        c->in.interim.Clear();
      }
    }
    codec_->Emit(transport_.out);
    transport_.Write();
  }
  return true;
}

bool TestClient::Until(const std::function<bool()>& done) {
  auto end = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (!Turn()) return done();
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

TestClient::Call* TestClient::Open(const std::string& method, const std::string& path, const Headers& headers, bool end) {
  if (!Until([&] { return codec_->OpenRoom() > 0 && !transport_.handshaking(); })) return nullptr;
  calls_.push_back(std::make_unique<Call>());
  Call* c = calls_.back().get();
  c->id = codec_->Open(&c->in);
  HeaderMap h;
  h.Add(Token::kMethod, method);
  if (!path.empty()) h.Add(Token::kScheme, transport_.tls() ? "https" : "http");
  h.Add(Token::kAuthority, "shop.test");
  if (!path.empty()) h.Add(Token::kPath, path);
  for (const auto& [n, v] : headers) n == ":authority" ? h.Set(n, v) : h.Add(n, v);
  codec_->SendHead(c->id, h, end);
  Turn();
  return c;
}

void TestClient::Send(Call* c, const std::string& bytes, bool end) {
  io::Buffer b;
  b.Append(bytes);
  do {
    size_t n = std::min(codec_->SendRoom(c->id), b.size());
    if (n == 0 && !b.empty()) {
      if (c->in.bits & (Inbound::kReset | Inbound::kEnd)) return;
      if (!Turn()) return;
      continue;
    }
    codec_->SendBody(c->id, b, n, end && n == b.size());
  } while (!b.empty());
  codec_->Emit(transport_.out);
  transport_.Write();
}

void TestClient::Trailers(Call* c, const Headers& trailers) {
  codec_->SendTrailers(c->id, Map(trailers));
  codec_->Emit(transport_.out);
  transport_.Write();
}

void TestClient::Reset(Call* c) {
  codec_->Reset(c->id, codec::ResetCode::kCancel);
  codec_->Emit(transport_.out);
  transport_.Write();
}

Reply TestClient::Finish(Call* c) {
  Reply r;
  if (!c) {
    r.reset = true;
    return r;
  }
  bool ok = Until([&] { return (c->in.bits & (Inbound::kEnd | Inbound::kReset)) && c->in.body.empty(); });
  r.body = c->body;
  r.reset = !ok || !(c->in.bits & Inbound::kEnd);
  r.code = c->in.reset;
  c->in.head.CopyTo(r.head), c->in.trailers.CopyTo(r.trailers);
  r.status = r.head.Value(Token::kStatus);
  r.interim = c->interim;
  if (!r.reset) codec_->Release(c->id);
  codec_->Emit(transport_.out);
  transport_.Write();
  std::erase_if(calls_, [&](auto& p) { return p.get() == c && !r.reset; });
  return r;
}

Reply TestClient::Get(const std::string& path, const Headers& headers) { return Finish(Open("GET", path, headers, true)); }

Reply TestClient::Post(const std::string& path, const std::string& body, const Headers& headers, const Headers& trailers) {
  Call* c = Open("POST", path, headers, false);
  if (!c) return Finish(c);
  Send(c, body, trailers.empty());
  if (!trailers.empty()) Trailers(c, trailers);
  return Finish(c);
}

void TestClient::SendRaw(const std::string& bytes) {
  transport_.out.Append(bytes);
  transport_.Write();
}

std::string TestClient::ReadRaw(size_t at_least) {
  Until([&] { return transport_.in.size() >= at_least; });
  std::string s = transport_.in.ToString();
  transport_.in.Clear();
  return s;
}

// --- mesh

Mesh::Mesh() {
  hcm.stat_prefix = "test";
  model::HttpFilter router;
  router.name = "router";
  router.config = std::make_shared<const model::RouterConfig>();
  hcm.filters.push_back(router);
  hcm.tracing.emplace();
  route->name = "main";
  route->match.value = "/";
  route->forward.cluster = "app";
  model::VirtualHost vhost;
  vhost.name = "all";
  vhost.domains = {"*"};
  routes.name = "routes";
  routes.virtual_hosts.push_back(vhost);
  listener.name = "front";
  listener.addresses.push_back(model::Address::FromIp(*model::Ip::Parse("127.0.0.1"), 0));
  chain.name = "chain";
}

namespace {
struct KeepRecords final : RecordSink {
  KeepRecords(const std::atomic<bool>* wanted, std::mutex* mu, std::deque<Record>* to) : wanted(wanted), mu(mu), to(to) {}
  void Take(Record& r) override {
    if (!*wanted) return;
    std::lock_guard lock(*mu);
    to->push_back(std::move(r)), r = Record();
  }
  const std::atomic<bool>* wanted;
  std::mutex* mu;
  std::deque<Record>* to;
};
}  // namespace

Mesh::~Mesh() {
  if (plane) plane->Stop();
}

model::Cluster& Mesh::AddCluster(const std::string& name, const std::vector<uint16_t>& ports, std::shared_ptr<const tls::Context> tls) {
  TestCluster c;
  c.config = std::make_shared<model::Cluster>();
  c.config->name = name;
  c.ports = ports, c.tls = std::move(tls);
  return *(clusters[name] = c).config;
}

void Mesh::Start(uint32_t workers) {
  options.workers = workers;
  options.sink = [this](io::Loop*, uint32_t) { return std::make_unique<KeepRecords>(&keep_records, &records_mu_, &records_); };
  plane = std::make_unique<DataPlane>(options);
  plane->Start();
  Publish();
}

void Mesh::Publish() {
  auto status = plane->Publish(Build());
  WEFT_CHECK(status, status.error().ToString());
}

std::shared_ptr<const model::ConfigSnapshot> Mesh::Build() {
  auto s = std::make_shared<model::ConfigSnapshot>();
  s->sequence = ++sequence_;
  s->config_revision = std::to_string(sequence_);
  auto index = std::make_shared<model::NameMap<uint32_t>>();
  for (auto& [name, c] : clusters) {
    auto e = std::make_shared<model::ClusterEntry>();
    e->config = c.config;
    e->tls = c.tls;
    e->cells = cells.Get(name);
    auto endpoints = std::make_shared<model::Endpoints>();
    endpoints->cluster = name;
    endpoints->localities.emplace_back();
    endpoints->priorities = 1;
    for (uint16_t p : c.ports) {
      model::Endpoint ep;
      ep.address = model::Address::FromIp(*model::Ip::Parse("127.0.0.1"), p);
      ep.workload = "w" + std::to_string(p);
      endpoints->endpoints.push_back(ep);
    }
    for (const std::string& p : c.pipes) {
      model::Endpoint ep;
      ep.address = model::Address::Pipe(p);
      endpoints->endpoints.push_back(ep);
    }
    e->endpoints = endpoints;
    e->hosts = cluster::HostSet::Build(*e->config, *endpoints, *e->cells);
    index->emplace(name, static_cast<uint32_t>(s->clusters.size()));
    s->clusters.push_back(e);
  }
  s->cluster_index = index;

  model::RouteConfig rc = routes;
  rc.virtual_hosts[0].routes.push_back(std::make_shared<const model::Route>(*route));
  auto table = route::RouteTable::Compile(rc);
  WEFT_CHECK(table, table.error().ToString());
  auto manager = std::make_shared<model::HttpConnectionManager>(hcm);
  manager->rds_name = "routes";
  auto tables = std::make_shared<model::NameMap<std::shared_ptr<const route::RouteTable>>>();
  tables->emplace("routes", *table);
  s->route_tables = tables;
  auto fc = std::make_shared<model::FilterChain>(chain);
  if (tcp) fc->end = std::make_shared<const model::TcpProxy>(*tcp);
  else fc->end = std::shared_ptr<const model::HttpConnectionManager>(manager);
  if (server_tls) fc->tls = std::make_shared<const model::TlsConfig>();
  auto l = std::make_shared<model::Listener>(listener);
  l->chains.push_back(fc);
  std::vector<std::shared_ptr<const tls::Context>> contexts{server_tls};
  for (auto& [more, context] : more_chains) {
    auto copy = std::make_shared<model::FilterChain>(more);
    copy->index = static_cast<uint32_t>(contexts.size());
    if (context) copy->tls = std::make_shared<const model::TlsConfig>();
    contexts.push_back(context);
    l->chains.push_back(copy);
  }
  l->index = *model::ChainIndex::Build(l->chains);
  auto le = std::make_shared<model::ListenerEntry>();
  le->config = l;
  le->tls = contexts;
  s->listeners.push_back(le);
  return s;
}

uint16_t Mesh::port() const {
  std::string a = plane->BoundAddress("front");
  return static_cast<uint16_t>(atoi(a.substr(a.rfind(':') + 1).c_str()));
}

std::deque<Record> Mesh::TakeRecords() {
  std::lock_guard lock(records_mu_);
  return std::exchange(records_, {});
}

Record Mesh::NextRecord() {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (;; std::this_thread::yield()) {
    WEFT_CHECK(std::chrono::steady_clock::now() < end, "no record came");
    std::lock_guard lock(records_mu_);
    if (records_.empty()) continue;
    Record r = std::move(records_.front());
    records_.pop_front();
    return r;
  }
}

}  // namespace weft::proxy::testing
