// Protobuf's wire format by hand: fields appended to a string, for messages that are put together from encoded parts.
//
//   wire::PutBytes(1, "text", &out);   // nothing when empty, as proto3 does
//
// Threads: any.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace weft::telemetry::wire {

inline void Varint(uint64_t v, std::string* out) {
  char buf[10];
  size_t n = 0;
  while (v >= 0x80) buf[n++] = static_cast<char>(v | 0x80), v >>= 7;
  buf[n++] = static_cast<char>(v);
  out->append(buf, n);
}

inline void Tag(int field, int wire, std::string* out) { Varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire), out); }

// As proto3 does, defaults are left out.
inline void Put(int field, uint64_t v, std::string* out) {
  if (v == 0) return;
  Tag(field, 0, out);
  Varint(v, out);
}

inline void PutBytes(int field, std::string_view s, std::string* out) {
  if (s.empty()) return;
  Tag(field, 2, out);
  Varint(s.size(), out);
  out->append(s);
}

inline bool IsAscii(std::string_view s) {
  size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t w;
    memcpy(&w, s.data() + i, 8);
    if (w & 0x8080808080808080) return false;
  }
  for (; i < s.size(); ++i) {
    if (s[i] & 0x80) return false;
  }
  return true;
}

// Each byte that is not UTF-8 becomes `with`.
inline std::string Repair(std::string_view s, char with) {
  std::string out(s);
  for (size_t i = 0; i < out.size();) {
    unsigned char c = static_cast<unsigned char>(out[i]);
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    bool good = len > 0 && i + len <= out.size();
    for (size_t k = 1; good && k < len; ++k) good = (static_cast<unsigned char>(out[i + k]) & 0xc0) == 0x80;
    if (good && ((c == 0xe0 && static_cast<unsigned char>(out[i + 1]) < 0xa0) || (c == 0xed && static_cast<unsigned char>(out[i + 1]) > 0x9f) ||
                 (c == 0xf0 && static_cast<unsigned char>(out[i + 1]) < 0x90) || (c == 0xf4 && static_cast<unsigned char>(out[i + 1]) > 0x8f)))
      good = false;
    if (good) i += len;
    else out[i++] = with;
  }
  return out;
}

}  // namespace weft::telemetry::wire
