#include "sidecar/base/testing/alloc_counter.h"

namespace {
thread_local size_t t_calls = 0;
}

size_t weft::base::AllocCounter::Total() { return t_calls; }

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t n) { return ++t_calls, __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return ++t_calls, __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return ++t_calls, __libc_realloc(p, n); }
void* memalign(size_t a, size_t n) { return ++t_calls, __libc_memalign(a, n); }
void* aligned_alloc(size_t a, size_t n) { return ++t_calls, __libc_memalign(a, n); }
}
#endif
