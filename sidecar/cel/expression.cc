#include "sidecar/cel/expression.h"

#include <re2/re2.h>

#include <algorithm>

#include "sidecar/cel/function.h"
#include "sidecar/cel/lexer.h"
#include "sidecar/cel/literal_map.h"
#include "sidecar/cel/node.h"
#include "sidecar/cel/parser.h"
#include "sidecar/cel/pattern.h"
#include "sidecar/cel/time.h"

namespace weft::cel {
namespace {

constexpr std::string_view kTypes[] = {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"};

// A call of a name with dots: re.extract is one function when there is one of that name, and nobody's member.
void JoinName(Node& node, const Options& options) {
  if (!node.member || node.args[0].op != Node::kIdent) return;
  const std::string name = node.args[0].text + "." + node.text;
  if (!FindFunction(name, false, node.args.size() - 1, options)) return;
  node.text = name, node.member = false;
  node.args.erase(node.args.begin());
}

base::Status Resolve(Node& node, const Options& options) {
  if (node.op == Node::kCall) {
    JoinName(node, options);
    node.function = FindFunction(node.text, node.member, node.args.size(), options);
    if (!node.function) {
      const size_t n = node.args.size() - node.member;
      return ErrorAt(node.line, node.column, "no function " + node.text + " with " + std::to_string(n) + (n == 1 ? " argument" : " arguments") + " is available");
    }
    const bool pattern = (node.text == "matches" || node.text.starts_with("re.")) && IsText(node.args[1]);
    if (pattern) node.regex = CompilePattern(node.args[1].text);
    if (pattern && node.text == "matches") {
      if (!node.regex->ok()) return ErrorAt(node.args[1].line, node.args[1].column, "invalid regular expression: " + node.regex->error());
      if (node.regex->ProgramSize() > kMaxPatternProgram) return ErrorAt(node.args[1].line, node.args[1].column, "regular expression exceeds max allowed size");
    }
    if (node.text.starts_with("get") && node.args.size() == 2 && IsText(node.args[1])) node.zone = Zone::Load(node.args[1].text);
  }
  for (Node& a : node.args) {
    if (auto ok = Resolve(a, options); !ok) return ok.error();
  }
  return base::Ok{};
}

struct Scope {
  std::string_view name;
  Value value;
  const Scope* outer;
};

class Evaluation {
 public:
  Evaluation(const Map& attributes, Arena& arena, const Options& options) : attributes_(attributes), arena_(arena), options_(options) {}

  Value Eval(const Node& n) {
    if (!arena_.Spend(1)) return Value::Error("the expression does too much");
    switch (n.op) {
      case Node::kConst: return Constant(n);
      case Node::kIdent: return Ident(n);
      case Node::kSelect: return Select(n);
      case Node::kHas: return Has(n);
      case Node::kIndex: return Index(n);
      case Node::kList: return ListOf(n);
      case Node::kMap: return MapOf(n);
      case Node::kAnd: return Logic(n, false);
      case Node::kOr: return Logic(n, true);
      case Node::kTernary: return Ternary(n);
      case Node::kCall: return CallOf(n);
      default: return Macro(n);
    }
  }

 private:
  static Value Constant(const Node& n) {
    Value v = n.value;
    v.text = n.text;
    return v;
  }

  Value Ident(const Node& n) {
    for (const Scope* s = scope_; s; s = s->outer)
      if (s->name == n.text) return s->value;
    if (auto v = attributes_.Find(Value::String(n.text), arena_)) return *v;
    if (const auto* t = std::find(std::begin(kTypes), std::end(kTypes), n.text); t != std::end(kTypes)) return Value::Type(*t);
    return Value::Error("no such attribute");
  }

  Value Select(const Node& n) {
    const Value of = Eval(n.args[0]);
    if (of.IsError()) return of;
    if (of.kind != Value::kMap) return NoOverload();
    auto v = of.map->Find(Value::String(n.text), arena_);
    return v ? *v : Value::Error("no such key");
  }

  Value Has(const Node& n) {
    const Value of = Eval(n.args[0]);
    if (of.IsError()) return of;
    return of.kind == Value::kMap ? of.map->Has(Value::String(n.text), arena_) : NoOverload();
  }

  Value Index(const Node& n) {
    const Value of = Eval(n.args[0]);
    if (of.IsError()) return of;
    const Value key = Eval(n.args[1]);
    if (key.IsError()) return key;
    if (of.kind == Value::kMap && of.map->Type() == "map") {
      auto v = of.map->Find(key, arena_);
      return v ? *v : Value::Error("no such key");
    }
    if (of.kind != Value::kList) return NoOverload();
    const double d = key.kind == Value::kDouble ? key.d : 0;
    const bool whole = key.kind == Value::kInt ? key.i >= 0 : key.kind == Value::kUint || (key.kind == Value::kDouble && d >= 0 && d < 0x1p53 && d == static_cast<double>(static_cast<uint64_t>(d)));
    const uint64_t at = key.kind == Value::kDouble ? (whole ? static_cast<uint64_t>(d) : 0) : key.u;
    if (!whole || at >= of.list->size()) return Value::Error("index out of range");
    return (*of.list)[at];
  }

  Value ListOf(const Node& n) {
    auto* list = arena_.New<List>();
    list->reserve(n.args.size());
    for (const Node& a : n.args) {
      list->push_back(Eval(a));
      if (list->back().IsError()) return list->back();
    }
    return Value::Of(list);
  }

  Value MapOf(const Node& n) {
    auto* map = arena_.New<LiteralMap>();
    for (size_t i = 0; i < n.args.size(); i += 2) {
      const Value key = Eval(n.args[i]);
      if (key.IsError()) return key;
      const Value value = Eval(n.args[i + 1]);
      if (value.IsError()) return value;
      if (key.kind != Value::kBool && key.kind != Value::kInt && key.kind != Value::kUint && key.kind != Value::kString) return Value::Error("not a key");
      // As Envoy: nothing absorbs this one.
      if (map->Holds(key, arena_)) return arena_.Abandon(), Value::Error("duplicate key");
      map->Add(key, value);
    }
    return Value::Of(map);
  }

  // One operand that decides does so wherever it stands; otherwise the first error counts.
  Value Logic(const Node& n, bool decisive) {
    Value wrong = Value::Bool(!decisive);
    for (const Node& a : n.args) {
      const Value v = Eval(a);
      if (v.kind == Value::kBool && v.b == decisive) return v;
      if (v.kind != Value::kBool && !wrong.IsError()) wrong = v.IsError() ? v : NoOverload();
    }
    return wrong;
  }

  Value Ternary(const Node& n) {
    const Value c = Eval(n.args[0]);
    if (c.IsError()) return c;
    if (c.kind != Value::kBool) return NoOverload();
    return Eval(n.args[c.b ? 1 : 2]);
  }

  Value CallOf(const Node& n) {
    Value args[4];
    for (size_t i = 0; i < n.args.size(); ++i) {
      args[i] = Eval(n.args[i]);
      if (args[i].IsError()) return args[i];
      if (!arena_.Spend(args[i].text.size() / 16)) return Value::Error("the expression does too much");
    }
    return n.function->call({n, {args, n.args.size()}, arena_, options_});
  }

  Value Macro(const Node& n) {
    const Value over = Eval(n.args[0]);
    if (over.IsError()) return over;
    List keys;
    const List* items = &keys;
    if (over.kind == Value::kList) items = over.list;
    else if (over.kind == Value::kMap && over.map->Type() == "map") over.map->Keys(arena_, &keys);
    else return NoOverload();
    const bool mapping = n.op == Node::kMapMacro, collects = mapping || n.op == Node::kFilter;
    List* made = collects ? arena_.New<List>() : nullptr;
    Value result = Value::Bool(n.op == Node::kAll);
    size_t found = 0;
    for (const Value& item : *items) {
      const Scope scope{n.text, item, scope_};
      scope_ = &scope;
      Value v = mapping && n.args.size() == 2 ? Value::Bool(true) : Eval(n.args[1]);
      const bool taken = v.IsTrue(), known = v.kind == Value::kBool;
      if (known && taken && mapping) v = Eval(n.args.back());
      scope_ = scope.outer;
      const Value wrong = v.IsError() ? v : NoOverload();
      if (n.op == Node::kAll || n.op == Node::kExists) {
        const bool decisive = n.op == Node::kExists;
        if (known && taken == decisive) return v;
        if (!known && !result.IsError()) result = wrong;
        continue;
      }
      if (!known || v.IsError()) return wrong;
      found += taken;
      if (collects && taken) made->push_back(mapping ? v : item);
    }
    if (collects) return Value::Of(made);
    return n.op == Node::kExistsOne ? Value::Bool(found == 1) : result;
  }

  const Map& attributes_;
  Arena& arena_;
  const Options& options_;
  const Scope* scope_ = nullptr;
};

// The names and constant keys of a chain that begins at an attribute.
bool PathOf(const Node& n, const std::vector<std::string_view>& bound, Expression::Path* path) {
  if (n.op == Node::kIdent) {
    if (std::find(bound.begin(), bound.end(), n.text) != bound.end()) return false;
    path->push_back(n.text);
    return true;
  }
  const bool key = n.op == Node::kIndex && IsText(n.args[1]);
  if (n.op != Node::kSelect && n.op != Node::kHas && !key) return false;
  if (!PathOf(n.args[0], bound, path)) return false;
  path->push_back(key ? n.args[1].text : n.text);
  return true;
}

void CollectPaths(const Node& n, std::vector<std::string_view>& bound, std::vector<Expression::Path>* out) {
  Expression::Path path;
  if (PathOf(n, bound, &path)) {
    out->push_back(std::move(path));
    return;
  }
  // "key" in map looks at one key.
  if (n.op == Node::kCall && n.text == "in" && IsText(n.args[0]) && (path.clear(), PathOf(n.args[1], bound, &path))) {
    path.push_back(n.args[0].text);
    out->push_back(std::move(path));
    return;
  }
  const bool macro = n.op >= Node::kAll;
  for (size_t i = 0; i < n.args.size(); ++i) {
    if (macro && i == 1) bound.push_back(n.text);
    CollectPaths(n.args[i], bound, out);
  }
  if (macro) bound.pop_back();
}

}  // namespace

std::shared_ptr<const re2::RE2> CompilePattern(std::string_view pattern) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(1 << 20);
  return std::make_shared<const re2::RE2>(re2::StringPiece(pattern.data(), pattern.size()), options);
}

const Function* FindFunction(std::string_view name, bool member, size_t args, const Options& options) {
  for (auto table : {Operators(), TextFunctions(), TimeFunctions()}) {
    for (const Function& f : table) {
      if (f.name != name || args < f.min_args || args > f.max_args || !(member ? f.member : f.global)) continue;
      if (f.feature == Function::kStringConversion && !options.string_conversion) continue;
      if (f.feature == Function::kStringFunctions && !options.string_functions) continue;
      return &f;
    }
  }
  return nullptr;
}

struct Expression::Program {
  Options options;
  Node root;
};

base::Result<Expression> Expression::Compile(std::string_view text, const Options& options) {
  auto root = Parse(text, options.comprehensions);
  if (!root) return root.error();
  if (auto ok = Resolve(*root, options); !ok) return ok.error();
  return Expression(std::make_shared<const Program>(Program{options, std::move(*root)}));
}

Value Expression::Evaluate(const Map& attributes, Arena& arena) const {
  const Value v = Evaluation(attributes, arena, program_->options).Eval(program_->root);
  return arena.Spend(1) ? v : Value::Error("the expression does too much");
}

std::vector<Expression::Path> Expression::Paths() const {
  std::vector<Path> out;
  std::vector<std::string_view> bound;
  CollectPaths(program_->root, bound, &out);
  return out;
}

}  // namespace weft::cel
