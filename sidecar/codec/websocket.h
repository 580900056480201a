// The handshake values of RFC 6455.
#pragma once

#include <cstdint>
#include <string_view>

namespace weft::codec {

constexpr int kWebSocketKeyLength = 24, kWebSocketAcceptLength = 28;

// Base64 of 16 random bytes.
std::string_view NewWebSocketKey(char (&out)[kWebSocketKeyLength]);
// 24 base64 characters that stand for 16 bytes.
bool ValidWebSocketKey(std::string_view key);
// The Sec-WebSocket-Accept that answers key.
std::string_view WebSocketAccept(std::string_view key, char (&out)[kWebSocketAcceptLength]);

void Sha1(std::string_view data, uint8_t (&digest)[20]);  // data shorter than 256 bytes

}  // namespace weft::codec
