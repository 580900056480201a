#include "sidecar/proxy/server_first.h"

#include <functional>
#include <string_view>

namespace weft::proxy {

uint64_t ServerFirst::Hash(const model::Address& destination) {
  uint64_t h = std::hash<std::string_view>{}({reinterpret_cast<const char*>(destination.ip.bytes.data()), destination.ip.bytes.size()});
  h = (h ^ destination.port) * 0x9e3779b97f4a7c15ull;
  return (h ^ h >> 29) & ~kBits;
}

uint64_t ServerFirst::Bits(const model::Address& destination) const {
  const uint64_t hash = Hash(destination), kept = slots_[hash / 4 % kSlots].load(std::memory_order_relaxed);
  return (kept & ~kBits) == hash ? kept & kBits : 0;
}

void ServerFirst::Note(const model::Address& destination, uint64_t bit) {
  const uint64_t hash = Hash(destination), now = Bits(destination) | bit;
  auto& slot = slots_[hash / 4 % kSlots];
  if (slot.load(std::memory_order_relaxed) != (hash | now)) slot.store(hash | now, std::memory_order_relaxed);
}

}  // namespace weft::proxy
