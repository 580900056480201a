#include "sidecar/codec/websocket.h"

#include <cstring>

#include "sidecar/base/check.h"
#include "sidecar/http/ids.h"

namespace weft::codec {
namespace {

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void Base64(const uint8_t* in, size_t n, char* out) {
  for (size_t i = 0; i < n; i += 3) {
    const size_t left = n - i;
    const uint32_t v = static_cast<uint32_t>(in[i] << 16) | (left > 1 ? static_cast<uint32_t>(in[i + 1] << 8) : 0) | (left > 2 ? in[i + 2] : 0u);
    *out++ = kBase64[v >> 18], *out++ = kBase64[v >> 12 & 63];
    *out++ = left > 1 ? kBase64[v >> 6 & 63] : '=', *out++ = left > 2 ? kBase64[v & 63] : '=';
  }
}

uint32_t Rotl(uint32_t x, int k) { return x << k | x >> (32 - k); }

}  // namespace

// The handshake is SHA-1's only use here: it proves that the peer speaks WebSocket, not who it is.
void Sha1(std::string_view data, uint8_t (&digest)[20]) {
  WEFT_CHECK(data.size() < 256, "too long for a handshake");
  uint8_t m[320] = {};
  memcpy(m, data.data(), data.size());
  m[data.size()] = 0x80;
  const size_t total = (data.size() + 8) / 64 * 64 + 64;
  const uint64_t bits = data.size() * 8;
  for (size_t i = 0; i < 8; ++i) m[total - 1 - i] = static_cast<uint8_t>(bits >> (8 * i));
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  for (size_t at = 0; at < total; at += 64) {
    uint32_t w[80];
    for (size_t i = 0; i < 16; ++i) {
      const uint8_t* p = m + at + i * 4;
      w[i] = static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 | static_cast<uint32_t>(p[2]) << 8 | p[3];
    }
    for (size_t i = 16; i < 80; ++i) w[i] = Rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (size_t i = 0; i < 80; ++i) {
      const uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
      const uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
      const uint32_t t = Rotl(a, 5) + f + e + k + w[i];
      e = d, d = c, c = Rotl(b, 30), b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
  }
  for (size_t i = 0; i < 20; ++i) digest[i] = static_cast<uint8_t>(h[i / 4] >> (24 - i % 4 * 8));
}

std::string_view NewWebSocketKey(char (&out)[kWebSocketKeyLength]) {
  uint64_t bytes[2] = {http::RandomId(), http::RandomId()};
  Base64(reinterpret_cast<const uint8_t*>(bytes), 16, out);
  return {out, sizeof(out)};
}

bool ValidWebSocketKey(std::string_view key) {
  if (key.size() != kWebSocketKeyLength || key.substr(22) != "==") return false;
  for (const char c : key.substr(0, 22)) {
    if (c == 0 || strchr(kBase64, c) == nullptr) return false;
  }
  return true;
}

std::string_view WebSocketAccept(std::string_view key, char (&out)[kWebSocketAcceptLength]) {
  static constexpr char kMagic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  char text[128];
  const size_t n = key.size() < 64 ? key.size() : 64;
  memcpy(text, key.data(), n);
  memcpy(text + n, kMagic, sizeof(kMagic) - 1);
  uint8_t digest[20];
  Sha1({text, n + sizeof(kMagic) - 1}, digest);
  Base64(digest, 20, out);
  return {out, sizeof(out)};
}

}  // namespace weft::codec
