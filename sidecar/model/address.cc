#include "sidecar/model/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <charconv>
#include <cstddef>
#include <cstring>

namespace weft::model {
namespace {

// An IPv4-mapped IPv6 address as the IPv4 one it stands for.
Ip Unmapped(const Ip& ip) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (ip.family != 6 || memcmp(ip.bytes.data(), kMapped, 12) != 0) return ip;
  Ip v4{.family = 4};
  memcpy(v4.bytes.data(), ip.bytes.data() + 12, 4);
  return v4;
}

bool SamePrefix(const Ip& a, const Ip& b, int bits) {
  int whole = bits / 8, rest = bits % 8;
  if (memcmp(a.bytes.data(), b.bytes.data(), static_cast<size_t>(whole)) != 0) return false;
  if (rest == 0) return true;
  auto mask = static_cast<uint8_t>(0xff << (8 - rest));
  auto at = static_cast<size_t>(whole);
  return (a.bytes[at] & mask) == (b.bytes[at] & mask);
}

}  // namespace

std::optional<Ip> Ip::Parse(std::string_view text) {
  char buf[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof buf || text.find('\0') != std::string_view::npos) return std::nullopt;  // inet_pton would stop there
  memcpy(buf, text.data(), text.size());
  buf[text.size()] = 0;
  Ip ip;
  if (inet_pton(AF_INET, buf, ip.bytes.data()) == 1) return ip.family = 4, ip;
  if (inet_pton(AF_INET6, buf, ip.bytes.data()) == 1) return ip.family = 6, ip;
  return std::nullopt;
}

std::string Ip::ToString() const {
  std::string s;
  return AppendTo(&s), s;
}

void Ip::AppendTo(std::string* out) const {
  char buf[INET6_ADDRSTRLEN];
  if (family == 6) out->append(inet_ntop(AF_INET6, bytes.data(), buf, sizeof buf));
  if (family != 4) return;
  // By hand, for every request's record has three of them and the library prints by format.
  char* p = buf;
  for (int i = 0; i < 4; ++i) {
    if (i) *p++ = '.';
    p = std::to_chars(p, buf + sizeof buf, bytes[i]).ptr;
  }
  out->append(buf, p);
}

bool Ip::is_loopback() const {
  Ip ip = Unmapped(*this);
  if (ip.family == 4) return ip.bytes[0] == 127;
  static constexpr std::array<uint8_t, 16> kOne = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return ip.family == 6 && ip.bytes == kOne;
}

bool Ip::is_any() const { return bytes == std::array<uint8_t, 16>{}; }

base::Result<Cidr> Cidr::Make(std::string_view address, uint32_t bits) {
  auto ip = Ip::Parse(address);
  if (!ip) return base::Error("\"" + std::string(address) + "\" is not an IP address").In("address_prefix");
  uint32_t max = ip->family == 4 ? 32 : 128;
  if (bits > max) return base::Error("prefix length " + std::to_string(bits) + " is out of range").In("prefix_len");
  return Of(*ip, static_cast<uint8_t>(bits));
}

Cidr Cidr::Of(const Ip& ip, uint8_t bits) {
  Cidr c{.ip = ip, .bits = bits};
  for (size_t i = 0; i < 16; ++i) {
    int keep = static_cast<int>(bits) - static_cast<int>(i) * 8;
    if (keep <= 0) c.ip.bytes[i] = 0;
    else if (keep < 8) c.ip.bytes[i] &= static_cast<uint8_t>(0xff << (8 - keep));
  }
  return c;
}

bool Cidr::Contains(const Ip& address) const {
  Ip a = address.family == ip.family ? address : Unmapped(address);
  return a.family == ip.family && a.family != 0 && SamePrefix(a, ip, bits);
}

std::string Cidr::ToString() const { return ip.ToString() + "/" + std::to_string(bits); }

base::Result<Address> Address::FromIp(std::string_view text, uint32_t port) {
  auto ip = Ip::Parse(text);
  if (!ip) return base::Error("\"" + std::string(text) + "\" is not an IP address").In("address");
  if (port > 65535) return base::Error("port " + std::to_string(port) + " is out of range").In("port_value");
  return FromIp(*ip, static_cast<uint16_t>(port));
}
Address Address::FromIp(const Ip& ip, uint16_t port) {
  Address a;
  a.kind = kIp, a.ip = ip, a.port = port;
  return a;
}
Address Address::Name(std::string host, uint16_t port) {
  Address a;
  a.kind = kName, a.text = std::move(host), a.port = port;
  return a;
}
Address Address::Pipe(std::string path) {
  Address a;
  a.kind = kPipe, a.text = std::move(path);
  return a;
}

Address Address::FromSockaddr(const sockaddr_storage& from) {
  Address a;
  if (from.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(from);
    a.kind = kIp, a.ip.family = 4, a.port = ntohs(in.sin_port);
    memcpy(a.ip.bytes.data(), &in.sin_addr, 4);
  } else if (from.ss_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(from);
    a.kind = kIp, a.ip.family = 6, a.port = ntohs(in.sin6_port);
    memcpy(a.ip.bytes.data(), &in.sin6_addr, 16);
    a.ip = Unmapped(a.ip);
  } else if (from.ss_family == AF_UNIX) {
    const auto& un = reinterpret_cast<const sockaddr_un&>(from);
    a.kind = kPipe, a.text.assign(un.sun_path, strnlen(un.sun_path, sizeof un.sun_path));
  }
  return a;
}

uint32_t Address::ToSockaddr(sockaddr_storage* to) const {
  memset(to, 0, sizeof *to);
  if (kind == kPipe) {
    auto* un = reinterpret_cast<sockaddr_un*>(to);
    if (text.size() >= sizeof un->sun_path) return 0;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, text.data(), text.size());
    // "@name" is Linux's abstract name space, as in Envoy.
    if (!text.empty() && text[0] == '@') un->sun_path[0] = 0;
    return static_cast<uint32_t>(offsetof(sockaddr_un, sun_path) + text.size() + (text.empty() || text[0] != '@' ? 1 : 0));
  }
  if (kind != kIp) return 0;
  if (ip.family == 4) {
    auto* in = reinterpret_cast<sockaddr_in*>(to);
    in->sin_family = AF_INET, in->sin_port = htons(port);
    memcpy(&in->sin_addr, ip.bytes.data(), 4);
    return sizeof *in;
  }
  auto* in = reinterpret_cast<sockaddr_in6*>(to);
  in->sin6_family = AF_INET6, in->sin6_port = htons(port);
  memcpy(&in->sin6_addr, ip.bytes.data(), 16);
  return sizeof *in;
}

std::string Address::ToString() const {
  std::string s;
  return AppendTo(&s), s;
}

std::string Address::WithoutPort() const { return kind == kIp ? ip.ToString() : text; }

void Address::AppendTo(std::string* out) const {
  const bool brackets = kind == kIp && ip.family == 6;
  if (brackets) *out += '[';
  if (kind == kIp) ip.AppendTo(out);
  else *out += text;
  if (brackets) *out += ']';
  if (kind != kIp && kind != kName) return;
  char buf[6] = {':'};
  out->append(buf, std::to_chars(buf + 1, buf + sizeof buf, port).ptr);
}

}  // namespace weft::model
