// The library's names as a table, so that configuration can be judged by programs that do not link it. parameters_test.cc
// holds the table against the library.
#include <algorithm>
#include <string_view>

#include "sidecar/base/str.h"
#include "sidecar/tls/engine.h"

namespace weft::tls {
namespace {

using base::Cat;

constexpr std::string_view kCipherSuites[] = {
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-PSK-CHACHA20-POLY1305",   "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",          "ECDHE-PSK-AES128-CBC-SHA",    "ECDHE-ECDSA-AES256-SHA",        "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",      "AES128-GCM-SHA256",           "AES256-GCM-SHA384",             "AES128-SHA",
    "PSK-AES128-CBC-SHA",            "AES256-SHA",                  "PSK-AES256-CBC-SHA"};
constexpr std::string_view kGroups[] = {"P-256",          "P-384",     "P-521",      "X25519",   "X25519MLKEM768",
                                        "MLKEM1024", "prime256v1", "secp384r1", "secp521r1"};
constexpr std::string_view kSignatureAlgorithms[] = {
    "rsa_pkcs1_sha256",       "rsa_pkcs1_sha384",       "rsa_pkcs1_sha512",       "rsa_pkcs1_sha1",      "ecdsa_sha1",          "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384", "ecdsa_secp521r1_sha512", "rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384", "rsa_pss_rsae_sha512", "ed25519"};

template <size_t N>
bool Has(const std::string_view (&known)[N], std::string_view name) {
  return std::find(std::begin(known), std::end(known), name) != std::end(known);
}

// One suite, equals in brackets, or a rule over many ("!PSK", "ECDHE+AESGCM"), which the library judges.
bool KnownSuites(std::string_view entry) {
  if (entry.empty() || entry.find(':') != std::string_view::npos) return false;
  if (entry[0] == '!' || entry[0] == '-' || entry[0] == '@' || entry.find('+') != std::string_view::npos) return true;
  if (entry[0] != '[') return Has(kCipherSuites, entry);
  if (entry.back() != ']') return false;
  entry = entry.substr(1, entry.size() - 2);
  for (;;) {
    const size_t bar = entry.find('|');
    if (!Has(kCipherSuites, entry.substr(0, bar))) return false;
    if (bar == std::string_view::npos) return true;
    entry.remove_prefix(bar + 1);
  }
}

}  // namespace

base::Status Check(const Parameters& p) {
  auto each = [](const char* field, const std::vector<std::string>& names, auto known) -> base::Status {
    for (size_t i = 0; i < names.size(); ++i) {
      if (!known(names[i])) return base::Error(Cat("\"", names[i], "\" is not known")).In(Cat(field, "[", i, "]"));
    }
    return base::Ok{};
  };
  if (auto s = each("cipher_suites", p.cipher_suites, KnownSuites); !s) return s;
  if (auto s = each("ecdh_curves", p.groups, [](std::string_view n) { return Has(kGroups, n); }); !s) return s;
  return each("signature_algorithms", p.signature_algorithms, [](std::string_view n) { return Has(kSignatureAlgorithms, n); });
}

}  // namespace weft::tls
