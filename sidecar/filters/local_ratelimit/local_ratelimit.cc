#include "sidecar/filters/local_ratelimit/local_ratelimit.h"

#include <algorithm>

namespace weft::filters::local_ratelimit {

Bucket::Bucket(uint32_t max_tokens, uint32_t per_fill, uint64_t fill_interval_ns)
    : max_(max_tokens), per_fill_(per_fill), interval_ns_(std::max<uint64_t>(fill_interval_ns, 1)), tokens_(max_tokens) {}

bool Bucket::Take(uint64_t now_ns) {
  // Whoever moves the fill time on adds the tokens of the intervals it covers.
  uint64_t last = last_fill_ns_.load(std::memory_order_relaxed);
  if (last == 0) {
    last_fill_ns_.compare_exchange_strong(last, now_ns, std::memory_order_relaxed);
  } else if (now_ns > last && now_ns - last >= interval_ns_) {
    uint64_t intervals = (now_ns - last) / interval_ns_;
    if (last_fill_ns_.compare_exchange_strong(last, last + intervals * interval_ns_, std::memory_order_relaxed)) {
      uint64_t add = intervals > max_ ? max_ : std::min(max_, intervals * per_fill_);
      uint64_t have = tokens_.load(std::memory_order_relaxed);
      while (!tokens_.compare_exchange_weak(have, std::min(max_, have + add), std::memory_order_relaxed)) continue;
    }
  }
  uint64_t have = tokens_.load(std::memory_order_relaxed);
  while (have > 0) {
    if (tokens_.compare_exchange_weak(have, have - 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

std::shared_ptr<Bucket> BucketRegistry::Get(const model::LocalRateLimitConfig& config) {
  if (config.max_tokens == 0) return nullptr;
  std::lock_guard lock(mutex_);
  auto& weak = buckets_[config.key];
  auto bucket = weak.lock();
  if (!bucket) {
    bucket = std::make_shared<Bucket>(config.max_tokens, config.tokens_per_fill, config.fill_interval_ns);
    weak = bucket;
    if (buckets_.size() > 4096) std::erase_if(buckets_, [](const auto& e) { return e.second.expired(); });
  }
  return bucket;
}

Verdict Evaluate(const model::LocalRateLimitConfig& config, Bucket* bucket, uint64_t now_ns, uint64_t enabled_random,
                 uint64_t enforced_random) {
  if (!bucket || !config.enabled.Sample(enabled_random)) return Verdict::kDisabled;
  if (bucket->Take(now_ns)) return Verdict::kOk;
  return config.enforced.Sample(enforced_random) ? Verdict::kLimited : Verdict::kLimitedNotEnforced;
}

}  // namespace weft::filters::local_ratelimit
