// Test support: a client codec and a server codec joined by buffers, and a host that keeps every Inbound.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "sidecar/codec/codec.h"

namespace weft::codec::testing {

using http::HeaderMap;
using http::Token;

struct Host : StreamHost {
  Inbound* OnNewStream(StreamId id) override {
    if (refuse) return nullptr;
    auto& p = streams[id];
    p = std::make_unique<Inbound>();
    last = id;
    return p.get();
  }
  Inbound& at(StreamId id) { return *streams.at(id); }
  std::map<StreamId, std::unique_ptr<Inbound>> streams;
  StreamId last = 0;
  bool refuse = false;
};

inline HeaderMap Head(std::initializer_list<std::pair<const char*, std::string>> fields) {
  HeaderMap h;
  for (const auto& [n, v] : fields) h.Add(n, v);
  return h;
}

inline std::string Take(io::Buffer& b) {
  std::string s = b.ToString();
  b.Clear();
  return s;
}

// Feeds text in pieces of at most step bytes.
inline bool FeedText(Codec& c, std::string_view text, size_t step, io::Buffer& in) {
  bool ok = true;
  for (size_t i = 0; i < text.size() && ok; i += step) {
    in.Append(text.substr(i, step));
    ok = c.Feed(in);
  }
  return ok;
}

struct Pair {
  std::unique_ptr<Codec> client, server;
  Host host;
  io::Buffer to_server, to_client;
  size_t step = 1 << 20;  // bytes delivered at once
  bool client_ok = true, server_ok = true;
  uint64_t wire_bytes = 0;

  static size_t Deliver(Codec& from, Codec& to, io::Buffer& wire, size_t step, bool& ok) {
    io::Buffer out;
    from.Emit(out);
    const size_t n = out.size();
    while (!out.empty() && ok) {
      wire.Move(out, std::min(step, out.size()));
      ok = to.Feed(wire);
    }
    if (n == 0 && !wire.empty() && ok) {
      const size_t before = wire.size();
      ok = to.Feed(wire);
      return before - wire.size();
    }
    return n;
  }
  // Until nothing moves any more.
  void Run() {
    for (int i = 0; i < 10000; ++i) {
      size_t n = Deliver(*client, *server, to_server, step, server_ok);
      n += Deliver(*server, *client, to_client, step, client_ok);
      wire_bytes += n;
      if (n == 0) return;
    }
  }
};

}  // namespace weft::codec::testing
