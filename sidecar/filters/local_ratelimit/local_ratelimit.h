// Token-bucket limit inside one sidecar. Buckets are cells: shared by workers and snapshots, found by configuration key.
//
//   auto bucket = buckets.Get(config);                       // once per snapshot swap or connection; takes a lock
//   Verdict v = Evaluate(config, *bucket, now_ns, random);   // per request, lock-free
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "sidecar/model/filters.h"

namespace weft::filters::local_ratelimit {

class Bucket {
 public:
  Bucket(uint32_t max_tokens, uint32_t per_fill, uint64_t fill_interval_ns);
  bool Take(uint64_t now_ns);

 private:
  const uint64_t max_, per_fill_, interval_ns_;
  std::atomic<uint64_t> tokens_;
  std::atomic<uint64_t> last_fill_ns_{0};
};

class BucketRegistry {
 public:
  // Null when the configuration has no bucket (max_tokens 0).
  std::shared_ptr<Bucket> Get(const model::LocalRateLimitConfig& config);

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<Bucket>> buckets_;
};

enum class Verdict : uint8_t { kDisabled, kOk, kLimitedNotEnforced, kLimited };
Verdict Evaluate(const model::LocalRateLimitConfig& config, Bucket* bucket, uint64_t now_ns, uint64_t enabled_random,
                 uint64_t enforced_random);

}  // namespace weft::filters::local_ratelimit
