#include "sidecar/cel/parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "sidecar/cel/lexer.h"

namespace weft::cel {
namespace {

constexpr std::string_view kReserved[] = {"as",  "break",   "const",     "continue", "else", "false",  "for",  "function", "if",  "import", "in",
                                          "let", "loop", "package", "namespace", "null", "return", "true", "var", "void", "while"};
constexpr std::string_view kKeywords[] = {"in", "true", "false", "null"};

template <typename List>
bool OneOf(std::string_view word, const List& list) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

// Errors do not unwind: the first is kept, and every loop ends because the rest of the text then counts as read.
class Parser {
 public:
  Parser(std::string_view source, bool comprehensions) : lexer_(source), comprehensions_(comprehensions) { Advance(), Advance(); }

  base::Result<Node> Run() {
    Node n = Expr();
    if (!error_ && now_.kind != Token::kEnd) Fail(now_, "unexpected " + Shown(now_));
    if (error_) return *error_;
    return n;
  }

 private:
  static std::string Shown(const Token& t) { return t.kind == Token::kEnd ? "end of expression" : "\"" + std::string(t.raw) + "\""; }

  void Fail(const Token& at, const std::string& what) { FailAt(at.line, at.column, what); }
  void FailAt(uint32_t line, uint32_t column, const std::string& what) {
    if (!error_) error_ = ErrorAt(line, column, what);
    now_ = next_ = Token();
  }
  void Advance() {
    now_ = std::move(next_);
    next_ = Token();
    if (error_) return;
    auto t = lexer_.Next();
    if (t) {
      next_ = std::move(*t);
    } else {
      error_ = t.error();
      now_ = Token();
    }
  }
  bool Eat(std::string_view op) { return now_.Is(op) && (Advance(), true); }
  void Expect(std::string_view op) {
    if (!Eat(op)) Fail(now_, "expected \"" + std::string(op) + "\" but found " + Shown(now_));
  }

  Node Make(Node::Op op, const Token& at, std::string text, std::vector<Node> args) {
    Node n;
    n.op = op, n.line = at.line, n.column = at.column, n.text = std::move(text), n.args = std::move(args);
    for (const Node& a : n.args) n.height = std::max<uint16_t>(n.height, static_cast<uint16_t>(a.height + 1));
    if (n.height > kMaxDepth) Fail(at, "nested deeper than " + std::to_string(kMaxDepth));
    return n;
  }
  template <typename... Args>
  static std::vector<Node> Several(Args&&... args) {
    std::vector<Node> out;
    out.reserve(sizeof...(args));
    (out.push_back(std::forward<Args>(args)), ...);
    return out;
  }
  Node Constant(const Token& at, Value value, std::string text = {}) {
    Node n = Make(Node::kConst, at, std::move(text), {});
    n.value = value;
    return n;
  }
  Node Call(const Token& at, std::string name, std::vector<Node> args) { return Make(Node::kCall, at, std::move(name), std::move(args)); }

  Node Expr() {
    if (++depth_ > kMaxDepth + 1) Fail(now_, "nested deeper than " + std::to_string(kMaxDepth));
    Node n = Chain(Node::kOr);
    const Token at = now_;
    if (Eat("?")) {
      Node yes = Chain(Node::kOr);
      Expect(":");
      Node no = Expr();
      n = Make(Node::kTernary, at, {}, Several(std::move(n), std::move(yes), std::move(no)));
    }
    --depth_;
    return n;
  }

  Node Chain(Node::Op op) {
    const std::string_view sign = op == Node::kOr ? "||" : "&&";
    const auto operand = [&] { return op == Node::kOr ? Chain(Node::kAnd) : Relation(); };
    Node first = operand();
    if (!now_.Is(sign)) return first;
    const Token at = now_;
    std::vector<Node> args;
    args.push_back(std::move(first));
    while (Eat(sign)) args.push_back(operand());
    return Make(op, at, {}, std::move(args));
  }

  template <typename Operand, typename Known>
  Node LeftToRight(Operand operand, Known known) {
    Node n = operand();
    while (known(now_)) {
      const Token at = now_;
      Advance();
      n = Call(at, std::string(at.raw), Several(std::move(n), operand()));
    }
    return n;
  }
  Node Relation() {
    return LeftToRight([&] { return Sum(); }, [](const Token& t) {
      return t.IsWord("in") || t.Is("<") || t.Is("<=") || t.Is(">=") || t.Is(">") || t.Is("==") || t.Is("!=");
    });
  }
  Node Sum() {
    return LeftToRight([&] { return Product(); }, [](const Token& t) { return t.Is("+") || t.Is("-"); });
  }
  Node Product() {
    return LeftToRight([&] { return Unary(); }, [](const Token& t) { return t.Is("*") || t.Is("/") || t.Is("%"); });
  }

  // An even number of the same sign is none; one minus before a number belongs to it.
  Node Unary() {
    const Token at = now_;
    const std::string_view sign = now_.Is("!") ? "!" : "-";
    const bool number = next_.kind == Token::kInt || next_.kind == Token::kDouble;
    if (sign == "-" && now_.Is("-") && number) return Member(true);
    size_t signs = 0;
    while (Eat(sign)) ++signs;
    Node n = Member(false);
    if (signs % 2 == 0) return n;
    return Call(at, sign == "!" ? "!_" : "-_", Several(std::move(n)));
  }

  Node Member(bool negative) {
    Node n = Primary(negative);
    while (!error_) {
      const Token at = now_;
      if (Eat(".")) {
        n = Field(at, std::move(n));
      } else if (Eat("[")) {
        if (now_.Is("?")) Fail(now_, "optional values are not supported");
        Node key = Expr();
        Expect("]");
        n = Make(Node::kIndex, at, {}, Several(std::move(n), std::move(key)));
      } else if (now_.Is("{") && (n.op == Node::kIdent || n.op == Node::kSelect)) {
        Fail(now_, "messages cannot be made here");
      } else {
        break;
      }
    }
    return n;
  }

  Node Field(const Token& at, Node of) {
    if (now_.Is("?")) Fail(now_, "optional values are not supported");
    const Token name = now_;
    if ((name.kind != Token::kIdent && name.kind != Token::kQuotedIdent) || OneOf(name.raw, kKeywords)) {
      Fail(name, "expected a field but found " + Shown(name));
      return of;
    }
    Advance();
    if (name.kind == Token::kQuotedIdent) return Make(Node::kSelect, at, name.text, Several(std::move(of)));
    if (!now_.Is("(")) return Make(Node::kSelect, at, std::string(name.raw), Several(std::move(of)));
    Advance();
    std::vector<Node> args = Arguments();
    if (auto op = Macro(name.raw, args.size())) return Comprehension(*op, name, std::move(of), std::move(args));
    args.insert(args.begin(), std::move(of));
    Node n = Call(name, std::string(name.raw), std::move(args));
    n.member = true;
    return n;
  }

  static std::optional<Node::Op> Macro(std::string_view name, size_t args) {
    if (name == "map" && (args == 2 || args == 3)) return Node::kMapMacro;
    if (args != 2) return std::nullopt;
    if (name == "all") return Node::kAll;
    if (name == "exists") return Node::kExists;
    if (name == "exists_one") return Node::kExistsOne;
    if (name == "filter") return Node::kFilter;
    return std::nullopt;
  }

  Node Comprehension(Node::Op op, const Token& at, Node over, std::vector<Node> args) {
    if (args[0].op != Node::kIdent) FailAt(args[0].line, args[0].column, std::string(at.raw) + "() variable name must be a simple identifier");
    if (!comprehensions_) Fail(at, "comprehensions (" + std::string(at.raw) + ") are not available here");
    std::string variable = std::move(args[0].text);
    args[0] = std::move(over);
    return Make(op, at, std::move(variable), std::move(args));
  }

  std::vector<Node> Arguments() {
    std::vector<Node> args;
    if (Eat(")")) return args;
    do args.push_back(Expr());
    while (Eat(","));
    Expect(")");
    return args;
  }

  Node Primary(bool negative) {
    if (negative) Advance();
    const Token t = now_;
    switch (t.kind) {
      case Token::kInt: return Advance(), Whole(t, negative);
      case Token::kUint: return Advance(), Whole(t, false);
      case Token::kDouble: return Advance(), Constant(t, Value::Double(strtod(((negative ? "-" : "") + std::string(t.raw)).c_str(), nullptr)));
      case Token::kString: return Advance(), Constant(t, Value::String({}), t.text);
      case Token::kBytes: return Advance(), Constant(t, Value::Bytes({}), t.text);
      case Token::kIdent: return Named();
      default: break;
    }
    if (Eat("(")) {
      Node n = Expr();
      Expect(")");
      // In parentheses a name is no longer the beginning of a longer one.
      return n;
    }
    if (Eat("[")) return ListLiteral(t);
    if (Eat("{")) return MapLiteral(t);
    if (now_.Is(".") && next_.kind == Token::kIdent) return Advance(), Named();
    Fail(t, "unexpected " + Shown(t));
    return {};
  }

  Node Named() {
    const Token t = now_;
    Advance();
    if (t.raw == "true" || t.raw == "false") return Constant(t, Value::Bool(t.raw == "true"));
    if (t.raw == "null") return Constant(t, Value::Null());
    if (OneOf(t.raw, kReserved)) Fail(t, "reserved identifier: " + std::string(t.raw));
    if (!Eat("(")) return Make(Node::kIdent, t, std::string(t.raw), {});
    std::vector<Node> args = Arguments();
    if (t.raw != "has" || args.size() != 1) return Call(t, std::string(t.raw), std::move(args));
    if (args[0].op != Node::kSelect) {
      FailAt(args[0].line, args[0].column, "has() argument must be a field selection");
      return {};
    }
    Node n = std::move(args[0]);
    n.op = Node::kHas;
    return n;
  }

  Node Whole(const Token& t, bool negative) {
    std::string_view digits = t.raw;
    if (t.kind == Token::kUint) digits.remove_suffix(1);
    const bool hex = digits.starts_with("0x");
    if (hex) digits.remove_prefix(2);
    uint64_t n = 0;
    const auto [end, wrong] = std::from_chars(digits.data(), digits.data() + digits.size(), n, hex ? 16 : 10);
    const uint64_t most = t.kind == Token::kUint ? UINT64_MAX : negative ? uint64_t{1} << 63 : INT64_MAX;
    if (wrong != std::errc() || end != digits.data() + digits.size() || n > most) Fail(t, "the number " + std::string(t.raw) + " is too large");
    if (t.kind == Token::kUint) return Constant(t, Value::Uint(n));
    return Constant(t, Value::Int(static_cast<int64_t>(negative ? 0 - n : n)));
  }

  Node ListLiteral(const Token& at) {
    std::vector<Node> items;
    while (!error_ && !now_.Is("]")) {
      if (now_.Is(",") && items.empty()) break;
      if (now_.Is("?")) Fail(now_, "optional values are not supported");
      items.push_back(Expr());
      if (!now_.Is(",") || next_.Is("]")) break;
      Advance();
    }
    Eat(",");
    Expect("]");
    return Make(Node::kList, at, {}, std::move(items));
  }

  Node MapLiteral(const Token& at) {
    std::vector<Node> items;
    while (!error_ && !now_.Is("}")) {
      if (now_.Is(",") && items.empty()) break;
      if (now_.Is("?")) Fail(now_, "optional values are not supported");
      items.push_back(Expr());
      Expect(":");
      items.push_back(Expr());
      if (!now_.Is(",") || next_.Is("}")) break;
      Advance();
    }
    Eat(",");
    Expect("}");
    return Make(Node::kMap, at, {}, std::move(items));
  }

  Lexer lexer_;
  const bool comprehensions_;
  int depth_ = 0;
  Token now_, next_;
  std::optional<base::Error> error_;
};

}  // namespace

base::Result<Node> Parse(std::string_view source, bool comprehensions) {
  if (!IsUtf8(source)) return base::Error("the expression is not UTF-8");
  size_t characters = 0;
  for (char c : source) characters += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  if (characters > kMaxCharacters) return base::Error("the expression has more than " + std::to_string(kMaxCharacters) + " characters");
  return Parser(source, comprehensions).Run();
}

}  // namespace weft::cel
