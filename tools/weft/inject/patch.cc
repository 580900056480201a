#include "tools/weft/inject/patch.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "sidecar/base/yaml.h"

namespace weft::inject {
namespace {

// ---- YAML out. yaml-cpp's own emitter drops the quotes of "8080", which changes its type.

std::string Quote(const std::string& s) {
  std::string out = "\"";
  char buf[8];
  for (unsigned char c : s) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      case '\r': out += "\\r"; break;
      default:
        if (c < 0x20 || c == 0x7f) {
          snprintf(buf, sizeof buf, "\\x%02x", c);
          out += buf;
        } else {
          out += static_cast<char>(c);
        }
    }
  }
  return out + "\"";
}

std::string Scalar(const YAML::Node& n) {
  if (n.IsNull()) return "null";
  // "!" marks a scalar that was quoted (or a block scalar); a plain one is given back as it was written.
  return n.Tag() == "!" ? Quote(n.Scalar()) : n.Scalar();
}

bool Nested(const YAML::Node& n) { return (n.IsMap() || n.IsSequence()) && n.size() > 0; }

void EmitTo(const YAML::Node& n, int indent, std::string& out) {
  const std::string pad(indent, ' ');
  if (n.IsMap()) {
    for (const auto& item : n) {
      out += pad + Scalar(item.first) + ":";
      const YAML::Node& v = item.second;
      if (Nested(v)) {
        out += "\n";
        EmitTo(v, v.IsSequence() ? indent : indent + 2, out);
      } else {
        out += v.IsMap() ? " {}\n" : v.IsSequence() ? " []\n" : " " + Scalar(v) + "\n";
      }
    }
  } else if (n.IsSequence()) {
    for (const YAML::Node& v : n) {
      if (Nested(v)) {
        std::string inner;
        EmitTo(v, indent + 2, inner);
        out += pad + "- " + inner.substr(indent + 2);
      } else {
        out += pad + "- " + (v.IsMap() ? "{}" : v.IsSequence() ? "[]" : Scalar(v)) + "\n";
      }
    }
  } else {
    out += pad + Scalar(n) + "\n";
  }
}

bool Same(const YAML::Node& a, const YAML::Node& b) {
  if (a.Type() != b.Type() || a.size() != b.size()) return false;
  if (a.IsScalar()) return a.Scalar() == b.Scalar() && (a.Tag() == "!") == (b.Tag() == "!");
  if (a.IsSequence()) {
    for (size_t i = 0; i < a.size(); i++) {
      if (!Same(a[i], b[i])) return false;
    }
  }
  if (a.IsMap()) {
    for (auto x = a.begin(), y = b.begin(); x != a.end(); ++x, ++y) {
      if (!Same(x->first, y->first) || !Same(x->second, y->second)) return false;
    }
  }
  return true;
}

// ---- The text and its lines

struct CannotPatch {};

bool Block(const YAML::Node& n) { return Nested(n) && n.Style() != YAML::EmitterStyle::Flow; }

std::string Name(const YAML::Node& n) { return n.IsMap() && n["name"] && n["name"].IsScalar() ? n["name"].Scalar() : ""; }

class Patcher {
 public:
  explicit Patcher(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
      lines_.push_back(text.substr(at, end - at));
      at = end;
    }
    if (!lines_.empty() && lines_.back().back() != '\n') lines_.back() += '\n';
  }

  void Change(const YAML::Node& old, const YAML::Node& now) {
    if (Same(old, now)) return;
    if (!Block(old) || !Nested(now) || old.Type() != now.Type()) throw CannotPatch{};
    old.IsMap() ? ChangeMap(old, now) : ChangeList(old, now);
  }

  std::string Text() const {
    std::string out;
    for (size_t i = 0; i <= lines_.size(); i++) {
      if (auto it = inserted_.find(i); it != inserted_.end()) out += it->second;
      if (i < lines_.size() && !deleted_.count(i)) out += lines_[i];
    }
    return out;
  }

 private:
  struct Range {
    size_t from, to;  // lines
  };

  static bool Blank(const std::string& line) { return line.find_first_not_of(" \t\r\n") == std::string::npos; }
  size_t Indent(size_t line) const { return lines_[line].find_first_not_of(' '); }
  bool Comment(size_t line) const { return lines_[line][Indent(line)] == '#'; }
  bool Dash(size_t line, size_t column) const { return lines_[line].size() > column && lines_[line][column] == '-' && Indent(line) == column; }

  // From `start` to where something no deeper than `column` begins; comments and blank lines before that are its own.
  // dashes: items of a sequence at the same column belong to the block.
  size_t End(size_t start, size_t column, bool dashes) const {
    size_t at = start + 1;
    for (; at < lines_.size(); at++) {
      if (Blank(lines_[at]) || (Comment(at) && Indent(at) <= column)) continue;
      if (lines_[at].compare(0, 3, "---") == 0 || lines_[at].compare(0, 3, "...") == 0) break;
      if (Indent(at) > column || (dashes && Dash(at, column))) continue;
      break;
    }
    while (at > start + 1 && (Blank(lines_[at - 1]) || (Comment(at - 1) && Indent(at - 1) <= column))) at--;
    return at;
  }

  Range Entry(const YAML::Node& key, const YAML::Node& value) const {
    const size_t line = key.Mark().line, column = key.Mark().column;
    return {line, End(line, column, value.IsSequence() && Block(value))};
  }

  void Delete(Range r) {
    for (size_t i = r.from; i < r.to; i++) deleted_[i] = true;
  }

  static std::string EmitEntry(const YAML::Node& key, const YAML::Node& value, int indent) {
    YAML::Node one(YAML::NodeType::Map);
    one[key] = value;
    return Emit(one, indent);
  }

  void ChangeMap(const YAML::Node& old, const YAML::Node& now) {
    const auto find = [](const YAML::Node& map, const std::string& key) {
      for (auto it = map.begin(); it != map.end(); ++it) {
        if (it->first.Scalar() == key) return it;
      }
      return map.end();
    };
    const int column = old.begin()->first.Mark().column;
    for (auto it = old.begin(); it != old.end(); ++it) {
      if (it->first.Mark().column != column) throw CannotPatch{};
      if (find(now, it->first.Scalar()) == now.end()) {
        // The first entry of a list's item shares its line with the dash.
        if (Indent(it->first.Mark().line) != static_cast<size_t>(column)) throw CannotPatch{};
        Delete(Entry(it->first, it->second));
      }
    }
    size_t last = old.begin()->first.Mark().line;  // new entries go behind the one before them
    bool first = true;
    for (const auto& item : now) {
      const auto was = find(old, item.first.Scalar());
      if (was == old.end()) {
        if (first) throw CannotPatch{};
        inserted_[last] += EmitEntry(item.first, item.second, column);
        continue;
      }
      first = false;
      const Range r = Entry(was->first, was->second);
      last = r.to;
      if (Same(was->second, item.second)) continue;
      if (Block(was->second) && Nested(item.second) && was->second.Type() == item.second.Type()) {
        Change(was->second, item.second);
        continue;
      }
      const std::string text = EmitEntry(item.first, item.second, column);
      inserted_[r.from] += lines_[r.from].substr(0, column) + text.substr(column);  // keeps the dash of a list's item
      Delete(r);
    }
  }

  void ChangeList(const YAML::Node& old, const YAML::Node& now) {
    // Where each old item is: its dash's line, to the next one's.
    std::vector<Range> at;
    const size_t column = old.Mark().column;
    for (const YAML::Node& item : old) {
      size_t line = item.Mark().line;
      while (!Dash(line, column)) {
        if (line == 0 || line == static_cast<size_t>(old.Mark().line)) throw CannotPatch{};
        line--;
      }
      at.push_back({line, End(line, column, false)});
    }
    // Items that stay keep their order among themselves; each is known by its name, or by its place.
    bool named = true;
    for (const auto* list : {&old, &now}) {
      for (const YAML::Node& item : *list) named = named && !Name(item).empty();
    }
    if (!named && old.size() != now.size()) throw CannotPatch{};
    size_t next = 0;  // of old
    for (size_t i = 0; i < now.size(); i++) {
      size_t found = i;
      if (named) {
        for (found = next; found < old.size() && Name(old[found]) != Name(now[i]);) found++;
      }
      if (found >= old.size()) {
        std::string text;
        YAML::Node one(YAML::NodeType::Sequence);
        one.push_back(now[i]);
        inserted_[next < old.size() ? at[next].from : at.back().to] += Emit(one, static_cast<int>(column));
        continue;
      }
      for (; next < found; next++) Delete(at[next]);
      next = found + 1;
      Change(old[found], now[i]);
    }
    for (; next < old.size(); next++) Delete(at[next]);
  }

  std::vector<std::string> lines_;
  std::map<size_t, std::string> inserted_;  // before the line
  std::map<size_t, bool> deleted_;
};

}  // namespace

std::string Emit(const YAML::Node& node, int indent) {
  std::string out;
  EmitTo(node, indent, out);
  return out;
}

std::string Patch(const std::string& text, const std::vector<YAML::Node>& old, const std::vector<YAML::Node>& now) {
  try {
    Patcher patcher(text);
    for (size_t i = 0; i < old.size(); i++) patcher.Change(old[i], now[i]);
    const std::string out = patcher.Text();
    const std::vector<YAML::Node> again = base::LoadYaml(out);
    if (std::equal(again.begin(), again.end(), now.begin(), now.end(), Same)) return out;
  } catch (const CannotPatch&) {
  } catch (const YAML::Exception&) {
  }
  std::string out;
  for (const YAML::Node& doc : now) {
    if (doc.IsNull()) continue;
    if (!out.empty()) out += "---\n";
    EmitTo(doc, 0, out);
  }
  return out;
}

}  // namespace weft::inject
