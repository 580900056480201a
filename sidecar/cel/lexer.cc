#include "sidecar/cel/lexer.h"

#include <optional>

namespace weft::cel {
namespace {

bool Digit(char c) { return c >= '0' && c <= '9'; }
bool Letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
int Hex(char c) { return Digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

void AppendUtf8(uint32_t c, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3f)); };
  if (c < 0x80) out += static_cast<char>(c);
  else if (c < 0x800) out += static_cast<char>(0xc0 | c >> 6), tail(0);
  else if (c < 0x10000) out += static_cast<char>(0xe0 | c >> 12), tail(6), tail(0);
  else out += static_cast<char>(0xf0 | c >> 18), tail(12), tail(6), tail(0);
}

// One escape sequence, behind its backslash. Its length, 0 when it is none; what is wrong with it.
size_t Escape(std::string_view s, bool bytes, std::string& out, const char** wrong) {
  static constexpr std::string_view kNames = "abfnrtv\\?\"'`", kMeaning = "\a\b\f\n\r\t\v\\?\"'`";
  if (s.empty()) return 0;
  if (const size_t i = kNames.find(s[0]); i != std::string_view::npos) return out += kMeaning[i], 1;
  const auto put = [&](uint32_t c) { bytes ? static_cast<void>(out += static_cast<char>(c)) : AppendUtf8(c, out); };
  if (s[0] >= '0' && s[0] <= '3') {
    if (s.size() < 3 || s[1] < '0' || s[1] > '7' || s[2] < '0' || s[2] > '7') return 0;
    return put(static_cast<uint32_t>((s[0] - '0') * 64 + (s[1] - '0') * 8 + (s[2] - '0'))), 3;
  }
  const size_t n = s[0] == 'x' || s[0] == 'X' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
  if (n == 0 || s.size() < n + 1) return 0;
  uint32_t c = 0;
  for (size_t i = 1; i <= n; ++i) {
    if (Hex(s[i]) < 0) return 0;
    c = c << 4 | static_cast<uint32_t>(Hex(s[i]));
  }
  if (n > 2 && bytes) *wrong = "a Unicode escape in bytes";
  else if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) *wrong = "an escape that is no character";
  else put(c);
  return n + 1;
}

}  // namespace

base::Error ErrorAt(uint32_t line, uint32_t column, const std::string& what) {
  return base::Error("expression " + std::to_string(line) + ":" + std::to_string(column) + ": " + what);
}

size_t CharacterLength(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char c = byte(0);
  const size_t n = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 1;
  if (n > s.size()) return 1;
  for (size_t i = 1; i < n; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 1;
  if (n > 1 && ((c == 0xe0 && byte(1) < 0xa0) || (c == 0xed && byte(1) > 0x9f) || (c == 0xf0 && byte(1) < 0x90) || (c == 0xf4 && byte(1) > 0x8f))) return 1;
  return n;
}

bool IsUtf8(std::string_view s) {
  while (!s.empty()) {
    const size_t n = CharacterLength(s);
    if (n == 1 && static_cast<unsigned char>(s[0]) >= 0x80) return false;
    s.remove_prefix(n);
  }
  return true;
}

void Lexer::Advance(size_t bytes) {
  for (const size_t end = at_ + bytes; at_ < end;) {
    if (source_[at_] == '\n') ++line_, column_ = 1, ++at_;
    else ++column_, at_ += CharacterLength(source_.substr(at_));
  }
}

void Lexer::SkipBlank() {
  while (at_ < source_.size()) {
    const std::string_view left = source_.substr(at_);
    if (std::string_view(" \t\r\n\f").find(left[0]) != std::string_view::npos) Advance(1);
    else if (left.starts_with("//")) Advance(std::min(left.find('\n'), left.size()));
    else return;
  }
}

Token Lexer::Take(Token::Kind kind, size_t bytes) {
  Token t{kind, source_.substr(at_, bytes), {}, line_, column_};
  Advance(bytes);
  return t;
}

// 1, 0x1f, 1u, 1.5, .5, 1e3: the longest of these.
size_t Lexer::NumberLength(Token::Kind* kind) const {
  const std::string_view s = source_.substr(at_);
  const auto digits = [&](size_t from, auto good) {
    while (from < s.size() && good(s[from])) ++from;
    return from;
  };
  const auto unsigned_or = [&](size_t end) {
    const bool u = end < s.size() && (s[end] == 'u' || s[end] == 'U');
    return *kind = u ? Token::kUint : Token::kInt, end + u;
  };
  if (s.starts_with("0x") && s.size() > 2 && Hex(s[2]) >= 0) return unsigned_or(digits(2, [](char c) { return Hex(c) >= 0; }));
  size_t end = digits(0, Digit);
  const size_t whole = end;
  if (end + 1 < s.size() && s[end] == '.' && Digit(s[end + 1])) end = digits(end + 1, Digit), *kind = Token::kDouble;
  if (end < s.size() && (s[end] == 'e' || s[end] == 'E')) {
    const size_t sign = end + 1 < s.size() && (s[end + 1] == '+' || s[end + 1] == '-');
    const size_t last = digits(end + 1 + sign, Digit);
    if (last > end + 1 + sign) return *kind = Token::kDouble, last;
  }
  return end > whole ? end : unsigned_or(end);
}

base::Result<Token> Lexer::Text(size_t prefix, bool raw, bool bytes) {
  const std::string_view s = source_.substr(at_);
  const char quote = s[prefix];
  const bool three = s.substr(prefix).size() >= 3 && s[prefix + 1] == quote && s[prefix + 2] == quote;
  const std::string_view end = three ? s.substr(prefix, 3) : s.substr(prefix, 1);
  std::string text;
  for (size_t i = prefix + end.size(); i < s.size();) {
    if (s.substr(i).starts_with(end)) {
      Token t = Take(bytes ? Token::kBytes : Token::kString, i + end.size());
      t.text = std::move(text);
      return t;
    }
    if (!three && (s[i] == '\n' || s[i] == '\r')) break;
    if (raw || s[i] != '\\') {
      text += s[i++];
      continue;
    }
    const char* wrong = nullptr;
    const size_t n = Escape(s.substr(i + 1), bytes, text, &wrong);
    if (n == 0) wrong = "an escape sequence that is none";
    if (wrong) return ErrorAt(line_, column_, std::string(wrong) + " in a literal");
    i += n + 1;
  }
  return ErrorAt(line_, column_, "a literal that does not end");
}

base::Result<Token> Lexer::Next() {
  SkipBlank();
  if (at_ == source_.size()) return Take(Token::kEnd, 0);
  const std::string_view s = source_.substr(at_);
  // Up to two letters before a quote: r"", b"", br"".
  size_t prefix = 0;
  const bool bytes = s[0] == 'b' || s[0] == 'B';
  prefix += bytes;
  const bool raw = prefix < s.size() && (s[prefix] == 'r' || s[prefix] == 'R');
  prefix += raw;
  if (prefix < s.size() && (s[prefix] == '"' || s[prefix] == '\'')) return Text(prefix, raw, bytes);
  if (Letter(s[0])) {
    size_t n = 1;
    while (n < s.size() && (Letter(s[n]) || Digit(s[n]))) ++n;
    return Take(Token::kIdent, n);
  }
  if (Digit(s[0]) || (s[0] == '.' && s.size() > 1 && Digit(s[1]))) {
    Token::Kind kind = Token::kInt;
    const size_t n = NumberLength(&kind);
    return Take(kind, n);
  }
  if (s[0] == '`') {
    size_t n = 1;
    while (n < s.size() && (Letter(s[n]) || Digit(s[n]) || std::string_view(".-/ ").find(s[n]) != std::string_view::npos)) ++n;
    if (n > 1 && n < s.size() && s[n] == '`') {
      Token t = Take(Token::kQuotedIdent, n + 1);
      t.text = std::string(t.raw.substr(1, n - 1));
      return t;
    }
  }
  for (std::string_view two : {"==", "!=", "<=", ">=", "&&", "||"})
    if (s.starts_with(two)) return Take(Token::kOperator, 2);
  if (std::string_view("+-*/%<>!?:.,()[]{}").find(s[0]) != std::string_view::npos) return Take(Token::kOperator, 1);
  return ErrorAt(line_, column_, "unexpected \"" + std::string(s.substr(0, CharacterLength(s))) + "\"");
}

}  // namespace weft::cel
