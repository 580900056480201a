// The DNS listener (Envoy's envoy.filters.udp.dns_filter): answers mesh names from an inline table, forwards the rest.
//
//   auto s = Server::Create(&loop, config, {address}, {.mark = 0x539});
//
// For each address a UDP socket and a TCP listener on the same port. Bind exact addresses: a wildcard socket would
// answer from another address than the one asked (127.0.0.1 and ::1 in the mesh).
// Answers: a table name gets its A or AAAA records, and an empty NOERROR for types it does not have (AAAA of a name with
// only IPv4 addresses must not be NXDOMAIN, or resolvers give up on the name). "*.suffix" matches below the suffix,
// exact names first, longest suffix next. Names under known_suffixes that the table lacks are NXDOMAIN. Everything else
// goes to the resolvers when `forward` is set (whole packets, TCP for TCP), NXDOMAIN otherwise; SERVFAIL when they are
// silent or max_pending_lookups is reached.
// Bounds: 64 TCP connections, 16 questions each in flight, 10 s idle. Threads: the loop's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/base/stats.h"
#include "sidecar/dns/forward.h"
#include "sidecar/dns/wire.h"
#include "sidecar/io/loop.h"
#include "sidecar/io/socket.h"
#include "sidecar/model/listener.h"

namespace weft::dns {

struct ServerOptions {
  uint32_t mark = 0;                               // SO_MARK of forwarded questions
  std::string resolv_conf = "/etc/resolv.conf";    // for `forward` without resolvers
};

class Server {
 public:
  // Errors: an address cannot be bound. When only its TCP port is taken, UDP serves alone and a warning is logged.
  static base::Result<std::unique_ptr<Server>> Create(io::Loop* loop, const model::DnsFilter& config,
                                                      const std::vector<model::Address>& addresses, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;

  // A new table, between two turns; lookups on their way are answered by the old resolvers if those still answer.
  void Update(const model::DnsFilter& config);

  // Where it listens (port 0 asked for an ephemeral one).
  const std::vector<model::Address>& addresses() const { return addresses_; }

  // Names as in Envoy where it has them (dns_filter.<prefix>.<name>).
#define WEFT_DNS_COUNTERS(X)                                                                                          \
  X(downstream_rx_queries) X(downstream_rx_errors) X(downstream_rx_invalid_queries) X(downstream_tx_responses)        \
  X(a_record_queries) X(aaaa_record_queries) X(unsupported_queries) X(known_domain_queries) X(local_a_record_answers) \
  X(local_aaaa_record_answers) X(local_empty_answers) X(local_nxdomain_answers) X(external_queries)                   \
  X(external_answers) X(external_unanswered) X(external_overflow) X(tcp_connections) X(tcp_connections_refused)
  enum Counter {
#define WEFT_X(name) name,
    WEFT_DNS_COUNTERS(WEFT_X)
#undef WEFT_X
        kCounters
  };
  uint64_t count(Counter c) const { return counts_[c]; }

 private:
  struct Udp;
  struct TcpListener;
  struct Tcp;
  struct Table;
  // Whom to answer: a datagram's sender or a TCP connection (looked up: it may be gone).
  struct Client {
    Udp* udp = nullptr;
    io::SockAddr peer;
    uint64_t tcp = 0;
  };

  Server(io::Loop* loop, ServerOptions options);
  base::Status Bind(const model::Address& address);
  void Handle(std::string_view packet, const Client& client);
  void Forward(const Query& query, std::string_view packet, const Client& client);
  void Reply(const Client& client, std::string packet);
  void Accept(TcpListener* listener);
  void Count(Counter c) {
    ++counts_[c];
    base::Cells::Local().Add(stats_[c]);
  }

  io::Loop* loop_;
  ServerOptions options_;
  std::vector<model::Address> addresses_;
  std::vector<std::unique_ptr<Udp>> udp_;
  std::vector<std::unique_ptr<TcpListener>> listeners_;
  std::map<uint64_t, std::unique_ptr<Tcp>> tcp_;
  uint64_t next_tcp_ = 0;
  std::unique_ptr<Table> table_;
  std::shared_ptr<Forwarder> forwarder_;                // null: not forwarding
  std::vector<std::shared_ptr<Forwarder>> draining_;    // of earlier tables, until their answers are in
  std::array<uint64_t, kCounters> counts_{};
  std::array<base::StatId, kCounters> stats_{};
  std::string stat_prefix_;
  uint64_t rotation_ = 0;
};

// The nameserver lines of a resolv.conf, port 53, at most 8.
std::vector<model::Address> NameServers(const std::string& resolv_conf_path);

}  // namespace weft::dns
