// YAML or JSON text → message. YAML becomes JSON text first, and protobuf's own JSON reader does the rest (it resolves Any
// from the linked descriptors and refuses unknown fields).
#include "sidecar/xds/bootstrap_text.h"

#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <set>
#include <vector>

#include "sidecar/base/yaml.h"
#include "sidecar/xds/bootstrap.h"

namespace weft::xds {
namespace {

constexpr size_t kMaxText = 64 << 20;
constexpr int kMaxDepth = 64;

void Quote(const std::string& s, std::string& out) {
  out += '"';
  for (char ch : s) {
    auto c = static_cast<unsigned char>(ch);
    if (c == '"' || c == '\\') out += '\\', out += ch;
    else if (c == '\n') out += "\\n";
    else if (c < 0x20) {
      char buf[8];
      snprintf(buf, sizeof buf, "\\u%04x", c);
      out += buf;
    } else out += ch;
  }
  out += '"';
}

// What JSON calls a number; anything else that looks like one (0x10, 1_000, .5) stays a string.
bool IsNumber(const std::string& s) {
  size_t i = 0;
  auto digits = [&] {
    size_t from = i;
    while (i < s.size() && s[i] >= '0' && s[i] <= '9') ++i;
    return i > from;
  };
  if (i < s.size() && s[i] == '-') ++i;
  if (i < s.size() && s[i] == '0') ++i;
  else if (!digits()) return false;
  if (i < s.size() && s[i] == '.' && (++i, !digits())) return false;
  if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    ++i;
    if (i < s.size() && (s[i] == '+' || s[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == s.size() && !s.empty();
}

std::string At(const YAML::Node& n) { return "line " + std::to_string(n.Mark().line + 1) + ": "; }

// Appends n as JSON; "" or what is wrong.
std::string ToJson(const YAML::Node& n, int depth, std::string& out) {
  if (depth > kMaxDepth) return At(n) + "nested deeper than " + std::to_string(kMaxDepth);
  if (out.size() > kMaxText) return "larger than 64 MiB";
  switch (n.Type()) {
    case YAML::NodeType::Map: {
      std::set<std::string> seen;
      out += '{';
      for (const auto& kv : n) {
        if (!kv.first.IsScalar()) return At(kv.first) + "a key must be a scalar";
        const std::string& key = kv.first.Scalar();
        if (!seen.insert(key).second) return At(kv.first) + "key \"" + key + "\" is there twice";
        if (seen.size() > 1) out += ',';
        Quote(key, out);
        out += ':';
        if (auto e = ToJson(kv.second, depth + 1, out); !e.empty()) return e;
      }
      out += '}';
      return "";
    }
    case YAML::NodeType::Sequence: {
      bool first = true;
      out += '[';
      for (const auto& v : n) {
        if (!first) out += ',';
        first = false;
        if (auto e = ToJson(v, depth + 1, out); !e.empty()) return e;
      }
      out += ']';
      return "";
    }
    case YAML::NodeType::Scalar: {
      const std::string& s = n.Scalar();
      if (n.Tag() == "!") Quote(s, out);  // it was quoted
      else if (s == "true" || s == "True" || s == "TRUE") out += "true";
      else if (s == "false" || s == "False" || s == "FALSE") out += "false";
      else if (s == "null" || s == "Null" || s == "NULL" || s == "~" || s.empty()) out += "null";
      else if (IsNumber(s)) out += s;
      else Quote(s, out);
      return "";
    }
    default: out += "null"; return "";
  }
}

// JSON is given to protobuf as it is; before that, one pass for keys that repeat (the reader would take the last) and for
// nesting. Malformed text passes: the reader says what is wrong with it.
std::string CheckJson(const std::string& s) {
  struct Level { bool object; std::set<std::string> keys; };
  std::vector<Level> stack;
  bool key_next = false;
  int line = 1;
  for (size_t i = 0; i < s.size(); ++i) {
    char c = s[i];
    if (c == '\n') ++line;
    if (c == '"') {
      size_t from = i + 1;
      for (++i; i < s.size() && s[i] != '"'; ++i)
        if (s[i] == '\\') ++i;
      if (key_next && !stack.empty() && stack.back().object && i < s.size()) {
        std::string key = s.substr(from, i - from);
        if (!stack.back().keys.insert(key).second) return "line " + std::to_string(line) + ": key \"" + key + "\" is there twice";
        key_next = false;
      }
    } else if (c == '{' || c == '[') {
      if (stack.size() >= static_cast<size_t>(kMaxDepth)) return "line " + std::to_string(line) + ": nested deeper than " + std::to_string(kMaxDepth);
      stack.push_back({c == '{', {}});
      key_next = c == '{';
    } else if (c == '}' || c == ']') {
      if (!stack.empty()) stack.pop_back();
      key_next = false;
    } else if (c == ',') {
      key_next = !stack.empty() && stack.back().object;
    }
  }
  return "";
}

}  // namespace

std::string YamlToJson(const YAML::Node& node, std::string* json) { return ToJson(node, 0, *json); }

base::Status ParseYaml(const std::string& text, google::protobuf::Message* to) {
  if (text.size() > kMaxText) return base::Error("larger than 64 MiB");
  std::string json;
  const std::string* source = &text;
  size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '{' && text.find_last_not_of(" \t\r\n") != std::string::npos &&
      text.find('"') != std::string::npos && text[text.find_first_not_of(" \t\r\n", first + 1)] == '"') {
    if (auto e = CheckJson(text); !e.empty()) return base::Error(e);
  } else {
    try {
      std::vector<YAML::Node> documents = base::LoadYaml(text);
      if (documents.size() > 1) return base::Error("holds more than one YAML document");
      if (documents.empty() || documents[0].IsNull()) return base::Ok{};
      if (!documents[0].IsMap()) return base::Error("is not a YAML map");
      if (auto e = YamlToJson(documents[0], &json); !e.empty()) return base::Error(e);
    } catch (const YAML::Exception& e) {
      return base::Error("line " + std::to_string(e.mark.line + 1) + ": " + e.msg);
    }
    source = &json;
  }
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = false;
  auto status = google::protobuf::util::JsonStringToMessage(*source, to, options);
  if (status.ok()) return base::Ok{};
  const std::string place = PlaceOfFault(text, to->GetDescriptor());
  return base::Error(place.empty() ? std::string(status.message()) : place);
}

}  // namespace weft::xds
