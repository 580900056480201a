#include "sidecar/dns/server.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "sidecar/base/log.h"

namespace weft::dns {
namespace {

constexpr size_t kMaxTcp = 64, kMaxTcpInFlight = 16, kMaxTcpOut = 256 * 1024;
constexpr uint64_t kTcpIdle = 10 * base::kSecond;
constexpr int kDatagramsPerTurn = 256;
constexpr uint32_t kDefaultTtl = 30;

io::SockAddr ToSockAddr(const model::Address& a) {
  io::SockAddr s;
  s.length = a.ToSockaddr(&s.storage);
  return s;
}

}  // namespace

std::vector<model::Address> NameServers(const std::string& path) {
  std::vector<model::Address> out;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line) && out.size() < 8;) {
    std::istringstream words(line);
    std::string keyword, ip;
    if (!(words >> keyword >> ip) || keyword != "nameserver") continue;
    if (size_t scope = ip.find('%'); scope != std::string::npos) ip.resize(scope);
    if (auto a = model::Address::FromIp(ip, 53)) out.push_back(*a);
  }
  return out;
}

// The inline table, hashed.
struct Server::Table {
  struct Entry {
    std::vector<model::Ip> addresses;
    uint32_t ttl_s;
  };
  explicit Table(const model::DnsFilter& config) : forward(config.forward), known_suffixes(config.known_suffixes) {
    for (const auto& n : config.names) {
      Entry e{n.addresses, n.ttl_s ? n.ttl_s : kDefaultTtl};
      if (n.name.starts_with("*.")) {
        wildcards.emplace(n.name.substr(1), std::move(e));
      } else {
        names.emplace(n.name, std::move(e));
      }
    }
  }
  const Entry* Find(const std::string& name) const {
    if (auto it = names.find(name); it != names.end()) return &it->second;
    if (wildcards.empty()) return nullptr;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
      if (auto it = wildcards.find(name.substr(dot)); it != wildcards.end()) return &it->second;
    }
    return nullptr;
  }
  bool Known(const std::string& name) const {
    for (const std::string& suffix : known_suffixes) {
      if (!name.ends_with(suffix)) continue;
      if (name.size() == suffix.size() || name[name.size() - suffix.size() - 1] == '.') return true;
    }
    return false;
  }
  std::unordered_map<std::string, Entry> names, wildcards;  // wildcards: ".suffix"
  bool forward;
  std::vector<std::string> known_suffixes;
};

struct Server::Udp final : io::Handler, io::Task {
  explicit Udp(Server* s) : Task([](io::Task* t) { static_cast<Udp*>(t)->Read(); }), server(s) {}
  ~Udp() {
    if (fd) server->loop_->Unwatch(fd.get(), this);
  }
  void OnReady(uint32_t events) override {
    if (events & io::kReadable) server->loop_->Schedule(io::Beat::kAdvance, this);
  }
  void Read() {
    static thread_local char buffer[kMaxQuery + 1];
    for (int i = 0; i < kDatagramsPerTurn; ++i) {
      Client client{this, {}, 0};
      client.peer.length = sizeof client.peer.storage;
      ssize_t n = recvfrom(fd.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&client.peer.storage),
                           &client.peer.length);
      if (n < 0 && errno == EAGAIN) return;
      if (n >= 0) server->Handle({buffer, static_cast<size_t>(n)}, client);
    }
    server->loop_->Schedule(io::Beat::kAdvance, this);
  }
  Server* server;
  io::Fd fd;
};

struct Server::TcpListener final : io::Handler {
  ~TcpListener() {
    if (fd) server->loop_->Unwatch(fd.get(), this);
  }
  void OnReady(uint32_t) override { server->Accept(this); }
  Server* server = nullptr;
  io::Fd fd;
};

// One TCP client. Messages are length-prefixed; answers may come in any order (RFC 7766).
struct Server::Tcp final : io::Handler {
  struct Idle : io::Timer {
    explicit Idle(Tcp* t) : Timer([](io::Timer* timer) { static_cast<Idle*>(timer)->tcp->Close(); }), tcp(t) {}
    Tcp* tcp;
  };
  struct Act : io::Task {
    explicit Act(Tcp* t) : Task([](io::Task* task) { static_cast<Act*>(task)->tcp->Advance(); }), tcp(t) {}
    Tcp* tcp;
  };
  struct Reap : io::Task {
    explicit Reap(Tcp* t) : Task([](io::Task* task) {
      Tcp* dead = static_cast<Reap*>(task)->tcp;
      dead->server->tcp_.erase(dead->id);
    }), tcp(t) {}
    Tcp* tcp;
  };
  ~Tcp() {
    if (fd) server->loop_->Unwatch(fd.get(), this);
  }
  void OnReady(uint32_t events) override {
    readable |= (events & io::kReadable) != 0;
    server->loop_->Schedule(io::Beat::kAdvance, &act);
  }
  void Close() {
    closed = true;
    server->loop_->Schedule(io::Beat::kReap, &reap);
  }
  void Advance() {
    if (closed) return;
    if (readable && in.size() < 2 * kMaxQuery) {
      auto r = io::ReadInto(fd.get(), in, 2 * kMaxQuery, true);
      readable = r.more;
      if (r.error) return Close();
      if (r.eof) eof = true;
    }
    // Before the queries: those that wait for room have no other event than the one that made it. (Send() runs us again.)
    if (io::WriteFrom(fd.get(), out).error) return Close();
    while (in_flight < kMaxTcpInFlight && out.size() < kMaxTcpOut && in.size() >= 2) {
      char length[2];
      in.CopyOut(0, length, 2);
      size_t n = static_cast<size_t>(static_cast<uint8_t>(length[0])) << 8 | static_cast<uint8_t>(length[1]);
      if (n < kHeader || n > kMaxQuery) {
        server->Count(downstream_rx_errors);
        return Close();
      }
      if (in.size() < n + 2) break;
      std::string packet(n, 0);
      in.CopyOut(2, packet.data(), n);
      in.Consume(n + 2);
      ++in_flight;
      server->loop_->Arm(&idle, kTcpIdle);
      server->Handle(packet, {nullptr, {}, id});
    }
    if (eof && in_flight == 0 && out.empty()) return Close();
    // Answers that wait for the client's window are not work: its reading makes the socket writable and runs us.
    if (readable && in_flight < kMaxTcpInFlight && out.size() < kMaxTcpOut) server->loop_->Schedule(io::Beat::kAdvance, &act);
  }
  void Send(const std::string& packet) {
    char length[2] = {static_cast<char>(packet.size() >> 8), static_cast<char>(packet.size())};
    out.Append(std::string_view(length, 2));
    out.Append(packet);
    --in_flight;
    server->loop_->Schedule(io::Beat::kAdvance, &act);
  }

  Server* server = nullptr;
  uint64_t id = 0;
  io::Fd fd;
  io::Buffer in, out;
  size_t in_flight = 0;
  bool readable = false, eof = false, closed = false;
  Idle idle{this};
  Act act{this};
  Reap reap{this};
};

Server::Server(io::Loop* loop, ServerOptions options) : loop_(loop), options_(std::move(options)) {}

Server::~Server() {
  forwarder_.reset();
  draining_.clear();
}

base::Result<std::unique_ptr<Server>> Server::Create(io::Loop* loop, const model::DnsFilter& config,
                                                     const std::vector<model::Address>& addresses, ServerOptions options) {
  std::unique_ptr<Server> s(new Server(loop, std::move(options)));
  for (const model::Address& a : addresses) {
    auto bound = s->Bind(a);
    if (!bound) return std::move(bound.error());
  }
  s->Update(config);
  return s;
}

base::Status Server::Bind(const model::Address& address) {
  const bool any_port = address.port == 0;
  for (int round = 0;; ++round) {
    io::SockAddr at = ToSockAddr(address);
    if (!at.length) return base::Error(base::Cat("dns: ", address.ToString(), " is not an IP address"));
    auto udp = std::make_unique<Udp>(this);
    int fd = io::BindUdp(at);
    if (fd < 0) return base::Error(base::Cat("dns: cannot bind udp ", address.ToString(), ": ", strerror(-fd)));
    udp->fd = io::Fd(fd);
    at = io::LocalAddress(fd);
    auto listener = std::make_unique<TcpListener>();
    listener->server = this;
    int tcp = io::Listen(at, {.backlog = 64});
    if (tcp < 0 && any_port && round < 20) continue;  // that port's TCP side is taken: let the kernel choose again
    model::Address bound = address;
    bound.port = at.port();
    if (tcp >= 0) {
      listener->fd = io::Fd(tcp);
      loop_->WatchAccept(tcp, listener.get());
      listeners_.push_back(std::move(listener));
    } else {
      WEFT_LOG(kDns, kWarn, "cannot listen on tcp ", bound.ToString(), ": ", strerror(-tcp), "; answering over UDP only");
    }
    loop_->Watch(fd, udp.get());
    udp_.push_back(std::move(udp));
    addresses_.push_back(std::move(bound));
    return base::Ok{};
  }
}

void Server::Update(const model::DnsFilter& config) {
  table_ = std::make_unique<Table>(config);
  if (config.stat_prefix != stat_prefix_ || stats_[0] == base::kNoStat) {
    stat_prefix_ = config.stat_prefix;
    static constexpr std::string_view kNames[] = {
#define WEFT_X(name) #name,
        WEFT_DNS_COUNTERS(WEFT_X)
#undef WEFT_X
    };
    for (int i = 0; i < kCounters; ++i) {
      stats_[static_cast<size_t>(i)] =
          base::Stats::Get().Counter(base::Cat("dns_filter.", stat_prefix_, ".", kNames[i]),
                                     base::Cat("dns_filter.", kNames[i]), {{"envoy_dns_filter_prefix", stat_prefix_}});
    }
  }
  std::erase_if(draining_, [](const auto& f) { return f->pending() == 0; });
  if (forwarder_ && forwarder_->pending() > 0) draining_.push_back(forwarder_);
  forwarder_.reset();
  if (!config.forward) return;
  ForwardOptions o;
  o.servers = config.resolvers.empty() ? NameServers(options_.resolv_conf) : config.resolvers;
  for (const model::Address& own : addresses_) {  // asking ourselves would loop
    std::erase_if(o.servers, [&](const model::Address& a) { return a.ip == own.ip && a.port == own.port; });
  }
  if (o.servers.empty()) {
    WEFT_LOG(kDns, kWarn, "forwarding is on, but there is no name server: other names get SERVFAIL");
    return;
  }
  o.mark = options_.mark;
  o.max_pending = config.max_pending_lookups;
  o.attempts = std::max<int>(2, static_cast<int>(std::min<size_t>(o.servers.size(), 3)));
  o.attempt_timeout_ns = config.resolver_timeout_ns / static_cast<uint64_t>(o.attempts);
  forwarder_ = std::make_shared<Forwarder>(loop_, std::move(o));
}

void Server::Handle(std::string_view packet, const Client& client) {
  Count(downstream_rx_queries);
  Query q;
  QueryVerdict verdict = packet.size() > kMaxQuery ? QueryVerdict::kDrop : ParseQuery(packet, &q);
  if (verdict != QueryVerdict::kOk) {
    Count(downstream_rx_invalid_queries);
    switch (verdict) {
      case QueryVerdict::kFormErr: return Reply(client, BuildError(packet, Rcode::kFormErr));
      case QueryVerdict::kNotImp: return Reply(client, BuildError(packet, Rcode::kNotImp));
      case QueryVerdict::kRefused: return Reply(client, BuildError(packet, Rcode::kRefused));
      default:
        if (client.tcp) {
          if (auto it = tcp_.find(client.tcp); it != tcp_.end()) it->second->Close();
        }
        return;
    }
  }
  Count(q.type == kA ? a_record_queries : q.type == kAaaa ? aaaa_record_queries : unsupported_queries);
  const size_t limit = client.tcp ? 65535 : q.udp_size;
  if (const Table::Entry* e = table_->Find(q.name)) {
    Count(known_domain_queries);
    // Take turns, for clients that always try the first.
    std::vector<model::Ip> addresses = e->addresses;
    if (addresses.size() > 1) {
      std::rotate(addresses.begin(), addresses.begin() + static_cast<ptrdiff_t>(rotation_++ % addresses.size()), addresses.end());
    }
    std::string answer = BuildAnswer(q, packet, Rcode::kNoError, addresses, e->ttl_s, limit);
    bool some = answer[6] || answer[7];
    Count(!some ? local_empty_answers : q.type == kAaaa ? local_aaaa_record_answers : local_a_record_answers);
    return Reply(client, std::move(answer));
  }
  if (table_->Known(q.name) || !table_->forward) {
    Count(local_nxdomain_answers);
    return Reply(client, BuildAnswer(q, packet, Rcode::kNxDomain, {}, 0, limit));
  }
  Forward(q, packet, client);
}

void Server::Forward(const Query& q, std::string_view packet, const Client& client) {
  Count(external_queries);
  std::string copy(packet);
  uint64_t ticket = 0;
  if (forwarder_) {
    ticket = forwarder_->Ask(copy, client.tcp != 0, [this, q, copy, client](std::string_view response) {
      if (response.empty()) {
        Count(external_unanswered);
        return Reply(client, BuildAnswer(q, copy, Rcode::kServFail, {}, 0, kMaxUdp, false));
      }
      Count(external_answers);
      // The resolver was asked with the client's own EDNS size, so a datagram of it fits the client too.
      Reply(client, std::string(response));
    });
  }
  if (ticket == 0) {
    Count(external_overflow);
    Reply(client, BuildAnswer(q, packet, Rcode::kServFail, {}, 0, kMaxUdp, false));
  }
}

void Server::Reply(const Client& client, std::string packet) {
  Count(downstream_tx_responses);
  if (client.tcp) {
    if (auto it = tcp_.find(client.tcp); it != tcp_.end()) it->second->Send(packet);
    return;
  }
  // A full socket drops the answer, as the network may; the client asks again.
  if (sendto(client.udp->fd.get(), packet.data(), packet.size(), MSG_NOSIGNAL, client.peer.get(), client.peer.length) < 0) {
    Count(downstream_rx_errors);
  }
}

void Server::Accept(TcpListener* listener) {
  for (int i = 0; i < 16; ++i) {
    io::SockAddr peer;
    int fd = io::Accept(listener->fd.get(), &peer);
    if (fd < 0) return;
    if (tcp_.size() >= kMaxTcp) {
      Count(tcp_connections_refused);
      close(fd);
      continue;
    }
    Count(tcp_connections);
    auto t = std::make_unique<Tcp>();
    t->server = this;
    t->id = ++next_tcp_;
    t->fd = io::Fd(fd);
    loop_->Arm(&t->idle, kTcpIdle);
    loop_->Watch(fd, t.get());
    tcp_.emplace(t->id, std::move(t));
  }
}

}  // namespace weft::dns
