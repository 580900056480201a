// TLS as configured: where certificates come from. The snapshot builder turns it, with the secrets it names, into a
// tls::Context; until every secret is there, what uses it is warming.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/tls/engine.h"

namespace weft::model {

// Bytes given inline, by file or by environment variable. Files are read by the translation (static configuration)
// and re-read by the secret watcher when watched.
struct DataSource {
  enum Kind : uint8_t { kNone, kInline, kFile } kind = kNone;
  std::string value;      // the bytes, or the path
  explicit operator bool() const { return kind != kNone; }
};

// A secret by name. Which certificate provider serves it is the server's business: "default" and "ROOTCA" come from
// the sidecar's own identity when it has one and the config source is ADS or unset.
struct SdsRef {
  enum Source : uint8_t { kAds, kFile, kCluster, kStatic } source = kStatic;
  std::string name;
  std::string path;       // kFile: the file with DiscoveryResponse text
  std::string cluster;    // kCluster: gRPC service behind this cluster
};

struct TlsConfig {
  // Certificate: inline/file pair, or a secret. Neither: none.
  DataSource certificate_chain, private_key;
  std::vector<SdsRef> certificate_sds;
  // Validation: inline/file roots, or a secret, or both combined (SANs here, roots there).
  DataSource trusted_ca, crl;             // crl: revocation lists, for every issuer of a chain
  std::vector<SdsRef> validation_sds;    // at most one
  bool has_validation = false;
  std::vector<tls::SanMatch> peer_sans;
  bool require_client_certificate = false;
  std::vector<std::string> alpn;
  std::string sni;                       // upstream
  tls::Parameters parameters;
  bool tickets = true;                   // downstream: stateless resumption
  uint32_t session_lifetime_s = 3600;    // downstream
  uint32_t max_sessions = 1024;          // upstream: how many are kept to be resumed; 0: none
  bool spiffe = false;                   // validate by the SVID rules: set when a SAN matcher begins with spiffe://
  std::string key;                       // canonical text of this configuration: equal key, equal context
};

// A secret that has arrived.
struct Secret {
  std::string name;
  enum Kind : uint8_t { kCertificate, kValidation } kind = kCertificate;
  DataSource certificate_chain, private_key;  // kCertificate
  DataSource trusted_ca, crl;                 // kValidation
  std::vector<tls::SanMatch> peer_sans;
};

}  // namespace weft::model
