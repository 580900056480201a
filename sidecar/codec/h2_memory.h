// Memory for nghttp2: it makes and frees a dozen small objects for every stream, and a general malloc costs more than
// what is done with them. Freed pieces wait in the thread's lists, by size, for the next stream.
// Private to this folder. Threads: each has its own lists; a piece may be freed on another thread than the one it came
// from. Bounded: kKeep pieces of each size, none above 1 KiB.
#pragma once

#include <nghttp2/nghttp2.h>

namespace weft::codec {

// For nghttp2_session_*_new3; lives for ever.
nghttp2_mem* Http2Memory();

}  // namespace weft::codec
