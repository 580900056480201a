// The built-in certificate authority: one self-signed P-256 root kept in the data directory, workload certificates (X.509
// SVIDs) of 24 h made from nothing but the public key of a request. Whether somebody may have an identity is decided
// before (policy.h); this signs. OpenSSL 3. Thread-safe after Open (signing copies nothing mutable).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "xds_server/model/world.h"

namespace weft::server {

struct Certificate {
  std::string chain_pem;  // leaf first; the root is not part of it
  std::string spiffe_id;
  int64_t not_before_unix_s = 0, not_after_unix_s = 0;
};

class Authority {
 public:
  struct Options {
    std::string directory;  // root.crt, root.key (0600) live here; the directory is made 0700
    std::string trust_domain;
    int64_t leaf_seconds = 24 * 3600;
  };
  // Loads the root or makes it. An Error when the files are there but do not fit each other or the trust domain.
  static base::Result<std::unique_ptr<Authority>> Open(const Options& options, int64_t now_unix_s);
  ~Authority();

  // From the DER of a PKCS#10 request: its signature must be good and its key P-256; everything else in it is ignored.
  base::Result<Certificate> SignRequest(const std::string& csr_der, const Name& service, int64_t now_unix_s) const;
  // A fresh key and certificate for the server itself: SPIFFE ID ns/weft-system/sa/xds and the DNS names, for 24 h
  // whatever the workloads get (every sidecar depends on it).
  struct KeyPair {
    std::string key_pem;
    Certificate certificate;
  };
  base::Result<KeyPair> MakeServerPair(const std::vector<std::string>& dns_names, int64_t now_unix_s) const;

  const std::string& bundle_pem() const { return bundle_pem_; }
  const std::string& root_spki_sha256_hex() const { return root_hash_; }
  const std::string& trust_domain() const { return options_.trust_domain; }
  static constexpr int64_t kServerSeconds = 24 * 3600;

 private:
  Authority() = default;
  struct Keys;
  base::Result<Certificate> Sign(void* public_key, const std::string& spiffe_id, const std::vector<std::string>& dns_names,
                                 int64_t lifetime_s, int64_t now_unix_s) const;

  Options options_;
  std::unique_ptr<Keys> keys_;
  std::string bundle_pem_, root_hash_;
};

// Helpers that tests, the token endpoint and the clients of tests share.
std::string Sha256Hex(std::string_view data);
std::string RandomHex(size_t bytes);
// A P-256 key and a request for it, as a joining sidecar makes them: {key PEM, CSR DER}.
std::pair<std::string, std::string> MakeKeyAndRequest();

}  // namespace weft::server
