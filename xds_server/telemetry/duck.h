// A thin face of DuckDB's C API: connections, bound statements, rows by column index. Internal to the store.
//
//   auto rows = conn.Run("SELECT a, b FROM t WHERE c = ?", {Value("x")});
//   while (rows->Next()) Use(rows->Text(0), rows->Int(1));
//
// Threads: a Connection belongs to one thread at a time; Interrupt() may be called from any. Errors carry DuckDB's text.
#pragma once

#include <duckdb.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sidecar/base/result.h"

namespace weft::insight::duck {

using Value = std::variant<int64_t, std::string>;

class Rows {
 public:
  explicit Rows(duckdb_result result) : result_(result) {}
  ~Rows();
  Rows(const Rows&) = delete;
  bool Next();
  // NULL reads as 0 or "". The column must have an integer (any width, signed or not), BOOLEAN, DOUBLE or VARCHAR type.
  int64_t Int(size_t column) const;
  std::string_view Text(size_t column) const;

 private:
  void DropChunk();
  duckdb_result result_;
  duckdb_data_chunk chunk_ = nullptr;
  size_t row_ = 0, size_ = 0;
  struct Column {
    void* data;
    uint64_t* validity;
    duckdb_type type;
  };
  std::vector<Column> columns_;
};

class Connection {
 public:
  explicit Connection(duckdb_connection c) : c_(c) {}
  ~Connection() { duckdb_disconnect(&c_); }
  Connection(const Connection&) = delete;
  base::Result<std::unique_ptr<Rows>> Run(const std::string& sql, const std::vector<Value>& values = {});
  base::Status Exec(const std::string& sql, const std::vector<Value>& values = {});
  void Interrupt() { duckdb_interrupt(c_); }
  duckdb_connection get() { return c_; }

 private:
  duckdb_connection c_;
};

class Database {
 public:
  ~Database() { duckdb_close(&db_); }
  static base::Result<std::unique_ptr<Database>> Open(const std::string& path,
                                                      const std::vector<std::pair<std::string, std::string>>& settings);
  base::Result<std::unique_ptr<Connection>> Connect();

 private:
  Database() = default;
  duckdb_database db_ = nullptr;
};

}  // namespace weft::insight::duck
