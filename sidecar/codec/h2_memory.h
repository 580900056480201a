// nghttp2's memory comes from base/pool: it makes and frees a dozen small objects for every stream.
// Private to this folder. Threads: any.
#pragma once

#include <nghttp2/nghttp2.h>

namespace weft::codec {

// For nghttp2_session_*_new3; lives for ever.
nghttp2_mem* Http2Memory();

}  // namespace weft::codec
