#include "tools/weft/run/spec.h"

#include <algorithm>
#include <charconv>

namespace weft::run {
namespace {

bool ParsePortNumber(std::string_view s, uint16_t& out) {
  unsigned v = 0;
  auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (error != std::errc() || end != s.data() + s.size() || v == 0 || v > 65535) return false;
  out = static_cast<uint16_t>(v);
  return true;
}

}  // namespace

std::optional<PortSpec> ParsePort(std::string_view text, std::string& error) {
  PortSpec spec;
  std::string_view rest = text;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    if (!ParsePortNumber(rest.substr(at + 1), spec.service_port)) {
      error = "--port " + std::string(text) + ": after '@' comes the port that callers dial (1..65535)";
      return std::nullopt;
    }
    rest = rest.substr(0, at);
  }
  if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
    spec.protocol = rest.substr(colon + 1);
    if (spec.protocol != "http" && spec.protocol != "http2" && spec.protocol != "grpc" && spec.protocol != "tcp") {
      error = "--port " + std::string(text) + ": the protocol is http, http2, grpc or tcp";
      return std::nullopt;
    }
    rest = rest.substr(0, colon);
  }
  if (!ParsePortNumber(rest, spec.number)) {
    error = "--port " + std::string(text) + ": expected PORT[:PROTOCOL][@SERVICE_PORT], such as 8000:http@80";
    return std::nullopt;
  }
  return spec;
}

std::optional<ReadySpec> ParseReady(std::string_view text, uint16_t default_port, std::string& error) {
  ReadySpec spec;
  spec.port = default_port;
  if (text == "none") {
    spec.kind = ReadySpec::Kind::kNone;
    return spec;
  }
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  std::string_view rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  if (kind == "http") {
    spec.kind = ReadySpec::Kind::kHttp;
    const size_t slash = rest.find('/');
    const bool bad_path = slash == std::string_view::npos ||
                          std::any_of(rest.begin(), rest.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; });
    if (bad_path || (slash > 0 && !ParsePortNumber(rest.substr(0, slash), spec.port))) {
      error = "--ready " + std::string(text) + ": expected http:[PORT]/PATH, such as http:/healthz";
      return std::nullopt;
    }
    spec.path = rest.substr(slash);
    return spec;
  }
  if (kind != "tcp" || (colon != std::string_view::npos && !ParsePortNumber(rest, spec.port))) {
    error = "--ready " + std::string(text) + ": expected tcp, tcp:PORT, http:[PORT]/PATH or none";
    return std::nullopt;
  }
  return spec;
}

bool IsLabel(std::string_view s) {
  if (s.empty() || s.size() > 63 || s.front() == '-' || s.back() == '-') return false;
  return std::all_of(s.begin(), s.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

bool IsVersion(std::string_view s) {
  if (s.empty() || s.size() > 63) return false;
  return std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace weft::run
