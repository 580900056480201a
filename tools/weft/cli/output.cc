#include "tools/weft/cli/output.h"

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "tools/weft/cli/error.h"

namespace weft::cli {
namespace {

// Length of the well-formed UTF-8 sequence at s[i], 0 when there is none.
size_t Utf8At(std::string_view s, size_t i) {
  const unsigned char c = s[i];
  size_t n = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;
  if (n == 0 || i + n > s.size()) return 0;
  for (size_t k = 1; k < n; k++) {
    if ((static_cast<unsigned char>(s[i + k]) >> 6) != 2) return 0;
  }
  if (n == 2 && c < 0xc2) return 0;
  return n;
}

size_t Width(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

bool NeedsQuotes(std::string_view s) {
  if (s.empty() || s.front() == ' ' || s.back() == ' ' || s.back() == ':') return true;
  static const char* const words[] = {"true", "false", "null", "yes", "no", "on", "off", "~", "y", "n"};
  std::string lower(s);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return tolower(c); });
  for (const char* w : words) {
    if (lower == w) return true;
  }
  const std::string_view starters = "-?:,[]{}#&*!|>'\"%@`.+0123456789=<";
  if (starters.find(s.front()) != std::string_view::npos) {
    // "1.5s" and "10.77.0.4" are strings to every reader; a leading dash or digit alone is not reason enough for paths,
    // but quoting is never wrong.
    return true;
  }
  for (size_t i = 0; i < s.size(); i++) {
    const unsigned char c = s[i];
    if (c < 0x20 || c == 0x7f) return true;
    if (c == ':' && i + 1 < s.size() && s[i + 1] == ' ') return true;
    if (c == '#' && i > 0 && s[i - 1] == ' ') return true;
  }
  return false;
}

std::string YamlScalar(const Json& v) {
  if (!v.is_string()) return v.dump();
  const auto& s = v.get_ref<const std::string&>();
  return NeedsQuotes(s) ? v.dump(-1, ' ', false, Json::error_handler_t::replace) : s;
}

void Yaml(const Json& v, int indent, std::string& out) {
  const std::string pad(indent, ' ');
  if (v.is_object()) {
    for (const auto& [key, value] : v.items()) {
      out += pad + YamlScalar(Json(key)) + ":";
      if ((value.is_object() || value.is_array()) && !value.empty()) {
        out += "\n";
        Yaml(value, value.is_array() ? indent : indent + 2, out);
      } else {
        out += " " + YamlScalar(value) + "\n";
      }
    }
  } else if (v.is_array()) {
    for (const Json& item : v) {
      if ((item.is_object() || item.is_array()) && !item.empty()) {
        // The first line of the item goes beside its dash.
        std::string inner;
        Yaml(item, indent + 2, inner);
        out += pad + "- " + inner.substr(indent + 2);
      } else {
        out += pad + "- " + YamlScalar(item) + "\n";
      }
    }
  } else {
    out += pad + YamlScalar(v) + "\n";
  }
}

}  // namespace

std::string Clean(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const unsigned char c = s[i];
    const size_t n = Utf8At(s, i);
    if (c == '\t' || c == '\n' || c == '\r') {
      out += ' ';
      i++;
    } else if (c < 0x20 || c == 0x7f || n == 0) {
      out += '?';
      i++;
    } else if (n == 2 && c == 0xc2 && static_cast<unsigned char>(s[i + 1]) < 0xa0) {
      out += '?';  // C1 controls: terminals act on them too
      i += 2;
    } else {
      out += s.substr(i, n);
      i += n;
    }
  }
  return out;
}

std::string Table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& h : header) width.push_back(Width(h));
  std::vector<std::vector<std::string>> clean;
  for (const auto& row : rows) {
    auto& c = clean.emplace_back();
    for (size_t i = 0; i < row.size() && i < width.size(); i++) {
      c.push_back(row[i].empty() ? "-" : Clean(row[i]));
      width[i] = std::max(width[i], Width(c.back()));
    }
  }
  std::string out;
  auto line = [&](const std::vector<std::string>& cells) {
    std::string l;
    for (size_t i = 0; i < cells.size(); i++) {
      l += cells[i];
      if (i + 1 < cells.size()) l.append(width[i] - Width(cells[i]) + 2, ' ');
    }
    while (!l.empty() && l.back() == ' ') l.pop_back();
    out += l + "\n";
  };
  line(header);
  for (const auto& row : clean) line(row);
  return out;
}

std::string ToYaml(const Json& value) {
  std::string out;
  if ((value.is_object() || value.is_array()) && value.empty()) return value.dump() + "\n";
  Yaml(value, 0, out);
  return out;
}

std::string Render(const Json& value, const std::string& format) {
  if (format == "json") return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (format == "yaml") return ToYaml(value);
  throw Failure("unknown output format \"" + format + "\": table, json or yaml", kUsage);
}

std::string Text(const Json& object, std::string_view key) {
  if (!object.is_object()) return "";
  auto it = object.find(std::string(key));
  if (it == object.end() || it->is_null()) return "";
  if (it->is_string()) return it->get<std::string>();
  return it->dump();
}

std::string HumanDuration(double us) {
  char buf[32];
  if (us < 1000) {
    snprintf(buf, sizeof buf, "%.0fµs", us);
  } else if (us < 1e6) {
    snprintf(buf, sizeof buf, us < 1e4 ? "%.2fms" : us < 1e5 ? "%.1fms" : "%.0fms", us / 1e3);
  } else {
    snprintf(buf, sizeof buf, "%.2fs", us / 1e6);
  }
  return buf;
}

std::string Age(const std::string& t, long now) {
  struct tm tm = {};
  const char* end = strptime(t.c_str(), "%Y-%m-%dT%H:%M:%S", &tm);
  if (end == nullptr) return "";
  const long seconds = std::max(0L, now - static_cast<long>(timegm(&tm)));
  if (seconds < 120) return std::to_string(seconds) + "s";
  if (seconds < 120 * 60) return std::to_string(seconds / 60) + "m";
  if (seconds < 48 * 3600) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

}  // namespace weft::cli
