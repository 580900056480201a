#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdlib>
#include <ctime>

#include "xds_server/ca/authority.h"
#include "xds_server/ca/policy.h"

namespace weft::server {
namespace {

std::string TempDir() {
  std::string dir = std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") + "/caXXXXXX";
  return mkdtemp(dir.data());
}

X509* ReadPem(const std::string& pem) {
  BIO* b = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  X509* x = PEM_read_bio_X509(b, nullptr, nullptr, nullptr);
  BIO_free(b);
  return x;
}

TEST(Authority, SignsFromThePublicKeyAlone) {
  const std::string dir = TempDir() + "/ca";
  const int64_t now = time(nullptr);
  auto ca = Authority::Open({dir, "weft.local"}, now);
  ASSERT_TRUE(ca) << ca.error().ToString();
  struct stat st {};
  ASSERT_EQ(stat((dir + "/root.key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);

  auto [key, csr] = MakeKeyAndRequest();
  auto cert = (*ca)->SignRequest(csr, {"default", "cart"}, now);
  ASSERT_TRUE(cert) << cert.error().ToString();
  EXPECT_EQ(cert->spiffe_id, "spiffe://weft.local/ns/default/sa/cart");
  EXPECT_EQ(cert->not_after_unix_s, now + 86400);

  X509* leaf = ReadPem(cert->chain_pem);
  X509* root = ReadPem((*ca)->bundle_pem());
  ASSERT_TRUE(leaf && root);
  EXPECT_EQ(X509_verify(leaf, X509_get0_pubkey(root)), 1);
  EXPECT_EQ(X509_check_ca(leaf), 0);
  EXPECT_EQ(X509_get_key_usage(leaf), static_cast<uint32_t>(KU_DIGITAL_SIGNATURE));
  EXPECT_EQ(X509_get_extended_key_usage(leaf), static_cast<uint32_t>(XKU_SSL_CLIENT | XKU_SSL_SERVER));
  X509_STORE* store = X509_STORE_new();
  X509_STORE_add_cert(store, root);
  for (int purpose : {X509_PURPOSE_SSL_CLIENT, X509_PURPOSE_SSL_SERVER}) {
    X509_STORE_CTX* ctx = X509_STORE_CTX_new();
    X509_STORE_CTX_init(ctx, store, leaf, nullptr);
    X509_STORE_CTX_set_purpose(ctx, purpose);
    EXPECT_EQ(X509_verify_cert(ctx), 1) << X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
    X509_STORE_CTX_free(ctx);
  }
  X509_STORE_free(store);
  X509_free(leaf), X509_free(root);

  auto again = Authority::Open({dir, "weft.local"}, now);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->root_spki_sha256_hex(), (*ca)->root_spki_sha256_hex());
  EXPECT_EQ((*ca)->root_spki_sha256_hex().size(), 64u);
  EXPECT_FALSE(Authority::Open({dir, "other.domain"}, now));

  auto server = (*ca)->MakeServerPair({"xds.weft"}, now);
  ASSERT_TRUE(server);
  X509* own = ReadPem(server->certificate.chain_pem);
  EXPECT_EQ(X509_check_host(own, "xds.weft", 0, 0, nullptr), 1);
  X509_free(own);
}

TEST(Authority, RefusesBadRequests) {
  const int64_t now = time(nullptr);
  auto ca = Authority::Open({TempDir() + "/ca", "weft.local"}, now);
  ASSERT_TRUE(ca);
  auto [key, csr] = MakeKeyAndRequest();
  const Name cart{"default", "cart"};
  EXPECT_FALSE((*ca)->SignRequest("", cart, now));
  EXPECT_FALSE((*ca)->SignRequest("garbage", cart, now));
  EXPECT_FALSE((*ca)->SignRequest(csr + "x", cart, now));
  EXPECT_FALSE((*ca)->SignRequest(csr, {"default", "Ca,rt"}, now));
  std::string forged = csr;
  forged.back() = static_cast<char>(forged.back() ^ 1);
  EXPECT_FALSE((*ca)->SignRequest(forged, cart, now));

  EVP_PKEY* p384 = EVP_EC_gen("P-384");
  X509_REQ* req = X509_REQ_new();
  X509_REQ_set_pubkey(req, p384);
  X509_REQ_sign(req, p384, EVP_sha256());
  unsigned char* der = nullptr;
  int n = i2d_X509_REQ(req, &der);
  auto r = (*ca)->SignRequest(std::string(reinterpret_cast<char*>(der), static_cast<size_t>(n)), cart, now);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message().find("P-256"), std::string::npos);
  OPENSSL_free(der);
  X509_REQ_free(req);
  EVP_PKEY_free(p384);
}

TEST(Policy, TokensAndLimits) {
  TokenParts t;
  EXPECT_TRUE(SplitToken("a1.b2.c3\n", t));
  EXPECT_EQ(t.id, "a1");
  EXPECT_EQ(t.secret, "b2");
  EXPECT_TRUE(SplitToken("a1.b2", t));
  for (const char* bad : {"", "a1", ".b", "a.", "a.b.c.d"}) EXPECT_FALSE(SplitToken(bad, t)) << bad;

  TokenRecord r{"a1", Sha256Hex("b2"), {"default", "cart"}, 100, 1};
  EXPECT_EQ(CheckToken(&r, Sha256Hex("b2"), 99), TokenVerdict::kOk);
  EXPECT_EQ(CheckToken(&r, Sha256Hex("b3"), 99), TokenVerdict::kWrongSecret);
  EXPECT_EQ(CheckToken(&r, Sha256Hex("b2"), 100), TokenVerdict::kExpired);
  EXPECT_EQ(CheckToken(nullptr, Sha256Hex("b2"), 99), TokenVerdict::kUnknown);
  r.uses_left = 0;
  EXPECT_EQ(CheckToken(&r, Sha256Hex("b2"), 99), TokenVerdict::kUsedUp);

  RateLimit limit(2, 60);
  EXPECT_TRUE(limit.Take("a", 0));
  EXPECT_TRUE(limit.Take("a", 0));
  EXPECT_FALSE(limit.Take("a", 0));
  EXPECT_TRUE(limit.Take("b", 0));
  EXPECT_TRUE(limit.Take("a", 1100));
  EXPECT_FALSE(limit.Take("a", 1200));
}

}  // namespace
}  // namespace weft::server
