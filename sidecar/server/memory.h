// Memory that only starting needed, given back to the system.
//
//   ReturnUnusedMemory();   // after configuration was built, when nothing is urgent
//
// Freed heap pages of all threads go back, and the program's code and constants (mapped read-only from its files) leave
// the resident set: start-up touches all of them, running a small part, which comes back from the page cache when it is
// next used. Costs some milliseconds; another thread that allocates meanwhile may wait for them. Threads: any.
#pragma once

#include <cstdint>

namespace weft::server {

void ReturnUnusedMemory();

// Bytes that are resident now; 0 where the kernel does not say.
uint64_t PhysicalMemory();

}  // namespace weft::server
