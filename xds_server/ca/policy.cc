#include "xds_server/ca/policy.h"

#include <algorithm>

namespace weft::server {

bool SplitToken(std::string_view text, TokenParts& out) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  if (text.size() > 256) return false;
  const size_t a = text.find('.');
  if (a == std::string_view::npos || a == 0) return false;
  const size_t b = text.find('.', a + 1);
  if (b != std::string_view::npos && text.find('.', b + 1) != std::string_view::npos) return false;
  out.id = text.substr(0, a);
  out.secret = text.substr(a + 1, b == std::string_view::npos ? b : b - a - 1);
  return !out.secret.empty();
}

std::string_view TokenVerdictText(TokenVerdict v) {
  switch (v) {
    case TokenVerdict::kOk: return "ok";
    case TokenVerdict::kUnknown:
    case TokenVerdict::kWrongSecret: return "unknown join token";  // the two look alike from outside
    case TokenVerdict::kExpired: return "the join token has expired";
    case TokenVerdict::kUsedUp: return "the join token is used up";
  }
  return "unknown join token";
}

TokenVerdict CheckToken(const TokenRecord* record, std::string_view secret_sha256_hex, int64_t now_unix_s) {
  if (!record) return TokenVerdict::kUnknown;
  const std::string& want = record->secret_sha256_hex;
  unsigned char difference = want.size() != secret_sha256_hex.size();
  for (size_t i = 0; i < want.size() && i < secret_sha256_hex.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (want[i] ^ secret_sha256_hex[i]));
  }
  if (difference || want.empty()) return TokenVerdict::kWrongSecret;
  if (now_unix_s >= record->expires_unix_s) return TokenVerdict::kExpired;
  if (record->uses_left <= 0) return TokenVerdict::kUsedUp;
  return TokenVerdict::kOk;
}

bool RateLimit::Take(const std::string& key, int64_t now_ms) {
  auto level = [&](const Bucket& b) { return std::min(burst_, b.level + per_ms_ * static_cast<double>(std::max<int64_t>(0, now_ms - b.at_ms))); };
  if (buckets_.size() >= 10'000 && !buckets_.count(key)) {
    std::erase_if(buckets_, [&](const auto& e) { return level(e.second) >= burst_; });
    if (buckets_.size() >= 10'000) {
      buckets_.erase(std::max_element(buckets_.begin(), buckets_.end(), [&](const auto& x, const auto& y) { return level(x.second) < level(y.second); }));
    }
  }
  auto [it, fresh] = buckets_.try_emplace(key, Bucket{burst_, now_ms});
  const double now = level(it->second);
  it->second = {now, now_ms};
  if (now < 1) return false;
  it->second.level -= 1;
  return true;
}

}  // namespace weft::server
