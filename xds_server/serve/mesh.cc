// weft.mesh.v1.Mesh: Join (the one call without a certificate), Renew, Report.
#include <grpcpp/grpcpp.h>

#include <deque>

#include "api/weft/mesh/v1/mesh.grpc.pb.h"
#include "sidecar/base/log.h"
#include "xds_server/serve/services.h"

namespace weft::server {
namespace {

namespace mesh = weft::mesh::v1;
using grpc::Status;
using grpc::StatusCode;

Workload ToWorkload(const mesh::Workload& m) {
  Workload w;
  w.id = m.id();
  w.service = {m.namespace_().empty() ? "default" : m.namespace_(), m.service()};
  w.version = m.version(), w.address = m.address(), w.sidecar_version = m.sidecar_version();
  for (const auto& p : m.ports()) {
    Port port;
    port.target_port = static_cast<uint16_t>(p.number() > 65535 ? 0 : p.number());
    port.service_port = static_cast<uint16_t>(p.service_port() > 65535 ? 0 : p.service_port() ? p.service_port() : p.number());
    switch (p.protocol()) {
      case mesh::HTTP2: port.protocol = Protocol::kHttp2; break;
      case mesh::GRPC: port.protocol = Protocol::kGrpc; break;
      case mesh::TCP: port.protocol = Protocol::kTcp; break;
      default: port.protocol = Protocol::kHttp;
    }
    w.ports.push_back(port);
  }
  w.labels.insert(m.labels().begin(), m.labels().end());
  return w;
}

class ReportReactor;

struct ReportLink {
  std::mutex mutex;
  ReportReactor* reactor;
};

class ReportReactor : public grpc::ServerBidiReactor<mesh::WorkloadReport, mesh::ReportReply> {
 public:
  ReportReactor(Control& control, const std::string& trust_domain, grpc::CallbackServerContext* context) : control_(control) {
    link_ = std::make_shared<ReportLink>();
    link_->reactor = this;
    Name identity;
    const Peer peer = PeerOf(*context);
    if (!ParseSpiffeId(peer.spiffe_id, trust_domain, identity)) {
      End(Status(StatusCode::UNAUTHENTICATED, "a workload certificate is needed; get one with Mesh.Join"));
      return;
    }
    id_ = control_.OpenReport(identity, peer.not_after_unix_s);
    StartRead(&report_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(Status::OK);
    Control::Report r;
    if (report_.has_workload()) r.workload = ToWorkload(report_.workload());
    r.ready = report_.ready(), r.draining = report_.draining();
    control_.OnReport(id_, std::move(r), [link = link_, sequence = report_.sequence()](bool active, const std::string& error) {
      std::lock_guard lock(link->mutex);
      if (link->reactor) link->reactor->Answer(sequence, active, error);
    });
  }

  void Answer(uint64_t sequence, bool active, const std::string& error) {
    if (!error.empty()) return End(Status(StatusCode::PERMISSION_DENIED, error));
    std::lock_guard lock(mutex_);
    if (ended_) return;
    reply_.set_acknowledged_sequence(sequence);
    reply_.set_endpoint_active(active);
    writing_ = true;
    StartWrite(&reply_);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ended_) {
      Finish(final_);
      return;
    }
    if (!ok) {
      ended_ = true;
      Finish(Status::CANCELLED);
      return;
    }
    report_.Clear();
    StartRead(&report_);  // one report at a time: the peer's flow control holds back a flood
  }

  void OnCancel() override { End(Status::CANCELLED); }

  void OnDone() override {
    {
      std::lock_guard lock(link_->mutex);
      link_->reactor = nullptr;
    }
    if (id_) control_.CloseReport(id_);
    delete this;
  }

 private:
  void End(Status status) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    final_ = std::move(status);
    if (!writing_) Finish(final_);
  }

  Control& control_;
  std::shared_ptr<ReportLink> link_;
  uint64_t id_ = 0;
  std::mutex mutex_;
  mesh::WorkloadReport report_;
  mesh::ReportReply reply_;
  bool writing_ = false, ended_ = false;
  Status final_;
};

// "ipv4:10.77.0.4:51234" -> "ipv4:10.77.0.4"
std::string AddressOnly(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

class MeshService final : public mesh::Mesh::CallbackService {
 public:
  MeshService(Control& control, const Authority& authority, Store& store, base::Clock* clock)
      : control_(control), authority_(authority), store_(store), clock_(clock) {}

  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context, const mesh::JoinRequest* q, mesh::JoinResponse* a) override {
    auto* reactor = context->DefaultReactor();
    Status s = DoJoin(PeerOf(*context), *q, a);
    if (s.ok()) {
      ++control_.joins;
    } else {
      ++control_.joins_refused;
      WEFT_LOG(kIdentity, kWarn, "join from ", context->peer(), " refused: ", s.error_message());
    }
    reactor->Finish(s);
    return reactor;
  }

  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context, const mesh::RenewRequest* q, mesh::RenewResponse* a) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(DoRenew(PeerOf(*context), *q, a));
    return reactor;
  }

  grpc::ServerBidiReactor<mesh::WorkloadReport, mesh::ReportReply>* Report(grpc::CallbackServerContext* context) override {
    return new ReportReactor(control_, authority_.trust_domain(), context);
  }

 private:
  int64_t NowS() { return static_cast<int64_t>(clock_->UnixNs() / base::kSecond); }

  Status DoJoin(const Peer& peer, const mesh::JoinRequest& q, mesh::JoinResponse* a) {
    const int64_t now_ms = static_cast<int64_t>(clock_->MonotonicNs() / base::kMs);
    const std::string address = AddressOnly(peer.address);
    TokenParts token;
    if (!SplitToken(q.token(), token)) return Refused(address, now_ms, "not a join token");
    auto record = store_.FindToken(token.id);
    const TokenVerdict verdict = CheckToken(record ? &*record : nullptr, Sha256Hex(token.secret), NowS());
    if (verdict != TokenVerdict::kOk) return Refused(address, now_ms, std::string(TokenVerdictText(verdict)));
    {
      std::lock_guard lock(mutex_);
      if (!per_identity_.Take(record->service.ToString(), now_ms)) {
        return Status(StatusCode::RESOURCE_EXHAUSTED, "too many joins of " + record->service.ToString() + "; try again in a minute");
      }
    }
    auto cert = authority_.SignRequest(q.csr_der(), record->service, NowS());
    if (!cert) return Status(StatusCode::INVALID_ARGUMENT, cert.error().ToString());
    if (!store_.UseToken(token.id)) return Refused(address, now_ms, std::string(TokenVerdictText(TokenVerdict::kUsedUp)));
    Fill(*cert, a->mutable_identity());
    WEFT_LOG(kIdentity, kInfo, cert->spiffe_id, " joined from ", peer.address, " as ", q.workload_id().substr(0, 128), " with token ", token.id);
    return Status::OK;
  }

  // Guessing is slowed down by address; a caller over its limit learns nothing about the token.
  Status Refused(const std::string& address, int64_t now_ms, const std::string& reason) {
    std::lock_guard lock(mutex_);
    if (!per_address_.Take(address, now_ms)) return Status(StatusCode::RESOURCE_EXHAUSTED, "too many failed joins; try again in a minute");
    return Status(StatusCode::UNAUTHENTICATED, reason);
  }

  Status DoRenew(const Peer& peer, const mesh::RenewRequest& q, mesh::RenewResponse* a) {
    Name identity;
    if (!ParseSpiffeId(peer.spiffe_id, authority_.trust_domain(), identity)) {
      return Status(StatusCode::UNAUTHENTICATED, "a workload certificate is needed to renew it");
    }
    {
      std::lock_guard lock(mutex_);
      if (!per_identity_.Take(identity.ToString(), static_cast<int64_t>(clock_->MonotonicNs() / base::kMs))) {
        return Status(StatusCode::RESOURCE_EXHAUSTED, "too many renewals of " + identity.ToString());
      }
    }
    auto cert = authority_.SignRequest(q.csr_der(), identity, NowS());
    if (!cert) return Status(StatusCode::INVALID_ARGUMENT, cert.error().ToString());
    ++control_.renewals;
    Fill(*cert, a->mutable_identity());
    return Status::OK;
  }

  void Fill(const Certificate& cert, mesh::Identity* out) {
    out->set_certificate_chain_pem(cert.chain_pem);
    out->set_trust_bundle_pem(authority_.bundle_pem());
    out->set_spiffe_id(cert.spiffe_id);
    out->set_not_after_unix_s(cert.not_after_unix_s);
  }

  Control& control_;
  const Authority& authority_;
  Store& store_;
  base::Clock* clock_;
  std::mutex mutex_;
  RateLimit per_identity_{200, 200};  // instances of one service, all restarted at once
  RateLimit per_address_{20, 10};
};

}  // namespace

std::unique_ptr<grpc::Service> MakeMeshService(Control& control, const Authority& authority, Store& store, base::Clock* clock) {
  return std::make_unique<MeshService>(control, authority, store, clock);
}

}  // namespace weft::server
