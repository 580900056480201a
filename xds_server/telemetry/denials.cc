#include "xds_server/telemetry/denials.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace weft::insight {

void AddExamples(const std::vector<Event>& denied, Topology& topology) {
  std::map<std::tuple<std::string, std::string, std::string>, Denial*> places;
  for (Edge& e : topology.edges) {
    for (Denial& d : e.denials) places[{e.source, e.destination, d.reason}] = &d;
  }
  for (const Event& e : denied) {
    const std::string& id = e.trace_id.empty() ? e.request_id : e.trace_id;
    auto it = places.find({e.source, e.destination, SeriesOf(e).reason});
    if (it == places.end() || id.empty()) continue;
    std::vector<std::string>& examples = it->second->examples;
    if (examples.size() < kDenialExamples && std::find(examples.begin(), examples.end(), id) == examples.end()) examples.push_back(id);
  }
}

}  // namespace weft::insight
