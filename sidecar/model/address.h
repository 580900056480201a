// Addresses as values: IPs, prefixes, socket and pipe addresses. No I/O, no name resolution.
//
//   auto a = Address::FromIp("10.0.0.1", 80);   // Result
//   a->ToString()                               // "10.0.0.1:80", "[::1]:80", "/run/x.sock", "name:80"
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sidecar/base/result.h"

struct sockaddr_storage;

namespace weft::model {

struct Ip {
  uint8_t family = 0;                 // 4, 6, or 0: none
  std::array<uint8_t, 16> bytes{};    // network order; the first 4 for IPv4

  static std::optional<Ip> Parse(std::string_view text);
  std::string ToString() const;
  void AppendTo(std::string* out) const;
  bool is_loopback() const;
  bool is_any() const;
  auto operator<=>(const Ip&) const = default;
};

struct Cidr {
  Ip ip;             // host bits are zero
  uint8_t bits = 0;  // prefix length, 0..32 or 0..128

  static base::Result<Cidr> Make(std::string_view address, uint32_t bits);
  static Cidr Of(const Ip& ip, uint8_t bits);  // bits must fit the family
  bool Contains(const Ip& ip) const;  // an IPv4-mapped IPv6 address counts as IPv4
  std::string ToString() const;
  bool operator==(const Cidr&) const = default;
};

// Where a socket binds or connects.
struct Address {
  enum Kind : uint8_t { kNone, kIp, kPipe, kName } kind = kNone;  // kName: a host name to resolve (STRICT_DNS)
  Ip ip;
  uint16_t port = 0;
  bool udp = false;
  std::string text;        // path of a pipe, or the host name
  uint32_t pipe_mode = 0;  // kPipe: chmod of the socket file, 0: by umask

  static base::Result<Address> FromIp(std::string_view ip, uint32_t port);
  static Address FromIp(const Ip& ip, uint16_t port);
  static Address Name(std::string host, uint16_t port);
  static Address Pipe(std::string path);
  static Address FromSockaddr(const sockaddr_storage& from);
  // Fills a sockaddr for kIp and kPipe; returns its length, 0 when there is none.
  uint32_t ToSockaddr(sockaddr_storage* to) const;
  std::string ToString() const;
  void AppendTo(std::string* out) const;  // the same text, without an allocation where *out has room
  std::string WithoutPort() const;        // "10.0.0.1", "::1", "/run/x.sock", "name"
  bool operator==(const Address&) const = default;
};

// The address of one end of an IP connection, packed: what thousands of idle connections remember. Anything else is "none".
struct IpPort {
  Ip ip;
  uint16_t port = 0;

  static IpPort Of(const Address& a) { return a.kind == Address::kIp ? IpPort{a.ip, a.port} : IpPort{}; }
  Address ToAddress() const { return ip.family ? Address::FromIp(ip, port) : Address(); }
};

}  // namespace weft::model
