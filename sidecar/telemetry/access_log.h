// Access logs: what is configured for a finished record is written, lines in batches to files (format.h), entries to log
// servers (grpc_log.h).
//
//   AccessLogger logger;             // main thread; files are opened on first use (O_APPEND)
//   logger.Log(record);              // applies the record's logs and their filters
//   logger.Flush();                  // from a timer (1 s) and at the end; Log flushes a file by itself above 64 KiB
//
// Errors of files are counted in access_log_file.write_failed, never block: what cannot be
// written within kMaxPending is dropped and counted in access_log_file.write_dropped.
// Threads: one (main).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/stats.h"
#include "sidecar/model/listener.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/grpc_log.h"

namespace weft::telemetry {

class AccessLogger {
 public:
  // servers: where logs of model::GrpcLog go; null: nowhere. Not owned.
  explicit AccessLogger(GrpcLogs* servers = nullptr);
  ~AccessLogger();
  void SetServers(GrpcLogs* servers) { servers_ = servers; }
  void Log(const proxy::Record& record);
  void Flush();
  // Opens every file again at its next flush (log rotation: SIGUSR1, /reopen_logs).
  void Reopen();

 private:
  struct File;
  struct Compiled;
  File* FileFor(const std::string& path);
  void FlushFile(File& file);
  void Forget();
  const Compiled& CompiledFor(const std::shared_ptr<const model::AccessLogs>& logs);

  static constexpr size_t kFlushAt = 64 * 1024, kMaxPending = 4 * 1024 * 1024, kMaxFiles = 256;
  GrpcLogs* servers_;
  std::map<std::string, std::unique_ptr<File>> files_;
  std::map<std::shared_ptr<const model::AccessLogs>, std::unique_ptr<Compiled>> compiled_;
  uint64_t random_;
  base::StatId written_, failed_, dropped_, buffered_;
};

}  // namespace weft::telemetry
