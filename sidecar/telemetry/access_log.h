// Access logs: Envoy's format strings compiled once, evaluated against finished records, written in batches.
//
//   Format f = *Format::Compile("%REQ(:METHOD)% %RESPONSE_CODE%\n");
//   std::string line; f.Append(record, false, &line);
//
//   AccessLogger logger;             // main thread; files are opened on first use (O_APPEND)
//   logger.Log(record);              // applies the record's logs and their filters
//   logger.Flush();                  // from a timer (1 s) and at the end; Log flushes a file by itself above 64 KiB
//
// Operators: Envoy's, see model/log_format.h, which refuses unknown ones by name. A missing value is "-" in text and null
// in JSON. Errors of files are counted in access_log_file.write_failed, never block: what cannot be
// written within kMaxPending is dropped and counted in access_log_file.write_dropped.
// Threads: one (main).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/base/stats.h"
#include "sidecar/model/listener.h"
#include "sidecar/model/log_format.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/time_text.h"

namespace weft::telemetry {

extern const char kDefaultFormat[];

class Format {
 public:
  static base::Result<Format> Compile(std::string_view text);
  // omit_empty: a missing value is nothing at all instead of "-".
  void Append(const proxy::Record& record, bool omit_empty, std::string* out) const;
  // As a JSON value: a number or string when the format is one operator, a string otherwise, null when missing.
  void AppendJson(const proxy::Record& record, bool omit_empty, std::string* out) const;
  // True when the value of a single-operator format is missing.
  bool Missing(const proxy::Record& record) const;

 private:
  struct Step {
    model::LogFormat::Op op;
    std::unique_ptr<TimeText> time;  // of operators that print one
  };
  std::vector<Step> steps_;
};

// Appends text as a quoted JSON string; bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);

class AccessLogger {
 public:
  AccessLogger();
  ~AccessLogger();
  void Log(const proxy::Record& record);
  void Flush();
  // Opens every file again at its next flush (log rotation: SIGUSR1, /reopen_logs).
  void Reopen();

 private:
  struct File;
  struct Compiled;
  File* FileFor(const std::string& path);
  void FlushFile(File& file);
  const Compiled& CompiledFor(const std::shared_ptr<const model::AccessLogs>& logs);

  static constexpr size_t kFlushAt = 64 * 1024, kMaxPending = 4 * 1024 * 1024, kMaxFiles = 256;
  std::map<std::string, std::unique_ptr<File>> files_;
  std::map<std::shared_ptr<const model::AccessLogs>, std::unique_ptr<Compiled>> compiled_;
  uint64_t random_;
  base::StatId written_, failed_, dropped_, buffered_;
};

}  // namespace weft::telemetry
