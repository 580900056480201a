// What a listener inspector makes of the bytes so far.
#pragma once

#include <cstdint>

namespace weft::filters {

enum class Verdict : uint8_t {
  kNeedMore,  // undecided: feed more (the owner has the timeout)
  kNo,        // not this protocol: go on with the next inspector
  kFound,     // it is: see the inspector's results
  kReject,    // it claims to be, but is malformed or over a limit: close the connection and count it
};

}  // namespace weft::filters
