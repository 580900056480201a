// Membership of the mesh: makes a key, joins with a token, renews the identity at half life, reports the workload.
//
//   MeshClient mesh(loop, {.server_address = ..., .token_file = ..., .workload = encoded Workload ...}, hooks);
//   mesh.Start();
//   mesh.SetReady(true);             // the application's own check passed (weft run tells through the admin)
//   mesh.SetDraining();
//   mesh.channel()                   // the mTLS channel to the server: ADS and telemetry go over it as well
//
// First contact: the token is "<id>.<secret>.<sha256 of the root's public key, hex>"; the server must present a chain that
// ends in a root with that hash before the secret is sent. The key is made here and never leaves (written, 0600, only when
// identity_dir is set). Renewal replaces the context of later connections; open ones go on. While the server cannot be
// reached everything is retried with back-off, and said so in the log once a minute at most.
// Threads: main.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"
#include "sidecar/xds/grpc_channel.h"

namespace weft::xds {

struct MeshOptions {
  std::string server_address;                 // "ip:port"
  std::string server_name = "xds.weft";       // SNI
  std::string token_file, trust_domain, identity_dir;
  std::string workload;                       // encoded weft.mesh.v1.Workload
  std::string workload_id, service, service_namespace;
  uint32_t mark = 0;
  uint64_t heartbeat_ns = 5'000'000'000;
};

struct MeshIdentity {
  std::string chain_pem, key_pem, roots_pem, spiffe_id;
  int64_t not_before_unix_s = 0, not_after_unix_s = 0;
};

class MeshClient final : public GrpcStreamHandler {
 public:
  struct Hooks {
    std::function<void(const MeshIdentity&)> on_identity;                // at first and with each renewal
    std::function<void(bool up, const std::string& why)> on_channel;     // of the mTLS channel
    std::function<void(bool active)> on_endpoint;                        // callers are (not) being sent here
  };
  MeshClient(io::Loop* loop, MeshOptions options, Hooks hooks);
  ~MeshClient();
  void Start();
  void Stop();
  void SetReady(bool ready);
  void SetDraining();

  GrpcChannel* channel() { return channel_.get(); }
  bool joined() const { return !identity_.chain_pem.empty(); }
  const MeshIdentity& identity() const { return identity_; }
  const std::string& last_error() const { return error_; }
  bool endpoint_active() const { return endpoint_active_; }

 private:
  void OnMessage(std::string_view bytes) override;
  void OnClosed(const GrpcStatus& status) override;
  void Join();
  void OnJoin(const GrpcStatus& status, std::string_view reply);
  void Renew();
  bool Adopt(const std::string& key, const std::string& chain, const std::string& roots, bool persist);
  bool LoadKept();
  void OpenChannel();
  void OpenReport();
  void SendReport(bool with_workload);
  void Complain(const std::string& what);
  void ArmRenew();
  void Retry();

  template <void (MeshClient::*kFire)()>
  struct Own : io::Timer {
    explicit Own(MeshClient* m) : io::Timer([](io::Timer* t) { (static_cast<Own*>(t)->mesh->*kFire)(); }), mesh(m) {}
    MeshClient* mesh;
  };
  void Heartbeat();

  io::Loop* const loop_;
  const MeshOptions options_;
  Hooks hooks_;
  std::unique_ptr<GrpcChannel> join_channel_, channel_;
  GrpcStream* report_ = nullptr;
  std::string token_, pin_, pending_key_, error_;
  MeshIdentity identity_;
  uint64_t sequence_ = 0, acknowledged_ = 0, last_reply_ns_ = 0, complained_ns_ = 0;
  uint32_t attempt_ = 0;
  bool ready_ = false, draining_ = false, endpoint_active_ = false, renewing_ = false, stopped_ = false;
  Own<&MeshClient::Heartbeat> heartbeat_{this};
  Own<&MeshClient::Renew> renew_{this};
  Own<&MeshClient::Retry> retry_{this};
  base::StatId joins_, join_failures_, renewals_, renew_failures_, expiry_, connected_, reports_;
};

}  // namespace weft::xds
