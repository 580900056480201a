// Stream ids to streams: a small table that allocates only when it grows. T has a positive `id` and a `T* next_in_slot`,
// the table's own.
//
// Ids of one side rise by two, so those in use spread over the slots by themselves: chains are one long, and erasing
// touches nothing but the stream. (Open addressing shifts the whole run of neighbours, hundreds of streams on a connection
// that is shared by many clients.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace weft::codec {

template <typename T>
class StreamTable {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  T* Find(int32_t id) const {
    if (slots_.empty()) return nullptr;
    T* t = slots_[Home(id)];
    while (t && t->id != id) t = t->next_in_slot;
    return t;
  }
  void Insert(T* t) {
    if (size_ == slots_.size()) Grow();
    Place(t);
    ++size_;
  }
  void Erase(int32_t id) {
    if (slots_.empty()) return;
    T** at = &slots_[Home(id)];
    while (*at && (*at)->id != id) at = &(*at)->next_in_slot;
    if (!*at) return;
    *at = (*at)->next_in_slot;
    --size_;
  }
  // f(T*) for each; f must not insert or erase, but may delete.
  template <typename F>
  void ForEach(F&& f) {
    for (T* t : slots_) {
      while (T* now = t) t = t->next_in_slot, f(now);
    }
  }

 private:
  // Ids of one side are all odd or all even.
  size_t Home(int32_t id) const { return static_cast<size_t>(static_cast<uint32_t>(id) >> 1) & (slots_.size() - 1); }
  void Place(T* t) {
    T*& head = slots_[Home(t->id)];
    t->next_in_slot = head, head = t;
  }
  void Grow() {
    std::vector<T*> old(slots_.empty() ? 8 : slots_.size() * 2, nullptr);
    old.swap(slots_);
    for (T* t : old) {
      while (T* now = t) t = t->next_in_slot, Place(now);
    }
  }

  std::vector<T*> slots_;
  size_t size_ = 0;
};

}  // namespace weft::codec
