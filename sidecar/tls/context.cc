#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#include "sidecar/base/check.h"
#include "sidecar/base/str.h"
#include "sidecar/tls/context_impl.h"
#include "sidecar/tls/keys.h"

namespace weft::tls {
namespace {

using base::Cat;
using base::Error;

Error LibraryError(std::string_view what) {
  uint32_t code = ERR_peek_error();
  const char* reason = ERR_reason_error_string(code);
  ERR_clear_error();
  return Error(Cat(what, reason ? ": " : "", reason ? reason : ""));
}

bssl::UniquePtr<BIO> Memory(const std::string& s) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(s.data(), static_cast<ossl_ssize_t>(s.size())));
}

// Calls use for each certificate of a PEM text. Returns how many, or an error.
template <typename F>
base::Result<int> EachCertificate(const std::string& pem, F use) {
  auto bio = Memory(pem);
  int n = 0;
  for (;;) {
    bssl::UniquePtr<X509> x(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!x) {
      uint32_t code = ERR_peek_last_error();
      if (ERR_GET_LIB(code) != ERR_LIB_PEM || ERR_GET_REASON(code) != PEM_R_NO_START_LINE) {
        return LibraryError(Cat("certificate ", n + 1, " cannot be read"));
      }
      ERR_clear_error();
      if (n == 0) return Error("no certificate found");
      return n;
    }
    if (!use(x.get())) return LibraryError(Cat("certificate ", n + 1, " is refused"));
    ++n;
  }
}

base::Status LoadCertificate(ContextImpl& c) {
  auto ders = PemToDer(c.config.certificate_chain_pem, "CERTIFICATE");
  if (!ders) return ders.error().message().starts_with("no ") ? Error("no certificate found").In("certificate_chain")
                                                             : std::move(ders.error()).In("certificate_chain");
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> owned;
  std::vector<CRYPTO_BUFFER*> chain;
  for (const std::string& der : *ders) {
    auto info = ParseCertDer(der);
    if (!info) return std::move(info.error()).In(Cat("certificate_chain[", chain.size(), "]"));
    owned.emplace_back(CRYPTO_BUFFER_new(reinterpret_cast<const uint8_t*>(der.data()), der.size(), nullptr));
    chain.push_back(owned.back().get());
  }
  auto bio = Memory(c.config.private_key_pem);
  bssl::UniquePtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (!key) return LibraryError("cannot be read").In("private_key");
  if (!CheckKeyMatches(c.config.private_key_pem, c.config.certificate_chain_pem)) {
    return Error("does not belong to the certificate").In("private_key");
  }
  if (!SSL_CTX_set_chain_and_key(c.ctx.get(), chain.data(), chain.size(), key.get(), nullptr)) {
    return LibraryError("refused").In("certificate_chain");
  }
  return base::Ok{};
}

base::Status LoadRoots(ContextImpl& c) {
  c.roots.reset(X509_STORE_new());
  if (c.config.pinned_root_spki_sha256.empty()) {
    auto n = EachCertificate(c.config.trusted_ca_pem, [&](X509* x) { return X509_STORE_add_cert(c.roots.get(), x) == 1; });
    if (!n) return std::move(n.error()).In("trusted_ca");
  }
  c.has_roots = true;
  if (!c.config.crl_pem.empty()) {
    auto bio = Memory(c.config.crl_pem);
    int lists = 0;
    for (;; ++lists) {
      bssl::UniquePtr<X509_CRL> crl(PEM_read_bio_X509_CRL(bio.get(), nullptr, nullptr, nullptr));
      if (!crl) break;
      if (!X509_STORE_add_crl(c.roots.get(), crl.get())) return LibraryError("refused").In("crl");
    }
    ERR_clear_error();
    if (lists == 0) return Error("no revocation list found").In("crl");
  }
  for (const SanMatch& m : c.config.peer_sans) {
    std::unique_ptr<RE2> re;
    if (m.kind == SanMatch::kRegex) {
      RE2::Options options;
      options.set_log_errors(false);
      re = std::make_unique<RE2>(m.value, options);
      if (!re->ok()) return Error(Cat("bad regex \"", m.value, "\": ", re->error())).In("peer_sans");
    }
    c.san_regex.push_back(std::move(re));
  }
  return base::Ok{};
}

// "names" joined for the library, which is asked once more for each of them alone when it refuses the whole.
template <typename Set>
base::Status SetNames(const char* field, const std::vector<std::string>& names, Set set) {
  std::string joined;
  for (const std::string& n : names) joined += (joined.empty() ? "" : ":") + n;
  if (set(joined.c_str())) return base::Ok{};
  ERR_clear_error();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty() || names[i].find(':') != std::string::npos || !set(names[i].c_str())) {
      ERR_clear_error();
      return Error(Cat("\"", names[i], "\" is not known")).In(Cat(field, "[", i, "]"));
    }
  }
  return Error("refused together").In(field);
}

base::Result<uint16_t> SignatureAlgorithm(const std::string& name) {
  static constexpr uint16_t kAll[] = {SSL_SIGN_RSA_PKCS1_SHA256,       SSL_SIGN_RSA_PKCS1_SHA384,       SSL_SIGN_RSA_PKCS1_SHA512,    SSL_SIGN_RSA_PKCS1_SHA1,
                                      SSL_SIGN_ECDSA_SHA1,             SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_ECDSA_SECP384R1_SHA384,
                                      SSL_SIGN_ECDSA_SECP521R1_SHA512, SSL_SIGN_RSA_PSS_RSAE_SHA256,    SSL_SIGN_RSA_PSS_RSAE_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA512,
                                      SSL_SIGN_ED25519};
  for (const uint16_t id : kAll) {
    if (name == SSL_get_signature_algorithm_name(id, 1)) return id;
  }
  return Error(Cat("\"", name, "\" is not known"));
}

base::Status Apply(const Parameters& p, bool server, SSL_CTX* ctx) {
  if (p.min_version < TLS1_2_VERSION || !SSL_CTX_set_min_proto_version(ctx, p.min_version)) {
    return Error("TLS before 1.2 is not supported").In("min_version");
  }
  if (!SSL_CTX_set_max_proto_version(ctx, p.max_version) || p.max_version < p.min_version) {
    return Error("below the minimum, or unknown").In("max_version");
  }
  // Forward secrecy and AEAD only, AES in hardware and ChaCha as equals. No renegotiation, compression or early data: the
  // library's defaults.
  static const std::vector<std::string> kCiphers = {"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
                                                    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]", "ECDHE-ECDSA-AES256-GCM-SHA384",
                                                    "ECDHE-RSA-AES256-GCM-SHA384"};
  // The first one holds against who records traffic today to decrypt it with a quantum computer. Peers without it lose no
  // round trip: a share of the next is sent beside it.
  static const std::vector<std::string> kGroups = {"X25519MLKEM768", "X25519", "P-256", "P-384"};
  auto ciphers = SetNames("cipher_suites", p.cipher_suites.empty() ? kCiphers : p.cipher_suites, [&](const char* s) { return SSL_CTX_set_strict_cipher_list(ctx, s); });
  if (!ciphers) return ciphers;
  auto groups = SetNames("ecdh_curves", p.groups.empty() ? kGroups : p.groups, [&](const char* s) { return SSL_CTX_set1_groups_list(ctx, s); });
  if (!groups) return groups;
  if (p.signature_algorithms.empty()) {
    static constexpr uint16_t kSignatures[] = {
        SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_ED25519,          SSL_SIGN_RSA_PSS_RSAE_SHA256,
        SSL_SIGN_RSA_PKCS1_SHA256,       SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA384,
        SSL_SIGN_RSA_PKCS1_SHA384,       SSL_SIGN_RSA_PSS_RSAE_SHA512,    SSL_SIGN_RSA_PKCS1_SHA512};
    WEFT_CHECK(SSL_CTX_set_verify_algorithm_prefs(ctx, kSignatures, std::size(kSignatures)));
  } else {
    std::vector<uint16_t> ids;
    for (const std::string& name : p.signature_algorithms) {
      auto id = SignatureAlgorithm(name);
      if (!id) return std::move(id.error()).In(Cat("signature_algorithms[", ids.size(), "]"));
      ids.push_back(*id);
    }
    if (!SSL_CTX_set_signing_algorithm_prefs(ctx, ids.data(), ids.size()) || !SSL_CTX_set_verify_algorithm_prefs(ctx, ids.data(), ids.size())) {
      return LibraryError("refused").In("signature_algorithms");
    }
  }
  if (p.fips_202205 && !SSL_CTX_set_compliance_policy(ctx, ssl_compliance_policy_fips_202205)) return LibraryError("refused").In("compliance_policies");
  if (server && !p.client_order) SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
  return base::Ok{};
}

int SelectAlpn(SSL*, const uint8_t** out, uint8_t* out_len, const uint8_t* in, unsigned in_len, void* arg) {
  const auto& ours = static_cast<ContextImpl*>(arg)->alpn_wire;
  // Our order wins. No overlap: go on without ALPN, as Envoy does.
  uint8_t* selected;
  if (SSL_select_next_proto(&selected, out_len, ours.data(), static_cast<unsigned>(ours.size()), in, in_len) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

base::Result<std::shared_ptr<const Context>> Build(const ContextConfig& config, bool server) {
  auto c = std::make_shared<ContextImpl>();
  c->config = config;
  c->server = server;
  if (config.clock) c->clock = config.clock;
  // "With buffers": the library keeps certificates as bytes; parsed ones would cost each connection some KiB for life.
  c->ctx.reset(SSL_CTX_new(TLS_with_buffers_method()));
  SSL_CTX* ctx = c->ctx.get();
  WEFT_CHECK(ctx, "SSL_CTX_new");
  if (auto applied = Apply(config.parameters, server, ctx); !applied) return std::move(applied.error());
  SSL_CTX_set_max_cert_list(ctx, 64 * 1024);
  SSL_CTX_set_timeout(ctx, config.session_lifetime_s);
  SSL_CTX_set_session_psk_dhe_timeout(ctx, config.session_lifetime_s);
  SSL_CTX_set_num_tickets(ctx, 1);
  if (server && !config.tickets) SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);

  bool has_cert = !config.certificate_chain_pem.empty() || !config.private_key_pem.empty();
  if (server && !has_cert) return Error("a server needs a certificate").In("certificate_chain");
  if (has_cert) {
    auto loaded = LoadCertificate(*c);
    if (!loaded) return std::move(loaded.error());
    if (auto leaf = ParseLeafPem(config.certificate_chain_pem)) {
      c->names = {std::move(leaf->uri_sans), std::move(leaf->subject)};
      c->not_after_s = leaf->not_after_unix_s;
    }
  }
  if (!config.trusted_ca_pem.empty() || !config.pinned_root_spki_sha256.empty()) {
    auto loaded = LoadRoots(*c);
    if (!loaded) return std::move(loaded.error());
  } else if (!config.peer_sans.empty() || config.spiffe) {
    return Error("needed to verify the peer's name").In("trusted_ca");
  } else if (!config.crl_pem.empty()) {
    return Error("revocation lists need it").In("trusted_ca");
  }

  for (const std::string& p : config.alpn) {
    if (p.empty() || p.size() > 255) return Error(Cat("protocol name of ", p.size(), " bytes")).In("alpn");
    c->alpn_wire.push_back(static_cast<uint8_t>(p.size()));
    c->alpn_wire.insert(c->alpn_wire.end(), p.begin(), p.end());
  }
  if (server) {
    int mode = SSL_VERIFY_NONE;
    if (c->has_roots || config.require_peer_certificate) mode = SSL_VERIFY_PEER;
    if (config.require_peer_certificate) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_custom_verify(ctx, mode, VerifyCallback);
    // Tickets are sealed with keys of this very context, so a new configuration means a full handshake; the id
    // context says so to the library as well.
    std::string id = Cat(config.certificate_chain_pem, config.trusted_ca_pem, config.crl_pem, config.trust_domain);
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const uint8_t*>(id.data()), id.size(), digest);
    WEFT_CHECK(SSL_CTX_set_session_id_context(ctx, digest, sizeof digest));
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);  // tickets only: no state here
    if (!c->alpn_wire.empty()) SSL_CTX_set_alpn_select_cb(ctx, SelectAlpn, c.get());
  } else {
    SSL_CTX_set_custom_verify(ctx, c->has_roots ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, VerifyCallback);
    if (c->has_roots) SSL_CTX_set_reverify_on_resume(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, NewSessionCallback);
    if (!c->alpn_wire.empty() && SSL_CTX_set_alpn_protos(ctx, c->alpn_wire.data(), c->alpn_wire.size()) != 0) {
      return Error("too long").In("alpn");
    }
  }
  ERR_clear_error();
  return std::shared_ptr<const Context>(c);
}

}  // namespace

base::Result<std::shared_ptr<const Context>> Context::Client(const ContextConfig& config) { return Build(config, false); }
base::Result<std::shared_ptr<const Context>> Context::Server(const ContextConfig& config) { return Build(config, true); }

void ContextImpl::PutSession(const std::string& key, bssl::UniquePtr<SSL_SESSION> session) const {
  std::lock_guard lock(mutex_);
  if (config.max_sessions == 0) return;
  if (sessions_.size() >= config.max_sessions && !sessions_.contains(key)) sessions_.erase(sessions_.begin());
  sessions_[key] = std::move(session);
}

bssl::UniquePtr<SSL_SESSION> ContextImpl::TakeSession(const std::string& key) const {
  std::lock_guard lock(mutex_);
  auto it = sessions_.find(key);
  if (it == sessions_.end()) return nullptr;
  // TLS 1.3 tickets are for one use, so that connections cannot be linked.
  if (SSL_SESSION_should_be_single_use(it->second.get())) {
    auto session = std::move(it->second);
    sessions_.erase(it);
    return session;
  }
  return bssl::UpRef(it->second);
}

}  // namespace weft::tls
