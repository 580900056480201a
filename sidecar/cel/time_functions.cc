// timestamp(), duration() and what they know of themselves.
#include "sidecar/cel/function.h"
#include "sidecar/cel/time.h"

namespace weft::cel {
namespace {

using enum Value::Kind;

Value ToTimestamp(const Call& c) {
  const Value& a = c.args[0];
  if (a.kind == kTimestamp) return a;
  if (a.kind == kInt) return Value::Timestamp(static_cast<__int128>(a.i) * 1'000'000'000);
  if (a.kind != kString) return NoOverload();
  auto ns = ParseTimestamp(a.text);
  return ns ? Value::Timestamp(*ns) : Value::Error("not a timestamp");
}

Value ToDuration(const Call& c) {
  const Value& a = c.args[0];
  if (a.kind == kDuration) return a;
  if (a.kind != kString) return NoOverload();
  auto ns = ParseDuration(a.text);
  return ns ? Value::Duration(*ns) : Value::Error("not a duration");
}

// A field of a date, in the zone of the second argument.
template <int64_t (*F)(const Civil&)>
Value Field(const Call& c) {
  if (c.args[0].kind != kTimestamp) return NoOverload();
  int64_t at = c.args[0].i, offset = 0;
  if (c.args.size() == 2) {
    if (c.args[1].kind != kString) return NoOverload();
    auto fixed = FixedOffset(c.args[1].text);
    if (c.node.zone) offset = c.node.zone->Offset(at);
    else if (fixed) offset = *fixed;
    else return Value::Error("unknown time zone");
  }
  if (__builtin_add_overflow(at, offset, &at)) return Value::Error("time overflow");
  return Value::Int(F(ToCivil(at)));
}

// Of a duration all of it in that unit, milliseconds its fraction.
template <int64_t (*F)(const Civil&), int64_t kUnit>
Value FieldOrLength(const Call& c) {
  if (c.args[0].kind == kTimestamp) return Field<F>(c);
  if (c.args[0].kind != kDuration || c.args.size() != 1) return NoOverload();
  return Value::Int(static_cast<int64_t>(c.args[0].ns() / kUnit));
}

int64_t Year(const Civil& c) { return c.year; }
int64_t Month(const Civil& c) { return c.month; }
int64_t Day(const Civil& c) { return c.day; }
int64_t Date(const Civil& c) { return c.day + 1; }
int64_t Weekday(const Civil& c) { return c.weekday; }
int64_t Yearday(const Civil& c) { return c.yearday; }
int64_t Hour(const Civil& c) { return c.hour; }
int64_t Minute(const Civil& c) { return c.minute; }
int64_t Second(const Civil& c) { return c.second; }

Value Milliseconds(const Call& c) {
  if (c.args[0].kind == kTimestamp) {
    Value known = Field<Second>(c);
    return known.IsError() ? known : Value::Int(c.args[0].nanos / 1'000'000);
  }
  if (c.args[0].kind != kDuration || c.args.size() != 1) return NoOverload();
  return Value::Int(static_cast<int64_t>(c.args[0].ns() % 1'000'000'000 / 1'000'000));
}

constexpr Function kFunctions[] = {
    {"timestamp", 1, 1, true, false, ToTimestamp},
    {"duration", 1, 1, true, false, ToDuration},
    {"getFullYear", 1, 2, false, true, Field<Year>},
    {"getMonth", 1, 2, false, true, Field<Month>},
    {"getDayOfMonth", 1, 2, false, true, Field<Day>},
    {"getDate", 1, 2, false, true, Field<Date>},
    {"getDayOfWeek", 1, 2, false, true, Field<Weekday>},
    {"getDayOfYear", 1, 2, false, true, Field<Yearday>},
    {"getHours", 1, 2, false, true, FieldOrLength<Hour, 3'600'000'000'000>},
    {"getMinutes", 1, 2, false, true, FieldOrLength<Minute, 60'000'000'000>},
    {"getSeconds", 1, 2, false, true, FieldOrLength<Second, 1'000'000'000>},
    {"getMilliseconds", 1, 2, false, true, Milliseconds},
};

}  // namespace

std::span<const Function> TimeFunctions() { return kFunctions; }

}  // namespace weft::cel
