// Rows into a table, a vector of values for each column at a time: the cheap way in. Internal to the store.
//
//   Appender a({DUCKDB_TYPE_VARCHAR, DUCKDB_TYPE_BIGINT});     // once; its memory is used again
//   a.Begin(connection, "events");
//   for (...) { a.Text("x"); a.Int(5); a.EndRow(); }            // the columns in table order, each row complete
//   Status s = a.Finish();
//
// Texts must be valid UTF-8. Threads: the connection's. Errors are kept and come with Finish().
#pragma once

#include <cstring>

#include "xds_server/telemetry/duck.h"

namespace weft::insight::duck {

class Appender {
 public:
  explicit Appender(std::vector<duckdb_type> types);
  ~Appender();
  Appender(const Appender&) = delete;

  void Begin(Connection& connection, const char* table);
  void Text(std::string_view s) {
    Column& c = columns_[at_++];
    duckdb_string_t& v = static_cast<duckdb_string_t*>(c.data)[row_];
    if (s.size() <= kInlined) {
      // As the engine lays it out: short texts live in the value itself.
      memset(&v, 0, sizeof v);
      v.value.inlined.length = static_cast<uint32_t>(s.size());
      memcpy(v.value.inlined.inlined, s.data(), s.size());
    } else {
      duckdb_vector_assign_string_element_len(c.vector, row_, s.data(), s.size());
    }
  }
  // BIGINT, INTEGER and BOOLEAN columns.
  void Int(int64_t v) { static_cast<int64_t*>(columns_[at_++].data)[row_] = v; }
  void Int32(int32_t v) { static_cast<int32_t*>(columns_[at_++].data)[row_] = v; }
  void Bool(bool v) { static_cast<bool*>(columns_[at_++].data)[row_] = v; }
  void EndRow() {
    at_ = 0;
    if (++row_ == capacity_) FlushChunk();
  }
  base::Status Finish();

 private:
  static constexpr size_t kInlined = sizeof(duckdb_string_t::value.inlined.inlined);
  struct Column {
    duckdb_vector vector;
    void* data;
  };
  void FlushChunk();
  void Point();
  void Fail(const char* fallback);

  duckdb_data_chunk chunk_ = nullptr;
  duckdb_appender appender_ = nullptr;
  std::vector<Column> columns_;
  size_t at_ = 0, row_ = 0;
  const size_t capacity_ = duckdb_vector_size();
  std::string table_, error_;
};

}  // namespace weft::insight::duck
