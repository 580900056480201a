// Objects and differences as people read them, and the machine-readable list of paths.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "xds_server/rest/config_api.h"

namespace weft::server {
namespace {

using Json = nlohmann::ordered_json;

bool NeedsQuotes(const std::string& s) {
  if (s.empty()) return true;
  static const std::string kFirst = "-?:,[]{}#&*!|>'\"%@`~0123456789.+ ";
  if (kFirst.find(s[0]) != std::string::npos || s.back() == ' ' || s.back() == ':') return true;
  for (unsigned char c : s) {
    if (c < 0x20 || c == 0x7f) return true;
  }
  if (s.find(": ") != std::string::npos || s.find(" #") != std::string::npos) return true;
  for (const char* word : {"true", "false", "null", "yes", "no", "on", "off", "True", "False", "Null"}) {
    if (s == word) return true;
  }
  return false;
}

void Yaml(const Json& j, int indent, std::string& out) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  if (j.is_object() && !j.empty()) {
    for (const auto& [key, value] : j.items()) {
      out += pad + key + ":";
      if ((value.is_object() || value.is_array()) && !value.empty()) {
        out += "\n";
        Yaml(value, value.is_array() ? indent : indent + 2, out);
      } else {
        out += " ";
        Yaml(value, 0, out);
      }
    }
  } else if (j.is_array() && !j.empty()) {
    for (const Json& item : j) {
      std::string text;
      Yaml(item, indent + 2, text);
      if ((item.is_object() || item.is_array()) && !item.empty()) text[static_cast<size_t>(indent)] = '-';
      else text = pad + "- " + text;
      out += text;
    }
  } else if (j.is_string()) {
    const std::string s = j.get<std::string>();
    out += (NeedsQuotes(s) ? j.dump(-1, ' ', false, Json::error_handler_t::replace) : s) + "\n";
  } else {
    out += j.dump() + "\n";
  }
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

}  // namespace

std::string StoredToYaml(const std::string& json) {
  Json j = Json::parse(json, nullptr, false);
  std::string out;
  if (j.is_object()) Yaml(j, 0, out);
  return out;
}

std::string UnifiedDiff(const std::string& before, const std::string& after) {
  if (before == after) return "";
  const std::vector<std::string> a = Lines(before), b = Lines(after);
  std::vector<std::pair<char, std::string>> edits;
  if (a.size() * b.size() > 4'000'000) {
    // Too large to compare line by line: all out, all in.
    for (const auto& l : a) edits.push_back({'-', l});
    for (const auto& l : b) edits.push_back({'+', l});
  } else {
    std::vector<std::vector<int>> common(a.size() + 1, std::vector<int>(b.size() + 1));
    for (size_t i = a.size(); i-- > 0;) {
      for (size_t j = b.size(); j-- > 0;) common[i][j] = a[i] == b[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
    }
    size_t i = 0, j = 0;
    while (i < a.size() || j < b.size()) {
      if (i < a.size() && j < b.size() && a[i] == b[j]) edits.push_back({' ', a[i]}), ++i, ++j;
      else if (i < a.size() && (j == b.size() || common[i + 1][j] >= common[i][j + 1])) edits.push_back({'-', a[i++]});
      else edits.push_back({'+', b[j++]});
    }
  }
  std::vector<bool> shown(edits.size());
  for (size_t i = 0; i < edits.size(); ++i) {
    if (edits[i].first == ' ') continue;
    for (size_t k = i >= 3 ? i - 3 : 0; k < std::min(edits.size(), i + 4); ++k) shown[k] = true;
  }
  std::string out;
  for (size_t i = 0; i < edits.size(); ++i) {
    if (shown[i]) out += edits[i].first + edits[i].second + "\n";
    else if (i > 0 && shown[i - 1]) out += "@@\n";
  }
  return out;
}

std::string OpenApi(const std::string& more_paths) {
  struct Row {
    const char *path, *method, *summary;
    std::vector<const char*> query;
    const char* body;  // schema name, or null
    const char* answer;
  };
  static const std::vector<Row> kRows = {
      {"/api/v1/objects", "get", "Applied objects", {"kind", "namespace", "name"}, nullptr, "ObjectList"},
      {"/api/v1/objects/{kind}/{ns}/{name}", "get", "One object", {}, nullptr, "Object"},
      {"/api/v1/objects/{kind}/{ns}/{name}", "delete", "Delete an object", {}, nullptr, "ApplyResult"},
      {"/api/v1/apply", "post", "Create or change objects: all documents of the body or none", {"dry_run", "file", "message", "wait_ms"}, "Documents", "ApplyResult"},
      {"/api/v1/diff", "post", "What apply would change", {"file"}, "Documents", "DiffResult"},
      {"/api/v1/history", "get", "Revisions, newest first", {"limit"}, nullptr, "History"},
      {"/api/v1/history/{revision}", "get", "One revision with contents", {}, nullptr, "Revision"},
      {"/api/v1/rollback", "post", "A new revision with the content after an older one", {}, "Rollback", "ApplyResult"},
      {"/api/v1/status", "get", "Every sidecar and its configuration", {}, nullptr, "Status"},
      {"/api/v1/workloads", "get", "Registered instances", {"service", "namespace"}, nullptr, "Workloads"},
      {"/api/v1/mesh/services", "get", "Services with virtual IP, ports and versions", {}, nullptr, "Services"},
      {"/api/v1/mesh/services/{ns}/{name}", "delete", "Forget a service that has no instance any more", {}, nullptr, "Empty"},
      {"/api/v1/tokens", "post", "Make a join token", {}, "TokenRequest", "Token"},
      {"/api/v1/tokens/{id}", "delete", "Revoke a join token", {}, nullptr, "Empty"},
      {"/api/v1/trust-bundle", "get", "Root certificates of the trust domain", {}, nullptr, "TrustBundle"},
      {"/api/v1/version", "get", "Version of the server", {}, nullptr, "Version"},
  };
  Json doc = {{"openapi", "3.1.0"},
              {"info", {{"title", "Weft"}, {"version", kVersion}, {"description", "Reads need no credentials on the loopback; every other method needs the bearer token of <data-dir>/api-token. Shapes: docs/api.md and docs/telemetry-api.md."}}},
              {"security", Json::array({Json{{"token", Json::array()}}})},
              {"paths", Json::object()},
              {"components",
               {{"securitySchemes", {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}},
                {"schemas",
                 {{"Error", {{"type", "object"}, {"properties", {{"error", {{"type", "object"}, {"properties", {{"message", {{"type", "string"}}}, {"details", {{"type", "array"}}}}}}}}}}},
                  {"Object", {{"type", "object"}, {"required", {"apiVersion", "kind", "metadata", "spec"}},
                              {"properties", {{"apiVersion", {{"const", "weft/v1"}}}, {"kind", {{"enum", {"Service", "Route", "Traffic", "MeshTls", "Authorization", "Fault"}}}}, {"metadata", {{"type", "object"}}}, {"spec", {{"type", "object"}}}}}}}}}}}};
  Json& schemas = doc["components"]["schemas"];
  for (const Row& r : kRows) {
    Json op = {{"summary", r.summary}};
    Json parameters = Json::array();
    std::string path = r.path;
    for (size_t open = path.find('{'); open != std::string::npos; open = path.find('{', open + 1)) {
      parameters.push_back({{"name", path.substr(open + 1, path.find('}', open) - open - 1)}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
    }
    for (const char* q : r.query) parameters.push_back({{"name", q}, {"in", "query"}, {"schema", {{"type", "string"}}}});
    if (!parameters.empty()) op["parameters"] = parameters;
    auto reference = [&](const char* name) {
      if (!schemas.contains(name)) schemas[name] = {{"type", "object"}};
      return Json{{"$ref", std::string("#/components/schemas/") + name}};
    };
    if (r.body) {
      op["requestBody"]["content"]["application/json"]["schema"] = reference(r.body);
      if (std::string(r.body) == "Documents") op["requestBody"]["content"]["application/yaml"]["schema"] = {{"type", "string"}};
    }
    op["responses"]["200"] = {{"description", "OK"}, {"content", {{"application/json", {{"schema", reference(r.answer)}}}}}};
    op["responses"]["default"] = {{"description", "Refused or failed"}, {"content", {{"application/json", {{"schema", reference("Error")}}}}}};
    if (std::string(r.method) == "get") op["security"] = Json::array();
    doc["paths"][r.path][r.method] = op;
  }
  if (!more_paths.empty()) {
    Json more = Json::parse(more_paths, nullptr, false);
    if (more.is_discarded()) more = Json::parse("{" + more_paths + "}", nullptr, false);
    if (more.is_object()) doc["paths"].update(more);
  }
  return doc.dump(1) + "\n";
}

}  // namespace weft::server
