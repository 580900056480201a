#include "xds_server/telemetry/duckdb_store.h"

#include <chrono>
#include <filesystem>
#include <set>

#include "xds_server/telemetry/columns.h"

namespace weft::insight {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::Ok;
using base::Result;
using base::Status;

constexpr int kSchema = 2;  // 2: events.count

duckdb_type TypeOf(const std::string&) { return DUCKDB_TYPE_VARCHAR; }
duckdb_type TypeOf(const std::vector<Attempt>&) { return DUCKDB_TYPE_VARCHAR; }
duckdb_type TypeOf(uint64_t) { return DUCKDB_TYPE_BIGINT; }
duckdb_type TypeOf(int64_t) { return DUCKDB_TYPE_BIGINT; }
duckdb_type TypeOf(uint32_t) { return DUCKDB_TYPE_BIGINT; }
duckdb_type TypeOf(int32_t) { return DUCKDB_TYPE_INTEGER; }
duckdb_type TypeOf(uint16_t) { return DUCKDB_TYPE_INTEGER; }
duckdb_type TypeOf(bool) { return DUCKDB_TYPE_BOOLEAN; }
duckdb_type TypeOf(Direction) { return DUCKDB_TYPE_INTEGER; }
duckdb_type TypeOf(Outcome) { return DUCKDB_TYPE_INTEGER; }

const char* NameOf(duckdb_type t) {
  return t == DUCKDB_TYPE_VARCHAR ? "VARCHAR" : t == DUCKDB_TYPE_BIGINT ? "BIGINT" : t == DUCKDB_TYPE_INTEGER ? "INTEGER" : "BOOLEAN";
}

void Put(duck::Appender& a, const std::string& v) { a.Text(v); }
void Put(duck::Appender& a, const std::vector<Attempt>& v) { a.Text(AttemptsJson(v)); }
void Put(duck::Appender& a, uint64_t v) { a.Int(static_cast<int64_t>(v)); }
void Put(duck::Appender& a, int64_t v) { a.Int(v); }
void Put(duck::Appender& a, uint32_t v) { a.Int(v); }
void Put(duck::Appender& a, int32_t v) { a.Int32(v); }
void Put(duck::Appender& a, uint16_t v) { a.Int32(v); }
void Put(duck::Appender& a, bool v) { a.Bool(v); }
void Put(duck::Appender& a, Direction v) { a.Int32(static_cast<int>(v)); }
void Put(duck::Appender& a, Outcome v) { a.Int32(static_cast<int>(v)); }

template <typename Row, typename Columns>
std::string TableSql(const char* name, Columns columns) {
  Row row;
  std::string out = std::string("CREATE TABLE IF NOT EXISTS ") + name + " (";
  columns(row, [&](const char* column, const auto& v) {
    if (out.back() != '(') out += ", ";
    out += std::string(column) + " " + NameOf(TypeOf(v));
  });
  return out + ")";
}

template <typename Row, typename Columns>
std::vector<duckdb_type> Types(Columns columns) {
  Row row;
  std::vector<duckdb_type> out;
  columns(row, [&](const char*, const auto& v) { out.push_back(TypeOf(v)); });
  return out;
}

constexpr auto kEvents = [](auto& e, auto&& f) { EventColumns(e, f); };
constexpr auto kSpans = [](auto& s, auto&& f) { SpanColumns(s, f); };

template <typename Row, typename Columns>
Status AppendRows(duck::Connection& connection, duck::Appender& appender, const char* table, const std::vector<Row>& rows, Columns columns) {
  appender.Begin(connection, table);
  for (const Row& row : rows) {
    columns(row, [&](const char*, const auto& v) { Put(appender, v); });
    appender.EndRow();
  }
  return appender.Finish();
}

}  // namespace

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

DuckStore::DuckStore(const StoreOptions& o)
    : options_(o), events_in_(Types<Event>(kEvents)), spans_in_(Types<Span>(kSpans)), readers_(o.query_timeout_ms) {}

DuckStore::~DuckStore() {
  readers_.Close();
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
      {"checkpoint_threshold", std::to_string(options_.checkpoint_mb) + "MB"},
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
    readers_.Add(*std::move(c));
  }
  readers_.Start();
  return Ok{};
}

Status DuckStore::Prepare() {
  for (const std::string& sql :
       {std::string("CREATE TABLE IF NOT EXISTS meta (version BIGINT)"),
        std::string("CREATE TABLE IF NOT EXISTS sealed (file VARCHAR, tab VARCHAR, low_ns BIGINT, high_ns BIGINT, amount BIGINT)"),
        TableSql<Event>("events", kEvents), TableSql<Span>("spans", kSpans)}) {
    if (auto s = writer_->Exec(sql); !s) return s;
  }
  auto version = writer_->Run("SELECT version FROM meta");
  if (!version) return version.error();
  if (!(*version)->Next()) {
    if (auto s = writer_->Exec("INSERT INTO meta VALUES (?)", {int64_t{kSchema}}); !s) return s;
  } else if (int64_t found = (*version)->Int(0); found > kSchema) {
    return Error("schema version " + std::to_string(found) + ", this program reads " + std::to_string(kSchema));
  } else if (found < kSchema) {
    version->reset();
    if (auto s = Upgrade(found); !s) return s;
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

Status DuckStore::Upgrade(int64_t from_version) {
  return Transaction([&]() -> Status {
    // Rows from before have no value there; every query reads that as one request.
    if (from_version < 2) {
      if (auto s = writer_->Exec("ALTER TABLE events ADD COLUMN IF NOT EXISTS count BIGINT"); !s) return s;
    }
    return writer_->Exec("UPDATE meta SET version = ?", {int64_t{kSchema}});
  });
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
      known_.AddRange(key, low, high, now);
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
    while ((*runs)->Next()) {
      known_.AddRange(key, static_cast<uint64_t>((*runs)->Int(0)), static_cast<uint64_t>((*runs)->Int(1)), now);
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

Result<AppendStats> DuckStore::Append(std::vector<Event>& events, std::vector<Span>& spans) {
  AppendStats stats;
  const int64_t now = NowMs();
  KnownNumbers::Batch batch(known_);
  stats.duplicates = std::erase_if(events, [&](const Event& e) { return !batch.Add(e.workload, e.epoch, e.number); });
  stats.events = events.size(), stats.spans = spans.size();
  for (Event& e : events) e.committed_ms = now;
  for (Span& s : spans) s.committed_ms = now;
  if (stats.events || stats.spans) {
    Status s = Transaction([&]() -> Status {
      if (stats.events) {
        if (auto a = AppendRows(*writer_, events_in_, "events", events, kEvents); !a) return a;
      }
      if (stats.spans) return AppendRows(*writer_, spans_in_, "spans", spans, kSpans);
      return Ok{};
    });
    if (!s) return std::move(s.error()).In("append");
  }
  batch.Keep(now);
  return stats;
}

Result<std::unique_ptr<Store>> OpenDuckDbStore(const StoreOptions& options) {
  auto store = std::make_unique<DuckStore>(options);
  if (auto s = store->Open(); !s) return std::move(s.error()).In("telemetry store");
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace weft::insight
