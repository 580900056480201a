// Byte buffers of the data plane: reference-counted blocks, slices of them, and a queue of slices.
//
// Usage:
//   Buffer in;
//   auto room = in.Reserve(1);                 // a writable span of at least one byte
//   ssize_t n = recv(fd, room.data(), room.size(), 0);
//   in.Commit(n);
//   out.Move(in, 100);                         // pointer work: no byte is copied
//
// Ownership: a Slice owns one count on its Block; a Buffer owns its slices. Threads: none; a block never leaves the
// thread that made it (counts are plain integers; the free list is thread-local). Units: bytes.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace weft::io {

// A 16 KiB piece of memory from the thread's pool; freed blocks return there.
struct Block {
  static constexpr size_t kSize = 16384 - 16;
  uint32_t refs;
  uint32_t used;  // bytes handed out to writers; a sole owner may extend its slice up to kSize
  Block* next_free;
  char data[kSize];

  static Block* New();  // refs = 1, used = 0
  void Ref() { ++refs; }
  void Unref();  // gives it back to the pool at zero
  // Blocks alive on this thread, for tests and /memory.
  static size_t live();
};

// A view of part of a block that keeps the block alive. Movable; copying takes another count.
class Slice {
 public:
  Slice() = default;
  Slice(Block* block, uint32_t offset, uint32_t length) : block_(block), offset_(offset), length_(length) {}  // adopts a count
  Slice(Slice&& o) noexcept : block_(o.block_), offset_(o.offset_), length_(o.length_) { o.block_ = nullptr, o.length_ = 0; }
  Slice(const Slice& o) : block_(o.block_), offset_(o.offset_), length_(o.length_) { if (block_) block_->Ref(); }
  Slice& operator=(Slice o) noexcept { std::swap(block_, o.block_), std::swap(offset_, o.offset_), std::swap(length_, o.length_); return *this; }
  ~Slice() { if (block_) block_->Unref(); }

  std::string_view view() const { return block_ ? std::string_view(block_->data + offset_, length_) : std::string_view(); }
  size_t size() const { return length_; }

 private:
  friend class Buffer;
  Block* block_ = nullptr;
  uint32_t offset_ = 0, length_ = 0;
};

// A queue of bytes. An empty one holds neither a block nor a ring of slices (the thread lends them), for there are two and
// more in every idle connection.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& o) noexcept;
  Buffer& operator=(Buffer&& o) noexcept;
  Buffer(const Buffer&) = delete;
  ~Buffer();

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  void Append(std::string_view bytes);  // copies, filling the last block first
  void Append(Slice slice);             // takes the count; tiny slices (< 2 KiB) are copied when room is left
  void Move(Buffer& from);              // all of it, to our end
  void Move(Buffer& from, size_t n);    // its first n bytes (n <= from.size())
  void Consume(size_t n);               // drops the first n bytes (n <= size())
  void Clear() { if (size_) Consume(size_); }
  // Takes a counted copy of the first n bytes, for replay; nothing is copied.
  void ShareTo(Buffer& to, size_t n) const;

  std::string_view Front() const;  // the first contiguous piece; empty when the buffer is
  // The first n bytes as one contiguous piece (copies together when they span blocks; n <= size(), n <= Block::kSize).
  std::string_view Linearize(size_t n);
  // Up to max pieces from the front, for writev. Returns how many were filled.
  int Pieces(struct iovec* iov, int max) const;
  std::string ToString() const;
  // Copies up to n bytes from offset to dst, consuming nothing. Returns how many.
  size_t CopyOut(size_t offset, char* dst, size_t n) const;

  // A writable span of at least min bytes (<= Block::kSize) at the end; Commit(n) appends what was written into it.
  // A Reserve without Commit leaves the content unchanged.
  std::span<char> Reserve(size_t min);
  void Commit(size_t n);
  // Gives an uncommitted reserved block back: an idle connection holds none.
  void ReleaseReserve();

 private:
  static constexpr int kRing = 64;  // slices of a lent ring; a longer queue makes a larger one of its own
  Slice* at(int i) { return ring_ + ((head_ + i) & (cap_ - 1)); }
  const Slice* at(int i) const { return ring_ + ((head_ + i) & (cap_ - 1)); }
  static constexpr size_t kTiny = 2048;        // smaller pieces are copied: cheaper than another slice to send, and no block is pinned
  static constexpr size_t kTailReuse = 2048;   // room worth reading into at the end of the last block
  size_t TailRoom() const;
  bool CopyTiny(std::string_view bytes);
  void Push(Slice s);
  void PushFront(Slice s);
  void PopFront();
  void Grow();
  void DropRing();
  void Steal(Buffer& o);
  void Free();

  Slice* ring_ = nullptr;  // null exactly when count_ is 0
  int head_ = 0, count_ = 0, cap_ = 0;
  bool reserve_in_tail_ = false;
  size_t size_ = 0;
  Block* reserved_ = nullptr;
};

}  // namespace weft::io
