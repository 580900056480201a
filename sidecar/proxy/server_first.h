// Where servers speak first (MySQL, SMTP): learned from connections, so that the next ones to the same place are not kept waiting for
// what their client says. A fixed table, a few bytes a destination; a collision forgets, which costs one more wait. Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "sidecar/model/address.h"

namespace weft::proxy {

class ServerFirst {
 public:
  // The server spoke before its client did, and nobody used TLS there: its clients are silent.
  bool Known(const model::Address& destination) const { return Bits(destination) == kSpoke; }
  void Spoke(const model::Address& destination) { Note(destination, kSpoke); }
  // Mutual TLS and plaintext share the port. A TLS client that is slow must not be taken for a silent one: the whole wait again.
  void UsesTls(const model::Address& destination) { Note(destination, kTls); }

 private:
  static constexpr uint64_t kSpoke = 1, kTls = 2, kBits = 3;
  static constexpr size_t kSlots = 1024;
  static uint64_t Hash(const model::Address& destination);
  uint64_t Bits(const model::Address& destination) const;
  void Note(const model::Address& destination, uint64_t bit);
  std::array<std::atomic<uint64_t>, kSlots> slots_{};  // the hash, whose lowest bits say what is known
};

}  // namespace weft::proxy
