// Logging to standard error, in Envoy's default format:
//   [2026-11-23 05:15:50.123][4711][info][upstream] [sidecar/upstream/pool.cc:42] connected to 10.0.0.7:8000
//
// Usage: WEFT_LOG(kUpstream, kInfo, "connected to ", address);
//        the arguments are evaluated only when that component logs at that level (one relaxed load otherwise).
// Threads: any. One line is one write(2); control characters in the message are escaped, so a peer's bytes cannot
// forge a line. Levels are set per component (flags -l and --component-log-level, admin /logging).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "sidecar/base/result.h"
#include "sidecar/base/str.h"

namespace weft::base {

enum class Level : uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kCritical, kOff };

// Names as in Envoy, so that its flags work unchanged.
#define WEFT_LOG_COMPONENTS(X)                                                                                      \
  X(kAdmin, "admin") X(kAssert, "assert") X(kClient, "client") X(kConfig, "config") X(kConnection, "connection")    \
  X(kConnHandler, "conn_handler") X(kDns, "dns") X(kFault, "fault") X(kFile, "file") X(kFilter, "filter")           \
  X(kForwardProxy, "forward_proxy") X(kGrpc, "grpc") X(kHc, "hc") X(kHttp, "http") X(kHttp2, "http2")               \
  X(kIdentity, "identity") X(kInit, "init") X(kIo, "io") X(kJwt, "jwt") X(kMain, "main") X(kMisc, "misc")           \
  X(kPool, "pool") X(kRatelimit, "ratelimit") X(kRbac, "rbac") X(kRouter, "router") X(kRuntime, "runtime")          \
  X(kSecret, "secret") X(kStats, "stats") X(kTelemetry, "telemetry") X(kTesting, "testing") X(kTls, "tls")          \
  X(kTracing, "tracing") X(kUdp, "udp") X(kUpstream, "upstream") X(kXds, "xds")

enum class Component : uint8_t {
#define WEFT_X(id, name) id,
  WEFT_LOG_COMPONENTS(WEFT_X)
#undef WEFT_X
      kCount
};

std::string_view LevelName(Level level);                      // "warning" for kWarn, as Envoy prints it
Result<Level> ParseLevel(std::string_view name);              // accepts "warn" and "warning"
std::string_view ComponentName(Component component);
Status SetComponentLevel(std::string_view component, Level level);  // unknown component: an error naming it
void SetAllLevels(Level level);
Level GetLevel(Component component);
// "upstream:debug,connection:trace"
Status SetComponentLevels(std::string_view spec);

// Where lines go instead of standard error (tests); an empty function restores it. The line ends with \n.
void SetLogSink(std::function<void(std::string_view line)> sink);

namespace log_internal {
extern std::atomic<uint8_t> g_levels[static_cast<int>(Component::kCount)];
void Write(Component component, Level level, const char* file, int line, std::string_view message);
}  // namespace log_internal

inline bool LogEnabled(Component component, Level level) {
  return static_cast<uint8_t>(level) >=
         log_internal::g_levels[static_cast<int>(component)].load(std::memory_order_relaxed);
}

}  // namespace weft::base

#define WEFT_LOG(component, level, ...)                                                                              \
  do {                                                                                                               \
    if (__builtin_expect(::weft::base::LogEnabled(::weft::base::Component::component, ::weft::base::Level::level), 0)) \
      ::weft::base::log_internal::Write(::weft::base::Component::component, ::weft::base::Level::level, __FILE__,    \
                                        __LINE__, ::weft::base::Cat(__VA_ARGS__));                                   \
  } while (0)
