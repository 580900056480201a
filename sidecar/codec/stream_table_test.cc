#include "sidecar/codec/stream_table.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace weft::codec {
namespace {

struct Item {
  int32_t id;
  Item* next_in_slot = nullptr;
};

TEST(StreamTable, AnswersAsAMapDoes) {
  std::mt19937 random(7);
  StreamTable<Item> table;
  std::map<int32_t, std::unique_ptr<Item>> map;
  int32_t next = 1;
  for (int i = 0; i < 20'000; ++i) {
    // Mostly new ids in a row, and some far away, which share slots with others.
    const int32_t id = random() % 8 ? next += 2 : static_cast<int32_t>(random() % 4096 * 2 + 1) << 12 | 1;
    if (random() % 1000 < 480 && !map.contains(id)) {
      auto& item = map[id] = std::make_unique<Item>(id);
      table.Insert(item.get());
    } else if (!map.empty()) {
      auto it = map.lower_bound(static_cast<int32_t>(random() % static_cast<uint32_t>(next)));
      if (it == map.end()) it = map.begin();
      table.Erase(it->first);
      EXPECT_EQ(table.Find(it->first), nullptr);
      map.erase(it);
    }
    ASSERT_EQ(table.size(), map.size());
    EXPECT_EQ(table.empty(), map.empty());
    const int32_t probe = static_cast<int32_t>(random() % static_cast<uint32_t>(next + 2));
    auto it = map.find(probe);
    ASSERT_EQ(table.Find(probe), it == map.end() ? nullptr : it->second.get());
  }
  table.Erase(2);  // not there
  size_t seen = 0;
  table.ForEach([&](Item* item) { seen += map.contains(item->id); });
  EXPECT_EQ(seen, map.size());
}

}  // namespace
}  // namespace weft::codec
