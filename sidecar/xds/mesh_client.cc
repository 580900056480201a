#include "sidecar/xds/mesh_client.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "api/weft/mesh/v1/mesh.pb.h"
#include "sidecar/base/log.h"
#include "sidecar/base/random.h"
#include "sidecar/tls/keys.h"

namespace weft::xds {

namespace {

namespace pb = weft::mesh::v1;
constexpr uint64_t kCallTimeout = 10 * base::kSecond;

base::Result<std::string> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return base::Error("cannot read " + path + ": " + strerror(errno));
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Whole or not at all: a new file with that mode, renamed over the old one.
base::Status WriteFile(const std::string& path, const std::string& content, mode_t mode) {
  std::string part = path + ".new";
  unlink(part.c_str());
  int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return base::Error("cannot write " + part + ": " + strerror(errno));
  bool good = write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()) && fsync(fd) == 0;
  close(fd);
  if (!good || rename(part.c_str(), path.c_str()) != 0) return base::Error("cannot write " + path + ": " + strerror(errno));
  return base::Ok{};
}

}  // namespace

MeshClient::MeshClient(io::Loop* loop, MeshOptions options, Hooks hooks)
    : loop_(loop), options_(std::move(options)), hooks_(std::move(hooks)) {
  auto& s = base::Stats::Get();
  joins_ = s.Counter("weft.mesh.join"), join_failures_ = s.Counter("weft.mesh.join_failure");
  renewals_ = s.Counter("weft.mesh.renew"), renew_failures_ = s.Counter("weft.mesh.renew_failure");
  expiry_ = s.Gauge("weft.mesh.identity_expires_unix_s"), connected_ = s.Gauge("weft.mesh.report_connected");
  reports_ = s.Counter("weft.mesh.reports");
}
MeshClient::~MeshClient() { Stop(); }

void MeshClient::Stop() {
  stopped_ = true;
  heartbeat_.Cancel(), renew_.Cancel(), retry_.Cancel();
  if (report_) std::exchange(report_, nullptr)->Cancel();
  if (channel_) channel_->Stop();
  if (join_channel_) join_channel_->Stop();
}

// Once when it changes and once a minute while it lasts.
void MeshClient::Complain(const std::string& what) {
  if (what == error_ && loop_->now() < complained_ns_ + 60 * base::kSecond) return;
  error_ = what;
  complained_ns_ = loop_->now();
  WEFT_LOG(kIdentity, kWarn, what);
}

void MeshClient::Start() {
  if (LoadKept()) return;
  Join();
}

bool MeshClient::LoadKept() {
  if (options_.identity_dir.empty()) return false;
  auto key = ReadFile(options_.identity_dir + "/key.pem"), chain = ReadFile(options_.identity_dir + "/chain.pem"),
       roots = ReadFile(options_.identity_dir + "/roots.pem");
  if (!key || !chain || !roots) return false;
  auto leaf = tls::ParseLeafPem(*chain);
  // Not one that is about to expire: a minute, or a tenth of a short life.
  if (!leaf || leaf->not_after_unix_s < static_cast<int64_t>(loop_->wall_now() / base::kSecond) +
                                            std::min<int64_t>(60, (leaf->not_after_unix_s - leaf->not_before_unix_s) / 10)) {
    return false;
  }
  if (!tls::CheckKeyMatches(*key, *chain)) return false;
  WEFT_LOG(kIdentity, kInfo, "using the identity kept in ", options_.identity_dir, ": ", leaf->spiffe_id);
  return Adopt(*key, *chain, *roots, false);
}

void MeshClient::Join() {
  if (stopped_ || joined()) return;
  if (token_.empty()) {
    auto text = ReadFile(options_.token_file);
    if (!text) {
      Complain("join token: " + text.error().ToString());
      loop_->Arm(&retry_, 2 * base::kSecond);
      return;
    }
    std::string token = *text;
    while (!token.empty() && isspace(static_cast<unsigned char>(token.back()))) token.pop_back();
    size_t last = token.rfind('.');
    if (last == std::string::npos || token.find('.') == last || token.size() - last - 1 != 64) {
      Complain("join token in " + options_.token_file + " is not \"<id>.<secret>.<sha256>\"; a new one comes from the server");
      loop_->Arm(&retry_, 2 * base::kSecond);
      return;
    }
    token_ = token.substr(0, last), pin_ = token.substr(last + 1);
  }
  if (join_channel_) return;  // it retries by itself
  tls::ContextConfig config;
  config.alpn = {"h2"}, config.sni = options_.server_name, config.parameters.min_version = 0x0304;
  config.pinned_root_spki_sha256 = pin_;
  config.peer_sans = {{tls::SanMatch::kExact, tls::SanMatch::kUri, "spiffe://" + options_.trust_domain + "/ns/weft-system/sa/xds"}};
  auto context = tls::Context::Client(config);
  if (!context) return Complain("TLS for the first contact: " + context.error().ToString());
  GrpcChannel::Options o;
  o.addresses = {options_.server_address}, o.tls = *context, o.authority = options_.server_name, o.mark = options_.mark;
  // Well below the time a restarted server waits for its sidecars to come back.
  o.backoff_max_ns = 5 * base::kSecond;
  join_channel_ = std::make_unique<GrpcChannel>(loop_, o);
  join_channel_->Start([this](bool up, const std::string& why) {
    if (!up) {
      if (joined()) return;
      base::Cells::Local().Add(join_failures_);
      return Complain("the xDS server at " + options_.server_address + " cannot be reached (" + why +
                      "); this sidecar has no identity yet and waits for it");
    }
    Retry();
  });
}

// Asks for an SVID over the join channel.
void MeshClient::Retry() {
  if (stopped_ || joined()) return;
  if (!join_channel_) return Join();
  if (!join_channel_->up()) return;
  auto key = tls::NewP256KeyPem();
  if (!key) return Complain("making a key: " + key.error().ToString());
  auto csr = tls::MakeCsrDer(*key, "");
  if (!csr) return Complain("making a signing request: " + csr.error().ToString());
  pending_key_ = *key;
  pb::JoinRequest request;
  request.set_token(token_);
  request.set_csr_der(*csr);
  request.set_workload_id(options_.workload_id);
  join_channel_->Call("/weft.mesh.v1.Mesh/Join", request.SerializeAsString(), kCallTimeout,
                      [this](const GrpcStatus& s, std::string_view reply) { OnJoin(s, reply); });
}

void MeshClient::OnJoin(const GrpcStatus& status, std::string_view reply) {
  pb::JoinResponse response;
  std::string why;
  if (!status.ok()) why = status.ToString();
  else if (!response.ParseFromArray(reply.data(), static_cast<int>(reply.size()))) why = "the answer does not decode";
  else if (const auto& id = response.identity(); !Adopt(pending_key_, id.certificate_chain_pem(), id.trust_bundle_pem(), true)) why = error_;
  pending_key_.clear();
  if (!why.empty()) {
    base::Cells::Local().Add(join_failures_);
    Complain("join at " + options_.server_address + " was refused (" + why + "); trying again");
    uint64_t ceiling = std::min<uint64_t>(30 * base::kSecond, (500 * base::kMs) << std::min(attempt_++, 6u));
    loop_->Arm(&retry_, 250 * base::kMs + base::Random::ThisThread().Below(ceiling));
    return;
  }
  base::Cells::Local().Add(joins_);
  attempt_ = 0;
  token_.clear();
  // The channel's own callback is running: it is let go in a later turn.
  loop_->Post([this] { join_channel_.reset(); });
}

// Puts an identity in force. False (and error_) when it is not ours to use.
bool MeshClient::Adopt(const std::string& key, const std::string& chain, const std::string& roots, bool persist) {
  auto leaf = tls::ParseLeafPem(chain);
  if (!leaf) return error_ = "certificate: " + leaf.error().ToString(), false;
  if (auto s = tls::CheckKeyMatches(key, chain); !s) return error_ = s.error().ToString(), false;
  std::string want = "spiffe://" + options_.trust_domain + "/";
  if (!options_.trust_domain.empty() && leaf->spiffe_id.compare(0, want.size(), want) != 0)
    return error_ = "the certificate is for \"" + leaf->spiffe_id + "\", not in " + want, false;
  tls::ContextConfig config;
  config.certificate_chain_pem = chain, config.private_key_pem = key, config.trusted_ca_pem = roots;
  config.alpn = {"h2"}, config.sni = options_.server_name, config.parameters.min_version = 0x0304, config.spiffe = true;
  std::string domain = leaf->spiffe_id.substr(9, leaf->spiffe_id.find('/', 9) - 9);
  config.peer_sans = {{tls::SanMatch::kExact, tls::SanMatch::kUri, "spiffe://" + domain + "/ns/weft-system/sa/xds"}};
  auto context = tls::Context::Client(config);
  if (!context) return error_ = "identity: " + context.error().ToString(), false;
  identity_ = {chain, key, roots, leaf->spiffe_id, leaf->not_before_unix_s, leaf->not_after_unix_s};
  error_.clear();
  base::Cells::Local().Set(expiry_, static_cast<uint64_t>(identity_.not_after_unix_s));
  WEFT_LOG(kIdentity, kInfo, "identity ", leaf->spiffe_id, " serial ", leaf->serial_hex, " valid for ",
           leaf->not_after_unix_s - static_cast<int64_t>(loop_->wall_now() / base::kSecond), " s");
  if (persist && !options_.identity_dir.empty()) {
    mkdir(options_.identity_dir.c_str(), 0700);
    for (const auto& [name, text, mode] : {std::tuple<const char*, const std::string&, mode_t>{"/key.pem", key, 0600},
                                           {"/chain.pem", chain, 0644}, {"/roots.pem", roots, 0644}}) {
      if (auto s = WriteFile(options_.identity_dir + name, text, mode); !s) WEFT_LOG(kIdentity, kWarn, "identity_dir: ", s.error().ToString());
    }
  }
  ArmRenew();
  if (channel_) {
    channel_->SetTls(*context);
  } else {
    GrpcChannel::Options o;
    o.addresses = {options_.server_address}, o.tls = *context, o.authority = options_.server_name, o.mark = options_.mark;
    o.backoff_max_ns = 5 * base::kSecond;
    channel_ = std::make_unique<GrpcChannel>(loop_, o);
    OpenChannel();
  }
  if (hooks_.on_identity) hooks_.on_identity(identity_);
  return true;
}

void MeshClient::OpenChannel() {
  channel_->Start([this](bool up, const std::string& why) {
    if (up) OpenReport();
    else Complain("xDS server: " + why + "; traffic goes on with the configuration in force");
    if (hooks_.on_channel) hooks_.on_channel(up, why);
  });
}

// At half life, spread by a tenth; a failed try comes again soon.
void MeshClient::ArmRenew() {
  int64_t now = static_cast<int64_t>(loop_->wall_now() / base::kSecond);
  int64_t life = identity_.not_after_unix_s - identity_.not_before_unix_s;
  int64_t at = identity_.not_before_unix_s + life / 2 - static_cast<int64_t>(base::Random::ThisThread().Below(static_cast<uint64_t>(std::max<int64_t>(1, life / 20))));
  loop_->Arm(&renew_, static_cast<uint64_t>(std::max<int64_t>(1, at - now)) * base::kSecond);
}

void MeshClient::Renew() {
  if (stopped_ || renewing_ || !channel_) return;
  auto again = [this] {
    base::Cells::Local().Add(renew_failures_);
    int64_t left = identity_.not_after_unix_s - static_cast<int64_t>(loop_->wall_now() / base::kSecond);
    uint64_t wait = static_cast<uint64_t>(std::clamp<int64_t>(left / 20, 1, 60)) * base::kSecond;
    loop_->Arm(&renew_, wait / 2 + base::Random::ThisThread().Below(wait));
  };
  if (!channel_->up()) return again();
  auto key = tls::NewP256KeyPem();
  auto csr = key ? tls::MakeCsrDer(*key, identity_.spiffe_id) : base::Result<std::string>(base::Error("no key"));
  if (!csr) return again();
  pb::RenewRequest request;
  request.set_csr_der(*csr);
  renewing_ = true;
  channel_->Call("/weft.mesh.v1.Mesh/Renew", request.SerializeAsString(), kCallTimeout,
                 [this, key = *key, again](const GrpcStatus& s, std::string_view reply) {
                   renewing_ = false;
                   pb::RenewResponse response;
                   bool good = s.ok() && response.ParseFromArray(reply.data(), static_cast<int>(reply.size())) &&
                               Adopt(key, response.identity().certificate_chain_pem(), response.identity().trust_bundle_pem(), true);
                   if (good) return base::Cells::Local().Add(renewals_);
                   Complain("renewing the identity: " + (s.ok() ? error_ : s.ToString()));
                   again();
                 });
}

// ---- report

void MeshClient::OpenReport() {
  if (report_ || stopped_ || !channel_->up()) return;
  report_ = channel_->Open("/weft.mesh.v1.Mesh/Report", this);
  if (!report_) {
    loop_->Arm(&heartbeat_, base::kSecond);
    return;
  }
  last_reply_ns_ = loop_->now();
  base::Cells::Local().Set(connected_, 1);
  SendReport(true);
}

void MeshClient::SendReport(bool with_workload) {
  if (!report_) return;
  pb::WorkloadReport report;
  if (with_workload) report.mutable_workload()->ParseFromString(options_.workload);
  report.set_ready(ready_ && !draining_);
  report.set_draining(draining_);
  report.set_sequence(++sequence_);
  report_->Send(report.SerializeAsString());
  base::Cells::Local().Add(reports_);
  loop_->Arm(&heartbeat_, options_.heartbeat_ns);
}

void MeshClient::Heartbeat() {
  if (stopped_) return;
  if (!report_) return OpenReport();
  if (loop_->now() > last_reply_ns_ + 3 * options_.heartbeat_ns) {
    channel_->Reconnect("the server did not answer heartbeats");
    return;
  }
  SendReport(false);
}

void MeshClient::SetReady(bool ready) {
  if (ready == ready_) return;
  ready_ = ready;
  WEFT_LOG(kMain, kInfo, "the application is ", ready ? "ready" : "not ready");
  SendReport(false);
}

void MeshClient::SetDraining() {
  if (draining_) return;
  draining_ = true;
  SendReport(false);
}

void MeshClient::OnMessage(std::string_view bytes) {
  pb::ReportReply reply;
  if (!reply.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  last_reply_ns_ = loop_->now();
  acknowledged_ = reply.acknowledged_sequence();
  if (reply.endpoint_active() != endpoint_active_) {
    endpoint_active_ = reply.endpoint_active();
    WEFT_LOG(kMain, kInfo, endpoint_active_ ? "callers are sent here" : "callers are not sent here");
    if (hooks_.on_endpoint) hooks_.on_endpoint(endpoint_active_);
  }
}

void MeshClient::OnClosed(const GrpcStatus& status) {
  report_ = nullptr;
  base::Cells::Local().Set(connected_, 0);
  if (stopped_) return;
  if (channel_->up()) Complain("report stream: " + status.ToString());
  loop_->Arm(&heartbeat_, base::kSecond);
}

}  // namespace weft::xds
