#include <fcntl.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sidecar/base/log.h"
#include "xds_server/serve/services.h"

namespace weft::server {
namespace {

bool WritePrivate(const std::string& path, const std::string& text) {
  const std::string temp = path + ".new";
  unlink(temp.c_str());
  int fd = open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const bool ok = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  return close(fd) == 0 && ok && rename(temp.c_str(), path.c_str()) == 0;
}

// gRPC's own messages (failed handshakes, mostly) in our log's form.
void LogGrpc(gpr_log_func_args* args) {
  if (args->severity == GPR_LOG_SEVERITY_ERROR) WEFT_LOG(kGrpc, kWarn, args->message);
  else WEFT_LOG(kGrpc, kDebug, args->message);
}

bool IsLoopback(const std::string& address) {
  return address.rfind("127.", 0) == 0 || address.rfind("localhost:", 0) == 0 || address.rfind("[::1]:", 0) == 0 || address.rfind("unix:", 0) == 0;
}

}  // namespace

GrpcServer::GrpcServer(Options options, Control& control, const Authority& authority, Store& store, base::Clock* clock)
    : options_(std::move(options)), authority_(authority), clock_(clock) {
  own_.push_back(MakeAdsService(control));
  own_.push_back(MakeMeshService(control, authority, store, clock));
  for (auto& s : own_) services_.push_back(s.get());
}

GrpcServer::~GrpcServer() { Stop(); }

void GrpcServer::AddService(grpc::Service* service) { services_.push_back(service); }

base::Status GrpcServer::RenewCertificate(bool force) {
  const int64_t now = static_cast<int64_t>(clock_->UnixNs() / base::kSecond);
  if (!force && now < renew_at_unix_s_) return base::Ok{};
  auto pair = authority_.MakeServerPair(options_.dns_names, now);
  if (!pair) return std::move(pair.error());
  const std::string dir = options_.data_dir + "/server";
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return base::Error("cannot make " + dir + ": " + strerror(errno));
  // The provider reads both files and keeps the old pair while they do not fit each other.
  if (!WritePrivate(dir + "/roots.pem", authority_.bundle_pem()) || !WritePrivate(dir + "/key.pem", pair->key_pem) ||
      !WritePrivate(dir + "/cert.pem", pair->certificate.chain_pem + authority_.bundle_pem())) {
    return base::Error("cannot write to " + dir + ": " + strerror(errno));
  }
  renew_at_unix_s_ = now + Authority::kServerSeconds / 2;
  return base::Ok{};
}

base::Status GrpcServer::Start() {
  if (!options_.plaintext_address.empty() && !IsLoopback(options_.plaintext_address)) {
    return base::Error("--xds-plaintext-address takes a loopback address only, not " + options_.plaintext_address);
  }
  if (auto r = RenewCertificate(true); !r) return std::move(r.error());
  const std::string dir = options_.data_dir + "/server";
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(dir + "/key.pem", dir + "/cert.pem", dir + "/roots.pem", 10);
  grpc::experimental::TlsServerCredentialsOptions tls(provider);
  tls.watch_root_certs();
  tls.watch_identity_key_cert_pairs();
  tls.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);

  gpr_set_log_function(LogGrpc);
  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota("xds");
  quota.Resize(512 << 20);
  builder.SetResourceQuota(quota);
  builder.AddListeningPort(options_.xds_address, grpc::experimental::TlsServerCredentials(tls), &port_);
  if (!options_.plaintext_address.empty()) {
    builder.AddListeningPort(options_.plaintext_address, grpc::InsecureServerCredentials(), &plaintext_port_);
  }
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.SetMaxReceiveMessageSize(4 << 20);
  for (grpc::Service* s : services_) builder.RegisterService(s);
  server_ = builder.BuildAndStart();
  if (!server_ || port_ == 0) return base::Error("cannot listen on " + options_.xds_address);
  if (!options_.plaintext_address.empty() && plaintext_port_ == 0) return base::Error("cannot listen on " + options_.plaintext_address);
  return base::Ok{};
}

void GrpcServer::Stop() {
  if (!server_) return;
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  server_->Wait();
  server_.reset();
}

}  // namespace weft::server
