// A map that an expression spells out.
#pragma once

#include <utility>
#include <vector>

#include "sidecar/cel/value.h"

namespace weft::cel {

class LiteralMap : public Map {
 public:
  void Add(const Value& key, const Value& value) { items_.emplace_back(key, value); }

  // 1 and 1u are two keys; either finds the other where it is alone.
  bool Holds(const Value& key, Arena& arena) const {
    for (const auto& [k, v] : items_)
      if (k.kind == key.kind && Equal(k, key, arena)) return true;
    return false;
  }
  std::optional<Value> Find(const Value& key, Arena& arena) const override {
    for (const auto& [k, v] : items_)
      if (k.kind == key.kind && Equal(k, key, arena)) return v;
    for (const auto& [k, v] : items_)
      if (Equal(k, key, arena)) return v;
    return std::nullopt;
  }
  size_t Size(Arena&) const override { return items_.size(); }
  void Keys(Arena&, List* to) const override {
    for (const auto& [k, v] : items_) to->push_back(k);
  }

 private:
  std::vector<std::pair<Value, Value>> items_;
};

}  // namespace weft::cel
