// Query results as the JSON of docs/telemetry-api.md. Pure; the text is always valid UTF-8.
#pragma once

#include <string>
#include <vector>

#include "xds_server/telemetry/store.h"
#include "xds_server/telemetry/topology.h"
#include "xds_server/telemetry/traces.h"
#include "xds_server/telemetry/why.h"

namespace weft::insight {

struct WindowInfo {
  int64_t window_s = 0, rate_s = 1, now_ms = 0;
};

std::string TopologyJson(const Topology& t, const WindowInfo& w, const std::string& telemetry_json);
std::string ServicesJson(const std::vector<ServiceStats>& services, const WindowInfo& w);
std::string TracesJson(const std::vector<TraceSummary>& traces);
std::string TraceJson(const TraceView& v, const std::vector<Event>& events, const std::vector<Span>& spans);
std::string WhyJson(const std::string& id, const Explanation& e);

}  // namespace weft::insight
