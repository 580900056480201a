// What an HTTP/2 server remembers of streams that are over, to tell a late frame from a wrong one.
//
// After our RST_STREAM the peer may not have seen it yet: whatever it still sends for that stream is innocent (RFC 9113
// 5.1). On any other closed stream, and on one that was passed over, a frame is the peer's fault. The memory is bounded:
// beyond it the peer gets the benefit of the doubt.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace weft::codec {

class PastStreams {
 public:
  enum Kind : uint8_t { kLate, kSkipped, kClosed };

  int32_t last() const { return last_; }  // the highest id the peer has opened
  void Opened(int32_t id) {
    if (id > last_ + 2 && last_ > 0) Keep(skipped_, {last_ + 2, id - 2}, kSkips);
    if (last_ == 0 && id > 1) Keep(skipped_, {1, id - 2}, kSkips);
    last_ = std::max(last_, id);
  }
  void Reset(int32_t id) {
    if (resets_.size() == kResets) {
      forgotten_ = std::max(forgotten_, resets_.front());
      resets_.erase(resets_.begin());
    }
    resets_.push_back(id);
  }
  // Of an id up to last() whose stream is not open.
  Kind Of(int32_t id) const {
    if (id <= forgotten_ || std::find(resets_.begin(), resets_.end(), id) != resets_.end()) return kLate;
    for (const auto& [from, to] : skipped_) {
      if (id >= from && id <= to) return kSkipped;
    }
    return kClosed;
  }

 private:
  static constexpr size_t kResets = 64, kSkips = 8;
  static void Keep(std::vector<std::pair<int32_t, int32_t>>& v, std::pair<int32_t, int32_t> range, size_t most) {
    if (v.size() == most) v.erase(v.begin());
    v.push_back(range);
  }

  int32_t last_ = 0, forgotten_ = 0;
  std::vector<int32_t> resets_;  // ours, oldest first
  std::vector<std::pair<int32_t, int32_t>> skipped_;
};

}  // namespace weft::codec
