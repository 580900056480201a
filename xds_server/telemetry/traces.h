// One trace as a tree: request events of both ends of every hop and the applications' own spans, joined by span ids. Pure.
//
// Each sidecar makes a span for what it saw: OUTBOUND is the client span of a hop, INBOUND the server span whose parent
// is that client span. What has no known parent is a root; a parent chain that runs in a circle is cut at the hop that
// began first. Whatever is put in, the result has every hop at most once and at most `limit` of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "xds_server/telemetry/record.h"

namespace weft::insight {

struct Hop {
  std::string span_id, parent_span_id;
  std::string kind;     // "client", "server", or the span's own
  std::string service;  // whose view it is
  std::string peer;     // the other end, "" for spans
  std::string name;     // "GET /cart"
  int64_t start_ns = 0, duration_us = 0;
  int depth = 0;        // in the tree; hops are in order of a walk through it, children by start
  int parent = -1;      // index of the parent hop, -1 for a root
  bool error = false;
  int event = -1, span = -1;  // index in the input
};

struct TraceView {
  std::string trace_id;
  int64_t start_ns = 0, duration_us = 0;
  std::vector<Hop> hops;
  std::vector<std::string> services;  // in order of appearance
  bool error = false;
  size_t left_out = 0;  // beyond the limit, and duplicates
  bool cycle = false;   // a circle was cut
};

constexpr size_t kMaxHops = 5'000;
TraceView BuildTrace(const std::string& trace_id, const std::vector<Event>& events, const std::vector<Span>& spans,
                     size_t limit = kMaxHops);

}  // namespace weft::insight
