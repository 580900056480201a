#include "xds_server/telemetry/duck.h"

namespace weft::insight::duck {

Rows::~Rows() {
  DropChunk();
  duckdb_destroy_result(&result_);
}

void Rows::DropChunk() {
  if (chunk_) duckdb_destroy_data_chunk(&chunk_);
  chunk_ = nullptr;
  columns_.clear();
}

bool Rows::Next() {
  if (chunk_ && ++row_ < size_) return true;
  DropChunk();
  while ((chunk_ = duckdb_fetch_chunk(result_)) != nullptr) {
    size_ = duckdb_data_chunk_get_size(chunk_), row_ = 0;
    if (size_ == 0) {
      DropChunk();
      continue;
    }
    for (idx_t i = 0; i < duckdb_data_chunk_get_column_count(chunk_); ++i) {
      duckdb_vector v = duckdb_data_chunk_get_vector(chunk_, i);
      columns_.push_back({duckdb_vector_get_data(v), duckdb_vector_get_validity(v), duckdb_column_type(&result_, i)});
    }
    return true;
  }
  return false;
}

int64_t Rows::Int(size_t column) const {
  const Column& c = columns_[column];
  if (c.validity && !duckdb_validity_row_is_valid(c.validity, row_)) return 0;
  switch (c.type) {
    case DUCKDB_TYPE_BOOLEAN: return static_cast<bool*>(c.data)[row_];
    case DUCKDB_TYPE_TINYINT: return static_cast<int8_t*>(c.data)[row_];
    case DUCKDB_TYPE_UTINYINT: return static_cast<uint8_t*>(c.data)[row_];
    case DUCKDB_TYPE_SMALLINT: return static_cast<int16_t*>(c.data)[row_];
    case DUCKDB_TYPE_USMALLINT: return static_cast<uint16_t*>(c.data)[row_];
    case DUCKDB_TYPE_INTEGER: return static_cast<int32_t*>(c.data)[row_];
    case DUCKDB_TYPE_UINTEGER: return static_cast<uint32_t*>(c.data)[row_];
    case DUCKDB_TYPE_BIGINT: return static_cast<int64_t*>(c.data)[row_];
    case DUCKDB_TYPE_UBIGINT: return static_cast<int64_t>(static_cast<uint64_t*>(c.data)[row_]);
    case DUCKDB_TYPE_HUGEINT: return static_cast<int64_t>(static_cast<duckdb_hugeint*>(c.data)[row_].lower);
    case DUCKDB_TYPE_DOUBLE: return static_cast<int64_t>(static_cast<double*>(c.data)[row_]);
    default: return 0;
  }
}

std::string_view Rows::Text(size_t column) const {
  const Column& c = columns_[column];
  if (c.type != DUCKDB_TYPE_VARCHAR || (c.validity && !duckdb_validity_row_is_valid(c.validity, row_))) return {};
  duckdb_string_t& s = static_cast<duckdb_string_t*>(c.data)[row_];
  return {duckdb_string_t_data(&s), duckdb_string_t_length(s)};
}

base::Result<std::unique_ptr<Rows>> Connection::Run(const std::string& sql, const std::vector<Value>& values) {
  duckdb_prepared_statement st = nullptr;
  if (duckdb_prepare(c_, sql.c_str(), &st) != DuckDBSuccess) {
    const char* why = duckdb_prepare_error(st);
    base::Error error(why ? why : "cannot prepare");
    duckdb_destroy_prepare(&st);
    return std::move(error).In(sql.substr(0, 80));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (auto* n = std::get_if<int64_t>(&values[i])) {
      duckdb_bind_int64(st, i + 1, *n);
    } else {
      const std::string& s = std::get<std::string>(values[i]);
      duckdb_bind_varchar_length(st, i + 1, s.data(), s.size());
    }
  }
  duckdb_result result;
  duckdb_state state = duckdb_execute_prepared(st, &result);
  duckdb_destroy_prepare(&st);
  auto rows = std::make_unique<Rows>(result);
  if (state != DuckDBSuccess) {
    const char* why = duckdb_result_error(&result);
    return base::Error(why ? why : "query failed").In(sql.substr(0, 80));
  }
  return rows;
}

base::Status Connection::Exec(const std::string& sql, const std::vector<Value>& values) {
  auto rows = Run(sql, values);
  if (!rows) return rows.error();
  return base::Ok{};
}

base::Result<std::unique_ptr<Database>> Database::Open(const std::string& path,
                                                       const std::vector<std::pair<std::string, std::string>>& settings) {
  duckdb_config config;
  if (duckdb_create_config(&config) != DuckDBSuccess) return base::Error("DuckDB: no configuration");
  for (const auto& [name, value] : settings) {
    if (duckdb_set_config(config, name.c_str(), value.c_str()) != DuckDBSuccess) {
      duckdb_destroy_config(&config);
      return base::Error("DuckDB refuses the setting " + name + "=" + value);
    }
  }
  std::unique_ptr<Database> out(new Database);
  char* why = nullptr;
  duckdb_state state = duckdb_open_ext(path.c_str(), &out->db_, config, &why);
  duckdb_destroy_config(&config);
  if (state != DuckDBSuccess) {
    base::Error error(why ? why : "cannot open");
    duckdb_free(why);
    return std::move(error).In(path);
  }
  return out;
}

base::Result<std::unique_ptr<Connection>> Database::Connect() {
  duckdb_connection c;
  if (duckdb_connect(db_, &c) != DuckDBSuccess) return base::Error("DuckDB: cannot connect");
  return std::make_unique<Connection>(c);
}

}  // namespace weft::insight::duck
