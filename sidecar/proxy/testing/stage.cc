#include "sidecar/proxy/testing/stage.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sidecar/base/check.h"

namespace weft::proxy::testing {

using codec::Inbound;

Peer::Peer(int fd, bool h2, bool server, std::shared_ptr<const tls::Context> tls) {
  transport_.Open(fd);
  if (tls) transport_.StartTls(std::move(tls), server ? tls::Engine::kServer : tls::Engine::kClient);
  codec::Limits limits;
  if (server) codec = h2 ? codec::NewHttp2Server(limits, this) : codec::NewHttp1Server(limits, this);
  else codec = h2 ? codec::NewHttp2Client(limits) : codec::NewHttp1Client(limits);
}

codec::Inbound* Peer::OnNewStream(codec::StreamId id) {
  messages_.push_back(std::make_unique<Message>());
  newest_ = messages_.back().get();
  newest_->id = id, newest_->in.owner = newest_;
  return &newest_->in;
}

Peer::Message* Peer::NewRequest() {
  OnNewStream(0);
  newest_->id = codec->Open(&newest_->in);
  WEFT_CHECK(newest_->id >= 0, "the caller's connection has no room");
  return newest_;
}

bool Peer::Pump() {
  if (!open()) return false;
  transport_.OnReady(io::kReadable | io::kWritable | io::kHangup);
  bool moved = !deaf && transport_.Read(1 << 20);
  for (bool again = !deaf; again;) {
    size_t before = transport_.in.size();
    if (codec->closed()) transport_.in.Clear();
    else codec->Feed(transport_.in);
    codec->ready().clear(), codec->writable().clear();
    again = transport_.in.size() != before && !transport_.in.empty();
    for (auto& m : messages_) {
      if (m->over) continue;
      if (size_t n = m->in.body.size()) {
        m->body += m->in.body.ToString();
        m->in.body.Clear();
        codec->Consumed(m->id, n);
        again = true;
      }
      if ((m->in.bits & (Inbound::kReset | Inbound::kMalformed)) || (m->answered && m->ended())) {
        codec->Release(m->id);
        m->over = true;
      }
    }
  }
  if (transport_.eof() && !told_eof_) {
    told_eof_ = true;
    codec->FeedEof();
  }
  if (raw_) TakeOutput();
  else if (!hold) codec->Emit(transport_.out);
  const uint64_t before = sent();
  transport_.Write();
  moved |= sent() != before;
  bool done = codec->closed() && !raw_ && transport_.unsent() == 0;
  if (done || transport_.eof() || transport_.broken()) Close();
  return moved;
}

bool Peer::complains() const {
  for (const auto& m : messages_) {
    if (m->in.bits & Inbound::kMalformed) return true;
  }
  return codec->counters().protocol_errors != 0;
}

void Peer::Reset(Message* m) {
  codec->Reset(m->id, codec::ResetCode::kCancel);
  m->over = true;
}

void Peer::SendRaw(const std::string& bytes) {
  raw_ = true, hold = false;
  transport_.out.Append(bytes);
}

std::string Peer::TakeOutput() {
  io::Buffer out;
  codec->Emit(out);
  return out.ToString();
}

void Peer::AppendWire(const std::string& bytes) { transport_.out.Append(bytes); }

void Peer::HalfClose() {
  if (open()) transport_.ShutdownWrite();
}

void Peer::Close() { transport_.Close(); }

Stage::Stage(Mesh* mesh, bool down_h2, bool up_h2) : mesh_(mesh), down_h2_(down_h2), up_h2_(up_h2) {
  listen_fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  // Only the family: the kernel picks a free name of the abstract space.
  WEFT_CHECK(bind(listen_fd_, reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)) == 0 && listen(listen_fd_, 64) == 0);
  socklen_t length = sizeof name;
  getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&name), &length);
  mesh_->clusters["app"].pipes = {"@" + std::string(name.sun_path + 1, length - sizeof(sa_family_t) - 1)};
  cells_ = mesh_->cells.Get("app");

  options_.workers = 1, options_.max_connections = 1000, options_.clock = &clock_;
  options_.buckets = std::make_shared<filters::local_ratelimit::BucketRegistry>();
  workers_.push_back(std::make_unique<Worker>(options_, 0, workers_));
  struct Keep final : RecordSink {
    explicit Keep(std::vector<Record>* to) : to(to) {}
    void Take(Record& r) override { to->push_back(std::move(r)), r = Record(); }
    std::vector<Record>* to;
  };
  options_.sink = [this](io::Loop*, uint32_t) { return std::make_unique<Keep>(&records); };
  core_ = std::make_unique<WorkerCore>(&worker(), &worker().loop(), options_, 0);
  Publish();
}

Stage::~Stage() {
  core_.reset();
  close(listen_fd_);
}

void Stage::Publish() { core_->Swap(mesh_->Build(), {}); }

Peer& Stage::Open() {
  int pair[2];
  WEFT_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
  callers_.push_back(std::make_unique<Peer>(pair[0], down_h2_, false, caller_tls));
  core_->Adopt(pair[1], "front", model::Address::FromIp(*model::Ip::Parse("127.0.0.1"), 40000));
  return *callers_.back();
}

Stage::Served Stage::served() {
  for (auto p = servers_.rbegin(); p != servers_.rend(); ++p) {
    if ((*p)->open() && (*p)->newest() && (*p)->newest()->head()) return {p->get(), (*p)->newest()};
  }
  return {};
}

size_t Stage::server_connections() const {
  size_t n = 0;
  for (const auto& p : servers_) n += p->open();
  return n;
}

bool Stage::server_complains() const {
  for (const auto& p : servers_) {
    if (p->complains()) return true;
  }
  return false;
}

void Stage::CloseServers() {
  for (auto& p : servers_) p->Close();
}

void Stage::CloseCallers() {
  for (auto& p : callers_) p->Close();
}

void Stage::ForgetCallers() { callers_.clear(); }

bool Stage::AcceptAll() {
  bool any = false;
  for (int fd; (fd = accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; any = true) {
    servers_.push_back(std::make_unique<Peer>(fd, up_h2_, true, server_tls));
  }
  return any;
}

void Stage::Settle() {
  io::Loop& loop = worker().loop();
  for (int quiet = 0, rounds = 0; quiet < 3; ++rounds) {
    WEFT_CHECK(rounds < 10'000, "never quiet");
    uint64_t events = loop.stats().events;
    loop.RunOnce(0);
    bool moved = loop.stats().events != events;
    moved |= AcceptAll();
    for (auto& p : callers_) moved |= p->Pump();
    for (auto& p : servers_) moved |= p->Pump();
    quiet = moved ? 0 : quiet + 1;
  }
}

void Stage::Wait(uint64_t ns) { WaitSlices(ns, base::kSecond); }
void Stage::WaitLong(uint64_t ns) { WaitSlices(ns, 10 * base::kSecond); }

void Stage::WaitSlices(uint64_t ns, uint64_t slice) {
  while (ns > 0) {
    uint64_t n = std::min(ns, slice);
    clock_.Advance(n);
    Settle();
    ns -= n;
  }
}

}  // namespace weft::proxy::testing
