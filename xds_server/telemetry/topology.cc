#include "xds_server/telemetry/topology.h"

#include <algorithm>
#include <set>

namespace weft::insight {
namespace {

void Bump(std::map<std::string, uint64_t>& counts, const std::string& key, uint64_t n) {
  if (!key.empty()) counts[key] += n;
}

std::string Most(const std::map<std::string, uint64_t>& counts) {
  auto it = std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) { return a.second < b.second; });
  return it == counts.end() ? "" : it->first;
}

// Both ends' cells of one edge until it is known which of them speaks for it.
struct Draft {
  Red client, server;
  std::map<std::string, Red> client_versions, server_versions;
  std::map<std::string, uint64_t> tls, source_ids, destination_ids, reasons;
  // The caller sees what its application spoke, the callee what came over the wire.
  std::map<std::string, uint64_t> client_protocols, server_protocols;
  uint64_t secured = 0, open = 0;  // requests let in, with and without mutual TLS
  uint64_t denied = 0;
};

}  // namespace

void Red::Add(const Cell& c) {
  requests += c.count;
  outcomes[static_cast<int>(c.outcome)] += c.count;
  if (IsError(c.outcome)) errors += c.count;
  if (IsDenial(c.outcome)) denied += c.count;
  open += c.open;
  retries += c.retries, request_bytes += c.request_bytes, response_bytes += c.response_bytes;
  if (c.count && c.outcome != Outcome::kRefused) buckets[c.bucket] += c.count;
}

Quantiles Red::Latency() const {
  uint64_t total = 0;
  for (const auto& [bucket, n] : buckets) total += n;
  if (total == 0) return {};
  auto at = [&](double q) {
    uint64_t rank = static_cast<uint64_t>(q * static_cast<double>(total - 1)) + 1, seen = 0;
    for (const auto& [bucket, n] : buckets) {
      seen += n;
      if (seen >= rank) return BucketMiddleUs(bucket) / 1000.0;
    }
    return 0.0;
  };
  return {at(0.50), at(0.95), at(0.99)};
}

Topology BuildTopology(const std::vector<Cell>& cells) {
  std::map<std::pair<std::string, std::string>, Draft> drafts;
  std::map<std::string, Node> nodes;
  std::map<std::string, Red> asked_by_callers;
  for (const Cell& c : cells) {
    const SeriesKey& k = c.key;
    bool client = k.direction == Direction::kOutbound;
    Draft& d = drafts[{k.source, k.destination}];
    (client ? d.client : d.server).Add(c);
    if (!k.destination_version.empty()) {
      (client ? d.client_versions : d.server_versions)[k.destination_version].Add(c);
    }
    const uint64_t weight = c.count + c.open;
    Bump(client ? d.client_protocols : d.server_protocols, k.protocol, weight);
    Bump(d.tls, k.tls_version, weight);
    Bump(d.source_ids, k.source_identity, weight);
    Bump(d.destination_ids, k.destination_identity, weight);
    if (!client && IsDenial(c.outcome)) {
      d.denied += c.count;
      Bump(d.reasons, k.reason.empty() ? "(unknown)" : k.reason, c.count);
    } else if (!client || IsDenial(c.outcome) || c.outcome == Outcome::kOk || c.outcome == Outcome::kClientError) {
      // A request the caller failed before it had a connection says nothing about the link.
      bool mutual = !k.tls_version.empty() && !k.source_identity.empty() && !k.destination_identity.empty();
      (mutual ? d.secured : d.open) += weight;
    }
    for (const std::string& name : {k.source, k.destination}) nodes[name].name = name;
    Node& reporter = nodes[client ? k.source : k.destination];
    reporter.in_mesh = reporter.in_mesh || reporter.name != "(other)";
    if (!client) reporter.inbound.Add(c);
    if (client) asked_by_callers[k.destination].Add(c);
    std::string version = client ? k.version : k.destination_version;
    auto note = [](Node& n, const std::string& v) {
      if (!v.empty() && std::find(n.versions.begin(), n.versions.end(), v) == n.versions.end()) n.versions.push_back(v);
    };
    note(reporter, version);
    if (client) note(nodes[k.destination], k.destination_version);
  }
  Topology out;
  for (auto& [name, node] : nodes) {
    std::sort(node.versions.begin(), node.versions.end());
    if (node.inbound.requests == 0) {
      if (auto it = asked_by_callers.find(name); it != asked_by_callers.end()) node.inbound = it->second;
    }
    out.nodes.push_back(std::move(node));
  }
  for (auto& [ends, d] : drafts) {
    Edge e;
    e.source = ends.first, e.destination = ends.second;
    e.reported_by_caller = d.client.requests + d.client.open > 0;
    e.red = e.reported_by_caller ? std::move(d.client) : std::move(d.server);
    e.versions = e.reported_by_caller && !d.client_versions.empty() ? std::move(d.client_versions) : std::move(d.server_versions);
    e.denied = d.denied;
    for (const auto& [reason, n] : d.reasons) e.denials.push_back({.reason = reason, .count = n});
    std::sort(e.denials.begin(), e.denials.end(), [](auto& a, auto& b) { return a.count > b.count; });
    std::vector<std::pair<uint64_t, std::string>> protocols;
    for (const auto& [p, n] : e.reported_by_caller ? d.client_protocols : d.server_protocols) protocols.emplace_back(n, p);
    std::sort(protocols.rbegin(), protocols.rend());
    for (auto& [n, p] : protocols) e.protocols.push_back(p);
    e.mtls = d.secured > 0 && d.open == 0;
    e.tls_version = Most(d.tls), e.source_identity = Most(d.source_ids), e.destination_identity = Most(d.destination_ids);
    out.edges.push_back(std::move(e));
  }
  return out;
}

std::vector<ServiceStats> BuildServices(const std::vector<Cell>& cells) {
  struct Sides {
    Red server, client;
    std::map<std::string, Red> server_versions, client_versions;
    std::set<std::string> callers, callees;
    bool in_mesh = false;
  };
  std::map<std::string, Sides> all;
  for (const Cell& c : cells) {
    const SeriesKey& k = c.key;
    Sides& d = all[k.destination];
    d.callers.insert(k.source);
    if (!k.source.starts_with('(')) all[k.source].callees.insert(k.destination);
    std::string version = k.destination_version.empty() ? "" : k.destination_version;
    if (k.direction == Direction::kOutbound) {
      d.client.Add(c), d.client_versions[version].Add(c);
      all[k.source].in_mesh = true;
    } else {
      d.server.Add(c), d.server_versions[version].Add(c);
      d.in_mesh = true;
    }
  }
  std::vector<ServiceStats> out;
  for (auto& [name, s] : all) {
    ServiceStats r;
    r.name = name, r.in_mesh = s.in_mesh;
    bool own = s.server.requests + s.server.open > 0;
    r.total = own ? std::move(s.server) : std::move(s.client);
    r.versions = own ? std::move(s.server_versions) : std::move(s.client_versions);
    r.callers.assign(s.callers.begin(), s.callers.end()), r.callees.assign(s.callees.begin(), s.callees.end());
    out.push_back(std::move(r));
  }
  return out;
}

}  // namespace weft::insight
