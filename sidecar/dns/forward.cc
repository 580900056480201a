#include "sidecar/dns/forward.h"

#include <errno.h>
#include <sys/random.h>

#include "sidecar/base/log.h"
#include "sidecar/base/random.h"
#include "sidecar/dns/wire.h"

namespace weft::dns {
namespace {

constexpr size_t kMaxResponse = 65535;

// Ids are a secret against forged answers, so they come from the kernel, a batch at a time.
uint16_t SecretId() {
  static thread_local uint16_t batch[64];
  static thread_local size_t left = 0;
  if (left == 0) {
    if (getrandom(batch, sizeof batch, 0) != sizeof batch) return static_cast<uint16_t>(base::Random::ThisThread().Next());
    left = std::size(batch);
  }
  return batch[--left];
}

io::SockAddr ToSockAddr(const model::Address& a) {
  io::SockAddr s;
  s.length = a.ToSockaddr(&s.storage);
  return s;
}

}  // namespace

struct Forwarder::Server final : io::Handler {
  void OnReady(uint32_t events) override {
    if (events & io::kReadable) owner->OnUdp(this);
  }
  Forwarder* owner = nullptr;
  io::SockAddr address;
  io::Fd fd;
};

struct Forwarder::Pending final : io::Handler {
  struct AttemptTimer : io::Timer {
    explicit AttemptTimer(Pending* p) : Timer([](io::Timer* t) {
      Pending* pending = static_cast<AttemptTimer*>(t)->pending;
      if (!pending->broken) ++pending->owner->counters_.timeouts;
      pending->owner->Retry(pending);
    }), pending(p) {}
    Pending* pending;
  };
  ~Pending() {
    if (fd) owner->loop_->Unwatch(fd.get(), this);
  }
  void OnReady(uint32_t events) override { owner->OnTcp(this, events); }

  Forwarder* owner = nullptr;
  uint64_t ticket = 0;
  uint16_t id = 0, client_id = 0;
  std::string packet;  // with our id
  Done done;
  size_t server = 0;
  int attempt = 0;
  bool tcp = false;
  bool broken = false;  // this attempt failed; the timer, armed with zero, goes on to the next
  io::Fd fd;            // TCP only
  io::Buffer in, out;
  AttemptTimer timer{this};
};

Forwarder::Forwarder(io::Loop* loop, ForwardOptions options) : loop_(loop), options_(std::move(options)) {
  for (const model::Address& a : options_.servers) {
    auto s = std::make_unique<Server>();
    s->owner = this;
    s->address = ToSockAddr(a);
    if (s->address.length) servers_.push_back(std::move(s));
  }
}

Forwarder::~Forwarder() {
  pending_.clear();
  for (auto& s : servers_) {
    if (s->fd) loop_->Unwatch(s->fd.get(), s.get());
  }
}

uint64_t Forwarder::Ask(std::string packet, bool tcp, Done done) {
  if (servers_.empty() || packet.size() < kHeader) return 0;
  if (pending_.size() >= options_.max_pending || pending_.size() > 30'000) {
    ++counters_.overflows;
    return 0;
  }
  uint16_t id;
  do id = SecretId();
  while (pending_.contains(id));
  auto p = std::make_unique<Pending>();
  p->owner = this;
  p->ticket = ++next_ticket_;
  p->id = id, p->client_id = MessageId(packet);
  SetMessageId(packet, id);
  p->packet = std::move(packet);
  p->done = std::move(done);
  p->tcp = tcp;
  ++counters_.asked;
  Pending* raw = p.get();
  pending_.emplace(id, std::move(p));
  Send(raw);
  return raw->ticket;
}

void Forwarder::Cancel(uint64_t ticket) {
  for (auto it = pending_.begin(); it != pending_.end(); ++it) {
    if (it->second->ticket == ticket) {
      pending_.erase(it);
      return;
    }
  }
}

void Forwarder::Send(Pending* p) {
  ++p->attempt;
  p->broken = false;
  loop_->Arm(&p->timer, options_.attempt_timeout_ns);
  if (p->tcp) return SendTcp(p);
  Server* s = servers_[p->server % servers_.size()].get();
  if (!s->fd) {
    // A fresh ephemeral port, connected: the kernel drops datagrams of anybody else and reports refusals.
    io::SockAddr any = s->address.family() == AF_INET6 ? *io::SockAddr::Ip("::", 0) : *io::SockAddr::Ip("0.0.0.0", 0);
    int fd = io::BindUdp(any, options_.mark);
    if (fd >= 0 && connect(fd, s->address.get(), s->address.length) == 0) {
      s->fd = io::Fd(fd);
      loop_->Watch(fd, s);
    } else {
      WEFT_LOG(kDns, kWarn, "cannot open a socket to a name server: errno ", fd < 0 ? -fd : errno);
      if (fd >= 0) close(fd);
    }
  }
  if (!s->fd || send(s->fd.get(), p->packet.data(), p->packet.size(), MSG_NOSIGNAL) < 0) {
    Break(p);
  }
}

void Forwarder::SendTcp(Pending* p) {
  if (p->fd) loop_->Unwatch(p->fd.get(), p);
  p->fd.Reset();
  p->in.Clear(), p->out.Clear();
  bool in_progress;
  int fd = io::Connect(servers_[p->server % servers_.size()]->address, {.mark = options_.mark}, &in_progress);
  if (fd < 0) {
    Break(p);
    return;
  }
  p->fd = io::Fd(fd);
  char length[2] = {static_cast<char>(p->packet.size() >> 8), static_cast<char>(p->packet.size())};
  p->out.Append(std::string_view(length, 2));
  p->out.Append(p->packet);
  loop_->Watch(fd, p);  // writable follows at once when connected
}

// The next server takes over, but not from inside Ask.
void Forwarder::Break(Pending* p) {
  ++counters_.socket_errors;
  p->broken = true;
  loop_->Arm(&p->timer, 0);
}

void Forwarder::Retry(Pending* p) {
  if (p->attempt >= options_.attempts) return Finish(p, {});
  ++p->server;
  Send(p);
}

void Forwarder::OnUdp(Server* s) {
  static thread_local char buffer[kMaxResponse];
  for (;;) {
    ssize_t n = recv(s->fd.get(), buffer, sizeof buffer, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      // Refused (ICMP): everybody who waits for this server goes on to the next one now.
      for (auto& [id, p] : pending_) {
        if (!p->tcp && servers_[p->server % servers_.size()].get() == s) Break(p.get());
      }
      continue;
    }
    std::string_view response(buffer, static_cast<size_t>(n));
    auto it = response.size() >= kHeader ? pending_.find(MessageId(response)) : pending_.end();
    Pending* p = it == pending_.end() ? nullptr : it->second.get();
    if (!p || p->tcp || servers_[p->server % servers_.size()].get() != s || !IsResponseTo(response, p->packet)) {
      ++counters_.stray;
      continue;
    }
    Finish(p, response);
  }
}

void Forwarder::OnTcp(Pending* p, uint32_t events) {
  io::IoResult w, r;
  if (events & io::kWritable) w = io::WriteFrom(p->fd.get(), p->out);
  if (events & io::kReadable) r = io::ReadInto(p->fd.get(), p->in, kMaxResponse + 2, true);
  if (p->in.size() >= 2) {
    char length[2];
    p->in.CopyOut(0, length, 2);
    size_t n = static_cast<size_t>(static_cast<uint8_t>(length[0])) << 8 | static_cast<uint8_t>(length[1]);
    if (p->in.size() >= n + 2) {
      std::string response(n, 0);
      p->in.CopyOut(2, response.data(), n);
      if (IsResponseTo(response, p->packet)) return Finish(p, response);
      ++counters_.stray;
      r.eof = true;
    }
  }
  if (w.error || r.error || r.eof) {
    loop_->Unwatch(p->fd.get(), p);
    p->fd.Reset();
    Break(p);
  }
}

void Forwarder::Finish(Pending* p, std::string_view response) {
  auto it = pending_.find(p->id);
  std::unique_ptr<Pending> owned = std::move(it->second);
  pending_.erase(it);
  owned->timer.Cancel();
  if (!response.empty()) ++counters_.answered;
  std::string copy(response);
  if (!copy.empty()) SetMessageId(copy, owned->client_id);
  Done done = std::move(owned->done);
  owned.reset();
  done(copy);
}

}  // namespace weft::dns
