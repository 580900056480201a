// An in-memory certificate authority for tests: good certificates in one line, bad ones by options.
//
//   TestCa ca;                                            // self-signed root
//   TestCert cart = ca.Issue({.uris = {"spiffe://mesh/ns/default/sa/cart"}});
//   config.certificate_chain_pem = cart.chain_pem, config.private_key_pem = cart.key_pem;
//   config.trusted_ca_pem = ca.root_pem();
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/clock.h"

namespace weft::tls {

struct TestCert {
  std::string chain_pem, key_pem;  // leaf first, then intermediates without the root
};

struct IssueOptions {
  std::vector<std::string> uris, dns;
  int64_t not_before_s = -60, not_after_s = 3600;  // relative to the clock
  bool ca = false;
  int path_length = -1;                            // with ca: pathLenConstraint, -1: none
  // "" leaves the extension out; names as in openssl.cnf
  std::string key_usage = "critical,digitalSignature";
  std::string extended_key_usage = "serverAuth,clientAuth";
  std::string common_name;                         // empty: empty subject
  std::string extra_critical_oid;                  // adds an unknown critical extension
  enum Key { kP256, kRsa1024, kRsa2048 } key = kP256;
  bool sha1 = false;
};

class TestCa {
 public:
  explicit TestCa(std::string name = "Test root", base::Clock* clock = base::Clock::Real());
  const std::string& root_pem() const { return root_pem_; }
  TestCert Issue(const IssueOptions& options) const;
  // A CA below this one; its certificates carry it in their chain.
  TestCa Intermediate(const IssueOptions& options) const;
  // Signs a PKCS#10 request for that identity, ignoring the names in it. Returns the chain in PEM; empty when the CSR is bad.
  std::string SignCsr(std::string_view csr_der, const std::string& spiffe_id, int64_t not_after_s = 3600) const;
  // A CRL that revokes those leaf certificates (of chains issued here).
  std::string Crl(const std::vector<std::string>& revoked_chains) const;

 private:
  struct Empty {};
  explicit TestCa(Empty) {}
  base::Clock* clock_ = nullptr;
  std::string root_pem_, cert_pem_, key_pem_, chain_tail_;
};

}  // namespace weft::tls
