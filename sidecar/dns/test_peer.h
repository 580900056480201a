// Test helpers: running a loop until something holds, a scripted name server, a blocking-style client.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "sidecar/dns/wire.h"
#include "sidecar/io/loop.h"
#include "sidecar/io/socket.h"

namespace weft::dns {

inline bool RunUntil(io::Loop& loop, const std::function<bool()>& done) {
  for (int i = 0; i < 2000; ++i) {
    if (done()) return true;
    loop.RunOnce(50 * base::kMs);
  }
  return false;
}

// Answers each UDP question (and TCP question on the same port) with what `script` returns; empty: silence.
class FakeServer : public io::Handler {
 public:
  using Script = std::function<std::string(const Query&, std::string_view packet, bool tcp)>;
  FakeServer(io::Loop* loop, Script script) : loop_(loop), script_(std::move(script)) {
    for (int i = 0; i < 20 && !listener_; ++i) {
      udp_ = io::Fd(io::BindUdp(io::SockAddr::Loopback(0)));
      listener_ = io::Fd(std::max(-1, io::Listen(io::LocalAddress(udp_.get()), {})));
    }
    address = *model::Address::FromIp("127.0.0.1", io::LocalAddress(udp_.get()).port());
    loop_->Watch(udp_.get(), this);
    loop_->WatchAccept(listener_.get(), &acceptor_);
    acceptor_.self = this;
  }
  ~FakeServer() {
    loop_->Unwatch(udp_.get(), this);
    loop_->Unwatch(listener_.get(), &acceptor_);
    for (auto& c : conns_) loop_->Unwatch(c->fd.get(), c.get());
  }
  void OnReady(uint32_t) override {
    char buf[4096];
    io::SockAddr peer;
    for (;;) {
      peer.length = sizeof peer.storage;
      ssize_t n = recvfrom(udp_.get(), buf, sizeof buf, 0, reinterpret_cast<sockaddr*>(&peer.storage), &peer.length);
      if (n < 0) return;
      std::string out = Answer({buf, static_cast<size_t>(n)}, false);
      if (!out.empty()) sendto(udp_.get(), out.data(), out.size(), 0, peer.get(), peer.length);
    }
  }
  model::Address address;
  int questions = 0;

 private:
  struct Acceptor : io::Handler {
    void OnReady(uint32_t) override {
      io::SockAddr peer;
      int fd = io::Accept(self->listener_.get(), &peer);
      if (fd < 0) return;
      auto c = std::make_unique<Conn>();
      c->self = self, c->fd = io::Fd(fd);
      self->loop_->Watch(fd, c.get());
      self->conns_.push_back(std::move(c));
    }
    FakeServer* self = nullptr;
  };
  struct Conn : io::Handler {
    void OnReady(uint32_t) override {
      io::ReadInto(fd.get(), in, 65536, true);
      while (in.size() >= 2) {
        std::string all = in.ToString();
        size_t n = static_cast<size_t>(static_cast<uint8_t>(all[0])) << 8 | static_cast<uint8_t>(all[1]);
        if (all.size() < n + 2) return;
        in.Consume(n + 2);
        std::string out = self->Answer(std::string_view(all).substr(2, n), true);
        if (out.empty()) continue;
        io::Buffer b;
        b.Append(std::string{static_cast<char>(out.size() >> 8), static_cast<char>(out.size())} + out);
        io::WriteFrom(fd.get(), b);
      }
    }
    FakeServer* self = nullptr;
    io::Fd fd;
    io::Buffer in;
  };
  std::string Answer(std::string_view packet, bool tcp) {
    ++questions;
    Query q;
    EXPECT_EQ(ParseQuery(packet, &q), QueryVerdict::kOk);
    return script_(q, packet, tcp);
  }
  io::Loop* loop_;
  Script script_;
  io::Fd udp_, listener_;
  Acceptor acceptor_;
  std::vector<std::unique_ptr<Conn>> conns_;
};

inline model::Ip MakeIp(std::string_view s) { return *model::Ip::Parse(s); }

}  // namespace weft::dns
