// Which filter chain a connection takes: Envoy's precedence, compiled once per listener.
//
// Order: destination port, destination address (longest prefix), server name (exact, then longest wildcard suffix, then
// none), transport protocol, application protocols, direct source address, source type, source address (longest prefix),
// source port. The most specific value present at each step is taken and, as in Envoy, there is no way back from it.
//
//   const FilterChain* c = Match(listener, info);   // null: no chain, close and count
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/model/listener.h"

namespace weft::model {

// What listener filters found out about a new connection. Views live as long as the caller's.
struct ConnInfo {
  Address destination;                    // restored original destination when there was one
  Address source;                         // after the PROXY protocol, if any
  Address direct_source;                  // the socket's peer
  std::string_view server_name;           // SNI, lower case; "" none
  std::string_view transport_protocol = "raw_buffer";     // "tls" once the inspector saw a ClientHello
  std::vector<std::string_view> application_protocols;    // ALPN offered, or what http_inspector saw
};

class ChainIndex {
 public:
  // Fails when two chains have the same criteria (the message names both).
  static base::Result<std::shared_ptr<const ChainIndex>> Build(const std::vector<std::shared_ptr<const FilterChain>>& chains);
  const FilterChain* Find(const ConnInfo& info) const;
  ~ChainIndex();

 private:
  struct Node;
  ChainIndex();
  std::unique_ptr<Node> root_;
};

// The chain, else the default chain, else null.
const FilterChain* Match(const Listener& listener, const ConnInfo& info);

}  // namespace weft::model
