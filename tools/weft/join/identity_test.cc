#include "tools/weft/join/identity.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "tools/weft/cli/client.h"
#include "tools/weft/cli/error.h"
#include "tools/weft/join/foreign.h"

namespace weft::join {
namespace {

TEST(KeyPair, RequestIsSignedByItsOwnKey) {
  const KeyPair pair = MakeKeyPair();
  EXPECT_EQ(pair.key_pem.rfind("-----BEGIN PRIVATE KEY-----", 0), 0u);
  const auto* der = reinterpret_cast<const unsigned char*>(pair.csr_der.data());
  X509_REQ* req = d2i_X509_REQ(nullptr, &der, static_cast<long>(pair.csr_der.size()));
  ASSERT_NE(req, nullptr);
  EVP_PKEY* key = X509_REQ_get_pubkey(req);
  EXPECT_EQ(X509_REQ_verify(req, key), 1);
  EVP_PKEY_free(key);
  X509_REQ_free(req);
  EXPECT_NE(MakeKeyPair().key_pem, pair.key_pem);
}

TEST(Token, LastPartIsCheckedAndNotSent) {
  const std::string hash(64, 'a');
  const Token t = ParseToken("id.secret." + hash);
  EXPECT_EQ(t.id_and_secret, "id.secret");
  EXPECT_EQ(t.root_hash, hash);
  for (const std::string& bad : std::vector<std::string>{"", "id.secret", "id." + hash, "id.secret." + std::string(64, 'g')}) {
    EXPECT_THROW(ParseToken(bad), cli::Failure) << bad;
  }
}

TEST(Bundle, NothingMatchesGarbage) {
  EXPECT_FALSE(BundleHasKey("", std::string(64, 'a')));
  EXPECT_FALSE(BundleHasKey("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", std::string(64, 'a')));
}

TEST(Foreign, EnvoyReadsItsSecretsFromTheFolder) {
  Foreign f;
  f.dir = "/var/lib/envoy";
  f.workload_id = "web-1";
  f.service = "web";
  const auto b = cli::Json::parse(RenderEnvoyBootstrap(f));
  EXPECT_EQ(b["node"]["metadata"]["WEFT_SDS_DIR"], "/var/lib/envoy");
  const auto& tls = b["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"];
  EXPECT_EQ(tls["tls_certificate_sds_secret_configs"][0]["sds_config"]["path_config_source"]["path"], "/var/lib/envoy/default.yaml");
  EXPECT_EQ(tls["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"][0]["matcher"]["exact"],
            "spiffe://weft.local/ns/weft-system/sa/xds");
}

}  // namespace
}  // namespace weft::join
