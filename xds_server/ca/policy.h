// Who may be given which identity: pure decisions, no keys, no I/O.
//
// A join token is "<id>.<secret>.<sha256 hex of the root's public key (SPKI, DER)>". The last part lets the joiner check
// the server before it speaks; only "<id>.<secret>" comes back here. A token buys an SVID for exactly the service it was
// made for, as often as its uses say, until it expires.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "xds_server/store/store.h"

namespace weft::server {

struct TokenParts {
  std::string id, secret;
};
// Accepts two or three parts; false when the shape is wrong.
bool SplitToken(std::string_view text, TokenParts& out);

enum class TokenVerdict { kOk, kUnknown, kWrongSecret, kExpired, kUsedUp };
std::string_view TokenVerdictText(TokenVerdict v);
// Compares in constant time. `record` is null for an unknown id.
TokenVerdict CheckToken(const TokenRecord* record, std::string_view secret_sha256_hex, int64_t now_unix_s);

// How often one key (an identity, a peer's address) may ask: `burst` at once, `per_minute` in the long run. Holds at most
// 10,000 keys; the fullest buckets are forgotten first, which never refuses anybody wrongly. Not thread-safe.
class RateLimit {
 public:
  RateLimit(double burst, double per_minute) : burst_(burst), per_ms_(per_minute / 60'000) {}
  bool Take(const std::string& key, int64_t now_ms);

 private:
  struct Bucket {
    double level;
    int64_t at_ms;
  };
  double burst_, per_ms_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace weft::server
