#include "sidecar/http/ids.h"

#include <sys/random.h>

#include <cstdlib>
#include <cstring>

namespace weft::http {
namespace {

// xoshiro256** (Blackman and Vigna, public domain algorithm).
struct Generator {
  uint64_t s[4];
  Generator() {
    size_t got = 0;
    while (got < sizeof(s)) {
      const ssize_t n = getrandom(reinterpret_cast<char*>(s) + got, sizeof(s) - got, 0);
      if (n > 0) got += static_cast<size_t>(n);
    }
  }
  static uint64_t Rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t Next() {
    const uint64_t r = Rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= t, s[3] = Rotl(s[3], 45);
    return r;
  }
};

int LowerHex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool ParseHex8(std::string_view s, uint8_t& v) {
  const int hi = LowerHex(s[0]), lo = LowerHex(s[1]);
  v = static_cast<uint8_t>(hi * 16 + lo);
  return hi >= 0 && lo >= 0;
}

constexpr char kHex[] = "0123456789abcdef";

}  // namespace

uint64_t RandomId() {
  thread_local Generator g;
  uint64_t v;
  do v = g.Next(); while (v == 0);
  return v;
}

// All sixteen digits at once: the nibbles are spread to bytes, then 6 is added to find those above 9.
void FormatHex64(uint64_t v, char* out) {
  for (int half = 0; half < 2; ++half) {
    uint64_t x = half == 0 ? v >> 32 : v & 0xffffffff;
    x = (x | x << 16) & 0x0000ffff0000ffffull;
    x = (x | x << 8) & 0x00ff00ff00ff00ffull;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0full;
    const uint64_t letters = ((x + 0x0606060606060606ull) >> 4) & 0x0101010101010101ull;
    x = __builtin_bswap64(x + 0x3030303030303030ull + letters * ('a' - '0' - 10));
    memcpy(out + half * 8, &x, 8);
  }
}

// Eight digits at once: the high bit of a byte of each sum tells on which side of a bound that digit lies.
bool ParseHex64(std::string_view s, uint64_t& v) {
  if (s.size() != 16) return false;
  constexpr uint64_t k01 = 0x0101010101010101ull, k80 = 0x8080808080808080ull;
  v = 0;
  for (int half = 0; half < 2; ++half) {
    uint64_t w;
    memcpy(&w, s.data() + half * 8, 8);
    if (w & k80) return false;
    const uint64_t digit = (w + k01 * (0x80 - '0')) & ~(w + k01 * (0x80 - '9' - 1));
    const uint64_t letter = (w + k01 * (0x80 - 'a')) & ~(w + k01 * (0x80 - 'f' - 1)) & k80;
    if (((digit | letter) & k80) != k80) return false;
    uint64_t x = __builtin_bswap64((w & k01 * 15) + (letter >> 7) * 9);
    x = (x | x >> 4) & 0x00ff00ff00ff00ffull;
    x = (x | x >> 8) & 0x0000ffff0000ffffull;
    v = v << 32 | ((x | x >> 16) & 0xffffffff);
  }
  return true;
}

std::string_view NewUuid4(char (&out)[kUuidLength]) {
  char hex[32];
  FormatHex64((RandomId() & ~0xf000ull) | 0x4000, hex);
  FormatHex64((RandomId() & ~(3ull << 62)) | (2ull << 62), hex + 16);
  memcpy(out, hex, 8), memcpy(out + 9, hex + 8, 4), memcpy(out + 14, hex + 12, 4), memcpy(out + 19, hex + 16, 4);
  memcpy(out + 24, hex + 20, 12);
  out[8] = out[13] = out[18] = out[23] = '-';
  return {out, sizeof(out)};
}

std::optional<TraceContext> ParseTraceparent(std::string_view v) {
  TraceContext c;
  uint8_t version;
  if (v.size() < kTraceparentLength || !ParseHex8(v, version) || version == 0xff) return std::nullopt;
  if (version == 0 ? v.size() != kTraceparentLength : (v.size() > kTraceparentLength && v[kTraceparentLength] != '-')) {
    return std::nullopt;
  }
  if (v[2] != '-' || v[35] != '-' || v[52] != '-') return std::nullopt;
  if (!ParseHex64(v.substr(3, 16), c.trace_hi) || !ParseHex64(v.substr(19, 16), c.trace_lo)) return std::nullopt;
  if (!ParseHex64(v.substr(36, 16), c.span_id) || !ParseHex8(v.substr(53, 2), c.flags)) return std::nullopt;
  if ((c.trace_hi | c.trace_lo) == 0 || c.span_id == 0) return std::nullopt;
  return c;
}

std::string_view FormatTraceparent(const TraceContext& c, char (&out)[kTraceparentLength]) {
  memcpy(out, "00-", 3);
  FormatHex64(c.trace_hi, out + 3), FormatHex64(c.trace_lo, out + 19);
  out[35] = '-';
  FormatHex64(c.span_id, out + 36);
  out[52] = '-', out[53] = kHex[c.flags >> 4], out[54] = kHex[c.flags & 15];
  return {out, sizeof(out)};
}

}  // namespace weft::http
