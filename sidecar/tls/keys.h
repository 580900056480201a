// Keys, signing requests and certificates as bytes, for the sidecar's own identity and for tests. BoringSSL.
// Threads: any; everything is a value. Errors: Result with what is wrong; never the key's bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"

namespace weft::tls {

// A fresh P-256 private key, PKCS#8 PEM.
base::Result<std::string> NewP256KeyPem();
// A PKCS#10 request in DER, signed by the key, with the SPIFFE ID as its only URI SAN (empty: none) and an empty subject.
base::Result<std::string> MakeCsrDer(std::string_view private_key_pem, std::string_view spiffe_id);

// "CERTIFICATE" etc. with 64-column base64.
std::string DerToPem(std::string_view label, std::string_view der);
// Every block with that label, in order; an error when there is none or one is broken.
base::Result<std::vector<std::string>> PemToDer(std::string_view pem, std::string_view label);

struct CertInfo {
  std::vector<std::string> uri_sans, dns_sans;
  std::string spiffe_id;    // the URI SAN when it is the only one
  std::string subject;      // RFC 2253
  std::string issuer;
  std::string serial_hex;   // lower case
  std::string sha256_hex;   // of the DER
  int64_t not_before_unix_s = 0, not_after_unix_s = 0;
  bool is_ca = false;
};
base::Result<CertInfo> ParseCertDer(std::string_view der);
// The first certificate of a PEM chain.
base::Result<CertInfo> ParseLeafPem(std::string_view chain_pem);
// Every certificate of a PEM bundle.
base::Result<std::vector<CertInfo>> ParseBundlePem(std::string_view pem);

base::Status CheckKeyMatches(std::string_view private_key_pem, std::string_view chain_pem);
std::string Sha256Hex(std::string_view bytes);
// SHA-256 of the public key (SPKI, DER) of the first certificate: what pins a root.
base::Result<std::string> SpkiSha256Hex(std::string_view certificate_pem);

}  // namespace weft::tls
