#include "sidecar/tls/keys.h"

#include <gtest/gtest.h>

#include "sidecar/tls/spiffe.h"
#include "sidecar/tls/test_ca.h"

namespace weft::tls {
namespace {

TEST(Keys, RequestIsSignedAndBecomesACertificate) {
  TestCa ca;
  auto key = NewP256KeyPem();
  ASSERT_TRUE(key);
  EXPECT_NE(key->find("BEGIN PRIVATE KEY"), std::string::npos);
  auto csr = MakeCsrDer(*key, "spiffe://mesh/ns/default/sa/cart");
  ASSERT_TRUE(csr);
  std::string chain = ca.SignCsr(*csr, "spiffe://mesh/ns/default/sa/cart");
  auto leaf = ParseLeafPem(chain);
  ASSERT_TRUE(leaf) << leaf.error().ToString();
  EXPECT_EQ(leaf->spiffe_id, "spiffe://mesh/ns/default/sa/cart");
  EXPECT_FALSE(leaf->is_ca);
  EXPECT_EQ(leaf->issuer, "CN=Test root");
  EXPECT_EQ(leaf->not_after_unix_s - leaf->not_before_unix_s, 3660);
  EXPECT_EQ(leaf->sha256_hex.size(), 64u);
  EXPECT_FALSE(leaf->serial_hex.empty());
  EXPECT_TRUE(CheckKeyMatches(*key, chain));
  EXPECT_FALSE(CheckKeyMatches(*NewP256KeyPem(), chain));
  EXPECT_TRUE(ca.SignCsr("garbage", "spiffe://mesh/x").empty());
}

TEST(Keys, PemRoundTripAndErrors) {
  TestCa ca, other;
  auto ders = PemToDer(ca.root_pem() + other.root_pem(), "CERTIFICATE");
  ASSERT_TRUE(ders);
  ASSERT_EQ(ders->size(), 2u);
  EXPECT_EQ(DerToPem("CERTIFICATE", (*ders)[0]), ca.root_pem());
  EXPECT_EQ(PemToDer("nothing", "CERTIFICATE").error().message(), "no CERTIFICATE block found");
  EXPECT_FALSE(PemToDer("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "CERTIFICATE"));
  EXPECT_FALSE(ParseLeafPem(DerToPem("CERTIFICATE", "junk")));
  auto bundle = ParseBundlePem(ca.root_pem() + DerToPem("CERTIFICATE", "junk"));
  ASSERT_FALSE(bundle);
  EXPECT_EQ(bundle.error().where(), "certificate 2");
  EXPECT_TRUE((*ParseBundlePem(ca.root_pem()))[0].is_ca);
  EXPECT_FALSE(MakeCsrDer("no key", "spiffe://a/b"));
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Spiffe, ByTheLetter) {
  auto id = ParseSpiffeId("spiffe://example.org/ns/default/sa/cart");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->trust_domain, "example.org");
  EXPECT_EQ(id->path, "/ns/default/sa/cart");
  EXPECT_EQ(MakeSpiffeId("example.org", "default", "cart"), "spiffe://example.org/ns/default/sa/cart");
  for (std::string_view bad : std::initializer_list<std::string_view>{
           "", "spiffe://", "spiffe://a", "spiffe://a/", "spiffe:///p", "spiffe://A/p", "SPIFFE://a/p", "https://a/p",
           "spiffe://a:8/p", "spiffe://u@a/p", "spiffe://a/p?q", "spiffe://a/p#f", "spiffe://a/p/", "spiffe://a//p",
           "spiffe://a/./p", "spiffe://a/../p", "spiffe://a/%41", "spiffe://a/p q", {"spiffe://a/p\0q", 14}}) {
    EXPECT_FALSE(ParseSpiffeId(bad)) << bad;
  }
  EXPECT_FALSE(ParseSpiffeId("spiffe://a/" + std::string(2048, 'p')));
  EXPECT_TRUE(ParseSpiffeId("spiffe://a/" + std::string(2037, 'p')));
}

}  // namespace
}  // namespace weft::tls
