#include "sidecar/codec/fuzz.h"

#include <map>
#include <memory>
#include <string>

#include "sidecar/base/check.h"
#include "sidecar/codec/codec.h"
#include "sidecar/codec/grpc.h"

namespace weft::codec {
namespace {

using http::Token;

// Everything a peer got us to see, as text that must not depend on how its bytes were cut.
struct Log : StreamHost {
  struct Seen {
    Inbound in;
    std::string body;
    uint16_t before = 0;
    bool released = false;
  };
  std::map<StreamId, std::unique_ptr<Seen>> streams;
  Inbound* OnNewStream(StreamId id) override {
    auto& p = streams[id];
    WEFT_CHECK(!p, "stream opened twice");
    p = std::make_unique<Seen>();
    p->in.owner = p.get();
    return &p->in;
  }
  std::string Text() const {
    std::string s;
    for (const auto& [id, p] : streams) {
      const Inbound& i = p->in;
      s += std::to_string(id) + " bits " + std::to_string(i.bits) + " status " + std::to_string(i.error_status) + " " + i.error_detail + "\n";
      if (i.bits & Inbound::kHead) s += i.head.ToString();
      s += p->body + "\n" + i.trailers.ToString();
    }
    return s;
  }
};

void CheckMap(const http::HeaderMap& map) {
  for (const auto& e : map) {
    WEFT_CHECK(!e.name().empty(), "empty name");
    for (const char c : e.name()) WEFT_CHECK(static_cast<uint8_t>(c) > 0x20 && !(c >= 'A' && c <= 'Z'), "name ", e.name());
    for (const char c : e.value()) WEFT_CHECK(c != '\r' && c != '\n' && c != 0, "value of ", e.name());
  }
}

// Answers complete requests and drains bodies; runs until nothing changes.
void Serve(Codec& c, Log& log, const Limits& limits, io::Buffer& in, size_t max_body) {
  http::HeaderMap answer;
  answer.Add(Token::kStatus, "200");
  io::Buffer out;
  for (bool moved = true; moved;) {
    moved = false;
    for (auto& [id, p] : log.streams) {
      if (p->released) continue;
      Inbound& i = p->in;
      WEFT_CHECK((p->before & i.bits) == p->before, "bits went away");
      p->before = i.bits;
      WEFT_CHECK(i.body.size() <= max_body, "body of ", i.body.size());
      CheckMap(i.head), CheckMap(i.trailers);
      if (!i.body.empty()) {
        const size_t n = i.body.size();
        p->body += i.body.ToString();
        i.body.Clear();
        c.Consumed(id, n);
        moved = true;
      }
      if (i.bits & (Inbound::kReset | Inbound::kMalformed)) {
        c.Reset(id, ResetCode::kCancel);
        p->released = moved = true;
      } else if ((i.bits & Inbound::kHead) && (i.bits & Inbound::kEnd)) {
        c.SendHead(id, answer, true);
        c.Release(id);
        p->released = moved = true;
      }
    }
    c.ready().clear(), c.writable().clear();
    const size_t before = in.size();
    if (!c.closed()) c.Feed(in);
    moved |= in.size() != before;
    c.Emit(out);
    out.Clear();
  }
  (void)limits;
}

enum class Role { kHttp1Server, kHttp1Client, kHttp2Server, kHttp2Client };

std::string Run(Role role, std::string_view bytes, uint32_t cut) {
  Limits limits;
  limits.max_buffered_per_stream = 4096;
  limits.accept_http_10 = true;
  limits.allow_connect_protocol = true;
  base::ManualClock clock;
  Log log;
  std::unique_ptr<Codec> c;
  const bool h2 = role == Role::kHttp2Server || role == Role::kHttp2Client;
  size_t max_body = h2 ? limits.stream_window : limits.max_buffered_per_stream;
  io::Buffer in;
  const std::string_view settings("\0\0\0\4\0\0\0\0\0", 9);
  switch (role) {
    case Role::kHttp1Server: c = NewHttp1Server(limits, &log); break;
    case Role::kHttp1Client: c = NewHttp1Client(limits); break;
    case Role::kHttp2Server:
      c = NewHttp2Server(limits, &log, &clock);
      in.Append("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
      in.Append(settings);
      break;
    case Role::kHttp2Client:
      c = NewHttp2Client(limits, &clock);
      in.Append(settings);
      break;
  }
  if (role == Role::kHttp1Client || role == Role::kHttp2Client) {
    Inbound* r = log.OnNewStream(1);
    const StreamId id = c->Open(r);
    WEFT_CHECK(id == 1, "open");
    http::HeaderMap head;
    head.Add(Token::kMethod, "GET"), head.Add(Token::kScheme, "http"), head.Add(Token::kAuthority, "a"), head.Add(Token::kPath, "/");
    c->SendHead(id, head, true);
  }
  if (!in.empty()) c->Feed(in);
  // cut 0: all at once; else pieces of pseudo-random lengths.
  while (!bytes.empty()) {
    size_t n = bytes.size();
    if (cut != 0) {
      cut = cut * 1664525u + 1013904223u;
      n = std::min<size_t>(n, 1 + (cut >> 16) % 7);
    }
    in.Append(bytes.substr(0, n));
    bytes.remove_prefix(n);
    if (!c->closed()) c->Feed(in);
    if (role == Role::kHttp1Client) {  // released only at the end: what follows an answer matters
      for (auto& [id, p] : log.streams) p->body += p->in.body.ToString(), p->in.body.Clear();
      while (!in.empty() && !c->closed()) {
        const size_t before = in.size();
        c->Feed(in);
        for (auto& [id, p] : log.streams) p->body += p->in.body.ToString(), p->in.body.Clear();
        if (in.size() == before) break;
      }
    } else {
      Serve(*c, log, limits, in, max_body);
    }
  }
  c->FeedEof();
  for (auto& [id, p] : log.streams) {
    CheckMap(p->in.head), CheckMap(p->in.trailers);
    if (!p->released) c->Reset(id, ResetCode::kCancel);
  }
  WEFT_CHECK(c->ready().empty() && c->writable().empty(), "a released stream is still listed");
  io::Buffer out;
  c->Emit(out);
  return log.Text();
}

int Check(Role role, const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string whole = Run(role, bytes, 0);
  const uint32_t seed = static_cast<uint32_t>(size * 2654435761u) | 1;
  for (uint32_t i = 0; i < 2; ++i) {
    const std::string pieces = Run(role, bytes, seed + i * 2);
    // HTTP/1 must not care at all. HTTP/2 answers between pieces, which may reset what a whole delivery completed.
    if (role == Role::kHttp1Server || role == Role::kHttp1Client) WEFT_CHECK(whole == pieces, "cuts matter:\n", whole, "---\n", pieces);
  }
  return 0;
}

}  // namespace

int FuzzHttp1Server(const uint8_t* data, size_t size) { return Check(Role::kHttp1Server, data, size); }
int FuzzHttp1Client(const uint8_t* data, size_t size) { return Check(Role::kHttp1Client, data, size); }
int FuzzHttp2Server(const uint8_t* data, size_t size) { return Check(Role::kHttp2Server, data, size); }
int FuzzHttp2Client(const uint8_t* data, size_t size) { return Check(Role::kHttp2Client, data, size); }

int FuzzGrpcReader(const uint8_t* data, size_t size) {
  GrpcReader reader(4096);
  io::Buffer in, message;
  for (size_t i = 0; i < size; i += 3) {
    in.Append(std::string_view(reinterpret_cast<const char*>(data) + i, std::min<size_t>(3, size - i)));
    GrpcReader::Result r;
    while ((r = reader.Next(in, message)) == GrpcReader::Result::kMessage) WEFT_CHECK(message.size() <= 4096, "message");
    if (r != GrpcReader::Result::kMore) return 0;
  }
  return 0;
}

}  // namespace weft::codec
