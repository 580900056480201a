#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

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

// Written by hand, because there is one for nearly every event. What is empty, zero or false is left out.
struct Writer {
  std::string& out;
  void Key(const char* name) const {
    if (out.back() != '{') out += ',';
    out.append(1, '"').append(name).append("\":");
  }
  void operator()(const char* name, const std::string& v) const {
    if (v.empty()) return;
    Key(name);
    const bool plain = std::all_of(v.begin(), v.end(), [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; });
    if (plain) {
      out.append(1, '"').append(v).append(1, '"');
    } else {
      out += Json(v).dump(-1, ' ', false, Json::error_handler_t::replace);
    }
  }
  void operator()(const char* name, bool v) const {
    if (v) Key(name), out += "true";
  }
  void operator()(const char* name, double v) const {
    if (v != 0 && std::isfinite(v)) Number(name, v);
  }
  template <typename T>
  void operator()(const char* name, T v) const {
    if (v != 0) Number(name, v);
  }
  template <typename T>
  void Number(const char* name, T v) const {
    Key(name);
    char buf[32];
    out.append(buf, std::to_chars(buf, buf + sizeof buf, v).ptr);
  }
};

}  // namespace

std::string AttemptsJson(const std::vector<Attempt>& attempts) {
  std::string out = "[";
  for (const Attempt& a : attempts) {
    out += out.size() > 1 ? ",{" : "{";
    AttemptFields(a, Writer{out});
    if (!a.ejections.empty()) {
      Writer{out}.Key("ejections");
      char open = '[';
      for (const Ejection& e : a.ejections) {
        out.append(1, std::exchange(open, ',')).append(1, '{');
        EjectionFields(e, Writer{out});
        out += '}';
      }
      out += ']';
    }
    out += '}';
  }
  return out += ']';
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
