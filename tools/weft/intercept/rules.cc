#include "tools/weft/intercept/rules.h"

#include <arpa/inet.h>

#include <charconv>

namespace weft::intercept {
namespace {

bool ParseNumber(std::string_view s, unsigned max, unsigned& out) {
  auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out);
  return error == std::errc() && end == s.data() + s.size() && !s.empty() && out <= max;
}

bool PortOk(const std::string& s) {
  const size_t dash = s.find('-');
  unsigned low = 0, high = 0;
  if (!ParseNumber(std::string_view(s).substr(0, dash), 65535, low) || low == 0) return false;
  return dash == std::string::npos || (ParseNumber(std::string_view(s).substr(dash + 1), 65535, high) && low <= high);
}

enum class Family { kNone, k4, k6 };

Family CidrFamily(const std::string& s) {
  const size_t slash = s.find('/');
  const std::string address = s.substr(0, slash);
  unsigned char buf[16];
  const Family family = inet_pton(AF_INET, address.c_str(), buf) == 1    ? Family::k4
                        : inet_pton(AF_INET6, address.c_str(), buf) == 1 ? Family::k6
                                                                         : Family::kNone;
  unsigned bits = 0;
  if (slash != std::string::npos && !ParseNumber(std::string_view(s).substr(slash + 1), family == Family::k4 ? 32 : 128, bits)) {
    return Family::kNone;
  }
  return family;
}

std::string Set(const std::vector<std::string>& items) {
  std::string out = "{ ";
  for (size_t i = 0; i < items.size(); i++) out += (i ? ", " : "") + items[i];
  return out + " }";
}

std::string Hex(uint32_t v) {
  char buf[16];
  snprintf(buf, sizeof buf, "0x%x", v);
  return buf;
}

}  // namespace

std::string Check(const Options& o) {
  if (o.outbound_port == 0) return "--outbound-port: must not be 0";
  if (o.inbound_port == 0) return "--inbound-port: must not be 0";
  if (o.mark == 0) return "--mark: must not be 0, or every packet would be exempt";
  for (const auto& p : o.exclude_outbound_ports) {
    if (!PortOk(p)) return "--exclude-outbound-ports: \"" + p + "\" is not a port (1..65535) or a range (8000-8010)";
  }
  for (const auto& p : o.exclude_inbound_ports) {
    if (!PortOk(p)) return "--exclude-inbound-ports: \"" + p + "\" is not a port (1..65535) or a range (8000-8010)";
  }
  for (const auto& c : o.exclude_outbound_cidrs) {
    if (CidrFamily(c) == Family::kNone) return "--exclude-outbound-cidrs: \"" + c + "\" is not an address or CIDR";
  }
  return "";
}

std::string UndoRules() {
  // Adding first makes the deletion succeed whether the table was there or not.
  return "add table inet weft\ndelete table inet weft\n";
}

std::string Rules(const Options& o) {
  const std::string in = std::to_string(o.inbound_port), out = std::to_string(o.outbound_port),
                    dns = std::to_string(o.dns_port);
  std::string r = UndoRules();
  r += "table inet weft {\n";

  r += "  chain inbound {\n";
  r += "    type nat hook prerouting priority dstnat; policy accept;\n";
  r += "    iifname \"lo\" return\n";
  if (!o.exclude_inbound_ports.empty()) r += "    tcp dport " + Set(o.exclude_inbound_ports) + " return\n";
  r += "    meta l4proto tcp redirect to :" + in + "\n";
  r += "  }\n";

  r += "  chain outbound {\n";
  r += "    type nat hook output priority -100; policy accept;\n";
  // A workload that calls its own service: the sidecar dials its own address, and must be met by TLS there.
  r += "    meta mark " + Hex(o.mark) + " oifname \"lo\" ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :" + in + "\n";
  r += "    meta mark " + Hex(o.mark) + " oifname \"lo\" ip6 daddr != ::1 meta l4proto tcp redirect to :" + in + "\n";
  r += "    meta mark " + Hex(o.mark) + " return\n";
  if (o.sidecar_uid) r += "    meta skuid " + std::to_string(*o.sidecar_uid) + " return\n";
  if (o.dns_port != 0) {
    // Before the loopback exception: a resolver on 127.0.0.53 is captured too.
    r += "    udp dport 53 redirect to :" + dns + "\n";
    r += "    tcp dport 53 redirect to :" + dns + "\n";
  }
  r += "    oifname \"lo\" return\n";
  std::vector<std::string> v4, v6;
  for (const auto& c : o.exclude_outbound_cidrs) (CidrFamily(c) == Family::k4 ? v4 : v6).push_back(c);
  if (!v4.empty()) r += "    ip daddr " + Set(v4) + " return\n";
  if (!v6.empty()) r += "    ip6 daddr " + Set(v6) + " return\n";
  if (!o.exclude_outbound_ports.empty()) r += "    tcp dport " + Set(o.exclude_outbound_ports) + " return\n";
  r += "    meta l4proto tcp redirect to :" + out + "\n";
  r += "  }\n";
  r += "}\n";
  return r;
}

}  // namespace weft::intercept
