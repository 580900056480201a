// Values of CEL expressions, and how an expression sees what it is evaluated over.
//
//   struct Request : cel::Map {                                   // attributes are maps that fetch on demand
//     std::optional<Value> Find(const Value& key, Arena&) const override {
//       return key.text == "path" ? std::optional(Value::String(path)) : std::nullopt;
//     }
//   };
//   Value v = expression.Evaluate(attributes, arena);
//   if (v.IsTrue()) ...
//
// Texts are views: into the expression, into what an attribute lives in, or into the arena; they are good as long as these.
// An error is a value too, so that || and && can absorb it; its text says what was wrong.
// Threads: a value, an arena and the maps made for one evaluation belong to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::cel {

class Map;
struct Value;
using List = std::vector<Value>;

struct Value {
  enum Kind : uint8_t { kError, kNull, kBool, kInt, kUint, kDouble, kString, kBytes, kDuration, kTimestamp, kType, kList, kMap };
  Kind kind = kNull;
  uint32_t nanos = 0;  // of kDuration and kTimestamp: 0 to 999'999'999, on top of i seconds
  union {
    int64_t i = 0;
    bool b;
    uint64_t u;
    double d;
    const List* list;
    const Map* map;
  };
  std::string_view text;  // of kString, kBytes, kType; what is wrong of kError

  static Value Error(std::string_view what) { return WithText(kError, what); }
  static Value Null() { return {}; }
  static Value Bool(bool v) { return With(kBool, [&](Value& o) { o.i = 0, o.b = v; }); }
  static Value Int(int64_t v) { return With(kInt, [&](Value& o) { o.i = v; }); }
  static Value Uint(uint64_t v) { return With(kUint, [&](Value& o) { o.u = v; }); }
  static Value Double(double v) { return With(kDouble, [&](Value& o) { o.d = v; }); }
  static Value String(std::string_view v) { return WithText(kString, v); }
  static Value Bytes(std::string_view v) { return WithText(kBytes, v); }
  static Value Type(std::string_view v) { return WithText(kType, v); }
  static Value Of(const List* v) { return With(kList, [&](Value& o) { o.list = v; }); }
  static Value Of(const Map* v) { return With(kMap, [&](Value& o) { o.map = v; }); }
  // ns: from the start of 1970, or of a duration; the last there is when the seconds do not fit.
  static Value Timestamp(__int128 ns) { return Time(kTimestamp, ns); }
  static Value Duration(__int128 ns) { return Time(kDuration, ns); }

  __int128 ns() const { return static_cast<__int128>(i) * 1'000'000'000 + nanos; }
  bool IsTrue() const { return kind == kBool && b; }
  bool IsError() const { return kind == kError; }
  bool IsNumber() const { return kind == kInt || kind == kUint || kind == kDouble; }

 private:
  template <typename F>
  static Value With(Kind kind, F set) {
    Value v;
    v.kind = kind;
    set(v);
    return v;
  }
  static Value WithText(Kind kind, std::string_view text) {
    Value v;
    v.kind = kind, v.text = text;
    return v;
  }
  static Value Time(Kind kind, __int128 ns);
};

// What an evaluation makes, and how much it may still do. Allocates nothing until something is made.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  template <typename T, typename... Args>
  T* New(Args&&... args) {
    auto* kept = new Kept<T>(std::forward<Args>(args)...);
    kept_.emplace_back(kept);
    return &kept->value;
  }
  // Text that outlives the call. An error when there is too much of it.
  Value String(std::string text);
  // False when the evaluation has done all it may: n more steps, each about one value or 16 bytes looked at.
  bool Spend(size_t n) { return n <= left_ ? (left_ -= n, true) : (left_ = 0, false); }
  // The evaluation fails, whatever is made of it.
  void Abandon() { left_ = 0; }
  // Whether text of this size may be made.
  bool Room(size_t bytes) const { return bytes <= text_left_; }

  static constexpr size_t kSteps = 1'000'000, kText = 1 << 20;

 private:
  struct Base {
    virtual ~Base() = default;
  };
  template <typename T>
  struct Kept : Base {
    template <typename... Args>
    explicit Kept(Args&&... args) : value(std::forward<Args>(args)...) {}
    T value;
  };
  std::vector<std::unique_ptr<Base>> kept_;
  size_t left_ = kSteps, text_left_ = kText;
};

class Map {
 public:
  virtual ~Map() = default;
  // Nothing: there is no such key.
  virtual std::optional<Value> Find(const Value& key, Arena& arena) const = 0;
  // A bool or an error. Messages know fields that are not set.
  virtual Value Has(const Value& key, Arena& arena) const { return Value::Bool(Find(key, arena).has_value()); }
  // Maps of attributes count as empty: what they hold is known by name only.
  virtual size_t Size(Arena&) const { return 0; }
  virtual void Keys(Arena&, List*) const {}
  // "map", or a message's name: messages have fields but neither index nor size.
  virtual std::string_view Type() const { return "map"; }
};

// Equal as CEL has it: numbers by value whatever their kind, otherwise never across kinds. True for errors with nothing.
bool Equal(const Value& a, const Value& b, Arena& arena);
// Below zero, zero, above zero; nothing when they have no order.
std::optional<int> Compare(const Value& a, const Value& b);
// What type() says: "int", "google.protobuf.Timestamp".
std::string_view TypeName(const Value& v);

}  // namespace weft::cel
