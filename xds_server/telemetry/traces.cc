#include "xds_server/telemetry/traces.h"

#include <algorithm>
#include <set>
#include <unordered_map>

namespace weft::insight {
namespace {

std::string NameOf(const Event& e) {
  if (!e.tls_failure.empty()) return "TLS handshake refused";
  if (e.outcome == Outcome::kRefused) return "connection refused";
  if (e.protocol == "tcp") return "TCP connection";
  return e.method.empty() ? e.protocol : e.method + " " + e.path;
}

}  // namespace

TraceView BuildTrace(const std::string& trace_id, const std::vector<Event>& events, const std::vector<Span>& spans, size_t limit) {
  TraceView out;
  out.trace_id = trace_id;
  std::vector<Hop> all;
  std::set<std::string> seen;  // span ids; an id used twice keeps its first hop
  auto take = [&](Hop hop) {
    if ((!hop.span_id.empty() && !seen.insert(hop.span_id).second) || all.size() >= limit) {
      ++out.left_out;
      return;
    }
    all.push_back(std::move(hop));
  };
  for (size_t i = 0; i < events.size(); ++i) {
    const Event& e = events[i];
    Hop h;
    bool client = e.direction == Direction::kOutbound;
    h.span_id = e.span_id, h.parent_span_id = e.parent_span_id, h.kind = client ? "client" : "server";
    h.service = client ? e.source : e.destination, h.peer = client ? e.destination : e.source, h.name = NameOf(e);
    h.start_ns = e.start_ns, h.duration_us = e.duration_us, h.error = IsError(e.outcome) || IsDenial(e.outcome);
    h.event = static_cast<int>(i);
    take(std::move(h));
  }
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& s = spans[i];
    Hop h;
    h.span_id = s.span_id, h.parent_span_id = s.parent_span_id, h.kind = s.kind, h.service = s.service, h.name = s.name;
    h.start_ns = s.start_ns, h.duration_us = std::max<int64_t>(0, (s.end_ns - s.start_ns) / 1000), h.error = s.error;
    h.span = static_cast<int>(i);
    take(std::move(h));
  }
  std::stable_sort(all.begin(), all.end(), [](const Hop& a, const Hop& b) { return a.start_ns < b.start_ns; });

  std::unordered_map<std::string, int> by_id;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].span_id.empty()) by_id.emplace(all[i].span_id, static_cast<int>(i));
  }
  for (size_t i = 0; i < all.size(); ++i) {
    auto it = by_id.find(all[i].parent_span_id);
    all[i].parent = it == by_id.end() || it->second == static_cast<int>(i) ? -1 : it->second;
    if (it != by_id.end() && it->second == static_cast<int>(i)) out.cycle = true;
  }
  // 0 not looked at, 1 on the way up from the current hop, 2 known to reach a root.
  std::vector<char> state(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<int> way;
    int at = static_cast<int>(i);
    while (at != -1 && state[at] == 0) state[at] = 1, way.push_back(at), at = all[at].parent;
    if (at != -1 && state[at] == 1) {
      // A circle: `at` is in it; the hop of it that began first (lowest index) becomes a root.
      int first = at;
      for (int k = all[at].parent; k != at; k = all[k].parent) first = std::min(first, k);
      all[first].parent = -1;
      out.cycle = true;
    }
    for (int k : way) state[k] = 2;
  }
  std::vector<std::vector<int>> children(all.size());
  std::vector<int> stack;
  for (int i = static_cast<int>(all.size()) - 1; i >= 0; --i) {
    (all[i].parent == -1 ? stack : children[all[i].parent]).push_back(i);
  }
  // Both lists were filled from the back, so the last element begins first.
  std::vector<int> place(all.size(), -1);
  int64_t end_ns = INT64_MIN;
  while (!stack.empty()) {
    int i = stack.back();
    stack.pop_back();
    for (int c : children[i]) stack.push_back(c);
    Hop h = all[i];
    place[i] = static_cast<int>(out.hops.size());
    h.parent = h.parent == -1 ? -1 : place[h.parent];
    h.depth = h.parent == -1 ? 0 : out.hops[h.parent].depth + 1;
    out.start_ns = out.hops.empty() ? h.start_ns : std::min(out.start_ns, h.start_ns);
    end_ns = std::max(end_ns, h.start_ns + h.duration_us * 1000);
    out.error = out.error || h.error;
    if (std::find(out.services.begin(), out.services.end(), h.service) == out.services.end() && out.services.size() < 200) {
      out.services.push_back(h.service);
    }
    out.hops.push_back(std::move(h));
  }
  if (!out.hops.empty()) out.duration_us = (end_ns - out.start_ns) / 1000;
  return out;
}

}  // namespace weft::insight
