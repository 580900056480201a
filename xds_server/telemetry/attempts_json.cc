#include <nlohmann/json.hpp>

#include "xds_server/telemetry/record.h"

namespace weft::insight {

using Json = nlohmann::json;

std::string AttemptsJson(const std::vector<Attempt>& attempts) {
  if (attempts.empty()) return "[]";
  Json out = Json::array();
  for (const Attempt& a : attempts) {
    out.push_back({{"endpoint", a.endpoint}, {"workload", a.workload}, {"version", a.version}, {"outcome", a.outcome},
                   {"detail", a.detail}, {"start_us", a.start_us}, {"duration_us", a.duration_us},
                   {"connect_us", a.connect_us}, {"status", a.status}, {"ejected", a.ejected}, {"reused", a.reused},
                   {"healthy_hosts", a.healthy_hosts}, {"total_hosts", a.total_hosts},
                   {"active_requests", a.active_requests}, {"max_requests", a.max_requests}});
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<Attempt> AttemptsFromJson(std::string_view text) {
  std::vector<Attempt> out;
  if (text == "[]" || text.empty()) return out;
  Json in = Json::parse(text, nullptr, false);
  if (!in.is_array()) return out;
  for (const Json& j : in) {
    if (!j.is_object()) continue;
    Attempt a;
    // A missing or odd field keeps its default: rows of an older schema stay readable.
    auto str = [&](const char* name, std::string& v) {
      if (auto it = j.find(name); it != j.end() && it->is_string()) v = it->get<std::string>();
    };
    auto num = [&](const char* name, auto& v) {
      if (auto it = j.find(name); it != j.end() && it->is_number_integer()) v = it->get<std::decay_t<decltype(v)>>();
    };
    auto flag = [&](const char* name, bool& v) {
      if (auto it = j.find(name); it != j.end() && it->is_boolean()) v = it->get<bool>();
    };
    str("endpoint", a.endpoint), str("workload", a.workload), str("version", a.version), str("outcome", a.outcome);
    str("detail", a.detail), num("start_us", a.start_us), num("duration_us", a.duration_us);
    num("connect_us", a.connect_us), num("status", a.status), flag("ejected", a.ejected), flag("reused", a.reused);
    num("healthy_hosts", a.healthy_hosts), num("total_hosts", a.total_hosts);
    num("active_requests", a.active_requests), num("max_requests", a.max_requests);
    out.push_back(std::move(a));
  }
  return out;
}

}  // namespace weft::insight
