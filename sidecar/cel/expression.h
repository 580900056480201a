// The Common Expression Language (google/cel-spec): compiled once, evaluated often, with Envoy's choice of functions.
//
//   auto e = cel::Expression::Compile("request.path.startsWith('/api') && response.code >= 500");
//   if (!e) e.error() ...                      // "expression 1:14: unknown function ..."
//   cel::Arena arena;
//   if (e->Evaluate(attributes, arena).IsTrue()) ...   // an error is not true
//
// Bounded: Envoy's 100'000 characters and depth of 32; an evaluation takes Arena::kSteps steps and makes Arena::kText bytes of
// text at most. Comparing what attributes hold allocates nothing. Patterns and time zones that stand in the expression are
// read when it is compiled; other zone names than UTC and offsets are then unknown.
// Threads: an expression is a value shared by any number of them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/cel/value.h"

namespace weft::cel {

struct Node;

// What Envoy's filters leave out unless their configuration says otherwise; macros over lists and maps are always left out there.
struct Options {
  bool comprehensions = false;
  bool string_conversion = false;  // string()
  bool string_concat = false;      // + of strings and bytes
  bool string_functions = false;   // replace, split, lowerAscii ...
};

class Expression {
 public:
  static base::Result<Expression> Compile(std::string_view text, const Options& options = {});

  // attributes: what names at the beginning of the expression mean. The value may be a view into them and the arena.
  Value Evaluate(const Map& attributes, Arena& arena) const;

  // What it looks at, as far as the text says: {"request", "headers", "x-a"}; {"request", "headers"} where a key is computed
  // or the map is used as a whole. A path may appear more than once.
  using Path = std::vector<std::string>;
  std::vector<Path> Paths() const;

 private:
  struct Program;
  explicit Expression(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace weft::cel
