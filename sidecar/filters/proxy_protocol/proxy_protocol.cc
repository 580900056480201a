#include "sidecar/filters/proxy_protocol/proxy_protocol.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>

namespace weft::filters {
namespace {

using model::Address;

constexpr std::string_view kV1{"PROXY "}, kV2{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr size_t kV1Most = 107, kV2Fixed = 16;
constexpr uint8_t kLocal = 0x20, kProxy = 0x21;                       // version and command
constexpr uint8_t kUnspecified = 0x00, kTcp4 = 0x11, kTcp6 = 0x21, kUnixStream = 0x31;  // family and transport
constexpr size_t kUnixAddresses = 216;
constexpr uint8_t kNoop = 0x04;

Verdict Reject(ProxyHeader* h, const char* error) {
  h->error = error;
  return Verdict::kReject;
}

std::string_view Word(std::string_view& line) {
  const size_t space = line.find(' ');
  std::string_view word = line.substr(0, space);
  line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  return word;
}

std::optional<uint16_t> Port(std::string_view text) {
  uint16_t port = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  // The specification has no leading zeros.
  if (error != std::errc() || end != text.data() + text.size() || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  return port;
}

// "TCP4 10.0.0.1 10.0.0.2 1234 80"
Verdict ReadLine(std::string_view line, ProxyHeader* h) {
  const std::string_view protocol = Word(line);
  if (protocol == "UNKNOWN") return Verdict::kFound;  // whatever follows is not looked at
  const uint8_t family = protocol == "TCP4" ? 4 : protocol == "TCP6" ? 6 : 0;
  if (!family) return Reject(h, "unknown protocol");
  const std::string_view source = Word(line), destination = Word(line), source_port = Word(line);
  const auto from = model::Ip::Parse(source), to = model::Ip::Parse(destination);
  const auto from_port = Port(source_port), to_port = Port(line);
  if (!from || !to || from->family != family || to->family != family) return Reject(h, "malformed address");
  if (!from_port || !to_port) return Reject(h, "malformed port");
  h->known = true;
  h->source = Address::FromIp(*from, *from_port), h->destination = Address::FromIp(*to, *to_port);
  return Verdict::kFound;
}

Verdict ReadV1(const io::Buffer& in, ProxyHeader* h) {
  char text[kV1Most];
  const std::string_view got(text, in.CopyOut(0, text, sizeof text));
  const size_t end = got.find("\r\n");
  if (end == std::string_view::npos) return got.size() < kV1Most ? Verdict::kNeedMore : Reject(h, "line is too long");
  h->size = end + 2;
  return ReadLine(got.substr(kV1.size(), end - kV1.size()), h);
}

uint16_t Number16(std::string_view at) { return static_cast<uint16_t>(static_cast<uint8_t>(at[0]) << 8 | static_cast<uint8_t>(at[1])); }

Address ReadAddress(std::string_view ip, std::string_view port) {
  model::Ip out;
  out.family = ip.size() == 4 ? 4 : 6;
  memcpy(out.bytes.data(), ip.data(), ip.size());
  return Address::FromIp(out, Number16(port));
}

// Calls each(type, whole TLV); false: they do not fill the space exactly.
template <typename Each>
bool ForEachTlv(std::string_view tlvs, Each each) {
  while (!tlvs.empty()) {
    if (tlvs.size() < 3) return false;
    const size_t size = 3 + size_t{Number16(tlvs.substr(1))};
    if (size > tlvs.size()) return false;
    each(static_cast<uint8_t>(tlvs[0]), tlvs.substr(0, size));
    tlvs.remove_prefix(size);
  }
  return true;
}

Verdict ReadV2(const io::Buffer& in, const model::ProxyProtocolFilter& rules, ProxyHeader* h) {
  char fixed[kV2Fixed];
  if (in.CopyOut(0, fixed, sizeof fixed) < sizeof fixed) return Verdict::kNeedMore;
  const uint8_t command = static_cast<uint8_t>(fixed[12]), family = static_cast<uint8_t>(fixed[13]);
  if (command != kLocal && command != kProxy) return Reject(h, "unknown version or command");
  const size_t length = Number16({fixed + 14, 2});
  h->size = kV2Fixed + length;
  if (in.size() < h->size) return Verdict::kNeedMore;
  std::string bytes(length, 0);
  in.CopyOut(kV2Fixed, bytes.data(), length);
  if (command == kLocal) return Verdict::kFound;  // the family must be ignored
  const size_t ip = family == kTcp4 ? 4 : family == kTcp6 ? 16 : 0;
  const size_t addresses = family == kUnspecified ? 0 : family == kUnixStream ? kUnixAddresses : ip * 2 + 4;
  if (!ip && addresses != 0 && family != kUnixStream) return Reject(h, "unsupported protocol");
  if (length < addresses) return Reject(h, "addresses are cut off");
  const std::string_view all = bytes;
  if (ip) {
    h->known = true;
    h->source = ReadAddress(all.substr(0, ip), all.substr(ip * 2, 2));
    h->destination = ReadAddress(all.substr(ip, ip), all.substr(ip * 2 + 2, 2));
  }
  // Without addresses nothing says where TLVs begin that anybody could use.
  if (family == kUnspecified) return Verdict::kFound;
  const bool whole = ForEachTlv(all.substr(addresses), [&](uint8_t type, std::string_view tlv) {
    if (type != kNoop && rules.keep[type]) h->tlvs += tlv;
  });
  return whole ? Verdict::kFound : Reject(h, "malformed TLV");
}

void Put16(std::string& out, size_t n) {
  out += static_cast<char>(n >> 8);
  out += static_cast<char>(n & 0xff);
}

// Both ends in one family: an IPv4 address beside an IPv6 one is written as IPv6 (RFC 4291 2.5.5.2).
model::Ip Mapped(const model::Ip& ip) {
  if (ip.family != 4) return ip;
  model::Ip out;
  out.family = 6;
  out.bytes[10] = out.bytes[11] = 0xff;
  std::copy_n(ip.bytes.begin(), 4, out.bytes.begin() + 12);
  return out;
}

}  // namespace

Verdict ReadProxyHeader(const io::Buffer& in, const model::ProxyProtocolFilter& rules, ProxyHeader* header) {
  *header = {};
  char begin[kV2.size()];
  const std::string_view got(begin, in.CopyOut(0, begin, sizeof begin));
  const auto begins = [&](std::string_view signature) { return got.substr(0, signature.size()) == signature.substr(0, got.size()); };
  // Where a header may be missing, one of a version that is not allowed is not looked for (as in Envoy).
  const bool v1 = begins(kV1) && (rules.v1 || !rules.optional), v2 = begins(kV2) && (rules.v2 || !rules.optional);
  if (!v1 && !v2) return rules.optional ? Verdict::kNo : Reject(header, "no PROXY header");
  if (got.size() < (v1 ? kV1 : kV2).size()) return Verdict::kNeedMore;
  header->version = v1 ? 1 : 2;
  if (!(v1 ? rules.v1 : rules.v2)) return Reject(header, "version is not allowed");
  return v1 ? ReadV1(in, header) : ReadV2(in, rules, header);
}

std::string WriteProxyHeader(const model::ProxyProtocolHeader& config, const Address& source, const Address& destination,
                             std::string_view received) {
  const bool known = source.kind == Address::kIp && destination.kind == Address::kIp;
  model::Ip from = source.ip, to = destination.ip;
  if (known && from.family != to.family) from = Mapped(from), to = Mapped(to);
  if (config.version == 1) {
    if (!known) return "PROXY UNKNOWN\r\n";
    return (from.family == 4 ? "PROXY TCP4 " : "PROXY TCP6 ") + from.ToString() + ' ' + to.ToString() + ' ' + std::to_string(source.port) +
           ' ' + std::to_string(destination.port) + "\r\n";
  }
  std::string body;
  if (known) {
    const size_t n = from.family == 4 ? 4 : 16;
    body.append(reinterpret_cast<const char*>(from.bytes.data()), n).append(reinterpret_cast<const char*>(to.bytes.data()), n);
    Put16(body, source.port), Put16(body, destination.port);
    // What we say ourselves replaces what was said before us.
    for (const auto& [type, value] : config.added) {
      if (body.size() + 3 + value.size() > 65535) break;
      body += static_cast<char>(type);
      Put16(body, value.size());
      body += value;
    }
    ForEachTlv(received, [&](uint8_t type, std::string_view tlv) {
      const bool ours = std::any_of(config.added.begin(), config.added.end(), [&](const auto& a) { return a.first == type; });
      if (config.pass[type] && !ours && body.size() + tlv.size() <= 65535) body += tlv;
    });
  }
  std::string out(kV2);
  out += static_cast<char>(known ? kProxy : kLocal);
  out += static_cast<char>(!known ? kUnspecified : from.family == 4 ? kTcp4 : kTcp6);
  Put16(out, body.size());
  return out + body;
}

}  // namespace weft::filters
