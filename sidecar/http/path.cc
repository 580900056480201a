#include "sidecar/http/path.h"

#include <algorithm>
#include <cstring>

namespace weft::http {
namespace {

int Hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool Unreserved(int c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
         c == '~';
}

// True when nothing in the path can need a change: no escape, backslash, "/." or (when merged) "//".
bool Plain(std::string_view p, bool merge) {
  for (size_t i = 0; i < p.size(); ++i) {
    const char c = p[i];
    if (c == '%' || c == '\\') return false;
    if (c == '/' && i + 1 < p.size() && (p[i + 1] == '.' || (merge && p[i + 1] == '/'))) return false;
  }
  return true;
}

}  // namespace

SplitTarget SplitPath(std::string_view target) {
  const size_t q = target.find('?');
  if (q == std::string_view::npos) return {target, {}, false};
  return {target.substr(0, q), target.substr(q + 1), true};
}

bool ValidTarget(std::string_view target) {
  for (const char c : target) {
    if (static_cast<uint8_t>(c - 0x21) > 0x7e - 0x21 || c == '#') return false;
  }
  return !target.empty();
}

PathOutcome NormalizePath(std::string_view target, const PathOptions& options, std::string& out) {
  const size_t q = target.find('?');
  const std::string_view path = target.substr(0, q);
  if (Plain(path, options.merge_slashes)) return PathOutcome::kUnchanged;

  // First escapes and backslashes, then segments: "%2e%2e\" is a dot segment like any other.
  bool unescaped = false;
  std::string flat;
  flat.reserve(path.size());
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\') {
      flat.push_back('/');
    } else if (path[i] != '%') {
      flat.push_back(path[i]);
    } else {
      const int hi = i + 2 < path.size() ? Hex(path[i + 1]) : -1;
      const int lo = i + 2 < path.size() ? Hex(path[i + 2]) : -1;
      const int c = hi * 16 + lo;
      if (hi < 0 || lo < 0 || c == 0) return PathOutcome::kInvalid;
      if (options.reject_encoded_slash && (c == '/' || c == '\\')) return PathOutcome::kEncodedSlash;
      if (options.unescape_slash && (c == '/' || c == '\\')) {
        flat.push_back('/');
        unescaped = true;
      } else if (Unreserved(c)) {
        flat.push_back(static_cast<char>(c));
      } else {
        flat.append(path.substr(i, 3));
      }
      i += 2;
    }
  }

  out.clear();
  // Each round takes "/segment"; out always ends just before the next slash.
  for (size_t i = 0; i < flat.size();) {
    size_t end = flat.find('/', i + 1);
    if (end == std::string::npos) end = flat.size();
    const std::string_view segment = std::string_view(flat).substr(i + 1, end - i - 1);
    const bool last = end == flat.size();
    if (segment == ".") {
      if (last) out.push_back('/');
    } else if (segment == "..") {
      const size_t up = out.rfind('/');
      out.resize(up == std::string::npos ? 0 : up);
      if (last) out.push_back('/');
    } else {
      out.push_back('/');
      out.append(segment);
    }
    i = end;
  }
  if (out.empty()) out.push_back('/');
  // Slashes last, as Envoy does: "/a//../b" is "/a/b" (RFC 3986, 5.2.4), not "/b".
  if (options.merge_slashes) out.erase(std::unique(out.begin(), out.end(), [](char a, char b) { return a == '/' && b == '/'; }), out.end());
  if (q != std::string_view::npos) out.append(target.substr(q));
  if (unescaped) return PathOutcome::kUnescaped;
  return out == target ? PathOutcome::kUnchanged : PathOutcome::kChanged;
}

}  // namespace weft::http
