#include "xds_server/telemetry/record.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace weft::insight {

std::string_view OutcomeName(Outcome o) {
  static constexpr std::string_view kNames[kOutcomes] = {"ok",    "client_error", "server_error", "grpc_error",
                                                         "reset", "cancelled",    "denied",       "refused"};
  return kNames[static_cast<int>(o)];
}

std::string NodeName(std::string_view service, std::string_view ns) {
  std::string out(service);
  if (!ns.empty() && ns != "default") out.append(1, '.').append(ns);
  return out;
}

std::string NodeOfSpiffe(std::string_view id) {
  if (!id.starts_with("spiffe://")) return "";
  size_t path = id.find('/', 9);
  if (path == std::string_view::npos) return "";
  std::string_view rest = id.substr(path);
  if (!rest.starts_with("/ns/")) return "";
  rest.remove_prefix(4);
  size_t sep = rest.find("/sa/");
  if (sep == std::string_view::npos || sep == 0) return "";
  std::string_view ns = rest.substr(0, sep), sa = rest.substr(sep + 4);
  if (sa.empty() || sa.find('/') != std::string_view::npos || ns.find('/') != std::string_view::npos) return "";
  return NodeName(sa, ns);
}

namespace {

// Parts of "outbound|80|v2|cart.default".
bool SplitCluster(std::string_view c, std::string_view* version, std::string_view* host) {
  if (!c.starts_with("outbound|")) return false;
  c.remove_prefix(9);
  size_t a = c.find('|');
  if (a == std::string_view::npos) return false;
  size_t b = c.find('|', a + 1);
  if (b == std::string_view::npos) return false;
  *version = c.substr(a + 1, b - a - 1), *host = c.substr(b + 1);
  return !host->empty();
}

bool AnyFlag(std::string_view flags, std::initializer_list<std::string_view> names) {
  for (auto n : names) {
    if (HasFlag(flags, n)) return true;
  }
  return false;
}

Outcome Classify(const Event& e) {
  if (!e.tls_failure.empty()) return Outcome::kRefused;
  // No chain takes the connection: plaintext to a port under STRICT, or a port that is not served.
  if (e.direction == Direction::kInbound && e.response_detail == "filter_chain_not_found") return Outcome::kRefused;
  bool tcp = e.protocol == "tcp";
  bool rbac = e.response_detail.find("rbac_access_denied") != std::string::npos;
  bool authz = e.policy.starts_with("Authorization/") && (e.status == 403 || (tcp && e.attempts.empty()));
  if (rbac || authz || HasFlag(e.response_flags, "UAEX")) return Outcome::kDenied;
  if (AnyFlag(e.response_flags, {"DC", "DR"})) return Outcome::kCancelled;
  if (e.status >= 500) return Outcome::kServerError;
  if (AnyFlag(e.response_flags, {"UC", "UR", "LR", "UPE"}) && e.grpc_status <= 0) return Outcome::kReset;
  if (tcp) {
    return AnyFlag(e.response_flags, {"UF", "UH", "UO", "NR", "NC", "DF"}) ? Outcome::kReset : Outcome::kOk;
  }
  if (e.grpc_status > 0) return e.grpc_status == 1 ? Outcome::kCancelled : Outcome::kGrpcError;
  if (e.status == 0) return Outcome::kReset;
  return e.status >= 400 ? Outcome::kClientError : Outcome::kOk;
}

}  // namespace

std::string NodeOfCluster(std::string_view cluster) {
  std::string_view version, host;
  if (!SplitCluster(cluster, &version, &host)) return "";
  size_t dot = host.find('.');
  return dot == std::string_view::npos ? std::string(host) : NodeName(host.substr(0, dot), host.substr(dot + 1));
}

std::string VersionOfCluster(std::string_view cluster) {
  std::string_view version, host;
  return SplitCluster(cluster, &version, &host) ? std::string(version) : "";
}

bool HasFlag(std::string_view flags, std::string_view flag) {
  while (!flags.empty()) {
    size_t comma = flags.find(',');
    if (flags.substr(0, comma) == flag) return true;
    if (comma == std::string_view::npos) return false;
    flags.remove_prefix(comma + 1);
  }
  return false;
}

void Derive(Event& e) {
  std::string own = NodeName(e.service, e.ns);
  if (e.direction == Direction::kInbound) {
    e.destination = own;
    e.source = NodeOfSpiffe(e.source_identity);
    // A name without a proven identity is only a claim.
    if (e.source.empty()) e.source = e.source_identity.empty() ? "(no identity)" : e.source_identity;
    e.destination_version = e.version;
  } else {
    e.source = own;
    e.destination = NodeOfCluster(e.cluster);
    if (e.destination.empty()) e.destination = NodeOfSpiffe(e.destination_identity);
    if (e.destination.empty() && !e.destination_service.empty()) {
      std::string_view d = e.destination_service;
      e.destination = d.ends_with(".default") ? std::string(d.substr(0, d.size() - 8)) : std::string(d);
    }
    if (e.destination.empty()) e.destination = !e.authority.empty() ? e.authority : e.original_destination;
    if (e.destination.empty()) e.destination = "(external)";
    for (auto it = e.attempts.rbegin(); it != e.attempts.rend() && e.destination_version.empty(); ++it) {
      e.destination_version = it->version;
    }
    if (e.destination_version.empty()) e.destination_version = VersionOfCluster(e.cluster);
  }
  e.outcome = Classify(e);
  e.bucket = BucketOf(e.duration_us);
  e.end_ns = e.start_ns + e.duration_us * 1000;
}

uint16_t BucketOf(int64_t us) {
  if (us < 16) return us < 0 ? 0 : static_cast<uint16_t>(us);
  int exponent = 63 - std::countl_zero(static_cast<uint64_t>(us));  // >= 4
  int step = static_cast<int>((us >> (exponent - 4)) & 15);
  int b = 16 + (exponent - 4) * 16 + step;
  return static_cast<uint16_t>(b < kBuckets ? b : kBuckets - 1);
}

double BucketMiddleUs(uint16_t bucket) {
  if (bucket < 16) return bucket;
  int exponent = (bucket - 16) / 16 + 4, step = (bucket - 16) % 16;
  return std::ldexp(16.0 + step + 0.5, exponent - 4);
}

namespace {

// ASCII without NUL: what nearly every text is, and what needs no look at each character.
bool IsPlain(std::string_view s) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t w;
    memcpy(&w, s.data() + i, 8);
    if ((w | (w - kOnes)) & kHigh) return false;  // a high bit, or a byte that was zero
  }
  for (; i < s.size(); ++i) {
    if (s[i] <= 0) return false;
  }
  return true;
}

}  // namespace

std::string CleanText(std::string_view s, size_t max) {
  if (s.size() <= max && IsPlain(s)) return std::string(s);
  std::string out;
  out.reserve(s.size() < max ? s.size() : max);
  size_t i = 0;
  while (i < s.size()) {
    unsigned char c = static_cast<unsigned char>(s[i]);
    size_t n = c < 0x80 ? 1 : (c >= 0xC2 && c < 0xE0) ? 2 : (c >= 0xE0 && c < 0xF0) ? 3 : (c >= 0xF0 && c < 0xF5) ? 4 : 0;
    bool good = n != 0 && i + n <= s.size();
    for (size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(s[i + k]) & 0xC0) == 0x80;
    if (good && n == 3) {
      unsigned char d = static_cast<unsigned char>(s[i + 1]);
      good = !(c == 0xE0 && d < 0xA0) && !(c == 0xED && d >= 0xA0);
    } else if (good && n == 4) {
      unsigned char d = static_cast<unsigned char>(s[i + 1]);
      good = !(c == 0xF0 && d < 0x90) && !(c == 0xF4 && d >= 0x90);
    }
    if (good && c == 0) good = false;  // NUL ends strings further down
    std::string_view piece = good ? s.substr(i, n) : std::string_view("\xEF\xBF\xBD");
    if (out.size() + piece.size() > max) {
      while (!out.empty() && out.size() + 3 > max) {
        // Whole characters only.
        while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
        if (!out.empty()) out.pop_back();
      }
      if (max >= 3) out += "\xE2\x80\xA6";
      return out;
    }
    out += piece;
    i += good ? n : 1;
  }
  return out;
}

}  // namespace weft::insight
