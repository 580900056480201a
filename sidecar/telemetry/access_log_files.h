// Access log files, main's part: opened on first use (O_APPEND), written in batches.
//
//   AccessLogFiles files;
//   files.Append(path, &text);         // whole lines; writes above kFlushAt
//   files.Flush();                     // from a timer (1 s) and at the end
//
// Errors are counted in access_log_file.write_failed, never block: what cannot be written within kMaxPending is dropped
// and counted in access_log_file.write_dropped, by lines. Threads: one (main).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "sidecar/base/stats.h"

namespace weft::telemetry {

class AccessLogFiles {
 public:
  AccessLogFiles();
  ~AccessLogFiles();
  // text: taken, or left with other memory; its content is no longer the caller's.
  void Append(const std::string& path, std::string* text);
  void Flush();
  // Opens every file again at its next flush (log rotation: SIGUSR1, /reopen_logs).
  void Reopen();

 private:
  struct File;
  File* FileFor(const std::string& path);
  void FlushFile(File& file);

  static constexpr size_t kFlushAt = 64 * 1024, kMaxPending = 4 * 1024 * 1024, kMaxFiles = 256;
  std::map<std::string, std::unique_ptr<File>> files_;
  base::StatId written_, failed_, dropped_;
};

}  // namespace weft::telemetry
