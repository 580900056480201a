// Access logs, a worker's part: for each finished record what its logs want of it, lines for files (proxy/format.h) and
// entries for log servers (grpc_log.h). Formats are compiled once for each configuration and worker.
//
//   AccessLogWriter writer;
//   writer.Write(record, &portion);    // applies the record's logs and their filters
//   writer.Forget();                   // now and then: configurations that nobody else holds
//
// A file whose lines of kMaxPending bytes wait here takes no more: counted in access_log_file.write_dropped. Entries that
// find no place count as access_logs.entries_dropped. Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "sidecar/base/stats.h"
#include "sidecar/model/listener.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/portion.h"

namespace weft::telemetry {

class AccessLogWriter {
 public:
  static constexpr size_t kMaxPending = 4u << 20;

  AccessLogWriter();
  ~AccessLogWriter();
  void Write(const proxy::Record& record, Portion* portion);
  void Forget();

 private:
  struct Compiled;
  const Compiled& CompiledFor(const std::shared_ptr<const model::AccessLogs>& logs);

  std::map<std::shared_ptr<const model::AccessLogs>, std::unique_ptr<Compiled>> compiled_;
  // Of the last record: most have the same.
  const model::AccessLogs* last_ = nullptr;
  const Compiled* last_compiled_ = nullptr;
  uint64_t random_;
  base::StatId dropped_, buffered_, entries_dropped_;
};

}  // namespace weft::telemetry
