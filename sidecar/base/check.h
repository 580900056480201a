// WEFT_CHECK(condition, "what ", value): an impossible state stops the process with a message. Never for anything a peer,
// a file or the machine can cause: that is handled.
#pragma once

#include "sidecar/base/str.h"

namespace weft::base {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const std::string& message);
}

#define WEFT_CHECK(condition, ...)                                                                          \
  do {                                                                                                      \
    if (__builtin_expect(!(condition), 0))                                                                  \
      ::weft::base::CheckFailed(__FILE__, __LINE__, #condition, ::weft::base::Cat(__VA_ARGS__));            \
  } while (0)
