// Where events and spans are kept: one interface, embedded DuckDB behind it.
//
//   auto store = OpenDuckDbStore({.directory = dir + "/telemetry"});
//   (*store)->Append(events, spans);              // durable when it returns
//   (*store)->Events({.trace_id = id, .limit = 1000});
//
// Hot rows live in telemetry.duckdb; ended hours are sealed to zstd Parquet files beside it (events-*.parquet, readable
// by any tool), and every query sees both. After a kill -9 every batch whose Append() returned is there.
// Threads: Append, Seal and Retain from one thread (the writer); queries from any, on their own connections, each
// bounded by a row limit and a deadline. Errors say which query failed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "xds_server/telemetry/aggregate.h"
#include "xds_server/telemetry/record.h"

namespace weft::insight {

struct StoreOptions {
  std::string directory;       // created when missing
  int threads = 1;             // of DuckDB: with two, the one that commits burns a third of its time waiting for the other
  int memory_limit_mb = 512;
  int checkpoint_mb = 32;      // of the log, which is read again at a start; each checkpoint packs the newest rows anew
  int readers = 8;             // parallel queries; the next one is refused with "busy"
  int query_timeout_ms = 10'000;
};

struct AppendStats {
  size_t events = 0, duplicates = 0, spans = 0;  // rows
};

// Conditions are joined by AND; empty ones do not count. Result in order of start.
struct EventQuery {
  std::string trace_id, request_id;
  int64_t from_ns = 0, to_ns = INT64_MAX;  // of the end of the request
  std::string workload;              // of the reporter
  std::string came_from, left_from;  // "ip:port": INBOUND connections from it; OUTBOUND events with an attempt from it
  Direction direction = Direction::kUnknown;  // kUnknown: both
  bool failed = false;               // errors and denials only
  bool denials = false;              // denials only, newest first
  size_t limit = 5'000;
};

struct TraceQuery {
  std::string service;  // node name: any hop of it
  bool errors_only = false;
  int64_t from_ns = 0, to_ns = INT64_MAX;
  size_t limit = 50;
};

struct TraceSummary {
  std::string trace_id, request_id;
  std::string service, name;  // who called first, and what: "GET /cart"
  int64_t start_ns = 0, duration_us = 0;
  uint64_t hops = 0;          // events and spans
  bool error = false;
  int32_t status = 0;         // of the first hop
  std::vector<std::string> services;
};

class Store {
 public:
  virtual ~Store() = default;
  // Leaves out events whose (workload, epoch, number) is known already; `events` is reduced to those added.
  virtual base::Result<AppendStats> Append(std::vector<Event>& events, std::vector<Span>& spans) = 0;
  virtual base::Result<std::vector<Event>> Events(const EventQuery& q) = 0;
  virtual base::Result<std::vector<Span>> Spans(const std::string& trace_id, size_t limit) = 0;
  virtual base::Result<std::vector<TraceSummary>> Traces(const TraceQuery& q) = 0;  // newest first
  // Counts by series, outcome and latency bucket of the requests that ended in [from, to).
  virtual base::Result<std::vector<Cell>> Cells(int64_t from_ns, int64_t to_ns) = 0;
  // The same for each second since `from` (first: Unix seconds), of rows committed before a moment: fills Live at a start.
  virtual base::Result<std::vector<std::pair<int64_t, Cell>>> CellsBySecond(int64_t from_ns, int64_t committed_before_ms) = 0;
  // Moves hours that ended before `now` - 1 h (and rows that were committed before that) to Parquet.
  virtual base::Status Seal(int64_t now_ns) = 0;
  // Deletes what ended before `before_ns`: whole sealed files, rows of the hot tables.
  virtual base::Status Retain(int64_t before_ns) = 0;
};

base::Result<std::unique_ptr<Store>> OpenDuckDbStore(const StoreOptions& options);

}  // namespace weft::insight
