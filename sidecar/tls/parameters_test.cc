#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <set>

#include "sidecar/tls/engine.h"

namespace weft::tls {
namespace {

bool Known(const Parameters& p) { return static_cast<bool>(Check(p)); }

TEST(Parameters, TheTableIsTheLibrarys) {
  bssl::UniquePtr<SSL_CTX> ctx(SSL_CTX_new(TLS_with_buffers_method()));
  ASSERT_TRUE(SSL_CTX_set_cipher_list(ctx.get(), "ALL"));
  const auto* suites = SSL_CTX_get_ciphers(ctx.get());
  ASSERT_GT(sk_SSL_CIPHER_num(suites), 10u);
  for (size_t i = 0; i < sk_SSL_CIPHER_num(suites); ++i) {
    const std::string name = SSL_CIPHER_get_name(sk_SSL_CIPHER_value(suites, i));
    EXPECT_TRUE(Known({.cipher_suites = {name}})) << name;
  }
  std::vector<const char*> names(64);
  names.resize(SSL_get_all_group_names(names.data(), names.size()));
  for (const char* n : names) EXPECT_TRUE(Known({.groups = {n}})) << n;
  // And the other way: what is said to be known makes a context.
  const Parameters all{.cipher_suites = {"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "ECDHE-PSK-CHACHA20-POLY1305", "AES128-GCM-SHA256", "AES256-SHA"},
                       .groups = {"P-256", "P-384", "P-521", "X25519", "X25519MLKEM768", "MLKEM1024"},
                       .signature_algorithms = {"rsa_pkcs1_sha256", "rsa_pkcs1_sha384", "rsa_pkcs1_sha512", "rsa_pkcs1_sha1", "ecdsa_sha1", "ecdsa_secp256r1_sha256",
                                                "ecdsa_secp384r1_sha384", "ecdsa_secp521r1_sha512", "rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384",
                                                "rsa_pss_rsae_sha512", "ed25519"}};
  EXPECT_TRUE(Known(all));
  ContextConfig c;
  c.parameters = all;
  EXPECT_TRUE(Context::Client(c)) << Context::Client(c).error().ToString();
  for (const char* alias : {"prime256v1", "secp384r1", "secp521r1"}) {
    c.parameters.groups = {alias};
    EXPECT_TRUE(Known(c.parameters) && Context::Client(c)) << alias;
  }
}

TEST(Parameters, WhatIsNotKnownIsNamed) {
  EXPECT_EQ(Check({.cipher_suites = {"AES128-SHA", "[AES128-SHA|RC4-SHA]"}}).error().ToString(), "cipher_suites[1]: \"[AES128-SHA|RC4-SHA]\" is not known");
  for (const char* bad : {"", "[", "[]", "[AES128-SHA", "[AES128-SHA|]", "TLS_AES_128_GCM_SHA256", "AES128-SHA:AES256-SHA"}) EXPECT_FALSE(Known({.cipher_suites = {bad}})) << bad;
  EXPECT_FALSE(Known({.groups = {"x25519"}}));
  EXPECT_FALSE(Known({.signature_algorithms = {"rsa_pkcs1_md5_sha1"}}));
  // Rules over many suites are left to the library, which names the one it refuses.
  EXPECT_TRUE(Known({.cipher_suites = {"ECDHE+AESGCM", "!PSK"}}));
  ContextConfig c;
  c.parameters.cipher_suites = {"ECDHE+AESGCM", "ECDHE+NOTHING"};
  EXPECT_EQ(Context::Client(c).error().ToString(), "cipher_suites[1]: \"ECDHE+NOTHING\" is not known");
}

}  // namespace
}  // namespace weft::tls
