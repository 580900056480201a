// The redirect rules as nftables text. Pure; intercept.h applies them.
//
// Outbound TCP goes to the sidecar's outbound port, inbound TCP to its inbound port, DNS (UDP and TCP 53, whatever the
// resolver's address) to its DNS port. The sidecar's own packets carry a mark and are left alone, except those to the
// workload's own address, which come back in through the inbound port like anybody else's. Loopback stays loopback.
// One table (inet weft, so IPv4 and IPv6) replaced in one transaction: applying twice changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft::intercept {

struct Options {
  uint16_t outbound_port = 15001;
  uint16_t inbound_port = 15006;
  uint16_t dns_port = 15053;                        // 0: DNS is not captured
  uint32_t mark = 0x539;
  std::optional<uint32_t> sidecar_uid;              // exempt as well, whatever the mark
  std::vector<std::string> exclude_outbound_ports;  // "5432" or "8000-8010"
  std::vector<std::string> exclude_inbound_ports;
  std::vector<std::string> exclude_outbound_cidrs;  // "10.0.0.0/8", "fd00::/8", "192.0.2.1"
};

// Empty when the options make sense, otherwise what is wrong and where.
std::string Check(const Options& options);

std::string Rules(const Options& options);
std::string UndoRules();

}  // namespace weft::intercept
