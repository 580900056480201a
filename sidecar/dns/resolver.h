// Names to addresses for STRICT_DNS clusters and the bootstrap: /etc/hosts, then the name servers, without blocking.
//
//   Resolver r(&loop, {});
//   uint64_t ticket = r.Resolve("api.example.org", Resolver::kAuto, [](const Resolver::Answer& a) { ... });
//
// IP literals and "localhost" are answered without asking. Search domains and ndots of resolv.conf apply. Truncated
// answers are asked again over TCP. done runs once, in a later turn, and not after Cancel() or destruction; it may call
// Resolve and Cancel. Threads: the loop's. Bounded: max_pending lookups, then Resolve answers "too many lookups".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/dns/forward.h"
#include "sidecar/dns/wire.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/address.h"

namespace weft::dns {

struct ResolverOptions {
  std::vector<model::Address> servers;             // empty: from resolv_conf
  std::string resolv_conf = "/etc/resolv.conf";
  std::string hosts = "/etc/hosts";                // read again when it changes
  uint32_t mark = 0;
  uint64_t attempt_timeout_ns = 2 * base::kSecond;
  size_t max_pending = 1024;
};

class Resolver {
 public:
  // As Envoy's dns_lookup_family: kAuto takes IPv6 addresses when there are any, kV4Preferred IPv4 ones, kAll both.
  enum Family { kAuto, kV4Only, kV6Only, kV4Preferred, kAll };
  struct Answer {
    std::vector<model::Ip> addresses;  // empty: see error
    uint32_t ttl_s = 0;
    bool not_found = false;            // the name or its addresses do not exist (against: nobody could tell)
    std::string error;
  };
  using Done = std::function<void(const Answer&)>;

  Resolver(io::Loop* loop, ResolverOptions options);
  ~Resolver();
  Resolver(const Resolver&) = delete;

  uint64_t Resolve(const std::string& name, Family family, Done done);
  void Cancel(uint64_t ticket);
  size_t pending() const { return lookups_.size(); }

 private:
  struct Lookup;
  void ReadHosts();
  void Start(Lookup* l);
  void Ask(Lookup* l, bool six, bool tcp);
  void OnAnswer(uint64_t ticket, bool six, bool tcp, std::string_view response);
  void Finish(Lookup* l);

  io::Loop* loop_;
  ResolverOptions options_;
  std::vector<std::string> search_;
  int ndots_ = 1;
  std::unique_ptr<Forwarder> forwarder_;
  std::unordered_map<std::string, std::vector<model::Ip>> hosts_;
  int64_t hosts_version_ = -1;
  std::map<uint64_t, std::unique_ptr<Lookup>> lookups_;
  uint64_t next_ticket_ = 0;
};

}  // namespace weft::dns
