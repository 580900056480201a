// The DuckDB engine of the store.
//
// Crash safety: a batch is one transaction (DuckDB's log is synced at commit). Sealing writes the Parquet file under a
// temporary name, syncs and renames it, and then, in one transaction, enters it in the table `sealed`, deletes the rows
// and redefines the views; a file not in that table is a leftover and is removed at the next start.
// Deduplication: numbers seen, as intervals for each (workload, epoch), in memory; at start they are rebuilt from the
// rows committed in the last minutes before the stop, the only ones a sidecar may send again.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "xds_server/telemetry/columns.h"
#include "xds_server/telemetry/duck.h"
#include "xds_server/telemetry/store.h"

namespace weft::insight {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::Ok;
using base::Result;
using base::Status;
using duck::Value;

constexpr int kSchema = 1;
constexpr int64_t kHourNs = 3'600'000'000'000;
constexpr int64_t kResendWindowMs = 10 * 60'000;
constexpr size_t kMaxEpochs = 20'000;

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const char* TypeOf(const std::string&) { return "VARCHAR"; }
const char* TypeOf(const std::vector<Attempt>&) { return "VARCHAR"; }
const char* TypeOf(uint64_t) { return "BIGINT"; }
const char* TypeOf(int64_t) { return "BIGINT"; }
const char* TypeOf(uint32_t) { return "BIGINT"; }
const char* TypeOf(int32_t) { return "INTEGER"; }
const char* TypeOf(uint16_t) { return "INTEGER"; }
const char* TypeOf(bool) { return "BOOLEAN"; }
const char* TypeOf(Direction) { return "INTEGER"; }
const char* TypeOf(Outcome) { return "INTEGER"; }

void Put(duckdb_appender a, const std::string& v) { duckdb_append_varchar_length(a, v.data(), v.size()); }
void Put(duckdb_appender a, const std::vector<Attempt>& v) { Put(a, AttemptsJson(v)); }
void Put(duckdb_appender a, uint64_t v) { duckdb_append_int64(a, static_cast<int64_t>(v)); }
void Put(duckdb_appender a, int64_t v) { duckdb_append_int64(a, v); }
void Put(duckdb_appender a, uint32_t v) { duckdb_append_int64(a, v); }
void Put(duckdb_appender a, int32_t v) { duckdb_append_int32(a, v); }
void Put(duckdb_appender a, uint16_t v) { duckdb_append_int32(a, v); }
void Put(duckdb_appender a, bool v) { duckdb_append_bool(a, v); }
void Put(duckdb_appender a, Direction v) { duckdb_append_int32(a, static_cast<int>(v)); }
void Put(duckdb_appender a, Outcome v) { duckdb_append_int32(a, static_cast<int>(v)); }

void Get(const duck::Rows& r, size_t c, std::string& v) { v = r.Text(c); }
void Get(const duck::Rows& r, size_t c, std::vector<Attempt>& v) { v = AttemptsFromJson(r.Text(c)); }
void Get(const duck::Rows& r, size_t c, bool& v) { v = r.Int(c) != 0; }
void Get(const duck::Rows& r, size_t c, Direction& v) { v = static_cast<Direction>(r.Int(c)); }
void Get(const duck::Rows& r, size_t c, Outcome& v) {
  int64_t n = r.Int(c);
  v = n >= 0 && n < kOutcomes ? static_cast<Outcome>(n) : Outcome::kOk;
}
template <typename T>
void Get(const duck::Rows& r, size_t c, T& v) {
  v = static_cast<T>(r.Int(c));
}

template <typename Row, typename Columns>
std::string TableSql(const char* name, Columns columns) {
  Row row;
  std::string out = std::string("CREATE TABLE IF NOT EXISTS ") + name + " (";
  columns(row, [&](const char* column, const auto& v) {
    if (out.back() != '(') out += ", ";
    out += std::string(column) + " " + TypeOf(v);
  });
  return out + ")";
}

template <typename Row, typename Columns>
std::string ColumnList(Columns columns) {
  Row row;
  std::string out;
  columns(row, [&](const char* column, const auto&) { out += (out.empty() ? "" : ", ") + std::string(column); });
  return out;
}

constexpr auto kEvents = [](auto& e, auto&& f) { EventColumns(e, f); };
constexpr auto kSpans = [](auto& s, auto&& f) { SpanColumns(s, f); };

// Disjoint closed intervals.
class Intervals {
 public:
  // False when n was in already.
  bool Add(uint64_t n) {
    auto it = map_.upper_bound(n);
    if (it != map_.begin()) {
      auto before = std::prev(it);
      if (n <= before->second) return false;
      if (before->second + 1 == n) {
        before->second = n;
        if (it != map_.end() && it->first == n + 1) before->second = it->second, map_.erase(it);
        return true;
      }
    }
    if (it != map_.end() && it->first == n + 1) {
      uint64_t high = it->second;
      map_.erase(it);
      map_.emplace(n, high);
      return true;
    }
    map_.emplace(n, n);
    // Gaps are events a sidecar dropped; old ones will not be filled, so closing the lowest keeps this bounded.
    if (map_.size() > 4'096) {
      auto first = map_.begin(), second = std::next(first);
      first->second = second->second;
      map_.erase(second);
    }
    return true;
  }
  void AddRange(uint64_t low, uint64_t high) { map_.emplace(low, high); }

 private:
  std::map<uint64_t, uint64_t> map_;
};

struct Known {
  Intervals numbers;
  int64_t used_ms = 0;
};

class DuckStore final : public Store {
 public:
  explicit DuckStore(const StoreOptions& o) : options_(o) {}
  ~DuckStore() override;
  Status Open();

  Result<AppendStats> Append(std::vector<Event>& events, std::vector<Span>& spans) override;
  Result<std::vector<Event>> Events(const EventQuery& q) override;
  Result<std::vector<insight::Span>> Spans(const std::string& trace_id, size_t limit) override;
  Result<std::vector<TraceSummary>> Traces(const TraceQuery& q) override;
  Result<std::vector<Cell>> Cells(int64_t from_ns, int64_t to_ns) override;
  Result<std::vector<std::pair<int64_t, Cell>>> CellsBySecond(int64_t from_ns, int64_t committed_before_ms) override;
  Status Seal(int64_t now_ns) override;
  Status Retain(int64_t before_ns) override;

 private:
  using RowsPtr = std::unique_ptr<duck::Rows>;
  struct Reader {
    std::unique_ptr<duck::Connection> connection;
    bool busy = false, expired = false;
    std::chrono::steady_clock::time_point deadline;
  };
  // Runs on a free reader; `read` consumes the rows while the deadline still counts.
  template <typename F>
  Status Read(const std::string& sql, const std::vector<Value>& values, F read);
  template <typename F>
  Status ReadCells(const char* second, const std::string& where, const std::vector<Value>& values, F take);
  void Watch();
  Status Prepare();
  Status DefineViews();
  Status RebuildKnown();
  Status Transaction(const std::function<Status()>& body);
  template <typename Row, typename Columns>
  Status AppendRows(const char* table, const std::vector<Row>& rows, const std::vector<bool>* take, Columns columns);
  Status SealTable(const std::string& table, int64_t hour_end_ns, int64_t committed_before_ms);

  const StoreOptions options_;
  std::unique_ptr<duck::Database> db_;
  std::unique_ptr<duck::Connection> writer_;
  std::map<std::pair<std::string, std::string>, Known> known_;

  std::mutex mu_;
  std::condition_variable watch_;
  bool stop_ = false;
  std::vector<Reader> readers_;
  std::thread watcher_;
};

DuckStore::~DuckStore() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  watch_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  readers_.clear();
  writer_.reset();
  db_.reset();
}

Status DuckStore::Open() {
  std::error_code ec;
  fs::create_directories(options_.directory, ec);
  if (ec) return Error(ec.message()).In(options_.directory);
  fs::permissions(options_.directory, fs::perms::owner_all, ec);
  std::string path = options_.directory + "/telemetry.duckdb";
  std::vector<std::pair<std::string, std::string>> settings = {
      {"threads", std::to_string(options_.threads)},
      {"memory_limit", std::to_string(options_.memory_limit_mb) + "MB"},
      {"autoinstall_known_extensions", "false"},
      {"autoload_known_extensions", "false"},
      {"checkpoint_threshold", "32MB"},  // the log is read again at a start
      {"temp_directory", options_.directory + "/tmp"},
      {"max_temp_directory_size", "2GB"},
      {"preserve_insertion_order", "false"},
  };
  auto open = [&]() -> Status {
    auto db = duck::Database::Open(path, settings);
    if (!db) return db.error();
    db_ = *std::move(db);
    auto w = db_->Connect();
    if (!w) return w.error();
    writer_ = *std::move(w);
    return Prepare();
  };
  Status opened = open();
  if (!opened) {
    // Another server on the same folder must be an error; a damaged file must not keep the mesh from starting.
    if (opened.error().message().find("lock") != std::string::npos) return opened;
    writer_.reset(), db_.reset();
    std::string aside = path + ".broken-" + std::to_string(NowMs());
    fs::rename(path, aside, ec);
    fs::rename(path + ".wal", aside + ".wal", ec);
    fprintf(stderr, "telemetry: %s: put aside as %s, starting empty\n", opened.error().ToString().c_str(), aside.c_str());
    opened = open();
    if (!opened) return opened;
  }
  for (int i = 0; i < options_.readers; ++i) {
    auto c = db_->Connect();
    if (!c) return c.error();
    readers_.push_back(Reader{*std::move(c)});
  }
  watcher_ = std::thread([this] { Watch(); });
  return Ok{};
}

Status DuckStore::Prepare() {
  for (const std::string& sql :
       {std::string("CREATE TABLE IF NOT EXISTS meta (version BIGINT)"),
        std::string("CREATE TABLE IF NOT EXISTS sealed (file VARCHAR, tab VARCHAR, low_ns BIGINT, high_ns BIGINT, amount BIGINT)"),
        TableSql<Event>("events", kEvents), TableSql<insight::Span>("spans", kSpans)}) {
    if (auto s = writer_->Exec(sql); !s) return s;
  }
  auto version = writer_->Run("SELECT version FROM meta");
  if (!version) return version.error();
  if (!(*version)->Next()) {
    if (auto s = writer_->Exec("INSERT INTO meta VALUES (?)", {int64_t{kSchema}}); !s) return s;
  } else if ((*version)->Int(0) != kSchema) {
    return Error("schema version " + std::to_string((*version)->Int(0)) + ", this program reads " + std::to_string(kSchema));
  }
  // Leftovers of a seal that was cut short.
  auto listed = writer_->Run("SELECT file FROM sealed");
  if (!listed) return listed.error();
  std::set<std::string> keep;
  while ((*listed)->Next()) keep.insert(std::string((*listed)->Text(0)));
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(options_.directory, ec)) {
    std::string name = entry.path().filename();
    if (name.find(".parquet") != std::string::npos && !keep.count(name)) fs::remove(entry.path(), ec);
  }
  for (const std::string& name : keep) {
    if (fs::exists(options_.directory + "/" + name, ec)) continue;
    // Deleted by hand: the rest must stay readable.
    if (auto s = writer_->Exec("DELETE FROM sealed WHERE file = ?", {name}); !s) return s;
  }
  if (auto s = DefineViews(); !s) return s;
  return RebuildKnown();
}

Status DuckStore::DefineViews() {
  for (const char* table : {"events", "spans"}) {
    std::string sql = std::string("CREATE OR REPLACE VIEW ") + table + "_all AS SELECT * FROM " + table;
    auto files = writer_->Run("SELECT file FROM sealed WHERE tab = ? ORDER BY file", {std::string(table)});
    if (!files) return files.error();
    std::string list;
    while ((*files)->Next()) {
      std::string path = options_.directory + "/" + std::string((*files)->Text(0));
      for (size_t i = 0; (i = path.find('\'', i)) != std::string::npos; i += 2) path.insert(i, 1, '\'');
      list += (list.empty() ? "'" : ", '") + path + "'";
    }
    if (!list.empty()) sql += " UNION ALL BY NAME SELECT * FROM read_parquet([" + list + "], union_by_name = true)";
    if (auto s = writer_->Exec(sql); !s) return s;
  }
  return Ok{};
}

Status DuckStore::RebuildKnown() {
  auto last = writer_->Run("SELECT max(committed_ms) FROM events");
  if (!last) return last.error();
  int64_t from = (*last)->Next() ? (*last)->Int(0) - kResendWindowMs : 0, now = NowMs();
  last->reset();
  auto rows = writer_->Run("SELECT workload, epoch, min(number), max(number), count(*) FROM events WHERE committed_ms >= ? GROUP BY ALL", {from});
  if (!rows) return rows.error();
  std::vector<std::pair<std::string, std::string>> with_gaps;
  while ((*rows)->Next()) {
    auto key = std::make_pair(std::string((*rows)->Text(0)), std::string((*rows)->Text(1)));
    uint64_t low = static_cast<uint64_t>((*rows)->Int(2)), high = static_cast<uint64_t>((*rows)->Int(3));
    if (high - low + 1 == static_cast<uint64_t>((*rows)->Int(4))) {
      known_[key].numbers.AddRange(low, high), known_[key].used_ms = now;
    } else {
      with_gaps.push_back(std::move(key));
    }
  }
  rows->reset();
  for (const auto& key : with_gaps) {
    auto runs = writer_->Run(
        "WITH runs AS (SELECT number, number - row_number() OVER (ORDER BY number) AS run FROM events "
        "WHERE committed_ms >= ? AND workload = ? AND epoch = ?) SELECT min(number), max(number) FROM runs GROUP BY run",
        {from, key.first, key.second});
    if (!runs) return runs.error();
    known_[key].used_ms = now;
    while ((*runs)->Next()) {
      known_[key].numbers.AddRange(static_cast<uint64_t>((*runs)->Int(0)), static_cast<uint64_t>((*runs)->Int(1)));
    }
  }
  return Ok{};
}

Status DuckStore::Transaction(const std::function<Status()>& body) {
  if (auto s = writer_->Exec("BEGIN TRANSACTION"); !s) return s;
  Status s = body();
  if (s) s = writer_->Exec("COMMIT");
  // After a failed commit there may be no transaction left to roll back.
  if (!s && !writer_->Exec("ROLLBACK")) return s;
  return s;
}

template <typename Row, typename Columns>
Status DuckStore::AppendRows(const char* table, const std::vector<Row>& rows, const std::vector<bool>* take, Columns columns) {
  duckdb_appender appender = nullptr;
  if (duckdb_appender_create(writer_->get(), nullptr, table, &appender) != DuckDBSuccess) {
    const char* why = duckdb_appender_error(appender);
    Error e(why ? why : "no appender");
    duckdb_appender_destroy(&appender);
    return std::move(e).In(table);
  }
  bool good = true;
  for (size_t i = 0; good && i < rows.size(); ++i) {
    if (take && !(*take)[i]) continue;
    columns(rows[i], [&](const char*, const auto& v) { Put(appender, v); });
    good = duckdb_appender_end_row(appender) == DuckDBSuccess;
  }
  good = good && duckdb_appender_flush(appender) == DuckDBSuccess;
  Status out = Ok{};
  if (!good) {
    const char* why = duckdb_appender_error(appender);
    out = Error(why ? why : "append failed").In(table);
  }
  duckdb_appender_destroy(&appender);
  return out;
}

Result<AppendStats> DuckStore::Append(std::vector<Event>& events, std::vector<insight::Span>& spans) {
  AppendStats stats;
  int64_t now = NowMs();
  // Numbers are marked in a copy first: a failed commit must leave them free for the resend.
  std::map<std::pair<std::string, std::string>, Known> touched;
  std::vector<bool> take(events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    Event& e = events[i];
    auto key = std::make_pair(e.workload, e.epoch);
    auto it = touched.find(key);
    if (it == touched.end()) {
      auto k = known_.find(key);
      it = touched.emplace(key, k == known_.end() ? Known{} : k->second).first;
    }
    it->second.used_ms = now;
    take[i] = it->second.numbers.Add(e.number);
    e.committed_ms = now;
    take[i] ? ++stats.events : ++stats.duplicates;
  }
  for (auto& s : spans) s.committed_ms = now;
  stats.spans = spans.size();
  if (stats.events || stats.spans) {
    Status s = Transaction([&]() -> Status {
      if (stats.events) {
        if (auto a = AppendRows("events", events, &take, kEvents); !a) return a;
      }
      if (stats.spans) return AppendRows("spans", spans, nullptr, kSpans);
      return Ok{};
    });
    if (!s) return std::move(s.error()).In("append");
  }
  for (auto& [key, k] : touched) known_[key] = std::move(k);
  if (known_.size() > kMaxEpochs) {
    std::erase_if(known_, [&](const auto& item) { return item.second.used_ms < now - kResendWindowMs; });
  }
  size_t out = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    if (!take[i]) continue;
    if (out != i) events[out] = std::move(events[i]);
    ++out;
  }
  events.resize(out);
  return stats;
}

template <typename F>
Status DuckStore::Read(const std::string& sql, const std::vector<Value>& values, F read) {
  Reader* reader = nullptr;
  {
    std::lock_guard lock(mu_);
    for (Reader& r : readers_) {
      if (!r.busy) {
        reader = &r;
        break;
      }
    }
    if (!reader) return Error("busy: " + std::to_string(readers_.size()) + " queries are running");
    reader->busy = true, reader->expired = false;
    reader->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.query_timeout_ms);
  }
  watch_.notify_all();
  Status out = Ok{};
  {
    auto rows = reader->connection->Run(sql, values);
    if (rows) {
      // The engine is interrupted while it computes; handing out what it found is bounded here.
      for (size_t n = 1; (*rows)->Next(); ++n) {
        read(**rows);
        if (n % 256 == 0 && std::chrono::steady_clock::now() > reader->deadline) {
          std::lock_guard lock(mu_);
          reader->expired = true;
          out = Error("too slow");
          break;
        }
      }
    } else {
      out = rows.error();
    }
  }
  std::lock_guard lock(mu_);
  reader->busy = false;
  if (!out && reader->expired) return Error("timed out after " + std::to_string(options_.query_timeout_ms) + " ms");
  return out;
}

void DuckStore::Watch() {
  std::unique_lock lock(mu_);
  while (!stop_) {
    auto next = std::chrono::steady_clock::time_point::max();
    auto now = std::chrono::steady_clock::now();
    for (Reader& r : readers_) {
      if (!r.busy || r.expired) continue;
      // The lock is held, so the connection cannot pass to another query meanwhile.
      if (r.deadline <= now) {
        r.expired = true, r.connection->Interrupt();
      } else {
        next = std::min(next, r.deadline);
      }
    }
    if (next == std::chrono::steady_clock::time_point::max()) {
      watch_.wait(lock);
    } else {
      watch_.wait_until(lock, next);
    }
  }
}

Result<std::vector<Event>> DuckStore::Events(const EventQuery& q) {
  static const std::string columns = ColumnList<Event>(kEvents);
  std::string sql = "SELECT " + columns + " FROM events_all WHERE true";
  std::vector<Value> values;
  if (!q.trace_id.empty()) sql += " AND trace_id = ?", values.push_back(q.trace_id);
  if (!q.request_id.empty()) sql += " AND request_id = ?", values.push_back(q.request_id);
  if (q.from_ns > 0) sql += " AND end_ns >= ?", values.push_back(q.from_ns);
  if (q.to_ns < INT64_MAX) sql += " AND end_ns < ?", values.push_back(q.to_ns);
  sql += " ORDER BY start_ns LIMIT " + std::to_string(q.limit);
  std::vector<Event> out;
  Status s = Read(sql, values, [&](const duck::Rows& r) {
    size_t c = 0;
    EventColumns(out.emplace_back(), [&](const char*, auto& v) { Get(r, c++, v); });
  });
  if (!s) return std::move(s.error()).In("events");
  return out;
}

Result<std::vector<insight::Span>> DuckStore::Spans(const std::string& trace_id, size_t limit) {
  static const std::string columns = ColumnList<insight::Span>(kSpans);
  std::vector<insight::Span> out;
  Status s = Read("SELECT " + columns + " FROM spans_all WHERE trace_id = ? ORDER BY start_ns LIMIT " + std::to_string(limit),
                  {trace_id}, [&](const duck::Rows& r) {
                    size_t c = 0;
                    SpanColumns(out.emplace_back(), [&](const char*, auto& v) { Get(r, c++, v); });
                  });
  if (!s) return std::move(s.error()).In("spans");
  return out;
}

// Two steps, so that the cost follows the answer and not the store: which traces, by two columns of the newest rows (an
// ever wider window until there are enough), then all hops of just those.
Result<std::vector<TraceSummary>> DuckStore::Traces(const TraceQuery& q) {
  constexpr int64_t kSecond = 1'000'000'000, kLongTrace = 600 * kSecond;
  std::vector<TraceSummary> out;
  std::string ids;
  int64_t earliest = INT64_MAX;
  int64_t newest = std::min(q.to_ns, NowMs() * 1'000'000 + 60 * kSecond);
  for (int64_t window : {15 * kSecond, 120 * kSecond, INT64_MAX}) {
    int64_t from = window == INT64_MAX || newest - window < q.from_ns ? q.from_ns : newest - window;
    std::string events = "SELECT trace_id, start_ns FROM events_all WHERE trace_id <> '' AND end_ns >= ? AND end_ns < ?";
    std::string spans = "SELECT trace_id, start_ns FROM spans_all WHERE end_ns >= ? AND end_ns < ?";
    if (q.errors_only) events += " AND outcome IN (2, 3, 4, 6, 7)", spans += " AND error";
    std::string service = "SELECT trace_id FROM events_all WHERE end_ns >= ? AND end_ns < ? AND (source = ? OR destination = ?) "
                          "UNION ALL SELECT trace_id FROM spans_all WHERE end_ns >= ? AND end_ns < ? AND service = ?";
    std::string sql = "SELECT trace_id, min(start_ns), max(start_ns) AS newest FROM (" + events + " UNION ALL " + spans + ")";
    std::vector<Value> values = {from, q.to_ns, from, q.to_ns};
    if (!q.service.empty()) {
      sql += " WHERE trace_id IN (" + service + ")";
      for (const Value& v : std::vector<Value>{from, q.to_ns, q.service, q.service, from, q.to_ns, q.service}) values.push_back(v);
    }
    sql += " GROUP BY trace_id ORDER BY newest DESC LIMIT " + std::to_string(q.limit);
    ids.clear();
    size_t found = 0;
    Status s = Read(sql, values, [&](const duck::Rows& r) {
      std::string_view id = r.Text(0);
      // Ids are hex (decode.cc); anything else must not reach the next statement.
      if (id.find_first_not_of("0123456789abcdef") != std::string_view::npos) return;
      ids += (ids.empty() ? "'" : ", '") + std::string(id) + "'";
      earliest = std::min(earliest, r.Int(1));
      ++found;
    });
    if (!s) return std::move(s.error()).In("traces");
    if (found >= q.limit || from == q.from_ns) break;
  }
  if (ids.empty()) return out;
  int64_t from = std::max<int64_t>(0, earliest - kLongTrace);
  std::string sql =
      "WITH hops AS ("
      "SELECT trace_id, request_id, source AS a, destination AS b, "
      "CASE WHEN method = '' THEN protocol || ' ' || destination ELSE method || ' ' || path END AS name, "
      "start_ns, end_ns, outcome IN (2, 3, 4, 6, 7) AS error, status "
      "FROM events_all WHERE end_ns >= ? AND trace_id IN (" + ids + ") "
      "UNION ALL SELECT trace_id, '', service, service, name, start_ns, end_ns, error, 0 "
      "FROM spans_all WHERE end_ns >= ? AND trace_id IN (" + ids + ")) "
      "SELECT trace_id, max(request_id), arg_min(a, start_ns), arg_min(name, start_ns), min(start_ns), "
      "CAST((max(end_ns) - min(start_ns)) // 1000 AS BIGINT), count(*), bool_or(error), "
      "CAST(arg_min(status, start_ns) AS BIGINT), "
      "array_to_string(list_sort(list_distinct(list_concat(list(a), list(b)))), chr(31)) "
      "FROM hops GROUP BY trace_id ORDER BY min(start_ns) DESC";
  Status s = Read(sql, {from, from}, [&](const duck::Rows& r) {
    TraceSummary& t = out.emplace_back();
    t.trace_id = r.Text(0), t.request_id = r.Text(1), t.service = r.Text(2), t.name = r.Text(3);
    t.start_ns = r.Int(4), t.duration_us = r.Int(5), t.hops = static_cast<uint64_t>(r.Int(6)), t.error = r.Int(7) != 0;
    t.status = static_cast<int32_t>(r.Int(8));
    std::string_view list = r.Text(9);
    while (!list.empty()) {
      size_t end = list.find('\x1f');
      t.services.emplace_back(list.substr(0, end));
      list = end == std::string_view::npos ? std::string_view() : list.substr(end + 1);
    }
  });
  if (!s) return std::move(s.error()).In("traces");
  return out;
}

template <typename F>
Status DuckStore::ReadCells(const char* second, const std::string& where, const std::vector<Value>& values, F take) {
  return Read(
      "SELECT direction, source, destination, protocol, version, destination_version, source_identity, "
      "destination_identity, tls_version, "
      "CASE outcome WHEN 6 THEN CASE WHEN policy <> '' THEN policy ELSE response_detail END WHEN 7 THEN "
      "CASE WHEN tls_failure <> '' THEN tls_failure ELSE response_detail END "
      "ELSE '' END AS reason, outcome, bucket, " + std::string(second) + " AS second, count(*), CAST(sum(retries) AS BIGINT), "
      "CAST(sum(request_bytes) AS BIGINT), CAST(sum(response_bytes) AS BIGINT) "
      "FROM events_all WHERE " + where + " GROUP BY ALL LIMIT 1000000",
      values, [&](const duck::Rows& r) {
        Cell c;
        size_t i = 0;
        Get(r, i++, c.key.direction);
        for (std::string* t : {&c.key.source, &c.key.destination, &c.key.protocol, &c.key.version, &c.key.destination_version,
                               &c.key.source_identity, &c.key.destination_identity, &c.key.tls_version, &c.key.reason}) {
          *t = r.Text(i++);
        }
        Get(r, i++, c.outcome), Get(r, i++, c.bucket);
        int64_t at = r.Int(i++);
        Get(r, i++, c.count), Get(r, i++, c.retries), Get(r, i++, c.request_bytes), Get(r, i++, c.response_bytes);
        take(at, std::move(c));
      });
}

Result<std::vector<Cell>> DuckStore::Cells(int64_t from_ns, int64_t to_ns) {
  std::vector<Cell> out;
  Status s = ReadCells("0", "end_ns >= ? AND end_ns < ?", {from_ns, to_ns}, [&](int64_t, Cell c) { out.push_back(std::move(c)); });
  if (!s) return std::move(s.error()).In("cells");
  return out;
}

Result<std::vector<std::pair<int64_t, Cell>>> DuckStore::CellsBySecond(int64_t from_ns, int64_t committed_before_ms) {
  std::vector<std::pair<int64_t, Cell>> out;
  Status s = ReadCells("end_ns // 1000000000", "end_ns >= ? AND committed_ms < ?", {from_ns, committed_before_ms},
                       [&](int64_t second, Cell c) { out.emplace_back(second, std::move(c)); });
  if (!s) return std::move(s.error()).In("cells");
  return out;
}

Status DuckStore::SealTable(const std::string& table, int64_t hour_end_ns, int64_t committed_before_ms) {
  std::string rows = " FROM " + table + " WHERE end_ns < " + std::to_string(hour_end_ns) +
                     " AND committed_ms < " + std::to_string(committed_before_ms);
  auto range = writer_->Run("SELECT count(*), min(end_ns), max(end_ns)" + rows);
  if (!range) return range.error();
  if (!(*range)->Next() || (*range)->Int(0) == 0) return Ok{};
  int64_t count = (*range)->Int(0), low = (*range)->Int(1), high = (*range)->Int(2);
  range->reset();
  std::string name = table + "-" + std::to_string(high / kHourNs * 3600) + "-" + std::to_string(NowMs()) + ".parquet";
  std::string path = options_.directory + "/" + name, temporary = path + ".tmp";
  std::string quoted;
  for (char c : temporary) quoted += c == '\'' ? "''" : std::string(1, c);
  return Transaction([&]() -> Status {
    if (auto s = writer_->Exec("COPY (SELECT *" + rows + " ORDER BY end_ns) TO '" + quoted +
                               "' (FORMAT PARQUET, COMPRESSION ZSTD, ROW_GROUP_SIZE 50000)");
        !s) {
      return s;
    }
    int fd = open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) close(fd);
    if (!synced || rename(temporary.c_str(), path.c_str()) != 0) return Error("cannot keep the sealed file").In(path);
    if (auto s = writer_->Exec("INSERT INTO sealed VALUES (?, ?, ?, ?, ?)", {name, table, low, high, count}); !s) return s;
    if (auto s = writer_->Exec("DELETE" + rows); !s) return s;
    return DefineViews();
  });
}

Status DuckStore::Seal(int64_t now_ns) {
  int64_t hour_end = (now_ns - kHourNs / 6) / kHourNs * kHourNs;  // hours that ended at least ten minutes ago
  // Rows committed in the resend window stay hot: a restart rebuilds the known numbers from them.
  int64_t committed_before = now_ns / 1'000'000 - kResendWindowMs;
  for (const char* table : {"events", "spans"}) {
    if (auto s = SealTable(table, hour_end, committed_before); !s) return std::move(s.error()).In("seal");
  }
  return Ok{};
}

Status DuckStore::Retain(int64_t before_ns) {
  std::vector<std::string> files;
  auto old = writer_->Run("SELECT file FROM sealed WHERE high_ns < ?", {before_ns});
  if (!old) return old.error();
  while ((*old)->Next()) files.emplace_back((*old)->Text(0));
  old->reset();
  Status s = Transaction([&]() -> Status {
    for (const char* table : {"events", "spans"}) {
      if (auto d = writer_->Exec(std::string("DELETE FROM ") + table + " WHERE end_ns < ?", {before_ns}); !d) return d;
    }
    if (files.empty()) return Ok{};
    if (auto d = writer_->Exec("DELETE FROM sealed WHERE high_ns < ?", {before_ns}); !d) return d;
    return DefineViews();
  });
  if (!s) return std::move(s.error()).In("retain");
  std::error_code ec;
  for (const std::string& f : files) fs::remove(options_.directory + "/" + f, ec);
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<Store>> OpenDuckDbStore(const StoreOptions& options) {
  auto store = std::make_unique<DuckStore>(options);
  if (auto s = store->Open(); !s) return std::move(s.error()).In("telemetry store");
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace weft::insight
