#include <gtest/gtest.h>

#include <set>
#include <string>

#include "sidecar/http/authority.h"
#include "sidecar/http/date.h"
#include "sidecar/http/ids.h"
#include "sidecar/http/path.h"
#include "sidecar/http/status.h"

namespace weft::http {
namespace {

TEST(Path, Normalize) {
  struct {
    const char* in;
    bool merge, reject;
    PathOutcome outcome;
    const char* out;
  } rows[] = {
      {"/", false, false, PathOutcome::kUnchanged, ""},
      {"/a/b?x=/../%zz", false, false, PathOutcome::kUnchanged, ""},
      {"/.well-known/x", false, false, PathOutcome::kUnchanged, ""},
      {"/a/../b", false, false, PathOutcome::kChanged, "/b"},
      {"/a/./b/", false, false, PathOutcome::kChanged, "/a/b/"},
      {"/a/..", false, false, PathOutcome::kChanged, "/"},
      {"/a/b/..", false, false, PathOutcome::kChanged, "/a/"},
      {"/a/b/.", false, false, PathOutcome::kChanged, "/a/b/"},
      {"/../../etc/passwd", false, false, PathOutcome::kChanged, "/etc/passwd"},
      {"/a\\..\\b?q=\\", false, false, PathOutcome::kChanged, "/b?q=\\"},
      {"/a/%2e%2E/b", false, false, PathOutcome::kChanged, "/b"},
      {"/a/.%2e/b", false, false, PathOutcome::kChanged, "/b"},
      {"/%61dmin", false, false, PathOutcome::kChanged, "/admin"},
      {"/a%20b", false, false, PathOutcome::kUnchanged, ""},
      {"/a//b", false, false, PathOutcome::kUnchanged, ""},
      {"/a//b", true, false, PathOutcome::kChanged, "/a/b"},
      {"//a///b//", true, false, PathOutcome::kChanged, "/a/b/"},
      {"//../a", true, false, PathOutcome::kChanged, "/a"},
      {"/a//../b", true, false, PathOutcome::kChanged, "/a/b"},
      {"/a%2fb", false, false, PathOutcome::kUnchanged, ""},
      {"/a%2Fb", false, true, PathOutcome::kEncodedSlash, ""},
      {"/a%5cb", false, true, PathOutcome::kEncodedSlash, ""},
      {"/a?b=%2f", false, true, PathOutcome::kUnchanged, ""},
      {"/a%00", false, false, PathOutcome::kInvalid, ""},
      {"/a%zz", false, false, PathOutcome::kInvalid, ""},
      {"/a%2", false, false, PathOutcome::kInvalid, ""},
      {"/a%", false, false, PathOutcome::kInvalid, ""},
      {"/%41", false, false, PathOutcome::kChanged, "/A"},
  };
  for (const auto& r : rows) {
    std::string out;
    EXPECT_EQ(NormalizePath(r.in, {r.merge, r.reject}, out), r.outcome) << r.in;
    if (r.outcome == PathOutcome::kChanged) {
      EXPECT_EQ(out, r.out) << r.in;
      std::string again;
      EXPECT_EQ(NormalizePath(out, {r.merge, r.reject}, again), PathOutcome::kUnchanged) << "not a fixed point: " << out;
    }
  }
}

TEST(Path, UnescapedSlashes) {
  struct {
    const char *in, *out;
    PathOutcome outcome;
  } rows[] = {
      {"/a%2fb?x=%2f", "/a/b?x=%2f", PathOutcome::kUnescaped},
      {"/a%5C..%2Fb", "/b", PathOutcome::kUnescaped},
      {"/a/%2e%2e%2fb", "/b", PathOutcome::kUnescaped},
      {"/a/../b", "/b", PathOutcome::kChanged},
      {"/a%252fb", "", PathOutcome::kUnchanged},
      {"/a?b=%2f", "", PathOutcome::kUnchanged},
  };
  for (const auto& r : rows) {
    std::string out;
    PathOptions options;
    options.unescape_slash = true;
    EXPECT_EQ(NormalizePath(r.in, options, out), r.outcome) << r.in;
    if (r.outcome != PathOutcome::kUnchanged) {
      EXPECT_EQ(out, r.out) << r.in;
    }
  }
}

TEST(Path, TargetAndSplit) {
  EXPECT_TRUE(ValidTarget("/a?b=c&d=[1]"));
  for (const char* bad : {"", "/a b", "/a#b", "/a\x80", "/a\x7f", "/a\tb"}) EXPECT_FALSE(ValidTarget(bad)) << bad;
  EXPECT_FALSE(ValidTarget(std::string_view("/a\0b", 4)));
  EXPECT_EQ(SplitPath("/a?b?c").path, "/a");
  EXPECT_EQ(SplitPath("/a?b?c").query, "b?c");
  EXPECT_TRUE(SplitPath("/a?").has_query);
  EXPECT_FALSE(SplitPath("/a").has_query);
}

TEST(Authority, Rows) {
  for (const char* good : {"a", "cart.shop:8080", "127.0.0.1", "[::1]:80", "[fe80::1]", "a_b", "x:0", "x:65535", "a%20b"}) {
    EXPECT_TRUE(ValidAuthority(good)) << good;
  }
  for (const char* bad : {"", "a, b", "a b", "a/b", "u@b", "b:99999", "b:", "b:x", ":80", "[::1", "[::1]x", "[zz]", "a:1:2",
                          "a%zz", "a%0d", "a\\b", "a?b", "a#b", "b:+80", "b:000080"}) {
    EXPECT_FALSE(ValidAuthority(bad)) << bad;
  }
  EXPECT_FALSE(ValidAuthority(std::string_view("[::1\0evil]:81", 13)));
  EXPECT_EQ(ParseAuthority("[::1]:81")->port, 81);
  EXPECT_EQ(ParseAuthority("[::1]:81")->host, "::1");
  EXPECT_TRUE(EqualsIgnoreCase("A.b", "a.B"));
}

TEST(Status, Text) {
  EXPECT_EQ(ReasonPhrase(404), "Not Found");
  EXPECT_EQ(ReasonPhrase(799), "");
  EXPECT_EQ(StatusText(204), "204");
  EXPECT_EQ(StatusText(1000), "500");
  EXPECT_EQ(ParseStatus("200"), 200);
  for (const char* bad : {"", "99", "099", "1000", "2x0", "+20"}) EXPECT_EQ(ParseStatus(bad), 0) << bad;
}

TEST(Date, Format) {
  EXPECT_EQ(HttpDate(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(HttpDate(0), "Thu, 01 Jan 1970 00:00:00 GMT");
}

TEST(Ids, Uuid) {
  char a[kUuidLength];
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string u(NewUuid4(a));
    EXPECT_EQ(u[8], '-');
    EXPECT_EQ(u[14], '4');
    EXPECT_NE(std::string("89ab").find(u[19]), std::string::npos);
    EXPECT_TRUE(seen.insert(u).second);
  }
}

TEST(Ids, HexDigitsAreLowerCaseOnlyInEveryPlace) {
  const std::string good = "0123456789abcdef";
  uint64_t v = 0;
  ASSERT_TRUE(ParseHex64(good, v));
  EXPECT_EQ(v, 0x0123456789abcdefull);
  for (size_t place = 0; place < 16; ++place) {
    for (int c = 0; c < 256; ++c) {
      std::string s = good;
      s[place] = static_cast<char>(c);
      const size_t digit = std::string_view("0123456789abcdef").find(s[place]);
      ASSERT_EQ(ParseHex64(s, v), digit != std::string_view::npos) << place << " " << c;
      if (digit != std::string_view::npos) {
        EXPECT_EQ(v >> (60 - 4 * place) & 15, digit);
      }
    }
  }
  EXPECT_FALSE(ParseHex64(good.substr(1), v));
  EXPECT_FALSE(ParseHex64(good + "0", v));
}

TEST(Ids, Traceparent) {
  const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const auto c = ParseTraceparent(good);
  ASSERT_TRUE(c);
  EXPECT_TRUE(c->sampled());
  char text[kTraceparentLength];
  EXPECT_EQ(FormatTraceparent(*c, text), good);
  EXPECT_EQ(c->Child().trace_lo, c->trace_lo);
  EXPECT_NE(c->Child().span_id, c->span_id);
  EXPECT_TRUE(ParseTraceparent("cc" + good.substr(2) + "-what-the-future"));
  for (const std::string& bad : {std::string(), good + "-x", "ff" + good.substr(2), "0" + good, "cc" + good.substr(2) + ".x",
                                std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
                                std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
                                std::string("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                                std::string("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01")}) {
    EXPECT_FALSE(ParseTraceparent(bad)) << bad;
  }
  EXPECT_TRUE(ParseTraceparent(FormatTraceparent(TraceContext::NewRoot(), text)));
}

}  // namespace
}  // namespace weft::http
