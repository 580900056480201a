// Regular expressions of CEL: RE2's, small ones.
#pragma once

#include <memory>
#include <string_view>

namespace re2 {
class RE2;
}

namespace weft::cel {

// Envoy's bound for the pattern of matches().
inline constexpr int kMaxPatternProgram = 100;

// Never null; ok() says whether the pattern could be read.
std::shared_ptr<const re2::RE2> CompilePattern(std::string_view pattern);

}  // namespace weft::cel
