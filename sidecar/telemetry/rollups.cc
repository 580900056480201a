#include "sidecar/telemetry/rollups.h"

#include <algorithm>
#include <bit>

namespace weft::telemetry {
namespace {

constexpr int kBucketBits = 10, kSeriesBits = 12;
static_assert(Rollups::kMaxSeries <= 1u << kSeriesBits);

uint64_t Pack(uint64_t slot, uint32_t series, uint16_t bucket) {
  return slot << (kSeriesBits + kBucketBits) | uint64_t{series} << kBucketBits | bucket;
}
uint16_t BucketOfRow(uint64_t packed) { return packed & ((1u << kBucketBits) - 1); }
uint32_t SeriesOfRow(uint64_t packed) { return packed >> kBucketBits & ((1u << kSeriesBits) - 1); }

void Sum(RollupSums& into, const RollupSums& s) {
  into.count += s.count, into.duration_us += s.duration_us;
  into.request_bytes += s.request_bytes, into.response_bytes += s.response_bytes, into.retries += s.retries;
  into.told_request_bytes += s.told_request_bytes, into.told_response_bytes += s.told_response_bytes;
  into.last_end_ns = std::max(into.last_end_ns, s.last_end_ns);
  into.config_revision = std::max(into.config_revision, s.config_revision);
}

}  // namespace

uint16_t LatencyBucket(uint64_t us) {
  constexpr int kBuckets = 16 * 40;
  if (us < 16) return static_cast<uint16_t>(us);
  int exponent = 63 - std::countl_zero(us);
  int b = 16 + (exponent - 4) * 16 + static_cast<int>(us >> (exponent - 4) & 15);
  return static_cast<uint16_t>(std::min(b, kBuckets - 1));
}

bool Rollups::Fold(const proxy::Record& r) {
  RollupSums one;
  one.count = 1, one.duration_us = DurationUs(r), one.last_end_ns = EndNs(r);
  one.request_bytes = r.request_bytes, one.response_bytes = r.response_bytes;
  one.retries = r.retries, one.config_revision = r.config_revision;
  one.told_request_bytes = r.told_request_bytes, one.told_response_bytes = r.told_response_bytes;
  return Add(encoder_.Shared(r), LatencyBucket(one.duration_us), one);
}

bool Rollups::Add(std::string_view shared, uint16_t bucket, const RollupSums& sums) {
  auto it = ids_.find(shared);
  if (it == ids_.end()) {
    if (series_.size() >= kMaxSeries) return false;
    it = ids_.emplace(shared, static_cast<uint32_t>(series_.size())).first;
    series_.push_back(&it->first);
  }
  const uint32_t series = it->second;
  if (rows_.size() >= kMaxRows && !rows_.contains(Pack(Slot(sums.last_end_ns), series, bucket)) && !Coarsen()) return false;
  Sum(rows_[Pack(Slot(sums.last_end_ns), series, bucket)], sums);
  return true;
}

bool Rollups::Coarsen() {
  while (rows_.size() > kMaxRows / 2 && width_s_ < kMaxWidthS) {
    width_s_ *= 2;
    std::unordered_map<uint64_t, RollupSums> rows;
    for (const auto& [packed, sums] : rows_) Sum(rows[Pack(Slot(sums.last_end_ns), SeriesOfRow(packed), BucketOfRow(packed))], sums);
    rows_ = std::move(rows);
  }
  return rows_.size() < kMaxRows;
}

uint64_t Rollups::Merge(Rollups& other) {
  uint64_t lost = 0;
  for (const auto& [packed, sums] : other.rows_) {
    if (!Add(*other.series_[SeriesOfRow(packed)], BucketOfRow(packed), sums)) lost += sums.count;
  }
  other.Clear();
  return lost;
}

void Rollups::Take(uint64_t now_s, const std::function<void(std::string_view, const RollupSums&)>& fn) {
  for (auto it = rows_.begin(); it != rows_.end();) {
    if (now_s == UINT64_MAX || (Slot(it->second.last_end_ns) + 1) * width_s_ <= now_s) {
      fn(*series_[SeriesOfRow(it->first)], it->second);
      it = rows_.erase(it);
    } else {
      ++it;
    }
  }
  if (rows_.empty()) {
    Clear();
  } else if (series_.size() > kMaxSeries / 2) {
    ForgetSeries();
  }
}

void Rollups::Clear() {
  rows_.clear(), ids_.clear(), series_.clear();
  width_s_ = 1;
}

// Under steady load there are always rows: the names that none of them uses any more make room for others.
void Rollups::ForgetSeries() {
  decltype(ids_) ids;
  std::vector<const std::string*> series;
  decltype(rows_) rows;
  for (const auto& [packed, sums] : rows_) {
    auto [it, fresh] = ids.try_emplace(*series_[SeriesOfRow(packed)], static_cast<uint32_t>(series.size()));
    if (fresh) series.push_back(&it->first);
    rows.emplace(Pack(Slot(sums.last_end_ns), it->second, BucketOfRow(packed)), sums);
  }
  ids_ = std::move(ids), series_ = std::move(series), rows_ = std::move(rows);
}

}  // namespace weft::telemetry
