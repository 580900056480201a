// Request targets: what is allowed in one, splitting, and the one normal form that policy, router and upstream all see.
//
//   if (!ValidTarget(target)) → 400
//   switch (NormalizePath(target, {.merge_slashes = true}, scratch)) {
//     case PathOutcome::kUnchanged: break;             // the usual case, scratch is not touched
//     case PathOutcome::kChanged: head.Set(Token::kPath, scratch); break;
//     default: → 400
//   }
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weft::http {

// "/a?b=c" -> path "/a", query "b=c" (without the question mark).
struct SplitTarget {
  std::string_view path, query;
  bool has_query = false;
};
SplitTarget SplitPath(std::string_view target);

// Visible ASCII without '#', nothing else; not empty. Says nothing about the first character.
bool ValidTarget(std::string_view target);

struct PathOptions {
  bool merge_slashes = false;         // "//" becomes "/"
  bool reject_encoded_slash = false;  // %2f and %5c are refused: wanted wherever a path policy applies
  bool unescape_slash = false;        // they become "/"
};

enum class PathOutcome : uint8_t {
  kUnchanged,
  kChanged,
  kInvalid,       // %00 or a broken percent escape in the path
  kEncodedSlash,  // only with reject_encoded_slash
  kUnescaped,     // kChanged, among others by unescape_slash
};

// Resolves dot segments (also written %2e), turns '\' into '/', decodes escapes of unreserved characters. The query is
// kept byte for byte. target starts with '/'. On kChanged and kUnescaped, out holds the whole new target.
PathOutcome NormalizePath(std::string_view target, const PathOptions& options, std::string& out);

}  // namespace weft::http
