// malloc and free for a C library that makes and drops the same few objects for every stream (nghttp2): freed pieces wait
// in the thread's lists, by size, for the next one. A general malloc costs more than what the library does with the piece.
//
//   void* p = base::pool::Alloc(1200);   // aligned as malloc's; null when there is no memory
//   base::pool::Free(p);                 // null is fine
//
// Threads: any; a piece may be freed on another thread than the one that made it. Bounded: a few hundred KiB a thread;
// pieces above kLargest go straight to malloc. Under AddressSanitizer nothing is kept.
#pragma once

#include <cstddef>

namespace weft::base::pool {

constexpr size_t kLargest = 8 * 1024;

void* Alloc(size_t n);
void Free(void* p);
size_t Room(const void* p);  // bytes of the piece, at least what was asked for

}  // namespace weft::base::pool
