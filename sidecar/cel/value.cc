#include "sidecar/cel/value.h"

#include <cmath>
#include <compare>

namespace weft::cel {
namespace {

int Sign(auto order) { return order < 0 ? -1 : order > 0 ? 1 : 0; }

// Numbers of different kinds: whole ones exactly, with a double as doubles.
std::optional<int> CompareNumbers(const Value& a, const Value& b) {
  using enum Value::Kind;
  if (a.kind == kDouble || b.kind == kDouble) {
    const auto real = [](const Value& v) { return v.kind == kDouble ? v.d : v.kind == kInt ? static_cast<double>(v.i) : static_cast<double>(v.u); };
    const auto order = real(a) <=> real(b);
    if (order == std::partial_ordering::unordered) return std::nullopt;
    return Sign(order);
  }
  const auto whole = [](const Value& v) { return v.kind == kInt ? static_cast<__int128>(v.i) : static_cast<__int128>(v.u); };
  return whole(a) < whole(b) ? -1 : whole(a) > whole(b);
}

bool EqualMaps(const Map& a, const Map& b, Arena& arena) {
  if (&a == &b) return true;
  if (a.Type() != b.Type()) return false;
  if (a.Size(arena) != b.Size(arena)) return false;
  List keys;
  a.Keys(arena, &keys);
  for (const Value& key : keys) {
    auto x = a.Find(key, arena), y = b.Find(key, arena);
    if (!x || !y || !Equal(*x, *y, arena)) return false;
  }
  return true;
}

}  // namespace

Value Value::Time(Kind kind, __int128 ns) {
  __int128 seconds = ns / 1'000'000'000;
  int64_t rest = static_cast<int64_t>(ns % 1'000'000'000);
  if (rest < 0) --seconds, rest += 1'000'000'000;
  if (seconds > INT64_MAX) seconds = INT64_MAX, rest = 999'999'999;
  if (seconds < INT64_MIN) seconds = INT64_MIN, rest = 0;
  Value v;
  v.kind = kind, v.i = static_cast<int64_t>(seconds), v.nanos = static_cast<uint32_t>(rest);
  return v;
}

Value Arena::String(std::string text) {
  if (!Room(text.size())) return Value::Error("the expression makes too much text");
  text_left_ -= text.size();
  return Value::String(*New<std::string>(std::move(text)));
}

bool Equal(const Value& a, const Value& b, Arena& arena) {
  using enum Value::Kind;
  if (!arena.Spend(1 + a.text.size() / 16)) return false;
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0;
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case kNull: return true;
    case kBool: return a.b == b.b;
    case kString:
    case kBytes:
    case kType: return a.text == b.text;
    case kDuration:
    case kTimestamp: return a.i == b.i && a.nanos == b.nanos;
    case kMap: return EqualMaps(*a.map, *b.map, arena);
    case kList:
      if (a.list->size() != b.list->size()) return false;
      for (size_t i = 0; i < a.list->size(); ++i) {
        if (!Equal((*a.list)[i], (*b.list)[i], arena)) return false;
      }
      return true;
    default: return false;
  }
}

std::optional<int> Compare(const Value& a, const Value& b) {
  using enum Value::Kind;
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b);
  if (a.kind != b.kind) return std::nullopt;
  switch (a.kind) {
    case kBool: return static_cast<int>(a.b) - static_cast<int>(b.b);
    case kString:
    case kBytes: return Sign(a.text.compare(b.text));
    case kDuration:
    case kTimestamp: return a.ns() < b.ns() ? -1 : a.ns() > b.ns();
    default: return std::nullopt;
  }
}

std::string_view TypeName(const Value& v) {
  using enum Value::Kind;
  switch (v.kind) {
    case kError: return "error";
    case kNull: return "null_type";
    case kBool: return "bool";
    case kInt: return "int";
    case kUint: return "uint";
    case kDouble: return "double";
    case kString: return "string";
    case kBytes: return "bytes";
    case kDuration: return "google.protobuf.Duration";
    case kTimestamp: return "google.protobuf.Timestamp";
    case kType: return "type";
    case kList: return "list";
    case kMap: return v.map->Type();
  }
  return "";
}

}  // namespace weft::cel
