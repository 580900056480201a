#include "sidecar/telemetry/open_table.h"

#include <iterator>

namespace weft::telemetry {

void OpenTable::Report(const OpenReport& r) {
  auto known = open_.find(r.id);
  if (known == open_.end()) {
    if (open_.size() >= kMaxOpen) return;
    auto row = rows_.find(r.shared);
    if (row == rows_.end()) {
      if (rows_.size() >= kMaxSeries) return;
      row = rows_.emplace(r.shared, Row()).first;
    }
    known = open_.emplace(r.id, &*row).first;
    ++row->second.sums.open;
    row->second.changed = true;
  }
  OpenSums& sums = known->second->second.sums;
  sums.request_bytes += r.request_bytes, sums.response_bytes += r.response_bytes;
}

void OpenTable::Ended(uint64_t open_id) {
  auto known = open_.find(open_id);
  if (known == open_.end()) return;
  Row& row = known->second->second;
  --row.sums.open;
  row.changed = true;
  open_.erase(known);
}

void OpenTable::Take(uint64_t now_ns, const std::function<void(std::string_view, const OpenSums&)>& fn) {
  for (auto it = rows_.begin(); it != rows_.end();) {
    Row& row = it->second;
    const uint64_t since = now_ns - row.told_ns;
    if (row.told_ns == 0 || (row.changed && since >= kTellNs) || since >= kAgainNs) {
      fn(it->first, row.sums);
      row.told_ns = now_ns, row.changed = false;
      row.sums.request_bytes = row.sums.response_bytes = 0;
    }
    it = row.sums.open == 0 && !row.changed ? rows_.erase(it) : std::next(it);
  }
}

}  // namespace weft::telemetry
