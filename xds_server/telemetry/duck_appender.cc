#include "xds_server/telemetry/duck_appender.h"

namespace weft::insight::duck {

Appender::Appender(std::vector<duckdb_type> types) : columns_(types.size()) {
  std::vector<duckdb_logical_type> logical;
  for (duckdb_type t : types) logical.push_back(duckdb_create_logical_type(t));
  chunk_ = duckdb_create_data_chunk(logical.data(), logical.size());
  for (auto& t : logical) duckdb_destroy_logical_type(&t);
  Point();
}

Appender::~Appender() {
  if (appender_) duckdb_appender_destroy(&appender_);
  duckdb_destroy_data_chunk(&chunk_);
}

void Appender::Point() {
  for (size_t i = 0; i < columns_.size(); ++i) {
    duckdb_vector v = duckdb_data_chunk_get_vector(chunk_, i);
    columns_[i] = {v, duckdb_vector_get_data(v)};
  }
}

void Appender::Fail(const char* fallback) {
  const char* why = duckdb_appender_error(appender_);
  if (error_.empty()) error_ = why ? why : fallback;
}

void Appender::Begin(Connection& connection, const char* table) {
  table_ = table, error_.clear(), at_ = row_ = 0;
  if (duckdb_appender_create(connection.get(), nullptr, table, &appender_) != DuckDBSuccess) Fail("no appender");
}

void Appender::FlushChunk() {
  if (row_ == 0) return;
  duckdb_data_chunk_set_size(chunk_, row_);
  if (error_.empty() && duckdb_append_data_chunk(appender_, chunk_) != DuckDBSuccess) Fail("append failed");
  duckdb_data_chunk_reset(chunk_);
  Point();  // a reset may move the values
  row_ = 0;
}

base::Status Appender::Finish() {
  FlushChunk();
  if (error_.empty() && duckdb_appender_flush(appender_) != DuckDBSuccess) Fail("append failed");
  duckdb_appender_destroy(&appender_);
  appender_ = nullptr;
  if (!error_.empty()) return base::Error(error_).In(table_);
  return base::Ok{};
}

}  // namespace weft::insight::duck
