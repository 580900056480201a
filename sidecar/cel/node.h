// An expression as a tree. Only the parser makes one, only the evaluation reads it; immutable after that.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/cel/value.h"

namespace re2 {
class RE2;
}

namespace weft::cel {

class Zone;
struct Function;

struct Node {
  // Macros: args are what it runs over and what is evaluated for each element, named text; kMap may have a condition between.
  enum Op : uint8_t { kConst, kIdent, kSelect, kHas, kIndex, kList, kMap, kAnd, kOr, kTernary, kCall, kAll, kExists, kExistsOne, kMapMacro, kFilter };
  Op op = kConst;
  bool member = false;              // kCall: the first argument stood before the name
  uint16_t height = 1;              // of the tree below
  uint32_t line = 1, column = 1;
  Value value;                      // kConst, its text in `text`
  std::string text;                 // text of a kConst; name of kIdent, field of kSelect and kHas, function of kCall, variable of macros
  std::vector<Node> args;           // kMap: keys and values in turn
  const Function* function = nullptr;    // kCall
  std::shared_ptr<const re2::RE2> regex;  // of a constant pattern
  std::shared_ptr<const Zone> zone;       // of a constant time zone
};

// Whether node is a constant text.
inline bool IsText(const Node& node) { return node.op == Node::kConst && node.value.kind == Value::kString; }

}  // namespace weft::cel
