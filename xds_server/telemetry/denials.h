// Names for denials: the newest refused requests and connections behind a count on an edge, so that each can be asked why.
#pragma once

#include <vector>

#include "xds_server/telemetry/topology.h"

namespace weft::insight {

constexpr size_t kDenialExamples = 5;

// Puts the ids of `denied` (INBOUND events, newest first) beside the reasons of their edges, at most kDenialExamples each.
// An id is one that `why` takes: the trace, else the request. Pure.
void AddExamples(const std::vector<Event>& denied, Topology& topology);

}  // namespace weft::insight
