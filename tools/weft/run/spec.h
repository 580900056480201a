// What to run, as the flags of `weft run` say it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::run {

struct PortSpec {
  uint16_t number = 0;          // where the application listens
  std::string protocol = "http";  // http | http2 | grpc | tcp
  uint16_t service_port = 0;    // where callers dial it; 0: same as number
};

struct ReadySpec {
  enum class Kind { kTcp, kHttp, kNone } kind = Kind::kTcp;
  uint16_t port = 0;
  std::string path;             // kHttp: 2xx and 3xx pass
};

// "8000", "8000:grpc", "8000:http@80", "8000@80"; nullopt and `error` when it is none of these.
std::optional<PortSpec> ParsePort(std::string_view text, std::string& error);

// "tcp", "tcp:8000", "http:/healthz", "http:8000/healthz", "none" (ready as soon as it runs); the port defaults to
// `default_port`.
std::optional<ReadySpec> ParseReady(std::string_view text, uint16_t default_port, std::string& error);

// A DNS label: what names of services, namespaces and versions must be. Versions may also hold dots.
bool IsLabel(std::string_view s);
bool IsVersion(std::string_view s);

}  // namespace weft::run
