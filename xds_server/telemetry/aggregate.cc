#include "xds_server/telemetry/aggregate.h"

#include <algorithm>

namespace weft::insight {
namespace {

uint64_t Pack(uint32_t series, Outcome o, uint16_t bucket) {
  return static_cast<uint64_t>(series) << 32 | static_cast<uint64_t>(o) << 16 | bucket;
}

std::string Flat(const SeriesKey& k) {
  std::string s(1, static_cast<char>('0' + static_cast<int>(k.direction)));
  for (const std::string* p : {&k.source, &k.destination, &k.protocol, &k.version, &k.destination_version,
                               &k.source_identity, &k.destination_identity, &k.tls_version, &k.reason}) {
    s.append(1, '\0').append(*p);
  }
  return s;
}

}  // namespace

SeriesKey SeriesOf(const Event& e) {
  SeriesKey k;
  k.direction = e.direction;
  k.source = e.source, k.destination = e.destination, k.protocol = e.protocol;
  k.version = e.version, k.destination_version = e.destination_version;
  k.source_identity = e.source_identity, k.destination_identity = e.destination_identity;
  k.tls_version = e.tls_version;
  if (e.outcome == Outcome::kDenied) {
    k.reason = !e.policy.empty() ? e.policy : e.response_detail;
  } else if (e.outcome == Outcome::kRefused) {
    k.reason = !e.tls_failure.empty() ? e.tls_failure : e.response_detail;
  }
  return k;
}

uint32_t Live::SeriesId(SeriesKey k) {
  std::string flat = Flat(k);
  if (auto it = ids_.find(flat); it != ids_.end()) return it->second;
  if (keys_.size() >= max_series_) {
    k = SeriesKey{.direction = k.direction};
    k.source = k.destination = "(other)";
    flat = Flat(k);
    if (auto it = ids_.find(flat); it != ids_.end()) return it->second;
  }
  keys_.push_back(std::move(k));
  uint32_t id = static_cast<uint32_t>(keys_.size() - 1);
  ids_.emplace(std::move(flat), id);
  return id;
}

void Live::Trim(int64_t now_s) {
  while (!slots_.empty() && slots_.front().second <= now_s - seconds_) slots_.pop_front();
  if (keys_.size() < max_series_) return;
  // At the cap: forget series that no kept second uses, so that yesterday's names do not hide today's.
  std::vector<uint32_t> fresh(keys_.size(), UINT32_MAX);
  std::vector<SeriesKey> keys;
  for (Slot& slot : slots_) {
    std::unordered_map<uint64_t, Cell> cells;
    for (auto& [packed, cell] : slot.cells) {
      uint32_t old = static_cast<uint32_t>(packed >> 32);
      if (fresh[old] == UINT32_MAX) fresh[old] = static_cast<uint32_t>(keys.size()), keys.push_back(keys_[old]);
      cells.emplace(Pack(fresh[old], cell.outcome, cell.bucket), std::move(cell));
    }
    slot.cells = std::move(cells);
  }
  keys_ = std::move(keys);
  ids_.clear();
  for (size_t i = 0; i < keys_.size(); ++i) ids_.emplace(Flat(keys_[i]), static_cast<uint32_t>(i));
}

Cell& Live::At(int64_t second, uint32_t series, Outcome outcome, uint16_t bucket) {
  auto it = std::lower_bound(slots_.begin(), slots_.end(), second, [](const Slot& s, int64_t v) { return s.second < v; });
  if (it == slots_.end() || it->second != second) it = slots_.insert(it, Slot{second, {}});
  if (first_second_ == 0 || second < first_second_) first_second_ = second;
  Cell& c = it->cells[Pack(series, outcome, bucket)];
  c.outcome = outcome, c.bucket = bucket;
  return c;
}

void Live::Seed(const std::vector<std::pair<int64_t, Cell>>& by_second, int64_t now_ns) {
  int64_t now_s = now_ns / 1'000'000'000;
  std::lock_guard lock(mu_);
  Trim(now_s);
  for (const auto& [at, cell] : by_second) {
    int64_t second = std::min(at, now_s);
    if (second <= now_s - seconds_) continue;
    Cell& c = At(second, SeriesId(cell.key), cell.outcome, cell.bucket);
    c.count += cell.count, c.retries += cell.retries;
    c.request_bytes += cell.request_bytes, c.response_bytes += cell.response_bytes;
  }
}

void Live::Add(const std::vector<Event>& events, int64_t now_ns) {
  int64_t now_s = now_ns / 1'000'000'000;
  std::lock_guard lock(mu_);
  Trim(now_s);
  for (const Event& e : events) {
    int64_t second = std::min(e.end_ns / 1'000'000'000, now_s);  // a clock ahead of ours counts as now
    if (second <= now_s - seconds_) continue;
    Cell& c = At(second, SeriesId(SeriesOf(e)), e.outcome, e.bucket);
    c.count += e.count;
    c.retries += e.retries;
    c.request_bytes += e.request_bytes - std::min(e.request_bytes, e.told_request_bytes);
    c.response_bytes += e.response_bytes - std::min(e.response_bytes, e.told_response_bytes);
  }
}

void Live::Open(const std::vector<Event>& interim, int64_t now_ns) {
  if (interim.empty()) return;
  const int64_t now_s = now_ns / 1'000'000'000;
  std::lock_guard lock(mu_);
  std::erase_if(open_, [&](const auto& o) { return o.second.at_ns < now_ns - kOpenSeconds * 1'000'000'000ll; });
  for (const Event& e : interim) {
    SeriesKey key = SeriesOf(e);
    std::string who = e.workload + '\0' + e.epoch + '\0' + Flat(key);
    if (e.request_bytes || e.response_bytes) {
      Cell& c = At(now_s, SeriesId(key), e.outcome, e.bucket);
      c.request_bytes += e.request_bytes, c.response_bytes += e.response_bytes;
    }
    if (e.open == 0) {
      open_.erase(who);
    } else if (open_.size() < max_series_ || open_.contains(who)) {
      open_[who] = {std::move(key), e.open, now_ns};
    }
  }
}

void Live::AppendOpen(int64_t now_ns, std::vector<Cell>& out) const {
  for (const auto& [who, told] : open_) {
    if (told.at_ns < now_ns - kOpenSeconds * 1'000'000'000ll) continue;
    Cell& c = out.emplace_back();
    c.key = told.key, c.open = told.open;
  }
}

std::vector<Cell> Live::OpenNow(int64_t now_ns) const {
  std::vector<Cell> out;
  std::lock_guard lock(mu_);
  AppendOpen(now_ns, out);
  return out;
}

std::vector<Cell> Live::Window(int window_s, int64_t now_ns) const {
  int64_t now_s = now_ns / 1'000'000'000, from = now_s - std::min(window_s, seconds_);
  std::unordered_map<uint64_t, Cell> sum;
  std::lock_guard lock(mu_);
  for (const Slot& slot : slots_) {
    if (slot.second <= from || slot.second > now_s) continue;
    for (const auto& [packed, cell] : slot.cells) {
      Cell& c = sum[packed];
      c.outcome = cell.outcome, c.bucket = cell.bucket;
      c.count += cell.count, c.retries += cell.retries;
      c.request_bytes += cell.request_bytes, c.response_bytes += cell.response_bytes;
    }
  }
  std::vector<Cell> out;
  out.reserve(sum.size());
  for (auto& [packed, cell] : sum) {
    cell.key = keys_[packed >> 32];
    out.push_back(std::move(cell));
  }
  AppendOpen(now_ns, out);
  return out;
}

int Live::Span(int window_s, int64_t now_ns) const {
  std::lock_guard lock(mu_);
  if (first_second_ == 0) return 1;
  int64_t have = now_ns / 1'000'000'000 - first_second_ + 1;
  return static_cast<int>(std::clamp<int64_t>(have, 1, std::max(1, std::min(window_s, seconds_))));
}

size_t Live::series() const {
  std::lock_guard lock(mu_);
  return keys_.size();
}

}  // namespace weft::insight
