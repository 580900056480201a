#include <gtest/gtest.h>

#include <map>

#include "sidecar/base/testing/alloc_counter.h"
#include "sidecar/cel/expression.h"

namespace weft::cel {
namespace {

// request.path, request.headers, response.code.
struct Fields : Map {
  std::map<std::string, Value, std::less<>> values;
  std::optional<Value> Find(const Value& key, Arena&) const override {
    auto it = values.find(key.text);
    return key.kind == Value::kString && it != values.end() ? std::optional(it->second) : std::nullopt;
  }
};

struct World {
  Fields root, request, response, headers;
  World() {
    headers.values = {{"x-a", Value::String("one")}};
    request.values = {{"path", Value::String("/p?q=1")}, {"headers", Value::Of(&headers)}, {"time", Value::Timestamp(static_cast<__int128>(1'700'000'000) * 1'000'000'000)}};
    response.values = {{"code", Value::Int(200)}};
    root.values = {{"request", Value::Of(&request)}, {"response", Value::Of(&response)}};
  }
};

constexpr Options kAll{true, true, true, true};

// 't', 'f': a bool; 'v': another value; 'e': an error; 'r': refused.
char Outcome(const std::string& text, const Options& options = {}) {
  auto e = Expression::Compile(text, options);
  if (!e) return 'r';
  World world;
  Arena arena;
  const Value v = e->Evaluate(world.root, arena);
  if (v.IsError()) return 'e';
  return v.kind == Value::kBool ? v.b ? 't' : 'f' : 'v';
}

void Expect(char outcome, std::initializer_list<const char*> texts, const Options& options = {}) {
  for (const char* text : texts) EXPECT_EQ(Outcome(text, options), outcome) << text;
}

TEST(Cel, Literals) {
  Expect('t', {R"('a' == "a")", R"('''a''' == "a")", R"("""a"b""" == 'a"b')", R"(r"\d" == "\\d")", R"(b"\xff" == b'\377')", R"("\u00e9" == "é")", R"(br"a\n" == b"a\\n")",
               R"("\101\x41" == "AA")", ".5 == 0.5", "1E+3 == 1000.0", "01 == 1", "1U == 1u", "1e400 > 1.0", "0x1Fu == 31u", "-0x8000000000000000 < 0", "- 5 == -5", "[1,2,] == [1,2]",
               "[,] == []", "{1:2,} == {1:2}", "true // a comment", R"("\xff" == "ÿ")", "\"\"\"\nmulti\"\"\" == '\\nmulti'"});
  Expect('r', {R"(r"a\"b" == "x")", R"(b"\u00e9" == b"x")", R"("\401" == "A")", R"("\q" == "q")", R"("\ud800" == "x")", R"("\U00110000" == "x")", R"(rb"a" == b"a")", "\"abc", "1. == 1.0",
               "0x == 1", "18446744073709551616u == 1u", "9223372036854775808 == 1", "0xFFFFFFFFFFFFFFFF == 1", "/* c */ true", R"("\x4" == "a")", "é == 1", "\"a\nb\" == 'a'", "\xff == 1"});
}

TEST(Cel, Grammar) {
  Expect('t', {"2 + 3 * 4 == 14", "10 - 2 - 3 == 5", "-7 % 3 == -1", "1 - -1 == 2", "true || false && false", "!true == false", "2 > 1 == true", "1 in [1] in [true]", "(true ? 1 : 2) == 1",
               "--5 == 5", "--'a' == 'a'", "!!1 == 1", "1in[1]", ".request.path == '/p?q=1'", "{'a': [1,{'b':2}]}.a[1].b == 2", "5-3 == 2", "size(string('a')) == 1"}, kAll);
  Expect('f', {"true ? false : true ? true : false"});
  Expect('r', {"1 +", "a b", "[1 2]", "{1}", "(1", "1)", "a..b", "a.", "?", "a ? b", "$a", "a && && b", "a & b", "a = b", "as == 1", "foo.in == 1", "import", "`a` == 1", "Foo{a: 1} == 1", "in",
               "request.?path", "[?1]", "request[?'path']", "--9223372036854775808 == 1", ""});
  Expect('e', {"foo.as == 1", "a.`b-c` == 1", "1.e3 == 1.0", "a ? b : c ? d : e"});
}

TEST(Cel, DepthAndSizeAreBounded) {
  const auto times = [](int n, const std::string& s) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  EXPECT_EQ(Outcome(times(32, "(") + "true" + times(32, ")")), 't');
  EXPECT_EQ(Outcome(times(33, "(") + "true" + times(33, ")")), 'r');
  EXPECT_EQ(Outcome("1" + times(31, "+1")), 'v');
  EXPECT_EQ(Outcome("1" + times(32, "+1")), 'r');
  EXPECT_EQ(Outcome("true" + times(1000, "&&true")), 't');
  EXPECT_EQ(Outcome(times(1000, "!") + "true"), 't');
  EXPECT_EQ(Outcome(times(31, "true?true:") + "true"), 't');
  EXPECT_EQ(Outcome(times(32, "true?true:") + "true"), 'r');
  EXPECT_EQ(Outcome("'" + times(100'001, "a") + "' == ''"), 'r');
}

TEST(Cel, Comparisons) {
  Expect('t', {"1 == 1.0", "1u == 1", "1 < 2.5", "1u < 2", "9223372036854775807 == 9223372036854775807.0", "'a' < 'b'", "b'a' < b'b'", "false < true", "'a' != 1", "[1,2] == [1.0,2u]",
               "{1:2} == {1u:2.0}", "1 in {1u:2}", "null == null", "0.0/0.0 != 0.0/0.0", "1.0 / 0.0 > 5.0", "type(1) == int", "type(type(1)) == type", "[string, int] == [type('a'), type(1)]"});
  Expect('f', {"'a' == 1", "null == 1", "0.0/0.0 == 0.0/0.0", "0.0/0.0 < 1.0", "timestamp(0) == 0", "1.5 in {1:2}", "bytes('a') == 'a'"});
  Expect('e', {"'a' < 1", "[1] < [2]", "1<2<3", "null < null", "timestamp(0) < 1", "1 in 1", "'a' in 'abc'", "null in {1:1}", "[1] in request", "{1:1,1:2} == {} || true"});
}

TEST(Cel, ArithmeticNeverWraps) {
  Expect('e', {"9223372036854775807 + 1 == 0", "-9223372036854775808 - 1 == 0", "9223372036854775807 * 2 == 0", "-9223372036854775808 / -1 == 1", "-9223372036854775808 % -1 == 0",
               "-(-9223372036854775808) == 1", "5u - 6u == 0u", "1 / 0 == 1", "5u % 0u == 0u", "1 + 1u == 2", "1 + 1.0 == 2.0", "-5u == 1", "!1", "'a' + 'b' == 'ab'", "[1]+[2] == [1,2]", "'a' * 2 == 'aa'"});
  Expect('t', {"'a' + 'b' == 'ab'", "b'a' + b'b' == b'ab'"}, kAll);
}

TEST(Cel, ErrorsAreAbsorbed) {
  Expect('t', {"(1/0 == 1) || true", "true || (1/0 == 1)", "1 || true", "foo || true", "request.nope == 2 || response.code == 200", "false ? request.nope : true", "!has(request.nope)"});
  Expect('f', {"(1/0 == 1) && false", "1 && false", "has(request.nope) && request.nope == 1", "'nope' in request.headers"});
  Expect('e', {"(1/0 == 1) || false", "false || 1", "1 ? true : false", "foo", "foo.bar == 1", "request.nope == 1", "has(foo.bar)", "has('a'.b)", "true ? request.nope : 1", "!(request.nope == 1)"});
  Expect('r', {"has(a)", "has(request.headers['x'])", "has(a.b, c)", "x.has(a.b)"});
}

TEST(Cel, IndexesAndKeys) {
  Expect('t', {"[1,2][0u] == 1", "[1,2][0.0] == 1", "{1:1}[1.0] == 1", "{1u:1,1:2}[1] == 2", "{1u:1,1:2}[1u] == 1", "{'a':1}.a == 1", "'x-a' in request.headers", "has(request.headers.foo) == false", "request['path'] == '/p?q=1'"});
  Expect('e', {"[1,2][2] == 1", "[1,2][0.5] == 1", "[1,2][-1] == 1", "{'a':1}['b'] == 1", "{1:1, 1:2}[1] == 1", "{1.5: 2}[1.5] == 2", "{1:1}['a'] == 1", "request[1] == 1"});
}

TEST(Cel, Conversions) {
  Expect('t', {"int('42') == 42", "int(' 1') == 1", "int('+1') == 1", "int(-1.9) == -1", "int(true) == 1", "uint(1.5) == 1u", "double('0x10') == 16.0", "double('inf') > 1.0", "bool('TRUE')", "bool('t')",
               "bytes('abc') == b'abc'", "dyn(1) == 1", "int(timestamp(10)) == 10", "size('é') == 1", "size(b'é') == 2", "'abc'.size() == 3"});
  Expect('e', {"int('x') == 42", "int('0x1f') == 31", "int(1e19) == 1", "int('') == 0", "int('9223372036854775808') == 1", "uint(-1) == 5u", "uint(-0.5) == 0u", "uint('1u') == 1u", "double('x') == 1.0",
               "bool('x')", "bool(1)", "uint(true) == 1u", "size(1) == 1"});
  Expect('r', {"string(1) == '1'", "size('a', 'b') == 1", "foo(1)", "'a'.foo() == 1", "int() == 1"});
  Expect('t', {"string(1.0/3.0) == '0.3333333333333333'", "string(1e21) == '1e+21'", "string(1.0) == '1'", "string(1000000.5) == '1.0000005e+06'", "string(b'a') == 'a'", "string(duration('-1ms')) == '-0.001s'",
               "string(timestamp('2023-01-01T00:00:00.5Z')) == '2023-01-01T00:00:00.500Z'", "string(-1.0/0.0) == '-inf'"}, kAll);
  Expect('e', {"string(null) == ''", "string([1]) == ''", R"(string(b"\xff") == '')"}, kAll);
}

TEST(Cel, Texts) {
  Expect('t', {"'abc'.contains('b')", "startsWith('abc', 'a')", "'abc'.endsWith('c')", "'abc'.matches('b')", "matches('abc', '^abc$')", R"x(re.extract("foo@bar.com", "(.*)@([^.]*)", "\\2!\\1") == "bar!foo")x",
               "re.capture('abc', 'a(.)c') == 'b'", "re.captureN('abc', 'a(?P<x>.)(.)') == {'x':'b','2':'c'}"});
  Expect('r', {"'abc'.matches('(')", "'a'.matches('[a-z]{1,50}')", "'abc'.replace('a','b') == ''", "'abc'.lowerAscii() == 'abc'"});
  Expect('e', {"re.capture('abc', 'b(.)') == 'c'", "re.extract('abc', '(', 'a') == 'c'", "re.extract('abc', 'z', 'a') == 'c'", "1.contains('a')"});
  Expect('t', {"'abc'.replace('','-') == '-a-b-c-'", "'abc'.replace('','-',2) == '-a-bc'", "'a,b,c'.split(',', 2) == ['a','b,c']", "'abc'.split('') == ['a','b','c']", "''.split('') == ['']",
               "'a,b,c'.split(',', 0) == []", "'a,'.split(',') == ['a','']", "['a','b'].join(',') == 'a,b'", "'ÄBC'.lowerAscii() == 'Äbc'", "'abc'.charAt(3) == ''", "'abcb'.lastIndexOf('b', 2) == 1",
               "'aéb'.indexOf('b') == 2", "'abc'.substring(1,2) == 'b'", "' a\\t'.trim() == 'a'", "'aéb'.reverse() == 'béa'", R"x(strings.quote("a\nb\"") == "\"a\\nb\\\"\"")x"}, kAll);
  Expect('e', {"'abc'.charAt(4) == ''", "'abc'.substring(2,1) == ''", "['a',1].join(',') == ''"}, kAll);
}

TEST(Cel, Times) {
  Expect('t', {"timestamp('2023-01-01T00:00:00+01:00') == timestamp('2022-12-31T23:00:00Z')", "timestamp(' 2023-1-1t00:00:60z ') == timestamp('2023-01-01T00:01:00Z')", "timestamp(-1).getSeconds() == 59",
               "timestamp('2023-05-06T07:08:09Z').getDayOfYear() == 125", "timestamp('2023-05-06T07:08:09Z').getDayOfWeek() == 6", "timestamp('2023-05-06T07:08:09Z').getMonth() == 4",
               "timestamp('2023-05-06T07:08:09Z').getDate() == 6", "timestamp('2023-05-06T07:08:09Z').getHours('-02:30') == 4", "timestamp(0).getHours('+05:99') == 6", "timestamp(0).getFullYear('-01:00') == 1969",
               "timestamp('2023-01-01T00:00:00.123456789Z').getMilliseconds() == 123", "duration('1h1m1s1ms1us1ns') > duration('1h')", "duration('1.5s') == duration('1500ms')", "duration('.5s') == duration('500ms')",
               "duration('1.s') == duration('1s')", "duration('-1.5s').getSeconds() == -1", "duration('-1.5s').getMilliseconds() == -500", "duration('3661s').getMinutes() == 61", "duration('0') == duration('-0')",
               "timestamp(3600) - duration('1h') == timestamp(0)", "timestamp(7) - timestamp(2) == duration('5s')", "request.time.getFullYear() == 2023", "timestamp(9223372036854775807) > timestamp(0)",
               "timestamp(9223372036854775807) + duration('1h') > timestamp(9223372036854775807)", "timestamp(9223372036854775807) - timestamp(-9223372036854775807) > duration('0s')"});
  Expect('e', {"timestamp('2023-02-30T00:00:00Z') == timestamp(0)", "timestamp('2023-01-01 00:00:00Z') == timestamp(0)", "timestamp('2023-01-01T24:00:00Z') == timestamp(0)", "timestamp('2023-01-01') == timestamp(0)",
               "timestamp(1u) == timestamp(1)", "duration('1d') == duration('24h')", "duration('1') == duration('1s')", "duration('') == duration('0')", "duration('315576000001s') > duration('0')", "duration(' 1s') == duration('1s')",
               "duration('1h') * 2 == duration('2h')", "timestamp(0).getHours('Nowhere/X') == 0", "timestamp(0).getHours('../../etc/passwd') == 0", "duration('1s').getFullYear() == 1", "timestamp(0).getHours(1) == 0"});
}

TEST(Cel, Comprehensions) {
  Expect('r', {"[1].all(x, x > 0)", "[1].map(x, x) == [1]", "[1].all(1, x > 0)", "[1].all(x) == 1"});
  Expect('t', {"[1,2].all(x, x > 0)", "[1,'a',3].exists(x, x > 2)", "[1,2,2].exists_one(x, x == 1)", "[1,2].map(x, x * 2) == [2,4]", "[1,2,3].map(x, x > 1, x * 2) == [4,6]", "[1,2,3].filter(x, x != 2) == [1,3]",
               "{'a':1}.all(k, k == 'a')", "[[1],[2]].all(x, x.all(y, y > 0))", "[1].map(x, [2].map(x, x)) == [[2]]", "[].all(x, 1/0 == 1)"}, kAll);
  Expect('f', {"['a',0].all(x, x > 0)", "[1,1].exists_one(x, x == 1)"}, kAll);
  Expect('e', {"['a',1].all(x, x > 0)", "[1,'a'].exists_one(x, x > 0)", "['a'].map(x, x + 1) == []", "1.all(x, true)", "[1].filter(x, 1) == []"}, kAll);
}

TEST(Cel, WorkIsBounded) {
  std::string list = "[0";
  for (int i = 1; i < 200; ++i) list += "," + std::to_string(i);
  list += "]";
  EXPECT_EQ(Outcome(list + ".all(a, " + list + ".all(b, " + list + ".all(c, a + b + c >= 0)))", kAll), 'e');
  EXPECT_EQ(Outcome("!(" + list + ".map(a, " + list + ".map(b, " + list + ")) == [1])", kAll), 'e');
  std::string grow = "'abcdefgh'";
  for (int i = 0; i < 20; ++i) grow += ".replace('', 'abcdefgh')";
  EXPECT_EQ(Outcome("size(" + grow + ") > 0", kAll), 'e');
}

TEST(Cel, ErrorsNameTheirPlace) {
  const auto error = [](const char* text) {
    auto e = Expression::Compile(text);
    return e ? "" : e.error().message();
  };
  EXPECT_EQ(error("true &&\n  foo(1)"), "expression 2:3: no function foo with 1 argument is available");
  EXPECT_EQ(error("'é' == $"), "expression 1:8: unexpected \"$\"");
  EXPECT_EQ(error("1 +"), "expression 1:4: unexpected end of expression");
  EXPECT_EQ(error("(1"), "expression 1:3: expected \")\" but found end of expression");
  EXPECT_EQ(error("'a'.matches('(')"), "expression 1:13: invalid regular expression: missing ): (");
  EXPECT_EQ(error("[1].all(x, x > 0)"), "expression 1:5: comprehensions (all) are not available here");
}

TEST(Cel, PathsSayWhatIsLookedAt) {
  using Paths = std::vector<Expression::Path>;
  const auto paths = [](const char* text) { return Expression::Compile(text, kAll)->Paths(); };
  EXPECT_EQ(paths("request.headers['x-a'] == 'b' && response.code > 1"), (Paths{{"request", "headers", "x-a"}, {"response", "code"}}));
  EXPECT_EQ(paths("'x-b' in request.headers || has(request.headers.x)"), (Paths{{"request", "headers", "x-b"}, {"request", "headers", "x"}}));
  EXPECT_EQ(paths("request.headers[request.id] == 'b'"), (Paths{{"request", "headers"}, {"request", "id"}}));
  EXPECT_EQ(paths("size(request['headers']) > dyn(a).b"), (Paths{{"request", "headers"}, {"a"}}));
  EXPECT_EQ(paths("request.headers.exists(h, h == 'x' && y)"), (Paths{{"request", "headers"}, {"y"}}));
}

TEST(Cel, SimpleComparisonsAllocateNothing) {
  auto e = Expression::Compile("request.headers['x-a'] == 'one' && request.path.startsWith('/p') && response.code >= 200 && request.path.matches('^/p')");
  ASSERT_TRUE(e);
  World world;
  const auto run = [&] {
    Arena arena;
    return e->Evaluate(world.root, arena).IsTrue();
  };
  EXPECT_TRUE(run());
  base::AllocCounter count;
  EXPECT_TRUE(run());
  EXPECT_TRUE(!base::kAllocCounterWorks || count.calls() == 0) << count.calls();
}

}  // namespace
}  // namespace weft::cel
