// Keys and certificates of a workload whose proxy cannot make its own (a stock Envoy). OpenSSL; pure but for randomness.
#pragma once

#include <cstdint>
#include <string>

namespace weft::join {

struct KeyPair {
  std::string key_pem;   // PKCS#8, P-256; never leaves this machine
  std::string csr_der;   // PKCS#10 for it, with an empty subject: the token decides who we are
};

KeyPair MakeKeyPair();  // throws cli::Failure when OpenSSL does

// True when a certificate of the PEM bundle has a public key (SPKI, DER) of this SHA-256, in hex. What a join token's last
// part promises, checked before the server is trusted.
bool BundleHasKey(const std::string& bundle_pem, const std::string& spki_sha256_hex);

struct Token {
  std::string id_and_secret;   // what is sent
  std::string root_hash;       // what is checked
};
// "<id>.<secret>.<64 hex digits>"; throws cli::Failure.
Token ParseToken(const std::string& text);

}  // namespace weft::join
