// The map and the service list, computed from cells (aggregate.h). Pure.
//
// An edge is what `source` asked of `destination`. Its requests are those the caller's sidecar saw (OUTBOUND): that is
// where a request that never reached the callee is known. When no caller's sidecar reported, the callee's view is the
// edge: callers without a sidecar, and refused ones. Denials and refusals are always taken from the callee, who decides
// them; on an edge the caller reported, a denied request is among its requests (a 403 or a reset there).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "xds_server/telemetry/aggregate.h"

namespace weft::insight {

struct Quantiles {
  double p50_ms = 0, p95_ms = 0, p99_ms = 0;
};

// Counts by outcome and latency of any set of requests. Refused handshakes have no latency.
struct Red {
  uint64_t requests = 0, errors = 0, denied = 0, retries = 0, request_bytes = 0, response_bytes = 0;
  uint64_t open = 0;  // connections, WebSockets and streams that have not ended: not yet among the requests
  uint64_t outcomes[kOutcomes] = {};
  std::map<uint16_t, uint64_t> buckets;
  void Add(const Cell& c);
  Quantiles Latency() const;
};

struct Denial {
  std::string reason;  // "Authorization/default/cart/deny@7", "no_client_certificate"
  uint64_t count = 0;
  std::vector<std::string> examples = {};  // ids that `why` takes, newest first: denials.h
  bool operator==(const Denial&) const = default;
};

struct Edge {
  std::string source, destination;
  Red red;
  bool reported_by_caller = false;
  uint64_t denied = 0;              // by the callee: policy and refused handshakes
  std::vector<Denial> denials;      // most frequent first
  std::vector<std::string> protocols;  // as whoever speaks for the edge saw them, most used first
  bool mtls = false;                // every request that was let in went over mutual TLS, with both identities known
  std::string tls_version, source_identity, destination_identity;  // the most frequent
  std::map<std::string, Red> versions;  // of the callee
};

struct Node {
  std::string name;
  std::vector<std::string> versions;
  bool in_mesh = false;  // has a sidecar that reported
  Red inbound;           // what it was asked
};

struct Topology {
  std::vector<Node> nodes;  // by name
  std::vector<Edge> edges;  // by source, destination
};

Topology BuildTopology(const std::vector<Cell>& cells);

// RED of every service that served: from its own sidecar (INBOUND) when it has one, else from its callers'.
struct ServiceStats {
  std::string name;
  bool in_mesh = false;
  Red total;
  std::map<std::string, Red> versions;
  std::vector<std::string> callers, callees;
};
std::vector<ServiceStats> BuildServices(const std::vector<Cell>& cells);

}  // namespace weft::insight
