#include "sidecar/tls/verify.h"

#include <openssl/err.h>
#include <openssl/nid.h>
#include <openssl/x509v3.h>

#include "sidecar/base/str.h"
#include "sidecar/tls/keys.h"
#include "sidecar/tls/spiffe.h"

namespace weft::tls {
namespace {

using base::Cat;

constexpr size_t kMaxChain = 6;
constexpr int64_t kSkewS = 60;

Judgement Bad(std::string detail) { return {Failure::kBadSvid, std::move(detail), SSL_AD_BAD_CERTIFICATE, nullptr}; }

// Leaf rules of the SVID standard, sections 3 to 5.
Judgement JudgeSvid(const ContextImpl& context, X509* leaf, const PeerInfo& peer) {
  if (peer.uri_sans.size() != 1) return Bad(Cat("certificate has ", peer.uri_sans.size(), " URI SANs, not one"));
  auto id = ParseSpiffeId(peer.uri_sans[0]);
  if (!id) return Bad(Cat("\"", peer.uri_sans[0].substr(0, 256), "\" is not a valid SPIFFE ID"));
  const std::string& domain = context.config.trust_domain;
  if (!domain.empty() && id->trust_domain != domain) {
    return {Failure::kUnknownCa, Cat("no roots for trust domain \"", id->trust_domain, "\""), SSL_AD_UNKNOWN_CA, nullptr};
  }
  if (X509_get_extension_flags(leaf) & EXFLAG_CA) return Bad("leaf certificate is a CA");
  int at = X509_get_ext_by_NID(leaf, NID_key_usage, -1);
  if (at < 0) return Bad("leaf certificate has no keyUsage");
  if (!X509_EXTENSION_get_critical(X509_get_ext(leaf, at))) return Bad("keyUsage of the leaf is not critical");
  uint32_t usage = X509_get_key_usage(leaf);
  if (!(usage & X509v3_KU_DIGITAL_SIGNATURE)) return Bad("keyUsage of the leaf lacks digitalSignature");
  if (usage & (X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN)) return Bad("leaf certificate may sign certificates");
  return {};
}

// A store with the pinned root as its only anchor; null when the chain does not end in it.
bssl::UniquePtr<X509_STORE> PinnedRoots(const ContextImpl& context, const STACK_OF(X509)* chain) {
  X509* last = sk_X509_value(chain, sk_X509_num(chain) - 1);
  uint8_t* der = nullptr;
  int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(last), &der);
  if (n <= 0) return nullptr;
  std::string hash = Sha256Hex({reinterpret_cast<char*>(der), static_cast<size_t>(n)});
  OPENSSL_free(der);
  if (hash != context.config.pinned_root_spki_sha256) return nullptr;
  bssl::UniquePtr<X509_STORE> store(X509_STORE_new());
  if (!store || !X509_STORE_add_cert(store.get(), last)) return nullptr;
  return store;
}

Judgement JudgePath(const ContextImpl& context, const STACK_OF(X509)* chain, int64_t now, bool* not_yet) {
  *not_yet = false;
  X509* leaf = sk_X509_value(chain, 0);
  X509_STORE* roots = context.roots.get();
  bssl::UniquePtr<X509_STORE> pinned;
  if (!context.config.pinned_root_spki_sha256.empty()) {
    pinned = PinnedRoots(context, chain);
    if (!pinned) return {Failure::kUnknownCa, "the peer's chain does not end in the pinned root", SSL_AD_UNKNOWN_CA, nullptr};
    roots = pinned.get();
  }
  bssl::UniquePtr<X509_STORE_CTX> ctx(X509_STORE_CTX_new());
  // The chain is only read, whatever the old signature says.
  if (!ctx || !X509_STORE_CTX_init(ctx.get(), roots, leaf, const_cast<STACK_OF(X509)*>(chain))) {
    return {Failure::kProtocol, "out of memory", SSL_AD_INTERNAL_ERROR, nullptr};
  }
  X509_STORE_CTX_set_default(ctx.get(), context.server ? "ssl_client" : "ssl_server");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(ctx.get());
  X509_VERIFY_PARAM_set_time_posix(param, now);
  X509_VERIFY_PARAM_set_depth(param, static_cast<int>(kMaxChain) - 1);
  unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;  // every configured certificate is an anchor
  if (!context.config.crl_pem.empty()) flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
  X509_VERIFY_PARAM_set_flags(param, flags);

  if (X509_verify_cert(ctx.get()) != 1) {
    int error = X509_STORE_CTX_get_error(ctx.get());
    std::string detail = Cat("certificate ", X509_STORE_CTX_get_error_depth(ctx.get()), ": ", X509_verify_cert_error_string(error));
    ERR_clear_error();
    switch (error) {
      case X509_V_ERR_CERT_HAS_EXPIRED:
        return {Failure::kExpired, detail, SSL_AD_CERTIFICATE_EXPIRED, nullptr};
      case X509_V_ERR_CERT_NOT_YET_VALID:
        *not_yet = true;
        return {Failure::kNotYetValid, detail, SSL_AD_CERTIFICATE_EXPIRED, nullptr};
      case X509_V_ERR_CERT_REVOKED:
        return {Failure::kRevoked, detail, SSL_AD_CERTIFICATE_REVOKED, nullptr};
      case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
      case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
      case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
      case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      case X509_V_ERR_CERT_UNTRUSTED:
        return {Failure::kUnknownCa, detail, SSL_AD_UNKNOWN_CA, nullptr};
      default:
        return {Failure::kBadSvid, detail, SSL_AD_BAD_CERTIFICATE, nullptr};
    }
  }

  const STACK_OF(X509)* path = X509_STORE_CTX_get0_chain(ctx.get());
  size_t n = sk_X509_num(path);
  for (size_t i = 0; i < n; ++i) {
    X509* x = sk_X509_value(path, i);
    bool anchor = i + 1 == n && n > 1;
    if (!anchor) {  // an anchor's own signature proves nothing and is not checked
      int nid = X509_get_signature_nid(x);
      if (nid == NID_sha1WithRSAEncryption || nid == NID_ecdsa_with_SHA1 || nid == NID_md5WithRSAEncryption) {
        return Bad(Cat("certificate ", i, " is signed with SHA-1 or MD5"));
      }
    }
    EVP_PKEY* key = X509_get0_pubkey(x);
    if (!key) return Bad(Cat("certificate ", i, " has an unsupported key"));
    if (EVP_PKEY_id(key) == EVP_PKEY_RSA && EVP_PKEY_bits(key) < 2048) {
      return Bad(Cat("certificate ", i, " has an RSA key of ", EVP_PKEY_bits(key), " bits"));
    }
    if (i > 0 && !anchor && context.config.spiffe) {
      uint32_t usage = X509_get_key_usage(x);
      if (X509_get_ext_by_NID(x, NID_key_usage, -1) < 0 || !(usage & X509v3_KU_KEY_CERT_SIGN)) {
        return Bad(Cat("intermediate ", i, " lacks keyCertSign"));
      }
    }
  }
  return {};
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = Lower(c);
  return out;
}

// RFC 6125: a wildcard stands for exactly one leftmost label of the certificate's name.
bool DnsEquals(const std::string& wanted, const std::string& in_certificate) {
  std::string a = Lower(wanted), b = Lower(in_certificate);
  if (a == b) return true;
  if (b.size() < 3 || b[0] != '*' || b[1] != '.') return false;
  size_t dot = a.find('.');
  return dot != std::string::npos && dot > 0 && std::string_view(a).substr(dot) == std::string_view(b).substr(1) &&
         a.find('.', dot + 1) != std::string::npos;
}

bool MatchesOne(const SanMatch& m, const RE2* regex, const std::string& name, bool dns) {
  switch (m.kind) {
    case SanMatch::kExact: return dns ? DnsEquals(m.value, name) : m.value == name;
    case SanMatch::kPrefix: return std::string_view(name).starts_with(m.value);
    case SanMatch::kSuffix: return std::string_view(name).ends_with(m.value);
    case SanMatch::kContains: return name.find(m.value) != std::string::npos;
    case SanMatch::kRegex: return regex && RE2::FullMatch(name, *regex);
  }
  return false;
}

}  // namespace

bool MatchesSan(const SanMatch& m, const RE2* regex, const PeerInfo& peer) {
  if (m.san != SanMatch::kDns) {
    for (auto& uri : peer.uri_sans) {
      if (MatchesOne(m, regex, uri, false)) return true;
    }
  }
  if (m.san != SanMatch::kUri) {
    for (auto& dns : peer.dns_sans) {
      if (MatchesOne(m, regex, dns, true)) return true;
    }
  }
  return false;
}

std::shared_ptr<const PeerInfo> DescribePeer(const CRYPTO_BUFFER* leaf) {
  auto info = ParseCertDer({reinterpret_cast<const char*>(CRYPTO_BUFFER_data(leaf)), CRYPTO_BUFFER_len(leaf)});
  if (!info) return nullptr;
  auto peer = std::make_shared<PeerInfo>();
  peer->spiffe_id = std::move(info->spiffe_id);
  // A URI that is no SPIFFE ID is no identity, whatever a policy may be told about it.
  if (!ParseSpiffeId(peer->spiffe_id)) peer->spiffe_id.clear();
  peer->uri_sans = std::move(info->uri_sans);
  peer->dns_sans = std::move(info->dns_sans);
  peer->subject = std::move(info->subject);
  peer->issuer = std::move(info->issuer);
  peer->serial_hex = std::move(info->serial_hex);
  peer->sha256_hex = std::move(info->sha256_hex);
  peer->not_after_unix_s = info->not_after_unix_s;
  return peer;
}

Judgement JudgePeer(const ContextImpl& context, const STACK_OF(CRYPTO_BUFFER)* raw) {
  size_t n = raw ? sk_CRYPTO_BUFFER_num(raw) : 0;
  if (n == 0) return {Failure::kNoCertificate, "peer sent no certificate", SSL_AD_CERTIFICATE_REQUIRED, nullptr};
  if (n > kMaxChain) return Bad(Cat("chain of ", n, " certificates, at most ", kMaxChain));
  auto peer = DescribePeer(sk_CRYPTO_BUFFER_value(raw, 0));
  bssl::UniquePtr<STACK_OF(X509)> parsed(sk_X509_new_null());
  for (size_t i = 0; i < n; ++i) {
    bssl::UniquePtr<X509> x(X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(raw, i)));
    if (!peer || !x || !bssl::PushToStack(parsed.get(), std::move(x))) {
      ERR_clear_error();
      return Bad(Cat("certificate ", i, " cannot be parsed"));
    }
  }
  const STACK_OF(X509)* chain = parsed.get();
  X509* leaf = sk_X509_value(chain, 0);
  if (context.config.spiffe) {
    Judgement j = JudgeSvid(context, leaf, *peer);
    if (j.failure != Failure::kNone) return j;
  }
  bool not_yet;
  int64_t now = context.NowUnixS();
  Judgement j = JudgePath(context, chain, now, &not_yet);
  if (not_yet) {
    bool again;
    Judgement skewed = JudgePath(context, chain, now + kSkewS, &again);
    if (skewed.failure == Failure::kNone) j = skewed;
  }
  if (j.failure != Failure::kNone) {
    if (!peer->spiffe_id.empty()) j.detail += Cat(" (", peer->spiffe_id, ")");
    return j;
  }
  const auto& sans = context.config.peer_sans;
  Judgement passed;
  passed.peer = peer;
  if (sans.empty()) return passed;
  for (size_t i = 0; i < sans.size(); ++i) {
    if (MatchesSan(sans[i], context.san_regex[i].get(), *peer)) return passed;
  }
  std::string names;
  for (auto* list : {&peer->uri_sans, &peer->dns_sans}) {
    for (auto& name : *list) names += (names.empty() ? "" : ", ") + name.substr(0, 256);
  }
  return {Failure::kSanMismatch,
          Cat("peer is ", names.empty() ? "nameless" : names, ", expected ", sans[0].value,
              sans.size() > 1 ? " or others" : ""),
          SSL_AD_BAD_CERTIFICATE, nullptr};
}

}  // namespace weft::tls
