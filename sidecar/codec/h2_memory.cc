#include "sidecar/codec/h2_memory.h"

#include <cstdint>
#include <cstring>

#include "sidecar/base/pool/pool.h"

namespace weft::codec {
namespace {

void* Malloc(size_t n, void*) { return base::pool::Alloc(n); }
void Free(void* p, void*) { base::pool::Free(p); }

void* Calloc(size_t n, size_t size, void*) {
  if (size != 0 && n > SIZE_MAX / size) return nullptr;
  void* p = base::pool::Alloc(n * size);
  if (p) memset(p, 0, n * size);
  return p;
}

void* Realloc(void* p, size_t n, void*) {
  const size_t room = p ? base::pool::Room(p) : 0;
  if (p && n <= room) return p;
  void* bigger = base::pool::Alloc(n);
  if (!bigger || !p) return bigger;
  memcpy(bigger, p, room);
  base::pool::Free(p);
  return bigger;
}

}  // namespace

nghttp2_mem* Http2Memory() {
  static nghttp2_mem memory{nullptr, Malloc, Free, Calloc, Realloc};
  return &memory;
}

}  // namespace weft::codec
