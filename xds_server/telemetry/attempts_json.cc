#include <nlohmann/json.hpp>

#include "xds_server/telemetry/columns.h"

namespace weft::insight {
namespace {

using Json = nlohmann::json;

// A missing or odd field keeps its default: rows of an older schema stay readable.
struct Reader {
  const Json& j;
  void operator()(const char* name, std::string& v) const {
    if (auto it = j.find(name); it != j.end() && it->is_string()) v = it->get<std::string>();
  }
  void operator()(const char* name, bool& v) const {
    if (auto it = j.find(name); it != j.end() && it->is_boolean()) v = it->get<bool>();
  }
  void operator()(const char* name, double& v) const {
    if (auto it = j.find(name); it != j.end() && it->is_number()) v = it->get<double>();
  }
  template <typename T>
  void operator()(const char* name, T& v) const {
    if (auto it = j.find(name); it != j.end() && it->is_number_integer()) v = it->get<T>();
  }
};

}  // namespace

std::string AttemptsJson(const std::vector<Attempt>& attempts) {
  if (attempts.empty()) return "[]";
  Json out = Json::array();
  for (const Attempt& a : attempts) {
    Json& o = out.emplace_back(Json::object());
    AttemptFields(a, [&](const char* name, const auto& v) { o[name] = v; });
    for (const Ejection& e : a.ejections) {
      Json& j = o["ejections"].emplace_back(Json::object());
      EjectionFields(e, [&](const char* name, const auto& v) { j[name] = v; });
    }
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
    Attempt& a = out.emplace_back();
    AttemptFields(a, Reader{j});
    auto list = j.find("ejections");
    if (list == j.end() || !list->is_array()) continue;
    for (const Json& e : *list) {
      if (e.is_object()) EjectionFields(a.ejections.emplace_back(), Reader{e});
    }
  }
  return out;
}

}  // namespace weft::insight
