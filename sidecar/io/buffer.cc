// Invariants: slices are never empty; size_ is the sum of their lengths; bytes [used, kSize) of a block belong to
// nobody, so whoever owns a slice ending at `used` may extend it (all on one thread). Test: buffer_test.cc.
#include "sidecar/io/buffer.h"

#include <cstdlib>
#include <cstring>

#include "sidecar/base/check.h"

namespace weft::io {
namespace {

// The thread's free lists. Plain data, so that a buffer destroyed after it during thread exit still works; the keeper
// frees what is left and turns pooling off.
constexpr uint32_t kSpareRings = 256;
struct Pool {
  Block* free;
  uint32_t count, limit;
  size_t live;
  bool ready;
  uint32_t ring_count, ring_limit;
  Slice* rings[kSpareRings];  // all their slices are empty
};
thread_local Pool t_pool;

#if defined(__SANITIZE_ADDRESS__)
constexpr uint32_t kPoolLimit = 0, kRingLimit = 0;  // let the sanitizer see every free
#else
constexpr uint32_t kPoolLimit = 512, kRingLimit = kSpareRings;  // 8 MiB, 256 KiB
#endif

struct PoolKeeper {
  PoolKeeper() { t_pool.limit = kPoolLimit, t_pool.ring_limit = kRingLimit; }
  ~PoolKeeper() {
    t_pool.limit = t_pool.ring_limit = 0;
    while (Block* b = t_pool.free) t_pool.free = b->next_free, std::free(b);
    t_pool.count = 0;
    while (t_pool.ring_count) delete[] t_pool.rings[--t_pool.ring_count];
  }
};

}  // namespace

static_assert(sizeof(Block) == 16384);

Block* Block::New() {
  if (!t_pool.ready) {
    t_pool.ready = true;
    static thread_local PoolKeeper keeper;
    (void)keeper;
  }
  Block* b = t_pool.free;
  if (b) {
    t_pool.free = b->next_free, --t_pool.count;
  } else {
    b = static_cast<Block*>(std::malloc(sizeof(Block)));
    WEFT_CHECK(b != nullptr, "out of memory");
  }
  b->refs = 1, b->used = 0, b->next_free = nullptr;
  ++t_pool.live;
  return b;
}

void Block::Unref() {
  if (--refs > 0) return;
  --t_pool.live;
  if (t_pool.count < t_pool.limit) {
    next_free = t_pool.free, t_pool.free = this, ++t_pool.count;
  } else {
    std::free(this);
  }
}

size_t Block::live() { return t_pool.live; }

Buffer::Buffer(Buffer&& o) noexcept { Steal(o); }

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this != &o) {
    Free();
    Steal(o);
  }
  return *this;
}

Buffer::~Buffer() { Free(); }

void Buffer::Steal(Buffer& o) {
  ring_ = std::exchange(o.ring_, nullptr), head_ = std::exchange(o.head_, 0), count_ = std::exchange(o.count_, 0);
  cap_ = std::exchange(o.cap_, 0), size_ = std::exchange(o.size_, 0);
  reserved_ = std::exchange(o.reserved_, nullptr), reserve_in_tail_ = o.reserve_in_tail_;
}

void Buffer::Free() {
  ReleaseReserve();
  while (count_) PopFront();
  size_ = 0;
}

void Buffer::Grow() {
  if (!ring_) {
    ring_ = t_pool.ring_count ? t_pool.rings[--t_pool.ring_count] : new Slice[kRing];
    cap_ = kRing;
    return;
  }
  Slice* bigger = new Slice[static_cast<size_t>(cap_) * 2];
  const int count = count_, cap = cap_ * 2;
  for (int i = 0; i < count; ++i) bigger[i] = std::move(*at(i));
  DropRing();
  ring_ = bigger, cap_ = cap, count_ = count;
}

// Its slices are empty.
void Buffer::DropRing() {
  if (cap_ == kRing && t_pool.ring_count < t_pool.ring_limit) {
    t_pool.rings[t_pool.ring_count++] = ring_;
  } else {
    delete[] ring_;
  }
  ring_ = nullptr, head_ = count_ = cap_ = 0;
}

void Buffer::Push(Slice s) {
  if (count_ == cap_) Grow();
  size_ += s.length_;
  *at(count_++) = std::move(s);
}

void Buffer::PushFront(Slice s) {
  if (count_ == cap_) Grow();
  size_ += s.length_;
  head_ = (head_ - 1) & (cap_ - 1), ++count_;
  *at(0) = std::move(s);
}

void Buffer::PopFront() {
  *at(0) = Slice();
  head_ = (head_ + 1) & (cap_ - 1);
  if (--count_ == 0) DropRing();
}

size_t Buffer::TailRoom() const {
  if (!count_) return 0;
  const Slice& s = *at(count_ - 1);
  return s.offset_ + s.length_ == s.block_->used ? Block::kSize - s.block_->used : 0;
}

void Buffer::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    size_t room = TailRoom();
    if (room == 0) {
      Block* b = reserved_ ? std::exchange(reserved_, nullptr) : Block::New();
      Push(Slice(b, b->used, 0));
      room = Block::kSize - b->used;
    }
    Slice& s = *at(count_ - 1);
    size_t n = bytes.size() < room ? bytes.size() : room;
    memcpy(s.block_->data + s.block_->used, bytes.data(), n);
    s.block_->used += static_cast<uint32_t>(n), s.length_ += static_cast<uint32_t>(n), size_ += n;
    bytes.remove_prefix(n);
  }
}

bool Buffer::CopyTiny(std::string_view bytes) {
  if (bytes.size() >= kTiny || TailRoom() < bytes.size()) return false;
  Append(bytes);
  return true;
}

void Buffer::Append(Slice slice) {
  if (slice.length_ == 0 || CopyTiny(slice.view())) return;
  Push(std::move(slice));
}

void Buffer::Move(Buffer& from) {
  if (count_ != 0) return Move(from, from.size_);
  std::swap(ring_, from.ring_), std::swap(head_, from.head_), std::swap(count_, from.count_), std::swap(cap_, from.cap_);
  std::swap(size_, from.size_);
}

void Buffer::Move(Buffer& from, size_t n) {
  WEFT_CHECK(n <= from.size_ && this != &from, "move of ", n, " from ", from.size_);
  while (n > 0) {
    Slice& s = *from.at(0);
    if (s.length_ <= n) {
      n -= s.length_, from.size_ -= s.length_;
      Append(std::move(s));
      from.PopFront();
    } else {
      if (!CopyTiny(s.view().substr(0, n))) {
        s.block_->Ref();
        Push(Slice(s.block_, s.offset_, static_cast<uint32_t>(n)));
      }
      s.offset_ += static_cast<uint32_t>(n), s.length_ -= static_cast<uint32_t>(n), from.size_ -= n;
      n = 0;
    }
  }
}

void Buffer::Consume(size_t n) {
  WEFT_CHECK(n <= size_, "consume of ", n, " from ", size_);
  size_ -= n;
  while (n > 0) {
    Slice& s = *at(0);
    if (s.length_ <= n) {
      n -= s.length_;
      PopFront();
    } else {
      s.offset_ += static_cast<uint32_t>(n), s.length_ -= static_cast<uint32_t>(n);
      n = 0;
    }
  }
}

void Buffer::ShareTo(Buffer& to, size_t n) const {
  WEFT_CHECK(n <= size_ && this != &to, "share of ", n, " from ", size_);
  for (int i = 0; n > 0; ++i) {
    const Slice& s = *at(i);
    size_t take = s.length_ < n ? s.length_ : n;
    s.block_->Ref();
    to.Append(Slice(s.block_, s.offset_, static_cast<uint32_t>(take)));
    n -= take;
  }
}

std::string_view Buffer::Front() const { return count_ ? at(0)->view() : std::string_view(); }

std::string_view Buffer::Linearize(size_t n) {
  WEFT_CHECK(n <= size_ && n <= Block::kSize, "linearize of ", n, " from ", size_);
  if (n == 0) return {};
  if (at(0)->length_ < n) {
    Block* b = Block::New();
    CopyOut(0, b->data, n);
    b->used = static_cast<uint32_t>(n);
    Consume(n);
    PushFront(Slice(b, 0, static_cast<uint32_t>(n)));
  }
  return at(0)->view().substr(0, n);
}

int Buffer::Pieces(struct iovec* iov, int max) const {
  int n = count_ < max ? count_ : max;
  for (int i = 0; i < n; ++i) iov[i] = {at(i)->block_->data + at(i)->offset_, at(i)->length_};
  return n;
}

std::string Buffer::ToString() const {
  std::string s;
  s.reserve(size_);
  for (int i = 0; i < count_; ++i) s.append(at(i)->view());
  return s;
}

size_t Buffer::CopyOut(size_t offset, char* dst, size_t n) const {
  size_t done = 0;
  for (int i = 0; i < count_ && done < n; ++i) {
    std::string_view v = at(i)->view();
    if (offset >= v.size()) {
      offset -= v.size();
      continue;
    }
    v.remove_prefix(offset), offset = 0;
    size_t take = v.size() < n - done ? v.size() : n - done;
    memcpy(dst + done, v.data(), take);
    done += take;
  }
  return done;
}

std::span<char> Buffer::Reserve(size_t min) {
  WEFT_CHECK(min <= Block::kSize, "reserve of ", min);
  size_t room = TailRoom();
  // Only in a block nobody else holds: another holder could extend it between Reserve and Commit.
  if (count_ && at(count_ - 1)->block_->refs == 1 && room >= min && room >= kTailReuse) {
    reserve_in_tail_ = true;
    Block* b = at(count_ - 1)->block_;
    return {b->data + b->used, room};
  }
  reserve_in_tail_ = false;
  if (!reserved_) reserved_ = Block::New();
  return {reserved_->data, Block::kSize};
}

void Buffer::Commit(size_t n) {
  if (n == 0) return;
  if (reserve_in_tail_) {
    WEFT_CHECK(count_ && n <= TailRoom(), "commit of ", n);
    Slice& s = *at(count_ - 1);
    s.length_ += static_cast<uint32_t>(n), s.block_->used += static_cast<uint32_t>(n), size_ += n;
    return;
  }
  WEFT_CHECK(reserved_ && n <= Block::kSize, "commit of ", n, " without reserve");
  Block* b = std::exchange(reserved_, nullptr);
  b->used = static_cast<uint32_t>(n);
  if (CopyTiny({b->data, n})) {  // a small read behind other data does not pin a block of its own
    b->used = 0;
    reserved_ = b;
    return;
  }
  Push(Slice(b, 0, static_cast<uint32_t>(n)));
}

void Buffer::ReleaseReserve() {
  if (reserved_) std::exchange(reserved_, nullptr)->Unref();
}

}  // namespace weft::io
