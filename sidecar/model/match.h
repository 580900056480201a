// Value matchers shared by routes, RBAC, faults and certificates: strings, headers, numbers.
// Compiled when the configuration is translated, evaluated without allocation. Immutable, any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/http/headers.h"

namespace re2 {
class RE2;
}

namespace weft::model {

// A compiled RE2 expression; matches whole values (as Envoy's RegexMatcher does).
class Regex {
 public:
  Regex() = default;
  // Fails on a bad pattern and on one whose program is larger than max_program_size.
  static base::Result<Regex> Compile(const std::string& pattern, int max_program_size = 5000);
  bool FullMatch(std::string_view text) const;
  // Replaces every match in text (RE2 \1 substitutions); the input when nothing matches.
  std::string ReplaceAll(std::string_view text, const std::string& substitution) const;
  const std::string& pattern() const { return pattern_; }
  explicit operator bool() const { return re_ != nullptr; }
  // Groups in the expression; a substitution may name \0..\n.
  int groups() const;
  base::Status CheckSubstitution(const std::string& substitution) const;

 private:
  std::string pattern_;
  std::shared_ptr<const re2::RE2> re_;
};

struct StringMatcher {
  // kUnknown never matches: what could not be understood must not allow anything.
  enum Kind : uint8_t { kUnknown, kExact, kPrefix, kSuffix, kContains, kRegex } kind = kUnknown;
  std::string value;  // lower-cased already when ignore_case
  bool ignore_case = false;
  Regex regex;

  bool Match(std::string_view text) const;
};

// One of the values of a repeated header must match; inverted, none may. Names are lower case; ":authority" also finds "host".
struct HeaderMatcher {
  enum Kind : uint8_t { kPresent, kString, kRange } kind = kPresent;
  std::string name;
  http::Token token = http::Token::kCustom;
  bool present = true;                   // kPresent: whether it must be there
  StringMatcher string;                  // kString
  int64_t range_start = 0, range_end = 0;  // kRange: [start, end)
  bool invert = false;
  bool treat_missing_as_empty = false;

  bool Match(const http::HeaderMap& headers) const;
};
bool MatchAll(const std::vector<HeaderMatcher>& matchers, const http::HeaderMap& headers);

struct QueryMatcher {
  std::string name;
  bool present_only = true;
  StringMatcher string;

  bool Match(std::string_view path_with_query) const;
};

// numerator out of denominator (100, 10'000 or 1'000'000). Runtime keys are not supported: the default value counts.
struct Percent {
  uint32_t numerator = 0, denominator = 100;
  bool Sample(uint64_t random) const { return random % denominator < numerator; }
  double fraction() const { return static_cast<double>(numerator) / denominator; }
};

}  // namespace weft::model
