#include "sidecar/base/pool/pool.h"

#include <cstdint>
#include <cstdlib>

namespace weft::base::pool {
namespace {

// 64, 128 ... 1024, then these.
constexpr size_t kStep = 64, kSmall = 1024, kSteps = kSmall / kStep;
constexpr size_t kLarge[] = {2048, 4096, kLargest};
constexpr size_t kClasses = kSteps + sizeof kLarge / sizeof kLarge[0];
constexpr uint32_t kKeepSmall = 256, kKeepLarge = 8;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPooling = false;  // let the sanitizer see every free
#else
constexpr bool kPooling = true;
#endif

// In front of every piece; as large as malloc's alignment.
struct alignas(std::max_align_t) Head {
  size_t room;  // bytes behind it
  Head* next;
};

// Plain data, so that a piece freed after it during thread exit still works (the keeper empties it).
struct Lists {
  Head* free[kClasses];
  uint32_t count[kClasses];
  bool pooling, ready;
};
thread_local Lists t_lists;

struct Keeper {
  Keeper() { t_lists.pooling = kPooling; }
  ~Keeper() {
    t_lists.pooling = false;
    for (Head*& list : t_lists.free) {
      while (Head* h = list) list = h->next, std::free(h);
    }
  }
};

size_t ClassOf(size_t n) {
  if (n <= kSmall) return (n - 1) / kStep;
  size_t i = 0;
  while (n > kLarge[i]) ++i;
  return kSteps + i;
}
size_t RoomOf(size_t c) { return c < kSteps ? (c + 1) * kStep : kLarge[c - kSteps]; }

void* New(size_t room) {
  auto* h = static_cast<Head*>(std::malloc(sizeof(Head) + room));
  if (!h) return nullptr;
  h->room = room;
  return h + 1;
}

}  // namespace

void* Alloc(size_t n) {
  if (n == 0) n = 1;
  if (n > kLargest) return n > SIZE_MAX - sizeof(Head) ? nullptr : New(n);
  const size_t c = ClassOf(n);
  Lists& lists = t_lists;
  Head* h = lists.free[c];
  if (!h) return New(RoomOf(c));
  lists.free[c] = h->next, --lists.count[c];
  return h + 1;
}

void Free(void* p) {
  if (!p) return;
  Lists& lists = t_lists;
  if (!lists.ready) {
    lists.ready = true;
    static thread_local Keeper keeper;
    (void)keeper;
  }
  Head* h = static_cast<Head*>(p) - 1;
  if (h->room > kLargest || !lists.pooling) return std::free(h);
  const size_t c = ClassOf(h->room);
  if (lists.count[c] >= (c < kSteps ? kKeepSmall : kKeepLarge)) return std::free(h);
  h->next = lists.free[c], lists.free[c] = h, ++lists.count[c];
}

size_t Room(const void* p) { return (static_cast<const Head*>(p) - 1)->room; }

}  // namespace weft::base::pool
