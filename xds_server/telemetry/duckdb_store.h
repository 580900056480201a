// The DuckDB engine of the store. Internal; see store.h.
//
// Crash safety: a batch is one transaction (DuckDB's log is synced at commit). Sealing writes the Parquet file under a
// temporary name, syncs and renames it, and then, in one transaction, enters it in the table `sealed`, deletes the rows
// and redefines the views; a file not in that table is a leftover and is removed at the next start.
// Deduplication: known_numbers.h; at start the numbers are rebuilt from the rows committed in the last minutes before the
// stop, the only ones a sidecar may send again.
// Files: duckdb_store.cc (opening, appending), duckdb_seal.cc (Parquet, retention), duckdb_queries.cc.
#pragma once

#include <functional>
#include <memory>

#include "xds_server/telemetry/duck_appender.h"
#include "xds_server/telemetry/known_numbers.h"
#include "xds_server/telemetry/reader_pool.h"
#include "xds_server/telemetry/store.h"

namespace weft::insight {

class DuckStore final : public Store {
 public:
  explicit DuckStore(const StoreOptions& o);
  ~DuckStore() override;
  base::Status Open();

  base::Result<AppendStats> Append(std::vector<Event>& events, std::vector<Span>& spans) override;
  base::Result<std::vector<Event>> Events(const EventQuery& q) override;
  base::Result<std::vector<Span>> Spans(const std::string& trace_id, size_t limit) override;
  base::Result<std::vector<TraceSummary>> Traces(const TraceQuery& q) override;
  base::Result<std::vector<Cell>> Cells(int64_t from_ns, int64_t to_ns) override;
  base::Result<std::vector<std::pair<int64_t, Cell>>> CellsBySecond(int64_t from_ns, int64_t committed_before_ms) override;
  base::Status Seal(int64_t now_ns) override;
  base::Status Retain(int64_t before_ns) override;

 private:
  base::Status Prepare();
  base::Status Upgrade(int64_t from_version);
  base::Status DefineViews();
  base::Status RebuildKnown();
  base::Status Transaction(const std::function<base::Status()>& body);
  base::Status SealTable(const std::string& table, int64_t hour_end_ns, int64_t committed_before_ms);
  base::Status ReadCells(const char* second, const std::string& where, const std::vector<duck::Value>& values,
                         const std::function<void(int64_t second, Cell)>& take);

  const StoreOptions options_;
  std::unique_ptr<duck::Database> db_;
  std::unique_ptr<duck::Connection> writer_;
  duck::Appender events_in_, spans_in_;
  KnownNumbers known_;
  ReaderPool readers_;
};

int64_t NowMs();

}  // namespace weft::insight
