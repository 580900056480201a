// Stream ids to streams: a small open-addressed table that allocates only when it grows. T has a positive `id`.
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
    for (size_t i = Home(id); slots_[i]; i = (i + 1) & mask()) {
      if (slots_[i]->id == id) return slots_[i];
    }
    return nullptr;
  }
  void Insert(T* t) {
    if ((size_ + 1) * 4 > slots_.size() * 3) Grow();
    Place(t);
    ++size_;
  }
  void Erase(int32_t id) {
    if (slots_.empty()) return;
    size_t i = Home(id);
    while (slots_[i] && slots_[i]->id != id) i = (i + 1) & mask();
    if (!slots_[i]) return;
    --size_;
    // Shift back what probed past the hole.
    for (size_t k = (i + 1) & mask(); slots_[k]; k = (k + 1) & mask()) {
      if (((k - Home(slots_[k]->id)) & mask()) >= ((k - i) & mask())) slots_[i] = slots_[k], i = k;
    }
    slots_[i] = nullptr;
  }
  // f(T*) for each; f must not insert or erase.
  template <typename F>
  void ForEach(F&& f) {
    for (T* t : slots_) {
      if (t) f(t);
    }
  }

 private:
  size_t mask() const { return slots_.size() - 1; }
  // Ids of one side are all odd or all even.
  size_t Home(int32_t id) const { return static_cast<size_t>(static_cast<uint32_t>(id) >> 1) & mask(); }
  void Place(T* t) {
    size_t i = Home(t->id);
    while (slots_[i]) i = (i + 1) & mask();
    slots_[i] = t;
  }
  void Grow() {
    std::vector<T*> old(slots_.empty() ? 8 : slots_.size() * 2, nullptr);
    old.swap(slots_);
    for (T* t : old) {
      if (t) Place(t);
    }
  }

  std::vector<T*> slots_;
  size_t size_ = 0;
};

}  // namespace weft::codec
