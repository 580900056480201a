// Made-up events for tests of topology, traces and why.
#pragma once

#include <string>
#include <vector>

#include "xds_server/telemetry/aggregate.h"

namespace weft::insight {

inline std::string Id(const std::string& service) { return "spiffe://mesh/ns/default/sa/" + service; }

// Both views of one hop; span ids are "<a>><b>" for the client side and "<b>" for the server side.
inline Event Client(const std::string& a, const std::string& b, int status, const char* flags = "") {
  Event e;
  e.direction = Direction::kOutbound, e.service = a, e.ns = "default", e.workload = a + "-1", e.epoch = "x";
  e.cluster = "outbound|80||" + b + ".default", e.status = status, e.response_flags = flags, e.protocol = "http/1.1";
  e.method = "GET", e.path = "/" + b, e.trace_id = "t1", e.request_id = "r1", e.span_id = a + ">" + b, e.parent_span_id = a;
  e.start_ns = 1'000'000'000, e.duration_us = 20'000, e.tls_version = "TLSv1.3";
  e.source_identity = Id(a), e.destination_identity = Id(b);
  return e;
}
inline Event Server(const std::string& a, const std::string& b, int status, const char* flags = "") {
  Event e = Client(a, b, status, flags);
  e.direction = Direction::kInbound, e.service = b, e.workload = b + "-1", e.cluster = "inbound|8000", e.version = "v1";
  e.span_id = b, e.parent_span_id = a + ">" + b, e.start_ns += 1'000'000, e.duration_us = 18'000;
  return e;
}
inline Attempt Try(const char* outcome, int status = 0, const char* version = "v1") {
  Attempt a;
  a.endpoint = "10.0.0.4:8000", a.workload = "cart-1", a.version = version, a.outcome = outcome, a.status = status;
  a.healthy_hosts = 2, a.total_hosts = 2, a.active_requests = 1, a.max_requests = 1024, a.duration_us = 5'000;
  return a;
}
inline std::vector<Cell> Cells(std::vector<Event> events) {
  std::vector<Cell> out;
  for (Event& e : events) {
    Derive(e);
    Cell c;
    c.key = SeriesOf(e), c.outcome = e.outcome, c.bucket = e.bucket, c.count = 1, c.retries = e.retries;
    out.push_back(c);
  }
  return out;
}

}  // namespace weft::insight
