// Counters, gauges and histograms with Envoy's names, cheap enough for the hot path.
//
//   auto rq = base::Stats::Get().Counter("cluster.cart.upstream_rq_total", "cluster.upstream_rq_total",
//                                        {{"envoy_cluster_name", "cart"}});          // once, when configuration is built
//   base::Cells::Local().Add(rq);                                                    // per request, any thread
//   base::Cells::Local().Record(rq_time, 1500);                                      // histogram, microseconds
//
// A definition is idempotent: the same full name gives the same id (a different kind under the name gives the sink).
// Each thread owns its Cells: plain relaxed stores by one writer, no lock prefix, merged when scraped. Cells of a
// finished thread keep their values and are handed to the next new thread, so totals never fall.
// Bounded: kMaxStats definitions; beyond that (and for kNoStat) everything lands in a sink that is never shown, and the
// counter "stats.overflow" counts the refused definitions.
//
// Threads: everything may be called from any thread; definitions and Visit take a mutex, Cells never do.
// Units: histograms record microseconds and are shown in milliseconds as Envoy's timers are.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::base {

using StatId = uint32_t;
constexpr StatId kNoStat = 0;  // the sink: adding to it is harmless

enum class StatKind : uint8_t { kCounter, kGauge, kHistogram };

// Upper bounds of the histogram buckets in milliseconds: Envoy's Prometheus defaults. The last bucket is +Inf.
constexpr std::array<double, 19> kHistogramBoundsMs = {0.5,  1,    5,     10,    25,    50,     100,    250,     500,    1000,
                                                       2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000};

// One thread's numbers.
class Cells {
 public:
  static Cells& Local() { return local_ ? *local_ : Acquire(); }

  void Add(StatId id, uint64_t n = 1) {
    std::atomic<uint64_t>& c = At(id);
    c.store(c.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Sub(StatId id, uint64_t n = 1) { Add(id, uint64_t{0} - n); }
  // Gauges only: this thread's share becomes v (the shown value is the sum over threads, so one thread should own it).
  void Set(StatId id, uint64_t v) { At(id).store(v, std::memory_order_relaxed); }
  // Histograms only.
  void Record(StatId id, uint64_t microseconds);

 private:
  friend class Stats;
  static constexpr uint32_t kChunk = 256, kChunks = 8192;
  struct Chunk {
    std::atomic<uint64_t> cells[kChunk] = {};
  };
  Cells() = default;
  static Cells& Acquire();
  std::atomic<uint64_t>& At(StatId id) {
    Chunk* chunk = chunks_[id / kChunk].load(std::memory_order_relaxed);
    if (!chunk) [[unlikely]] chunk = Grow(id / kChunk);
    return chunk->cells[id % kChunk];
  }
  Chunk* Grow(uint32_t index);
  uint64_t Read(StatId id) const {  // from any thread
    const Chunk* chunk = chunks_[id / kChunk].load(std::memory_order_acquire);
    return chunk ? chunk->cells[id % kChunk].load(std::memory_order_relaxed) : 0;
  }

  static constinit thread_local Cells* local_;
  std::array<std::atomic<Chunk*>, kChunks> chunks_ = {};
};

// What a scrape sees of one stat. Views are valid during the visit.
struct StatView {
  StatKind kind;
  std::string_view name;       // "cluster.cart.upstream_rq_total"
  std::string_view base_name;  // "cluster.upstream_rq_total"
  const std::vector<std::pair<std::string, std::string>>* tags;
  int64_t value = 0;           // counters and gauges
  bool used = false;           // ever written
  uint64_t count = 0;          // histograms: samples, their sum, and samples per bucket (not cumulative)
  double sum_ms = 0;
  std::array<uint64_t, kHistogramBoundsMs.size() + 1> buckets = {};
};

// Stats that nobody keeps: read off other state, one after the other in the order of their names, when stats are shown.
class StatSource {
 public:
  virtual ~StatSource() = default;
  virtual bool Next(StatView* out) = 0;  // false: no more. What out shows is valid until the next call.
};

using TagList = std::vector<std::pair<std::string, std::string>>;

class Stats {
 public:
  using Tags = std::initializer_list<std::pair<std::string_view, std::string_view>>;
  static Stats& Get();  // the process's registry; never destroyed
  static constexpr uint32_t kMaxStats = 400'000;

  // base: the name without the parts that became tags; empty means name itself, without tags.
  StatId Counter(std::string_view name, std::string_view base = {}, Tags tags = {});
  StatId Gauge(std::string_view name, std::string_view base = {}, Tags tags = {});
  StatId Histogram(std::string_view name, std::string_view base = {}, Tags tags = {});
  // The same for long lists of tags that several stats have in common.
  StatId Define(StatKind kind, std::string_view name, std::string_view base, std::shared_ptr<const TagList> tags);
  bool Has(std::string_view name) const;

  // All stats sorted by full name.
  void Visit(const std::function<void(const StatView&)>& fn) const;
  // The merged value of a counter or gauge by full name; 0 when there is none. For tests and the admin.
  int64_t Value(std::string_view name) const;
  // Counters start again from zero, histograms too (Envoy's /reset_counters).
  void ResetCounters();
  size_t size() const;

 private:
  friend class Cells;
  Stats();
  StatId Define(StatKind kind, std::string_view name, std::string_view base, Tags tags, std::shared_ptr<const TagList> shared);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The p-th quantile (0..1) in milliseconds, interpolated inside its bucket; NaN without samples.
double HistogramQuantileMs(const StatView& histogram, double p);

}  // namespace weft::base
