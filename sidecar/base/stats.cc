#include "sidecar/base/stats.h"

#include <cmath>
#include <limits>
#include <map>
#include <mutex>

namespace weft::base {

namespace {

// A histogram takes consecutive cells: one per bucket, then the sum in microseconds.
constexpr uint32_t kBuckets = kHistogramBoundsMs.size() + 1;
constexpr uint32_t kHistogramCells = kBuckets + 1;

uint32_t BucketOf(uint64_t us) {
  double ms = static_cast<double>(us) / 1000.0;
  uint32_t i = 0;
  while (i < kHistogramBoundsMs.size() && ms > kHistogramBoundsMs[i]) ++i;
  return i;
}

}  // namespace

constinit thread_local Cells* Cells::local_ = nullptr;

struct Stats::Impl {
  struct Definition {
    StatKind kind;
    StatId id;
    std::string base;
    TagList tags;
    std::shared_ptr<const TagList> shared;  // set: instead of tags
    std::vector<uint64_t> baseline;  // raw values at the last reset; empty before the first
  };
  mutable std::mutex mutex;
  std::map<std::string, Definition, std::less<>> by_name;
  StatId next = 1;  // 0 is the sink
  StatId overflow = 0;
  std::vector<std::unique_ptr<Cells>> all;
  std::vector<Cells*> idle;

  uint64_t Sum(StatId id) const {
    uint64_t sum = 0;
    for (const auto& cells : all) sum += cells->Read(id);
    return sum;
  }
  uint64_t Since(const Definition& d, uint32_t offset) const {
    uint64_t raw = Sum(d.id + offset);
    return d.baseline.empty() ? raw : raw - d.baseline[offset];
  }
};

Stats::Stats() : impl_(std::make_unique<Impl>()) { impl_->overflow = Counter("stats.overflow"); }

Stats& Stats::Get() {
  static Stats* stats = new Stats();
  return *stats;
}

Cells& Cells::Acquire() {
  // Gives the cells back for the next thread when this one ends.
  struct Lease {
    Cells* cells = nullptr;
    ~Lease() {
      Stats::Impl& impl = *Stats::Get().impl_;
      std::lock_guard<std::mutex> lock(impl.mutex);
      impl.idle.push_back(cells);
      local_ = nullptr;
    }
  };
  static thread_local Lease lease;
  Stats::Impl& impl = *Stats::Get().impl_;
  std::lock_guard<std::mutex> lock(impl.mutex);
  if (!impl.idle.empty()) {
    lease.cells = impl.idle.back();
    impl.idle.pop_back();
  } else {
    impl.all.push_back(std::unique_ptr<Cells>(new Cells()));
    lease.cells = impl.all.back().get();
  }
  local_ = lease.cells;
  return *local_;
}

Cells::Chunk* Cells::Grow(uint32_t index) {
  auto* chunk = new Chunk();
  chunks_[index].store(chunk, std::memory_order_release);
  return chunk;
}

void Cells::Record(StatId id, uint64_t microseconds) {
  if (id == kNoStat) return;
  Add(id + BucketOf(microseconds));
  Add(id + kBuckets, microseconds);
}

StatId Stats::Define(StatKind kind, std::string_view name, std::string_view base, Tags tags, std::shared_ptr<const TagList> shared) {
  uint32_t width = kind == StatKind::kHistogram ? kHistogramCells : 1;
  StatId overflow = kNoStat;
  {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    auto it = impl_->by_name.find(name);
    if (it != impl_->by_name.end()) return it->second.kind == kind ? it->second.id : kNoStat;
    if (impl_->by_name.size() < kMaxStats && impl_->next + width <= Cells::kChunk * Cells::kChunks) {
      Impl::Definition d{kind, impl_->next, std::string(base.empty() ? name : base), {}, std::move(shared), {}};
      for (const auto& [k, v] : tags) d.tags.emplace_back(k, v);
      impl_->next += width;
      StatId id = d.id;
      impl_->by_name.emplace(name, std::move(d));
      return id;
    }
    overflow = impl_->overflow;
  }
  Cells::Local().Add(overflow);
  return kNoStat;
}

StatId Stats::Counter(std::string_view name, std::string_view base, Tags tags) {
  return Define(StatKind::kCounter, name, base, tags, nullptr);
}
StatId Stats::Gauge(std::string_view name, std::string_view base, Tags tags) {
  return Define(StatKind::kGauge, name, base, tags, nullptr);
}
StatId Stats::Histogram(std::string_view name, std::string_view base, Tags tags) {
  return Define(StatKind::kHistogram, name, base, tags, nullptr);
}
StatId Stats::Define(StatKind kind, std::string_view name, std::string_view base, std::shared_ptr<const TagList> tags) {
  return Define(kind, name, base, {}, std::move(tags));
}

void Stats::Visit(const std::function<void(const StatView&)>& fn) const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  for (const auto& [name, d] : impl_->by_name) {
    StatView v{d.kind, name, d.base, d.shared ? d.shared.get() : &d.tags};
    if (d.kind == StatKind::kHistogram) {
      for (uint32_t i = 0; i < kBuckets; ++i) v.count += v.buckets[i] = impl_->Since(d, i);
      v.sum_ms = static_cast<double>(impl_->Since(d, kBuckets)) / 1000.0;
      v.used = v.count != 0;
    } else {
      uint64_t raw = impl_->Sum(d.id);
      v.used = raw != 0;
      v.value = static_cast<int64_t>(d.kind == StatKind::kCounter ? impl_->Since(d, 0) : raw);
    }
    fn(v);
  }
}

int64_t Stats::Value(std::string_view name) const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  auto it = impl_->by_name.find(name);
  if (it == impl_->by_name.end() || it->second.kind == StatKind::kHistogram) return 0;
  const Impl::Definition& d = it->second;
  return static_cast<int64_t>(d.kind == StatKind::kCounter ? impl_->Since(d, 0) : impl_->Sum(d.id));
}

void Stats::ResetCounters() {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  for (auto& [name, d] : impl_->by_name) {
    if (d.kind == StatKind::kGauge) continue;
    d.baseline.resize(d.kind == StatKind::kHistogram ? kHistogramCells : 1);
    for (uint32_t i = 0; i < d.baseline.size(); ++i) d.baseline[i] = impl_->Sum(d.id + i);
  }
}

bool Stats::Has(std::string_view name) const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->by_name.find(name) != impl_->by_name.end();
}

size_t Stats::size() const {
  std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->by_name.size();
}

double HistogramQuantileMs(const StatView& h, double p) {
  if (h.count == 0) return std::numeric_limits<double>::quiet_NaN();
  double rank = p * static_cast<double>(h.count), seen = 0;
  for (uint32_t i = 0; i < kBuckets; ++i) {
    double n = static_cast<double>(h.buckets[i]);
    if (n == 0) continue;
    if (seen + n >= rank) {
      if (i == kBuckets - 1) return kHistogramBoundsMs.back();
      double low = i == 0 ? 0 : kHistogramBoundsMs[i - 1];
      return low + (kHistogramBoundsMs[i] - low) * std::fmax(0, rank - seen) / n;
    }
    seen += n;
  }
  return kHistogramBoundsMs.back();
}

}  // namespace weft::base
