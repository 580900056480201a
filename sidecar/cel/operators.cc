// Operators, size, type and conversions.
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "sidecar/cel/function.h"
#include "sidecar/cel/lexer.h"
#include "sidecar/cel/time.h"

namespace weft::cel {
namespace {

using enum Value::Kind;

Value Overflow() { return Value::Error("number out of range"); }

template <Value (*F)(bool equal)>
Value Equality(const Call& c) { return F(Equal(c.args[0], c.args[1], c.arena)); }
Value Same(bool equal) { return Value::Bool(equal); }
Value Different(bool equal) { return Value::Bool(!equal); }

template <bool (*F)(int order)>
Value Order(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (auto order = Compare(a, b)) return Value::Bool(F(*order));
  // Not a number has no order, but may be asked.
  return a.IsNumber() && b.IsNumber() ? Value::Bool(false) : NoOverload();
}
bool Less(int order) { return order < 0; }
bool LessOrEqual(int order) { return order <= 0; }
bool Greater(int order) { return order > 0; }
bool GreaterOrEqual(int order) { return order >= 0; }

Value Concatenated(const Call& c, Value::Kind kind) {
  if (!c.options.string_concat) return NoOverload();
  if (!c.arena.Room(c.args[0].text.size() + c.args[1].text.size())) return Value::Error("the expression makes too much text");
  Value v = c.arena.String(std::string(c.args[0].text) += c.args[1].text);
  if (!v.IsError()) v.kind = kind;
  return v;
}

Value Add(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (a.kind == kDuration && b.kind == kTimestamp) return Value::Timestamp(a.ns() + b.ns());
  if (a.kind == kTimestamp && b.kind == kDuration) return Value::Timestamp(a.ns() + b.ns());
  if (a.kind != b.kind) return NoOverload();
  Value out = a;
  switch (a.kind) {
    case kInt: return __builtin_add_overflow(a.i, b.i, &out.i) ? Overflow() : out;
    case kUint: return __builtin_add_overflow(a.u, b.u, &out.u) ? Overflow() : out;
    case kDouble: return Value::Double(a.d + b.d);
    case kDuration: return Value::Duration(a.ns() + b.ns());
    case kString:
    case kBytes: return Concatenated(c, a.kind);
    default: return NoOverload();
  }
}

Value Subtract(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (a.kind == kTimestamp && b.kind == kDuration) return Value::Timestamp(a.ns() - b.ns());
  if (a.kind != b.kind) return NoOverload();
  Value out = a;
  switch (a.kind) {
    case kInt: return __builtin_sub_overflow(a.i, b.i, &out.i) ? Overflow() : out;
    case kUint: return __builtin_sub_overflow(a.u, b.u, &out.u) ? Overflow() : out;
    case kDouble: return Value::Double(a.d - b.d);
    case kDuration:
    case kTimestamp: return Value::Duration(a.ns() - b.ns());
    default: return NoOverload();
  }
}

Value Multiply(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (a.kind != b.kind) return NoOverload();
  Value out = a;
  switch (a.kind) {
    case kInt: return __builtin_mul_overflow(a.i, b.i, &out.i) ? Overflow() : out;
    case kUint: return __builtin_mul_overflow(a.u, b.u, &out.u) ? Overflow() : out;
    case kDouble: return Value::Double(a.d * b.d);
    default: return NoOverload();
  }
}

template <bool kRemainder>
Value Divide(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (a.kind != b.kind) return NoOverload();
  if (a.kind == kDouble && !kRemainder) return Value::Double(a.d / b.d);
  if (a.kind != kInt && a.kind != kUint) return NoOverload();
  if (b.i == 0) return Value::Error("division by zero");
  if (a.kind == kUint) return Value::Uint(kRemainder ? a.u % b.u : a.u / b.u);
  if (a.i == INT64_MIN && b.i == -1) return Overflow();
  return Value::Int(kRemainder ? a.i % b.i : a.i / b.i);
}

Value Not(const Call& c) { return c.args[0].kind == kBool ? Value::Bool(!c.args[0].b) : NoOverload(); }

Value Negate(const Call& c) {
  const Value& a = c.args[0];
  if (a.kind == kDouble) return Value::Double(-a.d);
  if (a.kind != kInt) return NoOverload();
  return a.i == INT64_MIN ? Overflow() : Value::Int(-a.i);
}

Value In(const Call& c) {
  const Value &a = c.args[0], &b = c.args[1];
  if (b.kind == kMap && b.map->Type() == "map") return a.kind == kBool || a.IsNumber() || a.kind == kString ? b.map->Has(a, c.arena) : NoOverload();
  if (b.kind != kList) return NoOverload();
  for (const Value& v : *b.list)
    if (Equal(a, v, c.arena)) return Value::Bool(true);
  return Value::Bool(false);
}

Value Size(const Call& c) {
  const Value& a = c.args[0];
  switch (a.kind) {
    case kBytes: return Value::Int(static_cast<int64_t>(a.text.size()));
    case kList: return Value::Int(static_cast<int64_t>(a.list->size()));
    case kMap: return a.map->Type() == "map" ? Value::Int(static_cast<int64_t>(a.map->Size(c.arena))) : NoOverload();
    case kString: {
      int64_t n = 0;
      for (std::string_view s = a.text; !s.empty(); s.remove_prefix(CharacterLength(s))) ++n;
      return Value::Int(n);
    }
    default: return NoOverload();
  }
}

Value TypeOf(const Call& c) { return Value::Type(TypeName(c.args[0])); }
Value Dyn(const Call& c) { return c.args[0]; }

std::string_view Stripped(std::string_view s) {
  const auto blank = [](char ch) { return ch == ' ' || (ch >= '\t' && ch <= '\r'); };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

template <typename T>
std::optional<T> Whole(std::string_view s) {
  s = Stripped(s);
  if (s.starts_with('+') && !s.starts_with("+-")) s.remove_prefix(1);
  T n = 0;
  const auto [end, wrong] = std::from_chars(s.data(), s.data() + s.size(), n);
  if (s.empty() || wrong != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return n;
}

Value ToInt(const Call& c) {
  const Value& a = c.args[0];
  switch (a.kind) {
    case kInt: return a;
    case kUint: return a.u > INT64_MAX ? Overflow() : Value::Int(static_cast<int64_t>(a.u));
    case kDouble: return a.d > -0x1p63 && a.d < 0x1p63 ? Value::Int(static_cast<int64_t>(a.d)) : Overflow();
    case kBool: return Value::Int(a.b);
    case kTimestamp: return Value::Int(a.i);
    case kString: {
      auto n = Whole<int64_t>(a.text);
      return n ? Value::Int(*n) : Value::Error("not a number");
    }
    default: return NoOverload();
  }
}

Value ToUint(const Call& c) {
  const Value& a = c.args[0];
  switch (a.kind) {
    case kUint: return a;
    case kInt: return a.i < 0 ? Overflow() : Value::Uint(static_cast<uint64_t>(a.i));
    case kDouble: return a.d >= 0 && a.d < 0x1p64 ? Value::Uint(static_cast<uint64_t>(a.d)) : Overflow();
    case kString: {
      auto n = Whole<uint64_t>(a.text);
      return n ? Value::Uint(*n) : Value::Error("not a number");
    }
    default: return NoOverload();
  }
}

Value ToDouble(const Call& c) {
  const Value& a = c.args[0];
  switch (a.kind) {
    case kDouble: return a;
    case kInt: return Value::Double(static_cast<double>(a.i));
    case kUint: return Value::Double(static_cast<double>(a.u));
    case kString: {
      const std::string text(Stripped(a.text));
      char* end = nullptr;
      const double d = strtod(text.c_str(), &end);
      return !text.empty() && end == text.c_str() + text.size() ? Value::Double(d) : Value::Error("not a number");
    }
    default: return NoOverload();
  }
}

Value ToBool(const Call& c) {
  const Value& a = c.args[0];
  if (a.kind == kBool) return a;
  if (a.kind != kString) return NoOverload();
  const auto is = [&](std::string_view word) {
    return a.text.size() == word.size() && std::equal(word.begin(), word.end(), a.text.begin(), [](char x, char y) { return x == (y >= 'A' && y <= 'Z' ? y + 32 : y); });
  };
  for (std::string_view word : {"true", "t", "yes", "y", "1"})
    if (is(word)) return Value::Bool(true);
  for (std::string_view word : {"false", "f", "no", "n", "0"})
    if (is(word)) return Value::Bool(false);
  return Value::Error("not a bool");
}

Value ToBytes(const Call& c) {
  const Value& a = c.args[0];
  return a.kind == kString || a.kind == kBytes ? Value::Bytes(a.text) : NoOverload();
}

// The fewest digits that read back the same; with an exponent below 1e-4 and from 1e6 on.
std::string DoubleText(double d) {
  if (!std::isfinite(d)) return std::string(std::signbit(d) ? "-" : "") + (std::isnan(d) ? "nan" : "inf");
  char text[64];
  char* end = std::to_chars(text, text + sizeof text, d, std::chars_format::scientific).ptr;
  const std::string scientific(text, end);
  const int exponent = atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= 6) return scientific;
  end = std::to_chars(text, text + sizeof text, d, std::chars_format::fixed).ptr;
  return std::string(text, end);
}

Value ToString(const Call& c) {
  const Value& a = c.args[0];
  switch (a.kind) {
    case kString: return a;
    case kBytes: return IsUtf8(a.text) ? Value::String(a.text) : Value::Error("bytes that are not UTF-8");
    case kBool: return Value::String(a.b ? "true" : "false");
    case kInt: return c.arena.String(std::to_string(a.i));
    case kUint: return c.arena.String(std::to_string(a.u));
    case kDouble: return c.arena.String(DoubleText(a.d));
    case kTimestamp: return c.arena.String(FormatTimestamp(a.ns()));
    case kDuration: return c.arena.String(FormatDuration(a.ns()));
    default: return NoOverload();
  }
}

constexpr Function kOperators[] = {
    {"==", 2, 2, true, false, Equality<Same>},
    {"!=", 2, 2, true, false, Equality<Different>},
    {"<", 2, 2, true, false, Order<Less>},
    {"<=", 2, 2, true, false, Order<LessOrEqual>},
    {">", 2, 2, true, false, Order<Greater>},
    {">=", 2, 2, true, false, Order<GreaterOrEqual>},
    {"in", 2, 2, true, false, In},
    {"+", 2, 2, true, false, Add},
    {"-", 2, 2, true, false, Subtract},
    {"*", 2, 2, true, false, Multiply},
    {"/", 2, 2, true, false, Divide<false>},
    {"%", 2, 2, true, false, Divide<true>},
    {"!_", 1, 1, true, false, Not},
    {"-_", 1, 1, true, false, Negate},
    {"size", 1, 1, true, true, Size},
    {"type", 1, 1, true, false, TypeOf},
    {"dyn", 1, 1, true, false, Dyn},
    {"int", 1, 1, true, false, ToInt},
    {"uint", 1, 1, true, false, ToUint},
    {"double", 1, 1, true, false, ToDouble},
    {"bool", 1, 1, true, false, ToBool},
    {"bytes", 1, 1, true, false, ToBytes},
    {"string", 1, 1, true, false, ToString, Function::kStringConversion},
};

}  // namespace

std::span<const Function> Operators() { return kOperators; }

}  // namespace weft::cel
