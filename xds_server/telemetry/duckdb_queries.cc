// Reading: events and spans of a trace, summaries, counts.
#include <algorithm>

#include "xds_server/telemetry/columns.h"
#include "xds_server/telemetry/duckdb_store.h"

namespace weft::insight {
namespace {

using base::Result;
using base::Status;
using duck::Value;

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
std::string ColumnList(Columns columns) {
  Row row;
  std::string out;
  columns(row, [&](const char* column, const auto&) { out += (out.empty() ? "" : ", ") + std::string(column); });
  return out;
}

}  // namespace

Result<std::vector<Event>> DuckStore::Events(const EventQuery& q) {
  static const std::string columns = ColumnList<Event>([](auto& e, auto&& f) { EventColumns(e, f); });
  std::string sql = "SELECT " + columns + " FROM events_all WHERE true";
  std::vector<Value> values;
  if (!q.trace_id.empty()) sql += " AND trace_id = ?", values.push_back(q.trace_id);
  if (!q.request_id.empty()) sql += " AND request_id = ?", values.push_back(q.request_id);
  if (q.from_ns > 0) sql += " AND end_ns >= ?", values.push_back(q.from_ns);
  if (q.to_ns < INT64_MAX) sql += " AND end_ns < ?", values.push_back(q.to_ns);
  if (!q.workload.empty()) sql += " AND workload = ?", values.push_back(q.workload);
  // Requests on one connection share its address; only what is a connection itself is named by it.
  if (!q.came_from.empty()) sql += " AND direction = 1 AND protocol = 'tcp' AND downstream_address = ?", values.push_back(q.came_from);
  if (!q.left_from.empty()) sql += " AND direction = 2 AND contains(attempts, ?)", values.push_back("\"local_address\":\"" + q.left_from + "\"");
  if (q.direction != Direction::kUnknown) sql += " AND direction = " + std::to_string(static_cast<int>(q.direction));
  if (q.failed) sql += " AND outcome IN (2, 3, 4, 6, 7)";
  if (q.denials) sql += " AND direction = 1 AND outcome IN (6, 7)";
  sql += std::string(" ORDER BY ") + (q.denials ? "end_ns DESC" : "start_ns") + " LIMIT " + std::to_string(q.limit);
  std::vector<Event> out;
  Status s = readers_.Read(sql, values, [&](const duck::Rows& r) {
    size_t c = 0;
    EventColumns(out.emplace_back(), [&](const char*, auto& v) { Get(r, c++, v); });
  });
  if (!s) return std::move(s.error()).In("events");
  return out;
}

Result<std::vector<Span>> DuckStore::Spans(const std::string& trace_id, size_t limit) {
  static const std::string columns = ColumnList<Span>([](auto& s, auto&& f) { SpanColumns(s, f); });
  std::vector<Span> out;
  Status s = readers_.Read("SELECT " + columns + " FROM spans_all WHERE trace_id = ? ORDER BY start_ns LIMIT " + std::to_string(limit),
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
    Status s = readers_.Read(sql, values, [&](const duck::Rows& r) {
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
  Status s = readers_.Read(sql, {from, from}, [&](const duck::Rows& r) {
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

Status DuckStore::ReadCells(const char* second, const std::string& where, const std::vector<Value>& values,
                            const std::function<void(int64_t second, Cell)>& take) {
  return readers_.Read(
      "SELECT direction, source, destination, protocol, version, destination_version, source_identity, "
      "destination_identity, tls_version, "
      "CASE outcome WHEN 6 THEN CASE WHEN policy <> '' THEN policy ELSE response_detail END WHEN 7 THEN "
      "CASE WHEN tls_failure <> '' THEN tls_failure ELSE response_detail END "
      "ELSE '' END AS reason, outcome, bucket, " + std::string(second) + " AS second, CAST(sum(coalesce(count, 1)) AS BIGINT), CAST(sum(retries) AS BIGINT), "
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

}  // namespace weft::insight
