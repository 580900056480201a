// The Date header.
#pragma once

#include <cstdint>
#include <string_view>

namespace weft::http {

// "Sun, 06 Nov 1994 08:49:37 GMT" (29 characters) for seconds since 1970. The text is formatted once a second and kept
// per thread: it stays valid until the thread asks for another second.
std::string_view HttpDate(uint64_t unix_seconds);

}  // namespace weft::http
