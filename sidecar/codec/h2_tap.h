// Follows the frames in a connection's bytes ahead of nghttp2, which hides some from us: those of unknown types, DATA for
// streams that are over, a PRIORITY's content; and which takes a WINDOW_UPDATE of 0 or too much on a stream for an error of
// the whole connection. It also cuts a read with very many requests into portions.
//
//   tap.Begin();                                  // of a Feed()
//   n = tap.Scan(bytes, size);                    // nghttp2 may have n bytes now
//   if (n < size && !tap.full()) { judge tap.frame(); tap.Judged(); }   // and go on at bytes + n
//
// Everything before a frame has been through nghttp2 when the frame is judged. Bytes may come in any pieces.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>

namespace weft::codec {

class FrameTap {
 public:
  struct Frame {
    uint8_t type;
    int32_t stream;
    uint32_t length;
    uint32_t value;  // WINDOW_UPDATE, PRIORITY: the first 31-bit number of the payload
    char* last;      // the last byte that was looked at
  };

  explicit FrameTap(bool server) : server_(server), skip_(server ? NGHTTP2_CLIENT_MAGIC_LEN : 0) {}

  void Begin() { heads_ = 0, full_ = false; }
  // As many HEADERS as one Feed may have: the rest is for the next.
  bool full() const { return full_; }
  const Frame& frame() const { return frame_; }
  void Judged() { skip_ = after_, have_ = 0; }

  size_t Scan(char* p, size_t n) {
    for (size_t i = 0; i < n;) {
      if (skip_ > 0) {
        const size_t k = skip_ < n - i ? skip_ : n - i;
        skip_ -= k, i += k;
      } else if (have_ == 0 && n - i >= kMost) {
        const Look look = See(reinterpret_cast<const uint8_t*>(p + i), kMost);
        if (look == kStop) return i;
        skip_ = kHead + frame_.length;
        if (look == kPass) continue;
        frame_.last = p + i + kMost - 1, after_ = skip_, skip_ = 0;
        return i;
      } else {
        head_[have_] = static_cast<uint8_t>(p[i]);
        const size_t seen = have_ + 1;
        const Look look = seen < kHead ? kMore : See(head_, seen);
        if (look == kStop) return i;
        if (look == kJudge) {
          frame_.last = p + i, after_ = 1 + kHead + frame_.length - seen;
          return i;
        }
        ++i, ++have_;
        if (look == kPass) skip_ = kHead + frame_.length - seen, have_ = 0;
      }
    }
    return n;
  }

 private:
  enum Look { kPass, kMore, kJudge, kStop };
  static constexpr size_t kHead = 9, kMost = 13, kHeadsAtOnce = 32;

  Look See(const uint8_t* b, size_t n) {
    frame_.length = static_cast<uint32_t>(b[0]) << 16 | static_cast<uint32_t>(b[1]) << 8 | b[2];
    frame_.type = b[3];
    frame_.stream = static_cast<int32_t>(Number(b + 5));
    switch (frame_.type) {
      case NGHTTP2_DATA: return server_ ? kJudge : kPass;
      case NGHTTP2_HEADERS:
        full_ = server_ && heads_ == kHeadsAtOnce;
        if (!full_) ++heads_;
        return full_ ? kStop : kPass;
      case NGHTTP2_PRIORITY:
        if (frame_.length != 5) return kPass;
        if (n < kMost) return kMore;
        frame_.value = Number(b + kHead);
        return frame_.value == static_cast<uint32_t>(frame_.stream) ? kJudge : kPass;
      case NGHTTP2_WINDOW_UPDATE:
        if (frame_.length != 4 || frame_.stream == 0) return kPass;
        if (n < kMost) return kMore;
        frame_.value = Number(b + kHead);
        return kJudge;
      default: return frame_.type > NGHTTP2_CONTINUATION ? kJudge : kPass;
    }
  }
  static uint32_t Number(const uint8_t* b) {
    return (static_cast<uint32_t>(b[0]) << 24 | static_cast<uint32_t>(b[1]) << 16 | static_cast<uint32_t>(b[2]) << 8 | b[3]) & 0x7fffffff;
  }

  const bool server_;
  bool full_ = false;
  uint8_t have_ = 0;         // bytes of head_, while a head comes in pieces
  uint8_t head_[kMost];
  uint32_t heads_ = 0;
  size_t skip_, after_ = 0;  // bytes until the next head
  Frame frame_{};
};

}  // namespace weft::codec
