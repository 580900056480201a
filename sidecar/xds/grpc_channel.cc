#include "sidecar/xds/grpc_channel.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <list>

#include "sidecar/base/random.h"
#include "sidecar/codec/codec.h"
#include "sidecar/io/socket.h"

namespace weft::xds {

namespace {

const char* CodeName(int code) {
  static const char* const names[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
                                      "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
                                      "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code <= 16 ? names[code] : "UNKNOWN";
}

std::string PercentDecode(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    unsigned v = 0;
    if (s[i] == '%' && i + 2 < s.size() && std::from_chars(s.data() + i + 1, s.data() + i + 3, v, 16).ptr == s.data() + i + 3) {
      out += static_cast<char>(v);
      i += 2;
    } else {
      out += s[i];
    }
  }
  return out;
}

int FromHttpStatus(std::string_view status) {
  if (status == "400") return kGrpcInternal;
  if (status == "401") return kGrpcUnauthenticated;
  if (status == "403") return 7;
  if (status == "404") return kGrpcUnimplemented;
  if (status == "429" || status == "502" || status == "503" || status == "504") return kGrpcUnavailable;
  return kGrpcUnknown;
}

std::string Frame(std::string_view message) {
  std::string out(5, '\0');
  uint32_t n = static_cast<uint32_t>(message.size());
  for (int i = 0; i < 4; ++i) out[1 + i] = static_cast<char>(n >> (24 - 8 * i));
  out.append(message);
  return out;
}

}  // namespace

std::string GrpcStatus::ToString() const { return message.empty() ? CodeName(code) : std::string(CodeName(code)) + ": " + message; }

class GrpcChannel::Impl final : public io::Handler, public codec::StreamHost {
 public:
  Impl(io::Loop* l, Options o) : loop(l), options(std::move(o)) {}
  ~Impl() {
    Drop();
    streams.clear();
  }

  struct Stream final : GrpcStream {
    struct Deadline : io::Timer {
      explicit Deadline(Stream* s)
          : io::Timer([](io::Timer* t) {
              Stream* owner = static_cast<Deadline*>(t)->stream;
              owner->expired = true;
              owner->impl->ScheduleAdvance();
            }),
            stream(s) {}
      Stream* stream;
    };
    Stream(Impl* i, GrpcStreamHandler* h) : impl(i), handler(h), deadline(this) {}
    bool Send(std::string_view message) override {
      if (dead || half_closed || out.size() + message.size() > impl->options.max_queued) return false;
      out.Append(Frame(message));
      impl->ScheduleFlush();
      return true;
    }
    void HalfClose() override {
      half_closed = true;
      impl->ScheduleFlush();
    }
    void Cancel() override {
      if (dead) return;
      dead = true, handler = nullptr;
      done = nullptr;
      deadline.Cancel();
      if (id > 0 && impl->codec) impl->codec->Reset(id, codec::ResetCode::kCancel);
      id = 0;
      impl->ScheduleAdvance();
      impl->ScheduleFlush();
    }
    size_t queued() const override { return out.size(); }
    Impl* impl;
    GrpcStreamHandler* handler;       // streams
    CallFn done;                      // unary calls
    std::string reply;
    bool replied = false;
    Deadline deadline;
    codec::Inbound in;
    uint64_t credited = 0;
    codec::StreamId id = 0;
    io::Buffer out;
    bool half_closed = false, end_sent = false, dead = false, expired = false, touched = false;
  };

  // ---- loop entry points: they only record
  void OnReady(uint32_t events) override {
    ready = true;
    if (events & (io::kWritable | io::kHangup)) writable = true;
    if (events & io::kHangup) hangup = true;
    ScheduleAdvance();
    if (events & io::kWritable) ScheduleFlush();
  }
  codec::Inbound* OnNewStream(codec::StreamId) override { return nullptr; }  // no server push
  void ScheduleAdvance() { loop->Schedule(io::Beat::kAdvance, &advance); }
  void ScheduleFlush() { loop->Schedule(io::Beat::kFlush, &flush); }

  void Connect();
  void Drop();
  void Lost(const std::string& why);
  void Advance();
  void Flush();
  void Read();
  void Established();
  void Process(Stream& s);
  void Finish(Stream& s, GrpcStatus status);
  void Sweep();
  Stream* NewStream(const std::string& path, GrpcStreamHandler* handler, uint64_t timeout_ns);

  io::Loop* const loop;
  Options options;
  StateFn on_state;
  bool started = false, is_up = false, connecting = false, ready = false, writable = false, hangup = false, notify_up = false, want_connect = false;
  int fd = -1;
  std::unique_ptr<tls::Engine> engine;
  std::unique_ptr<codec::Codec> codec;
  io::Buffer wire_in, plain_in, plain_out, wire_out;
  std::list<std::unique_ptr<Stream>> streams;
  size_t next_address = 0, calls = 0;
  int attempt = 0;
  std::string error, peer, pending_loss;
  uint64_t connect_count = 0, failure_count = 0;

  // Tasks and timers that know their channel.
  template <void (Impl::*kRun)()>
  struct OwnTask : io::Task {
    explicit OwnTask(Impl* i) : io::Task([](io::Task* t) { (static_cast<OwnTask*>(t)->impl->*kRun)(); }), impl(i) {}
    Impl* impl;
  };
  template <void (Impl::*kFire)()>
  struct OwnTimer : io::Timer {
    explicit OwnTimer(Impl* i) : io::Timer([](io::Timer* t) { (static_cast<OwnTimer*>(t)->impl->*kFire)(); }), impl(i) {}
    Impl* impl;
  };
  void OnConnectTimeout() {
    pending_loss = "connect timeout to " + peer;
    ScheduleAdvance();
  }
  void OnBackoffEnd() {
    want_connect = true;
    ScheduleAdvance();
  }
  void OnPing() {
    if (!codec) return;
    if (codec->pings_outstanding() > 0) {
      pending_loss = "keep-alive ping to " + peer + " was not answered";
      return ScheduleAdvance();
    }
    codec->Ping();
    ScheduleFlush();
    loop->Arm(&ping_timer, options.keepalive_ns);
  }
  OwnTask<&Impl::Advance> advance{this};
  OwnTask<&Impl::Flush> flush{this};
  OwnTimer<&Impl::OnConnectTimeout> connect_timer{this};
  OwnTimer<&Impl::OnBackoffEnd> backoff_timer{this};
  OwnTimer<&Impl::OnPing> ping_timer{this};
};

void GrpcChannel::Impl::Connect() {
  Drop();
  if (!started) return;
  if (options.addresses.empty()) return Lost("no address of the server is known");
  peer = options.addresses[next_address++ % options.addresses.size()];
  ++connect_count;
  std::optional<io::SockAddr> to;
  if (peer[0] == '/' || peer[0] == '@') {
    to = io::SockAddr::Unix(peer);
  } else if (size_t colon = peer.rfind(':'); colon != std::string::npos) {
    std::string_view host = std::string_view(peer).substr(0, colon);
    if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
    uint16_t port = 0;
    std::from_chars(peer.data() + colon + 1, peer.data() + peer.size(), port);
    if (port) to = io::SockAddr::Ip(host, port);
  }
  if (!to) return Lost("\"" + peer + "\" is not an address (ip:port, or a unix socket's path)");
  io::ConnectOptions connect;
  connect.mark = to->family() == AF_UNIX ? 0 : options.mark;
  connect.user_timeout_ms = to->family() == AF_UNIX ? 0 : 20'000;
  bool in_progress = false;
  fd = io::Connect(*to, connect, &in_progress);
  if (fd < 0) {
    int e = -fd;
    fd = -1;
    return Lost("connect to " + peer + ": " + strerror(e));
  }
  if (to->family() != AF_UNIX) io::SetKeepAlive(fd, 10, 5, 3);
  connecting = true;
  loop->Watch(fd, this);
  loop->Arm(&connect_timer, options.connect_timeout_ns);
  if (!in_progress) ready = writable = true, ScheduleAdvance();
}

void GrpcChannel::Impl::Drop() {
  connect_timer.Cancel(), backoff_timer.Cancel(), ping_timer.Cancel();
  if (fd >= 0) {
    loop->Unwatch(fd, this);
    close(fd);
  }
  fd = -1;
  connecting = is_up = ready = writable = hangup = notify_up = want_connect = false;
  engine.reset(), codec.reset();
  wire_in.Clear(), plain_in.Clear(), plain_out.Clear(), wire_out.Clear();
  pending_loss.clear();
}

// The connection is gone or could not be made: every stream ends, the next try is armed.
void GrpcChannel::Impl::Lost(const std::string& why) {
  std::string reason = why;
  Drop();
  error = reason;
  ++failure_count;
  for (auto& s : streams) {
    s->id = 0;
    if (!s->dead) Finish(*s, {kGrpcUnavailable, reason});
  }
  Sweep();
  if (!started) return;
  uint64_t ceiling = options.backoff_base_ns;
  for (int i = 0; i < attempt && ceiling < options.backoff_max_ns; ++i) ceiling *= 2;
  ceiling = std::min(ceiling, options.backoff_max_ns);
  ++attempt;
  // Full jitter above a small floor, so that a refused port is not hammered.
  uint64_t floor = options.backoff_base_ns / 10;
  loop->Arm(&backoff_timer, floor + base::Random::ThisThread().Below(ceiling > floor ? ceiling - floor : 1));
  if (on_state) on_state(false, reason);
}

void GrpcChannel::Impl::Established() {
  connect_timer.Cancel();
  if (engine && options.check_peer) {
    if (auto s = options.check_peer(*engine); !s) return Lost(peer + ": " + s.error().ToString());
  }
  if (engine && engine->alpn() != "h2") return Lost(peer + " does not speak HTTP/2 (ALPN \"" + std::string(engine->alpn()) + "\")");
  codec::Limits limits;
  limits.stream_window = 4u << 20, limits.connection_window = 8u << 20;
  limits.max_buffered_per_stream = 4u << 20;
  codec = codec::NewHttp2Client(limits);
  is_up = true, notify_up = true;
  error.clear();
  if (options.keepalive_ns) loop->Arm(&ping_timer, options.keepalive_ns);
  ScheduleFlush();
  ScheduleAdvance();
}

void GrpcChannel::Impl::Read() {
  std::string failure;
  io::IoResult got = io::ReadInto(fd, wire_in, 1 << 20, true);
  bool eof = got.eof;
  if (got.error) failure = strerror(got.error);
  if (got.more) ready = true, ScheduleAdvance();
  io::Buffer* bytes = &wire_in;
  if (engine) {
    bool was_open = engine->state() == tls::Engine::State::kOpen;
    auto state = engine->Feed(wire_in, plain_in);
    bytes = &plain_in;
    ScheduleFlush();
    if (state == tls::Engine::State::kFailed) {
      // The alert should still leave.
      engine->Pump(wire_out);
      io::WriteFrom(fd, wire_out);
      return Lost("TLS with " + peer + ": " + std::string(tls::FailureName(engine->failure())) + " (" +
                  std::string(engine->failure_detail()) + ")");
    }
    if (!was_open && state == tls::Engine::State::kOpen) Established();
    if (fd < 0) return;
    if (state == tls::Engine::State::kPeerClosed) eof = true;
  }
  if (codec && !bytes->empty() && !codec->Feed(*bytes)) failure = std::string("protocol error: ") + codec->error();
  if (codec) {
    for (codec::Inbound* in : codec->ready()) {
      if (in->owner) static_cast<Stream*>(in->owner)->touched = true;
    }
    codec->ready().clear();
    codec->writable().clear();
    ScheduleFlush();
  }
  if (!failure.empty() || eof) pending_loss = peer + ": " + (failure.empty() ? "connection closed by the server" : failure);
}

void GrpcChannel::Impl::Advance() {
  if (want_connect) return Connect();
  if (fd >= 0 && ready) {
    ready = false;
    if (connecting) {
      if (!writable) return;
      if (int e = io::ConnectError(fd); e != 0) return Lost("connect to " + peer + ": " + strerror(e));
      connecting = false;
      if (options.tls) {
        engine = std::make_unique<tls::Engine>(options.tls, tls::Engine::kClient);
        engine->Feed(wire_in, plain_in);
        ScheduleFlush();
      } else {
        Established();
      }
      if (fd < 0) return;
    }
    Read();
    if (fd < 0) return;
  }
  if (notify_up) {
    notify_up = false;
    if (on_state) on_state(true, "");
  }
  // Handlers may open streams and cancel any: the list only grows here, Sweep removes.
  for (auto it = streams.begin(); it != streams.end(); ++it) {
    Stream& s = **it;
    if (s.dead) continue;
    if (s.touched) s.touched = false, Process(s);
    if (!s.dead && s.expired) {
      if (s.id > 0 && codec) codec->Reset(s.id, codec::ResetCode::kCancel), ScheduleFlush();
      s.id = 0;
      Finish(s, {kGrpcDeadlineExceeded, "no answer in time"});
    }
  }
  Sweep();
  if (!pending_loss.empty()) return Lost(std::string(pending_loss));
  if (codec && codec->peer_going_away() && codec->active_streams() == 0) Lost(peer + ": the server is going away");
}

void GrpcChannel::Impl::Process(Stream& s) {
  codec::Inbound& in = s.in;
  if (in.bits & codec::Inbound::kInterim) in.bits &= static_cast<uint16_t>(~codec::Inbound::kInterim);
  if (in.bits & codec::Inbound::kReset) {
    s.id = 0;
    bool refused = in.reset == codec::ResetCode::kRefused || (in.bits & codec::Inbound::kGoaway);
    return Finish(s, {refused ? kGrpcUnavailable : kGrpcInternal, "stream reset by the server (code " + std::to_string(static_cast<int>(in.reset)) + ")"});
  }
  if ((in.bits & codec::Inbound::kHead) && in.head.Value(http::Token::kStatus) != "200") {
    if (in.bits & codec::Inbound::kEnd) codec->Release(s.id);
    else codec->Reset(s.id, codec::ResetCode::kCancel);
    s.id = 0;
    std::string status(in.head.Value(http::Token::kStatus));
    return Finish(s, {FromHttpStatus(status), "HTTP status " + status});
  }
  if (in.bits & codec::Inbound::kHead) attempt = 0;  // the server works: the next loss starts from a short back-off
  while (in.body.size() >= 5) {
    std::string_view head = in.body.Linearize(5);
    uint32_t n = 0;
    for (int i = 1; i < 5; ++i) n = n << 8 | static_cast<uint8_t>(head[static_cast<size_t>(i)]);
    bool compressed = head[0] != 0;
    if (compressed || n > options.max_message) {
      codec->Reset(s.id, codec::ResetCode::kCancel), ScheduleFlush();
      s.id = 0;
      return Finish(s, compressed ? GrpcStatus{kGrpcInternal, "compressed message without an agreed encoding"}
                                  : GrpcStatus{kGrpcResourceExhausted, "message of " + std::to_string(n) + " bytes is over the limit"});
    }
    if (in.body.size() < 5 + static_cast<size_t>(n)) {
      // Big messages need more than the window: bytes held here are credited as they come, max_message bounds them.
      break;
    }
    in.body.Consume(5);
    std::string message;
    message.reserve(n);
    for (size_t left = n; left > 0;) {
      std::string_view piece = in.body.Front().substr(0, left);
      message.append(piece);
      left -= piece.size();
      in.body.Consume(piece.size());
    }
    if (s.handler) s.handler->OnMessage(message);
    else if (!s.replied) s.reply = std::move(message), s.replied = true;
    if (s.dead) return;
  }
  if (s.id > 0 && in.body_bytes > s.credited) {
    codec->Consumed(s.id, in.body_bytes - s.credited);
    s.credited = in.body_bytes;
    ScheduleFlush();
  }
  if (!(in.bits & codec::Inbound::kEnd)) return;
  const http::HeaderMap& last = in.bits & codec::Inbound::kTrailers ? in.trailers : in.head;
  GrpcStatus status{kGrpcUnknown, "the server ended the stream without grpc-status"};
  if (auto v = last.Get(http::Token::kGrpcStatus)) {
    int code = kGrpcUnknown;
    std::from_chars(v->data(), v->data() + v->size(), code);
    status = {code, PercentDecode(last.Value(http::Token::kGrpcMessage))};
  }
  if (s.id > 0) {
    if (s.end_sent) codec->Release(s.id);
    else codec->Reset(s.id, codec::ResetCode::kCancel), ScheduleFlush();
  }
  s.id = 0;
  Finish(s, std::move(status));
}

void GrpcChannel::Impl::Finish(Stream& s, GrpcStatus status) {
  if (s.dead) return;
  s.dead = true;
  s.deadline.Cancel();
  if (s.handler) {
    GrpcStreamHandler* h = s.handler;
    s.handler = nullptr;
    h->OnClosed(status);
  } else if (s.done) {
    --calls;
    CallFn done = std::move(s.done);
    if (status.ok() && !s.replied) status = {kGrpcInternal, "the server answered without a message"};
    done(status, status.ok() ? std::string_view(s.reply) : std::string_view());
  }
}

void GrpcChannel::Impl::Sweep() {
  for (auto it = streams.begin(); it != streams.end();) {
    if ((*it)->dead) it = streams.erase(it);
    else ++it;
  }
}

void GrpcChannel::Impl::Flush() {
  if (fd < 0 || connecting) return;
  if (codec) {
    for (auto& s : streams) {
      if (s->dead || s->id <= 0 || s->end_sent) continue;
      size_t n = std::min(codec->SendRoom(s->id), s->out.size());
      bool end = s->half_closed && n == s->out.size();
      if (n == 0 && !end) continue;
      codec->SendBody(s->id, s->out, n, end);
      s->end_sent = end;
    }
    codec->Emit(engine ? plain_out : wire_out);
  }
  if (engine) {
    if (!plain_out.empty()) engine->Seal(plain_out, wire_out);
    engine->Pump(wire_out);
  }
  for (int rounds = 0; !wire_out.empty() && rounds < 16; ++rounds) {
    io::IoResult put = io::WriteFrom(fd, wire_out);
    if (put.error) {
      pending_loss = peer + ": " + strerror(put.error);
      return ScheduleAdvance();
    }
    if (!wire_out.empty()) return;  // the next writable edge brings us back
    if (engine && !plain_out.empty()) engine->Seal(plain_out, wire_out);
  }
  if (codec && codec->wants_emit()) ScheduleFlush();
}

GrpcChannel::Impl::Stream* GrpcChannel::Impl::NewStream(const std::string& path, GrpcStreamHandler* handler, uint64_t timeout_ns) {
  if (!is_up || !codec || codec->OpenRoom() == 0) return nullptr;
  auto stream = std::make_unique<Stream>(this, handler);
  Stream* s = stream.get();
  s->in.owner = s;
  s->id = codec->Open(&s->in);
  if (s->id <= 0) return nullptr;
  http::HeaderMap head;
  head.Add(http::Token::kMethod, "POST");
  head.Add(http::Token::kScheme, engine ? "https" : "http");
  head.Add(http::Token::kAuthority, options.authority.empty() ? "localhost" : options.authority);
  head.Add(http::Token::kPath, path);
  head.Add(http::Token::kTe, "trailers");
  head.Add(http::Token::kContentType, "application/grpc");
  head.Add(http::Token::kUserAgent, "weft-sidecar");
  if (timeout_ns) head.Add(http::Token::kGrpcTimeout, std::to_string(std::max<uint64_t>(1, timeout_ns / 1'000'000)) + "m");
  for (const auto& [name, value] : options.metadata) head.Add(name, value);
  codec->SendHead(s->id, head, false);
  if (timeout_ns) loop->Arm(&s->deadline, timeout_ns);
  streams.push_back(std::move(stream));
  ScheduleFlush();
  return s;
}

GrpcChannel::GrpcChannel(io::Loop* loop, Options options) : impl_(std::make_unique<Impl>(loop, std::move(options))) {}
GrpcChannel::~GrpcChannel() { Stop(); }

void GrpcChannel::Start(StateFn on_state) {
  impl_->on_state = std::move(on_state);
  impl_->started = true;
  impl_->loop->Arm(&impl_->backoff_timer, 0);
}

void GrpcChannel::Stop() {
  impl_->started = false;
  impl_->on_state = nullptr;
  for (auto& s : impl_->streams) s->dead = true, s->handler = nullptr, s->done = nullptr, s->deadline.Cancel();
  impl_->Drop();
}

void GrpcChannel::SetTls(std::shared_ptr<const tls::Context> tls) { impl_->options.tls = std::move(tls); }
void GrpcChannel::SetAddresses(std::vector<std::string> addresses) {
  if (addresses == impl_->options.addresses) return;
  impl_->options.addresses = std::move(addresses);
  // What the last tries failed at is not what the next one meets.
  impl_->attempt = 0;
  if (impl_->started && impl_->fd < 0) impl_->loop->Arm(&impl_->backoff_timer, 0);
}
void GrpcChannel::Reconnect(const std::string& why) {
  if (impl_->fd < 0) return;
  impl_->pending_loss = why;
  impl_->ScheduleAdvance();
}
bool GrpcChannel::up() const { return impl_->is_up; }

GrpcStream* GrpcChannel::Open(const std::string& path, GrpcStreamHandler* handler) { return impl_->NewStream(path, handler, 0); }

void GrpcChannel::Call(const std::string& path, std::string_view request, uint64_t timeout_ns, CallFn done) {
  Impl::Stream* s = impl_->calls < impl_->options.max_calls ? impl_->NewStream(path, nullptr, timeout_ns) : nullptr;
  if (!s) {
    // Never from inside the call.
    impl_->loop->Post([done = std::move(done), why = impl_->error] {
      done({kGrpcUnavailable, why.empty() ? "not connected" : why}, {});
    });
    return;
  }
  ++impl_->calls;
  s->done = std::move(done);
  s->Send(request);
  s->HalfClose();
}

const std::string& GrpcChannel::last_error() const { return impl_->error; }
std::string GrpcChannel::peer_address() const { return impl_->peer; }
uint64_t GrpcChannel::connects() const { return impl_->connect_count; }
uint64_t GrpcChannel::failures() const { return impl_->failure_count; }

}  // namespace weft::xds
