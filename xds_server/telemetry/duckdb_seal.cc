// Ended hours to Parquet files, and forgetting what is too old.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "xds_server/telemetry/duckdb_store.h"

namespace weft::insight {
namespace {
constexpr int64_t kHourNs = 3'600'000'000'000;
}

namespace fs = std::filesystem;
using base::Error;
using base::Ok;
using base::Status;

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

}  // namespace weft::insight
