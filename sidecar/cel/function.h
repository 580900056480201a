// The functions and operators of CEL: looked up when an expression is compiled, called with evaluated arguments.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "sidecar/cel/expression.h"
#include "sidecar/cel/node.h"

namespace weft::cel {

struct Call {
  const Node& node;
  std::span<const Value> args;  // none is an error
  Arena& arena;
  const Options& options;
};

struct Function {
  enum Feature : uint8_t { kStandard, kStringConversion, kStringFunctions };
  std::string_view name;
  uint8_t min_args, max_args;  // with what stands before a member's name
  bool global, member;
  Value (*call)(const Call&);
  Feature feature = kStandard;
};

// Null when there is none of that name, form and number of arguments.
const Function* FindFunction(std::string_view name, bool member, size_t args, const Options& options);

// By file: operators and conversions, texts and patterns, times.
std::span<const Function> Operators();
std::span<const Function> TextFunctions();
std::span<const Function> TimeFunctions();

inline Value NoOverload() { return Value::Error("no such overload"); }

}  // namespace weft::cel
