// Judging a peer's certificate chain. On top of the library's path validation (signatures, validity, pathLen, name
// constraints, critical extensions, purpose):
//   always: at most 6 certificates; no SHA-1; RSA of 2048 bits or more; EKU, when present, fits the peer's role
//   spiffe: exactly one URI SAN, a valid SPIFFE ID, in the trust domain the roots speak for (checked before the path);
//           leaf: not a CA, keyUsage critical with digitalSignature and without keyCertSign or cRLSign;
//           intermediates: cA and keyCertSign; a certificate not valid yet by up to 60 s is accepted (clock skew)
//   names:  any of peer_sans matches, when some are configured
#pragma once

#include <openssl/base.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <string>

#include "sidecar/tls/context_impl.h"

namespace weft::tls {

struct Judgement {
  Failure failure = Failure::kNone;
  std::string detail;
  uint8_t alert = SSL_AD_CERTIFICATE_UNKNOWN;
  std::shared_ptr<const PeerInfo> peer;  // when it passed
};

// chain: leaf first. Requires context.has_roots.
Judgement JudgePeer(const ContextImpl& context, const STACK_OF(CRYPTO_BUFFER)* chain);

// What the certificate says, without judging it; null when it cannot be parsed.
std::shared_ptr<const PeerInfo> DescribePeer(const CRYPTO_BUFFER* leaf);

bool MatchesSan(const SanMatch& match, const RE2* regex, const PeerInfo& peer);

}  // namespace weft::tls
