#include "sidecar/codec/h2_memory.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace weft::codec {
namespace {

constexpr size_t kStep = 64, kClasses = 16;  // 64, 128 ... 1024 bytes

#if defined(__SANITIZE_ADDRESS__)
constexpr uint32_t kKeep = 0;  // let the sanitizer see every free
#else
constexpr uint32_t kKeep = 256;
#endif

// In front of every piece; as large as malloc's alignment.
struct alignas(std::max_align_t) Head {
  size_t room;  // bytes behind it
  Head* next;
};

// Plain data, so that a session destroyed after it during thread exit still works (the keeper empties it).
struct Lists {
  Head* free[kClasses];
  uint32_t count[kClasses];
  uint32_t limit;
  bool ready;
};
thread_local Lists t_lists;

struct Keeper {
  Keeper() { t_lists.limit = kKeep; }
  ~Keeper() {
    t_lists.limit = 0;
    for (Head*& list : t_lists.free) {
      while (Head* h = list) list = h->next, std::free(h);
    }
  }
};

size_t ClassOf(size_t room) { return (room - 1) / kStep; }

void* Malloc(size_t n, void*) {
  Lists& lists = t_lists;
  if (n == 0) n = 1;
  if (n > kStep * kClasses) {
    if (n > SIZE_MAX - sizeof(Head)) return nullptr;
    auto* h = static_cast<Head*>(std::malloc(sizeof(Head) + n));
    if (!h) return nullptr;
    h->room = n;
    return h + 1;
  }
  const size_t c = ClassOf(n);
  if (Head* h = lists.free[c]) {
    lists.free[c] = h->next, --lists.count[c];
    return h + 1;
  }
  const size_t room = (c + 1) * kStep;
  auto* h = static_cast<Head*>(std::malloc(sizeof(Head) + room));
  if (!h) return nullptr;
  h->room = room;
  return h + 1;
}

void Free(void* p, void*) {
  if (!p) return;
  Lists& lists = t_lists;
  if (!lists.ready) {
    lists.ready = true;
    static thread_local Keeper keeper;
    (void)keeper;
  }
  Head* h = static_cast<Head*>(p) - 1;
  if (h->room > kStep * kClasses) return std::free(h);
  const size_t c = ClassOf(h->room);
  if (lists.count[c] >= lists.limit) return std::free(h);
  h->next = lists.free[c], lists.free[c] = h, ++lists.count[c];
}

void* Calloc(size_t n, size_t size, void* user) {
  if (size != 0 && n > SIZE_MAX / size) return nullptr;
  void* p = Malloc(n * size, user);
  if (p) memset(p, 0, n * size);
  return p;
}

void* Realloc(void* p, size_t n, void* user) {
  if (!p) return Malloc(n, user);
  const size_t room = (static_cast<Head*>(p) - 1)->room;
  if (n <= room) return p;
  void* bigger = Malloc(n, user);
  if (!bigger) return nullptr;
  memcpy(bigger, p, room);
  Free(p, user);
  return bigger;
}

}  // namespace

nghttp2_mem* Http2Memory() {
  static nghttp2_mem memory{nullptr, Malloc, Free, Calloc, Realloc};
  return &memory;
}

}  // namespace weft::codec
