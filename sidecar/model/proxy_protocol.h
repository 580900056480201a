// The PROXY protocol as configured: what a listener takes, and what is sent to a cluster.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace weft::model {

using TlvTypes = std::bitset<256>;

// Envoy's listener filter proxy_protocol.
struct ProxyProtocolFilter {
  bool optional = false;        // connections without a header are taken as they are
  bool v1 = true, v2 = true;    // what is allowed
  TlvTypes keep;                // TLVs that clusters may pass on
  std::string stat_prefix;
};

// Envoy's transport socket upstream_proxy_protocol, around the one that encrypts.
struct ProxyProtocolHeader {
  int version = 1;
  TlvTypes pass;                // of the header that came in (version 2)
  std::vector<std::pair<uint8_t, std::string>> added;
};

}  // namespace weft::model
