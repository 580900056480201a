#include "sidecar/http/headers.h"

#include <gtest/gtest.h>

namespace weft::http {
namespace {

TEST(Tokens, EveryNameFindsItself) {
  for (int i = 1; i < static_cast<int>(Token::kCount); ++i) {
    const auto t = static_cast<Token>(i);
    EXPECT_EQ(FindToken(TokenName(t)), t) << TokenName(t);
  }
  EXPECT_EQ(FindToken(""), Token::kCustom);
  EXPECT_EQ(FindToken("Host"), Token::kCustom);
  EXPECT_EQ(FindToken("hosts"), Token::kCustom);
  EXPECT_EQ(FindToken(std::string(5000, 'x')), Token::kCustom);
  EXPECT_EQ(TokenPolicyBits(Token::kCookie), kNeverIndex | kNoTrailer);
  EXPECT_EQ(TokenName(Token::kCustom), "");
}

TEST(HeaderMap, AddGetSetRemoveKeepOrder) {
  HeaderMap h;
  h.Add(Token::kPath, "/a");
  h.Add("x-color", "red");
  h.Add("cookie", "a=1");
  h.Add("x-color", "blue");
  EXPECT_EQ(h.size(), 4u);
  EXPECT_EQ(h.ToString(), ":path: /a\nx-color: red\ncookie: a=1\nx-color: blue\n");
  EXPECT_EQ(h.Get("x-color"), "red");
  EXPECT_EQ(h.Get(Token::kCookie), "a=1");
  EXPECT_FALSE(h.Get("x-none"));
  EXPECT_FALSE(h.Has(Token::kHost));
  std::string scratch;
  EXPECT_EQ(h.Joined("x-color", scratch), "red,blue");
  h.Add(Token::kCookie, "b=2");
  EXPECT_EQ(h.Joined("cookie", scratch), "a=1; b=2");
  h.Set("x-color", "a-longer-value");
  EXPECT_EQ(h.ToString(), ":path: /a\nx-color: a-longer-value\ncookie: a=1\ncookie: b=2\n");
  h.Set(Token::kCookie, "");
  EXPECT_EQ(h.ToString(), ":path: /a\nx-color: a-longer-value\ncookie: \n");
  h.Remove("x-color");
  h.Remove(Token::kCookie);
  EXPECT_EQ(h.size(), 1u);
  EXPECT_EQ(h.bytes(), 7u);
  h.Set(Token::kMethod, "GET");
  HeaderMap copy;
  h.CopyTo(copy);
  EXPECT_EQ(copy.ToString(), ":path: /a\n:method: GET\n");
  h.Clear();
  EXPECT_TRUE(h.empty());
  EXPECT_FALSE(h.Has(Token::kPath));
}

TEST(HeaderMap, ValuesMayComeFromTheMapItself) {
  HeaderMap h;
  h.Add("x-a", std::string(40, 'v'));
  for (int i = 0; i < 200; ++i) h.Add("x-b", h.Value(Token::kCustom));
  h.Set("x-b", std::string(10, 'w'));
  for (int i = 0; i < 50; ++i) h.Add(Token::kHost, *h.Get("x-a")), h.Set("x-b", *h.Get("x-a"));
  EXPECT_EQ(h.Get("x-b"), std::string(40, 'v'));
  EXPECT_EQ(h.Get("host"), std::string(40, 'v'));
}

TEST(HeaderMap, GrowsWithoutLosingAnything) {
  HeaderMap h;
  std::string expected;
  for (int i = 0; i < 300; ++i) {
    const std::string name = "x-" + std::to_string(i), value(static_cast<size_t>(i * 7 % 600), static_cast<char>('a' + i % 26));
    if (i % 3 == 0) {
      h.Add(Token::kCookie, value), expected += "cookie: " + value + "\n";
    } else {
      h.Add(name, value), expected += name + ": " + value + "\n";
    }
    ASSERT_EQ(h.ToString(), expected) << i;
  }
  HeaderMap copy = h, moved = std::move(h);
  EXPECT_EQ(copy.ToString(), expected);
  EXPECT_EQ(moved.ToString(), expected);
  EXPECT_EQ(copy.bytes(), moved.bytes());
  copy.ExtendLast(std::string(100'000, 'z'));
  EXPECT_EQ(copy.ToString().size(), expected.size() + 100'001);
  const size_t memory = copy.memory();
  moved.CopyTo(copy);
  EXPECT_EQ(copy.ToString(), expected);
  EXPECT_EQ(copy.memory(), memory);
  copy.Clear();
  for (int i = 0; i < 300; ++i) copy.Add("x-again", "v");
  EXPECT_EQ(copy.memory(), memory);
  copy = HeaderMap();
  EXPECT_EQ(copy.memory(), 0u);
  copy.CopyTo(moved);
  EXPECT_TRUE(moved.empty());
  EXPECT_EQ(moved.ToString(), "");
}

}  // namespace
}  // namespace weft::http
