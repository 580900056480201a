// When the certificates of listeners and clusters end, under Envoy's names (ssl.certificate.NAME.expiration_unix_time_seconds);
// NAME is the secret's, for files and inline certificates what Envoy calls all of these. Exact at the moment somebody reads.
//
// Threads: main (it writes main's cells). Gauges of what went away fall to zero.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sidecar/base/stats.h"
#include "sidecar/model/snapshot.h"

namespace weft::admin {

class CertificateStats {
 public:
  void Update(const model::ConfigSnapshot& snapshot);

 private:
  void Tell(const std::string& scope, const std::string& owner, const model::TlsConfig& config, const tls::Context& context);
  struct Told {
    base::StatId id = 0;
    uint64_t round = 0;
  };
  std::map<std::string, Told> told_;  // by full name
  uint64_t round_ = 0;
};

}  // namespace weft::admin
