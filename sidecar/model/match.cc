#include "sidecar/model/match.h"

#include <re2/re2.h>

#include <algorithm>
#include <charconv>

namespace weft::model {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool EqualLower(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() &&
         std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) { return Lower(a) == b; });
}

re2::StringPiece Piece(std::string_view s) { return {s.data(), s.size()}; }

// One value of the header.
bool MatchValue(const HeaderMatcher& m, std::string_view v) {
  if (m.kind == HeaderMatcher::kString) return m.string.Match(v);
  int64_t n = 0;
  const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), n);
  return error == std::errc() && end == v.data() + v.size() && n >= m.range_start && n < m.range_end;
}

}  // namespace

base::Result<Regex> Regex::Compile(const std::string& pattern, int max_program_size) {
  re2::RE2::Options options(re2::RE2::Quiet);
  auto re = std::make_shared<re2::RE2>(pattern, options);
  if (!re->ok()) return base::Error("bad regular expression \"" + pattern + "\": " + re->error());
  if (re->ProgramSize() > max_program_size)
    return base::Error("regular expression \"" + pattern.substr(0, 64) + "\" is too large (program size " +
                       std::to_string(re->ProgramSize()) + " > " + std::to_string(max_program_size) + ")");
  Regex r;
  r.pattern_ = pattern;
  r.re_ = std::move(re);
  return r;
}

bool Regex::FullMatch(std::string_view text) const { return re_ && re2::RE2::FullMatch(Piece(text), *re_); }

std::string Regex::ReplaceAll(std::string_view text, const std::string& substitution) const {
  std::string s(text);
  if (re_) re2::RE2::GlobalReplace(&s, *re_, substitution);
  return s;
}

int Regex::groups() const { return re_ ? re_->NumberOfCapturingGroups() : 0; }

base::Status Regex::CheckSubstitution(const std::string& substitution) const {
  std::string error;
  if (re_ && !re_->CheckRewriteString(substitution, &error)) return base::Error("bad substitution: " + error);
  return base::Ok{};
}

bool StringMatcher::Match(std::string_view text) const {
  switch (kind) {
    case kUnknown: return false;
    case kRegex: return regex.FullMatch(text);
    case kExact: return ignore_case ? EqualLower(text, value) : text == value;
    case kPrefix:
      if (text.size() < value.size()) return false;
      return ignore_case ? EqualLower(text.substr(0, value.size()), value) : text.starts_with(value);
    case kSuffix:
      if (text.size() < value.size()) return false;
      return ignore_case ? EqualLower(text.substr(text.size() - value.size()), value) : text.ends_with(value);
    case kContains:
      if (!ignore_case) return text.find(value) != std::string_view::npos;
      return std::search(text.begin(), text.end(), value.begin(), value.end(), [](char a, char b) { return Lower(a) == b; }) != text.end() ||
             value.empty();
  }
  return false;
}

bool HeaderMatcher::Match(const http::HeaderMap& headers) const {
  using enum http::Token;
  // ":authority" is "host" in HTTP/1 heads.
  const bool host = token == kAuthority || token == kHost;
  bool there = false, matches = false;
  for (const auto& e : headers) {
    if (token == kCustom ? e.name() != name : e.token() != token && !(host && (e.token() == kAuthority || e.token() == kHost))) continue;
    there = true;
    if (kind == kPresent || (matches = MatchValue(*this, e.value()))) break;
  }
  if (kind == kPresent) return ((there || treat_missing_as_empty) == present) != invert;
  // As Envoy: a missing header matches nothing, not even inverted, unless it is to count as empty.
  if (!there) {
    if (!treat_missing_as_empty) return false;
    matches = MatchValue(*this, {});
  }
  return matches != invert;
}

bool MatchAll(const std::vector<HeaderMatcher>& matchers, const http::HeaderMap& headers) {
  for (const auto& m : matchers)
    if (!m.Match(headers)) return false;
  return true;
}

bool QueryMatcher::Match(std::string_view path) const {
  size_t q = path.find('?');
  if (q == std::string_view::npos) return false;
  path.remove_prefix(q + 1);
  path = path.substr(0, path.find('#'));
  while (!path.empty()) {
    std::string_view item = path.substr(0, path.find('&'));
    path.remove_prefix(std::min(path.size(), item.size() + 1));
    size_t eq = item.find('=');
    // The first parameter of the name decides, as in Envoy.
    if (item.substr(0, eq) == name) return present_only || string.Match(eq == std::string_view::npos ? "" : item.substr(eq + 1));
  }
  return false;
}

}  // namespace weft::model
