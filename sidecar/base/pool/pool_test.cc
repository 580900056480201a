#include "sidecar/base/pool/pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace weft::base::pool {
namespace {

TEST(Pool, EverySizeHasRoomAlignmentAndItsOwnBytes) {
  std::vector<std::pair<char*, size_t>> pieces;
  for (int round = 0; round < 3; ++round) {
    for (size_t n = 0; n < 70'000; n = n < 3000 ? n + 7 : n * 2) {
      auto* p = static_cast<char*>(Alloc(n));
      ASSERT_NE(p, nullptr);
      EXPECT_GE(Room(p), n);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % alignof(std::max_align_t), 0u);
      memset(p, static_cast<int>(n & 0xff), n);
      pieces.emplace_back(p, n);
    }
    for (auto [p, n] : pieces) {
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(static_cast<uint8_t>(p[i]), n & 0xff) << n;
      Free(p);
    }
    pieces.clear();
  }
  Free(nullptr);
  EXPECT_EQ(Alloc(SIZE_MAX), nullptr);
}

TEST(Pool, AFreedPieceIsTheNextOneOfItsSize) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "nothing is kept";
#endif
  void* p = Alloc(1200);
  Free(p);
  EXPECT_EQ(Alloc(1500), p);
  Free(p);
}

TEST(Pool, PiecesMayBeFreedOnAnotherThread) {
  std::vector<void*> pieces;
  std::thread([&] {
    for (int i = 0; i < 1000; ++i) pieces.push_back(Alloc(static_cast<size_t>(i) * 20));
  }).join();
  for (void* p : pieces) Free(p);
  std::thread([] { Free(Alloc(100)); }).join();  // its lists end with it
}

}  // namespace
}  // namespace weft::base::pool
