// Functions of texts, and patterns.
#include <re2/re2.h>

#include <algorithm>

#include "sidecar/cel/function.h"
#include "sidecar/cel/lexer.h"
#include "sidecar/cel/literal_map.h"
#include "sidecar/cel/pattern.h"

namespace weft::cel {
namespace {

using enum Value::Kind;

bool Texts(const Call& c) {
  return std::all_of(c.args.begin(), c.args.end(), [](const Value& v) { return v.kind == kString; });
}

template <bool (*F)(std::string_view text, std::string_view part)>
Value Test(const Call& c) { return Texts(c) ? Value::Bool(F(c.args[0].text, c.args[1].text)) : NoOverload(); }
bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
bool StartsWith(std::string_view text, std::string_view part) { return text.starts_with(part); }
bool EndsWith(std::string_view text, std::string_view part) { return text.ends_with(part); }

// The pattern that stands in the expression, or the one just computed.
struct Pattern {
  explicit Pattern(const Call& c, size_t argument) : re(c.node.regex) {
    if (!re) re = CompilePattern(c.args[argument].text);
  }
  std::shared_ptr<const re2::RE2> re;
};

Value Matches(const Call& c) {
  if (!Texts(c)) return NoOverload();
  const Pattern p(c, 1);
  if (!p.re->ok()) return Value::Error("invalid regular expression");
  if (p.re->ProgramSize() > kMaxPatternProgram) return Value::Error("regular expression exceeds max allowed size");
  return Value::Bool(re2::RE2::PartialMatch(re2::StringPiece(c.args[0].text.data(), c.args[0].text.size()), *p.re));
}

// re.extract(text, pattern, "\\1"): the first match, written anew.
Value Extract(const Call& c) {
  if (!Texts(c)) return NoOverload();
  const Pattern p(c, 1);
  if (!p.re->ok()) return Value::Error("invalid regular expression");
  std::string out;
  const std::string_view rewrite = c.args[2].text;
  if (!re2::RE2::Extract(re2::StringPiece(c.args[0].text.data(), c.args[0].text.size()), *p.re, re2::StringPiece(rewrite.data(), rewrite.size()), &out))
    return Value::Error("nothing to extract");
  return c.arena.String(std::move(out));
}

// The groups of a match of the whole text; nothing when it does not match or there is no group.
std::vector<re2::StringPiece> Groups(const Call& c, const re2::RE2& re) {
  if (!re.ok() || re.NumberOfCapturingGroups() < 1) return {};
  std::vector<re2::StringPiece> groups(static_cast<size_t>(re.NumberOfCapturingGroups()) + 1);
  const re2::StringPiece text(c.args[0].text.data(), c.args[0].text.size());
  if (!re.Match(text, 0, text.size(), re2::RE2::ANCHOR_BOTH, groups.data(), static_cast<int>(groups.size()))) return {};
  return groups;
}

Value Text(re2::StringPiece s) { return Value::String({s.data(), s.size()}); }

Value Capture(const Call& c) {
  if (!Texts(c)) return NoOverload();
  const Pattern p(c, 1);
  const auto groups = Groups(c, *p.re);
  return groups.empty() ? Value::Error("nothing to capture") : Text(groups[1]);
}

Value CaptureN(const Call& c) {
  if (!Texts(c)) return NoOverload();
  const Pattern p(c, 1);
  const auto groups = Groups(c, *p.re);
  if (groups.empty()) return Value::Error("nothing to capture");
  auto* map = c.arena.New<LiteralMap>();
  const auto& names = p.re->CapturingGroupNames();
  for (size_t i = 1; i < groups.size(); ++i) {
    const auto name = names.find(static_cast<int>(i));
    Value key = c.arena.String(name != names.end() ? name->second : std::to_string(i));
    if (key.IsError()) return key;
    map->Add(key, Text(groups[i]));
  }
  return Value::Of(map);
}

template <char kFrom, char kTo>
Value Recased(const Call& c) {
  if (!Texts(c)) return NoOverload();
  if (!c.arena.Room(c.args[0].text.size())) return Value::Error("the expression makes too much text");
  std::string out(c.args[0].text);
  for (char& ch : out)
    if (ch >= kFrom && ch <= kFrom + 25) ch = static_cast<char>(ch - kFrom + kTo);
  return c.arena.String(std::move(out));
}

// A limit below zero is none.
bool Limit(const Call& c, size_t argument, int64_t* limit) {
  *limit = -1;
  if (c.args.size() <= argument) return true;
  *limit = c.args[argument].i;
  return c.args[argument].kind == kInt;
}

Value Replace(const Call& c) {
  int64_t limit = -1;
  if (c.args[0].kind != kString || c.args[1].kind != kString || c.args[2].kind != kString || !Limit(c, 3, &limit)) return NoOverload();
  std::string_view left = c.args[0].text;
  const std::string_view from = c.args[1].text, to = c.args[2].text;
  std::string out;
  for (; limit != 0; --limit) {
    const size_t at = left.find(from);
    if (at == std::string_view::npos) break;
    out.append(left.substr(0, at)).append(to);
    left.remove_prefix(at + from.size());
    if (from.empty()) {
      if (left.empty()) break;
      const size_t n = CharacterLength(left);
      out.append(left.substr(0, n)), left.remove_prefix(n);
    }
    if (!c.arena.Room(out.size() + left.size()) || !c.arena.Spend(1)) return Value::Error("the expression makes too much text");
  }
  out.append(left);
  return c.arena.String(std::move(out));
}

Value Split(const Call& c) {
  int64_t limit = -1;
  if (c.args[0].kind != kString || c.args[1].kind != kString || !Limit(c, 2, &limit)) return NoOverload();
  auto* list = c.arena.New<List>();
  std::string_view left = c.args[0].text;
  const std::string_view by = c.args[1].text;
  if (limit == 0) return Value::Of(list);
  while (limit < 0 || static_cast<int64_t>(list->size()) + 1 < limit) {
    size_t at = left.find(by);
    if (by.empty()) at = left.empty() ? 0 : CharacterLength(left);
    if (at == std::string_view::npos || (by.empty() && at == left.size())) break;
    if (!c.arena.Spend(4)) return Value::Error("the expression does too much");
    list->push_back(Value::String(left.substr(0, at)));
    left.remove_prefix(at + by.size());
  }
  list->push_back(Value::String(left));
  return Value::Of(list);
}

Value Join(const Call& c) {
  if (c.args[0].kind != kList || (c.args.size() == 2 && c.args[1].kind != kString)) return NoOverload();
  const std::string_view between = c.args.size() == 2 ? c.args[1].text : std::string_view();
  std::string out;
  for (const Value& v : *c.args[0].list) {
    if (v.kind != kString) return NoOverload();
    if (&v != c.args[0].list->data()) out += between;
    out += v.text;
    if (!c.arena.Room(out.size()) || !c.arena.Spend(1)) return Value::Error("the expression makes too much text");
  }
  return c.arena.String(std::move(out));
}

// Where the character n begins; the end of text when there are just n.
std::optional<size_t> Place(std::string_view text, int64_t n) {
  size_t at = 0;
  for (; n > 0 && at < text.size(); --n) at += CharacterLength(text.substr(at));
  if (n != 0) return std::nullopt;
  return at;
}
int64_t Characters(std::string_view text) {
  int64_t n = 0;
  for (; !text.empty(); text.remove_prefix(CharacterLength(text))) ++n;
  return n;
}

Value CharAt(const Call& c) {
  if (c.args[0].kind != kString || c.args[1].kind != kInt) return NoOverload();
  const auto at = Place(c.args[0].text, c.args[1].i);
  if (!at) return Value::Error("index out of range");
  const std::string_view rest = c.args[0].text.substr(*at);
  return Value::String(rest.empty() ? rest : rest.substr(0, CharacterLength(rest)));
}

template <bool kLast>
Value IndexOf(const Call& c) {
  if (c.args[0].kind != kString || c.args[1].kind != kString || (c.args.size() == 3 && c.args[2].kind != kInt)) return NoOverload();
  const std::string_view text = c.args[0].text, part = c.args[1].text;
  std::optional<size_t> from = kLast ? text.size() : 0;
  if (c.args.size() == 3) from = Place(text, c.args[2].i);
  if (!from) return Value::Error("index out of range");
  const size_t at = kLast ? text.rfind(part, *from) : text.find(part, *from);
  return Value::Int(at == std::string_view::npos ? -1 : Characters(text.substr(0, at)));
}

Value Substring(const Call& c) {
  if (c.args[0].kind != kString || c.args[1].kind != kInt || (c.args.size() == 3 && c.args[2].kind != kInt)) return NoOverload();
  const std::string_view text = c.args[0].text;
  const auto from = Place(text, c.args[1].i), to = c.args.size() == 3 ? Place(text, c.args[2].i) : text.size();
  if (!from || !to || *from > *to) return Value::Error("index out of range");
  return Value::String(text.substr(*from, *to - *from));
}

Value Trim(const Call& c) {
  if (!Texts(c)) return NoOverload();
  // Unicode's White_Space.
  static constexpr std::string_view kBlanks[] = {" ", "\t", "\n", "\v", "\f", "\r", "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
                                                 "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  std::string_view s = c.args[0].text;
  for (bool more = true; more;) {
    more = false;
    for (std::string_view blank : kBlanks) {
      if (s.starts_with(blank)) s.remove_prefix(blank.size()), more = true;
      if (s.ends_with(blank)) s.remove_suffix(blank.size()), more = true;
    }
  }
  return Value::String(s);
}

Value Reverse(const Call& c) {
  if (!Texts(c)) return NoOverload();
  if (!c.arena.Room(c.args[0].text.size())) return Value::Error("the expression makes too much text");
  std::string out(c.args[0].text.size(), 0);
  size_t end = out.size();
  for (std::string_view s = c.args[0].text; !s.empty();) {
    const size_t n = CharacterLength(s);
    end -= n;
    s.copy(out.data() + end, n);
    s.remove_prefix(n);
  }
  return c.arena.String(std::move(out));
}

Value Quote(const Call& c) {
  if (!Texts(c)) return NoOverload();
  static constexpr std::string_view kNames = "abfnrtv\\\"", kMeaning = "\a\b\f\n\r\t\v\\\"";
  if (!c.arena.Room(c.args[0].text.size() * 2 + 2)) return Value::Error("the expression makes too much text");
  std::string out = "\"";
  for (char ch : c.args[0].text) {
    const size_t i = kMeaning.find(ch);
    if (i == std::string_view::npos) out += ch;
    else out += '\\', out += kNames[i];
  }
  return c.arena.String(out + "\"");
}

constexpr auto kMore = Function::kStringFunctions;
constexpr Function kFunctions[] = {
    {"contains", 2, 2, true, true, Test<Contains>},
    {"startsWith", 2, 2, true, true, Test<StartsWith>},
    {"endsWith", 2, 2, true, true, Test<EndsWith>},
    {"matches", 2, 2, true, true, Matches},
    {"re.extract", 3, 3, true, false, Extract},
    {"re.capture", 2, 2, true, false, Capture},
    {"re.captureN", 2, 2, true, false, CaptureN},
    {"lowerAscii", 1, 1, false, true, Recased<'A', 'a'>, kMore},
    {"upperAscii", 1, 1, false, true, Recased<'a', 'A'>, kMore},
    {"replace", 3, 4, false, true, Replace, kMore},
    {"split", 2, 3, false, true, Split, kMore},
    {"join", 1, 2, false, true, Join, kMore},
    {"charAt", 2, 2, false, true, CharAt, kMore},
    {"indexOf", 2, 3, false, true, IndexOf<false>, kMore},
    {"lastIndexOf", 2, 3, false, true, IndexOf<true>, kMore},
    {"substring", 2, 3, false, true, Substring, kMore},
    {"trim", 1, 1, false, true, Trim, kMore},
    {"reverse", 1, 1, false, true, Reverse, kMore},
    {"strings.quote", 1, 1, true, false, Quote, kMore},
};

}  // namespace

std::span<const Function> TextFunctions() { return kFunctions; }

}  // namespace weft::cel
