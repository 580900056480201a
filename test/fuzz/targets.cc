#include "test/fuzz/fuzz.h"

namespace weft::fuzz {

const std::vector<Target>& Targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> list;
    for (auto part : {WireTargets, ValueTargets, ExchangeTargets, ConfigTargets, ServerTargets}) {
      for (const Target& t : part()) list.push_back(t);
    }
    return list;
  }();
  return all;
}

}  // namespace weft::fuzz
