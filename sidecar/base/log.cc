#include "sidecar/base/log.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <mutex>

#include "sidecar/base/check.h"

namespace weft::base {
namespace {

constexpr int kComponents = static_cast<int>(Component::kCount);
constexpr std::string_view kComponentNames[kComponents] = {
#define WEFT_X(id, name) name,
    WEFT_LOG_COMPONENTS(WEFT_X)
#undef WEFT_X
};
constexpr std::string_view kLevelNames[] = {"trace", "debug", "info", "warning", "error", "critical", "off"};

std::mutex g_sink_mutex;
std::function<void(std::string_view)>& Sink() {
  static auto* sink = new std::function<void(std::string_view)>;  // never destroyed: logging works during exit
  return *sink;
}

pid_t ThreadId() {
  static thread_local pid_t id = static_cast<pid_t>(syscall(SYS_gettid));
  return id;
}

void AppendEscaped(std::string& out, std::string_view s) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (unsigned char c : s) {
    if (c >= 0x20 && c != 0x7f) {
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\r') {
      out.append("\\r");
    } else if (c == '\t') {
      out.push_back('\t');
    } else {
      out.append("\\x"), out.push_back(kDigits[c >> 4]), out.push_back(kDigits[c & 15]);
    }
  }
}

void WriteAll(int fd, std::string_view s) {
  while (!s.empty()) {
    ssize_t n = write(fd, s.data(), s.size());
    if (n <= 0) return;  // nobody to tell
    s.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

namespace log_internal {

// Zero would be trace before dynamic initialisation: info is set statically.
#define WEFT_X(id, name) {static_cast<uint8_t>(Level::kInfo)},
constinit std::atomic<uint8_t> g_levels[kComponents] = {WEFT_LOG_COMPONENTS(WEFT_X)};
#undef WEFT_X

void Write(Component component, Level level, const char* file, int line, std::string_view message) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm t;
  gmtime_r(&now.tv_sec, &t);
  char stamp[64];
  size_t n = strftime(stamp, sizeof stamp, "[%Y-%m-%d %H:%M:%S", &t);
  n += static_cast<size_t>(snprintf(stamp + n, sizeof stamp - n, ".%03ld][", now.tv_nsec / 1000000));
  std::string out(stamp, n);
  CatTo(out, ThreadId(), "][", LevelName(level), "][", ComponentName(component), "] [", file, ":", line, "] ");
  AppendEscaped(out, message);
  out.push_back('\n');
  std::lock_guard lock(g_sink_mutex);
  if (Sink()) {
    Sink()(out);
  } else {
    WriteAll(2, out);
  }
}

}  // namespace log_internal

std::string_view LevelName(Level level) { return kLevelNames[static_cast<int>(level)]; }

Result<Level> ParseLevel(std::string_view name) {
  if (name == "warn") return Level::kWarn;
  for (int i = 0; i <= static_cast<int>(Level::kOff); ++i) {
    if (name == kLevelNames[i]) return static_cast<Level>(i);
  }
  return Error(Cat("unknown log level \"", name, "\" (trace, debug, info, warning, error, critical, off)"));
}

std::string_view ComponentName(Component component) { return kComponentNames[static_cast<int>(component)]; }

Status SetComponentLevel(std::string_view component, Level level) {
  for (int i = 0; i < kComponents; ++i) {
    if (component == kComponentNames[i]) {
      log_internal::g_levels[i].store(static_cast<uint8_t>(level), std::memory_order_relaxed);
      return Ok{};
    }
  }
  return Error(Cat("unknown log component \"", component, "\""));
}

void SetAllLevels(Level level) {
  for (auto& l : log_internal::g_levels) l.store(static_cast<uint8_t>(level), std::memory_order_relaxed);
}

Level GetLevel(Component component) {
  return static_cast<Level>(log_internal::g_levels[static_cast<int>(component)].load(std::memory_order_relaxed));
}

Status SetComponentLevels(std::string_view spec) {
  while (!spec.empty()) {
    size_t comma = spec.find(',');
    std::string_view item = spec.substr(0, comma);
    spec = comma == std::string_view::npos ? std::string_view() : spec.substr(comma + 1);
    size_t colon = item.find(':');
    if (colon == std::string_view::npos) return Error(Cat("\"", item, "\" is not component:level"));
    auto level = ParseLevel(item.substr(colon + 1));
    if (!level) return std::move(level.error());
    auto set = SetComponentLevel(item.substr(0, colon), *level);
    if (!set) return set;
  }
  return Ok{};
}

void SetLogSink(std::function<void(std::string_view)> sink) {
  std::lock_guard lock(g_sink_mutex);
  Sink() = std::move(sink);
}

void CheckFailed(const char* file, int line, const char* condition, const std::string& message) {
  log_internal::Write(Component::kAssert, Level::kCritical, file, line,
                      Cat("check failed: ", condition, message.empty() ? "" : ": ", message));
  abort();
}

}  // namespace weft::base
