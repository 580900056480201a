#include "tools/weft/join/join.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>

#include "api/weft/mesh/v1/mesh.grpc.pb.h"
#include "tools/weft/cli/error.h"

namespace weft::join {
namespace {

namespace pb = weft::mesh::v1;

std::unique_ptr<pb::Mesh::Stub> Connect(const Server& s, const std::string& key, const std::string& chain) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = s.bundle_pem;
  tls.pem_private_key = key;
  tls.pem_cert_chain = chain;
  grpc::ChannelArguments args;
  args.SetSslTargetNameOverride(s.name);
  return pb::Mesh::NewStub(grpc::CreateCustomChannel(s.address, grpc::SslCredentials(tls), args));
}

void Deadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(15));
}

Identity Take(const grpc::Status& status, const pb::Identity& i, const Server& s, const char* what) {
  if (!status.ok()) throw cli::Failure(std::string(what) + " at " + s.address + " was refused: " + status.error_message());
  return {i.certificate_chain_pem(), i.trust_bundle_pem(), i.spiffe_id(), i.not_after_unix_s()};
}

}  // namespace

Identity Join(const Server& s, const std::string& token, const std::string& csr_der, const std::string& workload_id) {
  pb::JoinRequest request;
  request.set_token(token);
  request.set_csr_der(csr_der);
  request.set_workload_id(workload_id);
  pb::JoinResponse response;
  grpc::ClientContext context;
  Deadline(context);
  const grpc::Status status = Connect(s, "", "")->Join(&context, request, &response);
  return Take(status, response.identity(), s, "joining");
}

Identity Renew(const Server& s, const std::string& key, const std::string& chain, const std::string& csr_der) {
  pb::RenewRequest request;
  request.set_csr_der(csr_der);
  pb::RenewResponse response;
  grpc::ClientContext context;
  Deadline(context);
  const grpc::Status status = Connect(s, key, chain)->Renew(&context, request, &response);
  return Take(status, response.identity(), s, "renewal");
}

}  // namespace weft::join
