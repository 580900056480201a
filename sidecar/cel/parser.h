// CEL's grammar: text to a tree. Functions are not looked at, macros are.
#pragma once

#include <string_view>

#include "sidecar/base/result.h"
#include "sidecar/cel/node.h"

namespace weft::cel {

// Envoy's bounds: characters of an expression, how deep it may nest as text and as a tree.
inline constexpr size_t kMaxCharacters = 100'000;
inline constexpr int kMaxDepth = 32;

// comprehensions: whether macros over lists and maps may be used.
base::Result<Node> Parse(std::string_view source, bool comprehensions);

}  // namespace weft::cel
