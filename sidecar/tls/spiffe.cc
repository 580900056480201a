#include "sidecar/tls/spiffe.h"

namespace weft::tls {
namespace {

bool Word(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'; }

}  // namespace

std::optional<SpiffeId> ParseSpiffeId(std::string_view id) {
  constexpr std::string_view kScheme = "spiffe://";
  if (id.size() > 2048 || id.substr(0, kScheme.size()) != kScheme) return std::nullopt;
  std::string_view rest = id.substr(kScheme.size());
  size_t slash = rest.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash > 255) return std::nullopt;
  SpiffeId out{rest.substr(0, slash), rest.substr(slash)};
  for (char c : out.trust_domain) {
    if (!Word(c)) return std::nullopt;
  }
  std::string_view path = out.path;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    size_t next = path.find('/');
    std::string_view segment = path.substr(0, next);
    if (segment.empty() || segment == "." || segment == "..") return std::nullopt;
    for (char c : segment) {
      if (!Word(c) && !(c >= 'A' && c <= 'Z')) return std::nullopt;
    }
    path = next == std::string_view::npos ? std::string_view() : path.substr(next);
  }
  return out;
}

std::string MakeSpiffeId(std::string_view trust_domain, std::string_view ns, std::string_view service) {
  std::string s = "spiffe://";
  s.append(trust_domain).append("/ns/").append(ns).append("/sa/").append(service);
  return s;
}

}  // namespace weft::tls
