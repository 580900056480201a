// A bounded single-producer single-consumer ring: values are swapped into slots and moved out. Two of them, one each
// way, carry records to main and back, so that strings and vectors are reused and a steady flow allocates nothing.
// Full: the value stays with the producer and is counted as dropped.
// Threads: one producer, one consumer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace weft::proxy {

template <typename T>
class Ring {
 public:
  explicit Ring(size_t capacity_power_of_two) : slots_(capacity_power_of_two), mask_(capacity_power_of_two - 1) {}

  // Producer. On success `value` holds what the slot held; on failure it is unchanged.
  bool Push(T& value) {
    uint64_t head = head_.load(std::memory_order_relaxed);
    if (head - tail_.load(std::memory_order_acquire) > mask_) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    std::swap(slots_[head & mask_], value);
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Consumer: the oldest value, or null. It stays valid until Pop().
  T* Front() {
    uint64_t tail = tail_.load(std::memory_order_relaxed);
    return tail == head_.load(std::memory_order_acquire) ? nullptr : &slots_[tail & mask_];
  }
  void Pop() { tail_.fetch_add(1, std::memory_order_release); }

  size_t size() const {
    return head_.load(std::memory_order_relaxed) - tail_.load(std::memory_order_relaxed);
  }
  size_t capacity() const { return mask_ + 1; }
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  std::vector<T> slots_;
  const uint64_t mask_;
  alignas(64) std::atomic<uint64_t> head_{0};
  alignas(64) std::atomic<uint64_t> tail_{0};
  std::atomic<uint64_t> dropped_{0};
};

}  // namespace weft::proxy
