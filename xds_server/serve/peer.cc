#include "xds_server/serve/peer.h"

#include <grpcpp/grpcpp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

namespace weft::server {
namespace {

int64_t NotAfter(const std::string& pem) {
  std::unique_ptr<BIO, int (*)(BIO*)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  std::unique_ptr<X509, void (*)(X509*)> cert(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  tm t{};
  if (!cert || !ASN1_TIME_to_tm(X509_get0_notAfter(cert.get()), &t)) return 0;
  return timegm(&t);
}

}  // namespace

Peer PeerOf(const grpc::ServerContextBase& context) {
  Peer peer;
  peer.address = context.peer();
  auto auth = context.auth_context();
  auto type = auth ? auth->FindPropertyValues("transport_security_type") : std::vector<grpc::string_ref>();
  peer.plaintext = type.empty() || type[0] == "insecure";
  if (!auth || peer.plaintext) return peer;
  // gRPC sets this property only for a certificate with exactly one, well-formed SPIFFE URI.
  auto ids = auth->FindPropertyValues("peer_spiffe_id");
  if (ids.size() == 1) peer.spiffe_id.assign(ids[0].data(), ids[0].size());
  auto pem = auth->FindPropertyValues("x509_pem_cert");
  if (pem.size() == 1) peer.not_after_unix_s = NotAfter(std::string(pem[0].data(), pem[0].size()));
  return peer;
}

}  // namespace weft::server
