// Asks name servers: UDP with message ids of our own, time-outs and fail-over to the next server, TCP when asked to.
//
//   Forwarder f(&loop, {.servers = {...}});
//   uint64_t ticket = f.Ask(packet, false, [](std::string_view response) { ... });   // 0: table full or no server
//
// The response carries the id of the packet asked with; an empty one means nobody answered. Answers are matched by
// server, random id and question. Bounded by max_pending. Threads: the loop's. done runs once, never inside Ask, and
// not after Cancel or destruction.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sidecar/io/loop.h"
#include "sidecar/io/socket.h"
#include "sidecar/model/address.h"

namespace weft::dns {

struct ForwardOptions {
  std::vector<model::Address> servers;
  uint32_t mark = 0;                                // SO_MARK of our sockets
  uint64_t attempt_timeout_ns = 2 * base::kSecond;  // then the next server
  int attempts = 2;
  size_t max_pending = 256;
};

class Forwarder {
 public:
  using Done = std::function<void(std::string_view response)>;

  Forwarder(io::Loop* loop, ForwardOptions options);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;

  uint64_t Ask(std::string packet, bool tcp, Done done);
  void Cancel(uint64_t ticket);
  size_t pending() const { return pending_.size(); }
  struct Counters { uint64_t asked = 0, answered = 0, timeouts = 0, overflows = 0, stray = 0, socket_errors = 0; };
  const Counters& counters() const { return counters_; }

 private:
  struct Server;
  struct Pending;
  void Send(Pending* p);
  void SendTcp(Pending* p);
  void Break(Pending* p);
  void Retry(Pending* p);
  void OnUdp(Server* server);
  void OnTcp(Pending* p, uint32_t events);
  void Finish(Pending* p, std::string_view response);

  io::Loop* loop_;
  ForwardOptions options_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::unordered_map<uint16_t, std::unique_ptr<Pending>> pending_;  // by the id on the wire
  uint64_t next_ticket_ = 0;
  Counters counters_;
};

}  // namespace weft::dns
