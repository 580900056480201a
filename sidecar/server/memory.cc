#include "sidecar/server/memory.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

namespace weft::server {
namespace {

int DropObject(dl_phdr_info* object, size_t, void* page_size) {
  const auto page = *static_cast<uintptr_t*>(page_size);
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& p = object->dlpi_phdr[i];
    // Never a segment that may be written: its pages are the only copy of what relocation and the program put there.
    if (p.p_type != PT_LOAD || (p.p_flags & PF_W)) continue;
    const uintptr_t begin = (object->dlpi_addr + p.p_vaddr + page - 1) & ~(page - 1);
    const uintptr_t end = (object->dlpi_addr + p.p_vaddr + p.p_memsz) & ~(page - 1);
    // The kernel's vdso refuses; nothing is lost then.
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void ReturnUnusedMemory() {
  malloc_trim(0);
  auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  dl_iterate_phdr(DropObject, &page);
}

uint64_t PhysicalMemory() {
  unsigned long pages = 0;
  if (FILE* f = fopen("/proc/self/statm", "re")) {
    if (fscanf(f, "%*u %lu", &pages) != 1) pages = 0;
    fclose(f);
  }
  return uint64_t{pages} * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace weft::server
