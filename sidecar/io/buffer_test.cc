#include "sidecar/io/buffer.h"

#include <gtest/gtest.h>

#include <string>

#include "sidecar/base/random.h"

namespace weft::io {
namespace {

TEST(Buffer, EmptyHoldsNoBlock) {
  size_t before = Block::live();
  Buffer b;
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(b.Front(), "");
  b.Append("hello");
  EXPECT_EQ(Block::live(), before + 1);
  b.Consume(5);
  EXPECT_EQ(Block::live(), before);
  b.Reserve(1);
  EXPECT_EQ(Block::live(), before + 1);
  b.ReleaseReserve();
  EXPECT_EQ(Block::live(), before);
}

TEST(Buffer, MoveSharesBlocksInsteadOfCopying) {
  Buffer a, b;
  a.Append(std::string(10000, 'x'));
  const char* at = a.Front().data();
  b.Move(a, 4000);
  EXPECT_EQ(b.Front().data(), at);
  EXPECT_EQ(a.Front().data(), at + 4000);
  EXPECT_EQ(a.size(), 6000u);
  Buffer c;
  c.Move(a);
  EXPECT_EQ(c.Front().data(), at + 4000);
  EXPECT_TRUE(a.empty());
}

TEST(Buffer, SharedTailIsNotOverwritten) {
  Buffer a, b;
  a.Append(std::string(1000, 'a'));
  a.ShareTo(b, 1000);
  a.Append("A");
  b.Append("B");  // a extended the block first, so b must go elsewhere
  EXPECT_EQ(a.ToString(), std::string(1000, 'a') + "A");
  EXPECT_EQ(b.ToString(), std::string(1000, 'a') + "B");
}

TEST(Buffer, ReserveInSharedTailTakesANewBlock) {
  Buffer a, b;
  a.Append(std::string(1000, 'a'));
  a.ShareTo(b, 1000);
  auto span = a.Reserve(1);
  b.Append("BBBB");
  span[0] = 'x';
  a.Commit(1);
  EXPECT_EQ(b.ToString(), std::string(1000, 'a') + "BBBB");
  EXPECT_EQ(a.ToString(), std::string(1000, 'a') + "x");
}

TEST(Buffer, LinearizeJoinsPieces) {
  Buffer a;
  a.Append(std::string(Block::kSize - 3, 'a') + "bcdefgh");
  a.Consume(Block::kSize - 5);
  EXPECT_EQ(a.Linearize(6), "aabcde");
  EXPECT_EQ(a.ToString(), "aabcdefgh");
}

TEST(Buffer, MovesOutOfLentAndOwnRings) {
  for (int pieces : {2, 64, 65, 300}) {
    Buffer a;
    std::string want;
    for (int i = 0; i < pieces; ++i) {
      Block* b = Block::New();
      b->data[0] = static_cast<char>('a' + i % 26), b->used = Block::kSize;
      a.Append(Slice(b, 0, 1024));
      want += std::string_view(b->data, 1024);
    }
    Buffer moved(std::move(a));
    EXPECT_TRUE(a.empty());
    EXPECT_EQ(moved.ToString(), want);
    a = std::move(moved);
    EXPECT_EQ(a.ToString(), want);
    struct iovec iov[300];
    EXPECT_EQ(a.Pieces(iov, 300), pieces);
    Buffer b;
    b.Move(a);
    EXPECT_TRUE(a.empty());
    EXPECT_EQ(b.ToString(), want);
    a.Append("next");
    b.Consume(b.size() - 1);
    b.Move(a);
    EXPECT_EQ(b.ToString(), want.substr(want.size() - 1) + "next");
  }
}

// Random operations on a few buffers against plain strings.
TEST(Buffer, RandomOperationsMatchStrings) {
  size_t before = Block::live();
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    base::Random random(seed);
    Buffer b[3];
    std::string s[3];
    char next = 0;
    auto fresh = [&](size_t n) {
      std::string t(n, 0);
      for (auto& c : t) c = next++;
      return t;
    };
    auto some = [&](size_t max) { return random.Below(4) ? random.Below(700 < max ? 700 : max + 1) : random.Below(max + 1); };
    for (int op = 0; op < 2000; ++op) {
      size_t i = random.Below(3), j = (i + 1 + random.Below(2)) % 3;
      switch (random.Below(9)) {
        case 0: {
          auto t = fresh(some(40000));
          b[i].Append(t), s[i] += t;
          break;
        }
        case 1: {
          size_t n = some(s[j].size());
          b[i].Move(b[j], n), s[i] += s[j].substr(0, n), s[j].erase(0, n);
          break;
        }
        case 2: {
          size_t n = some(s[i].size());
          b[i].Consume(n), s[i].erase(0, n);
          break;
        }
        case 3: {
          size_t n = some(s[i].size() < 60000 ? s[i].size() : 60000);
          b[i].ShareTo(b[j], n), s[j] += s[i].substr(0, n);
          break;
        }
        case 4: {
          auto span = b[i].Reserve(1 + random.Below(3000));
          if (random.Below(3)) {
            auto t = fresh(some(span.size()));
            t.copy(span.data(), t.size());
            b[i].Commit(t.size()), s[i] += t;
          } else if (random.Below(2)) {
            b[i].ReleaseReserve();
          }
          break;
        }
        case 5: {
          size_t n = some(s[i].size() < Block::kSize ? s[i].size() : Block::kSize);
          ASSERT_EQ(b[i].Linearize(n), s[i].substr(0, n));
          break;
        }
        case 6:
          if (s[j].size() < 200000) b[i].Move(b[j]), s[i] += s[j], s[j].clear();
          break;
        case 7: {
          char out[100];
          size_t at = random.Below(s[i].size() + 10);
          size_t n = b[i].CopyOut(at, out, sizeof out);
          ASSERT_EQ(std::string_view(out, n), at < s[i].size() ? std::string_view(s[i]).substr(at, 100) : "");
          break;
        }
        case 8:
          if (s[i].size() > 300000 || random.Below(20) == 0) b[i].Clear(), s[i].clear();
          break;
      }
      ASSERT_EQ(b[i].size(), s[i].size());
      if (op % 50 == 0) {
        ASSERT_EQ(b[i].ToString(), s[i]);
      }
    }
    for (int i = 0; i < 3; ++i) ASSERT_EQ(b[i].ToString(), s[i]);
  }
  EXPECT_EQ(Block::live(), before);
}

}  // namespace
}  // namespace weft::io
