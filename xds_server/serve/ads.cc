// ADS over gRPC's callback API: a reactor a stream reads one request, hands it to the control thread, and reads the next
// only when that one was taken in; replies are queued (at most one a type) and written one after the other.
#include <grpcpp/grpcpp.h>

#include <deque>

#include "envoy/service/discovery/v3/ads.grpc.pb.h"
#include "xds_server/serve/services.h"

namespace weft::server {
namespace {

namespace xds = envoy::service::discovery::v3;

NodeInfo ToNode(const envoy::config::core::v3::Node& node) {
  NodeInfo out;
  out.id = node.id();
  out.cluster = node.cluster();
  const auto& fields = node.metadata().fields();
  auto text = [&](const char* key) {
    auto it = fields.find(key);
    return it == fields.end() ? std::string() : it->second.string_value();
  };
  out.ns = text("NAMESPACE");
  out.sds_dir = text("WEFT_SDS_DIR");
  while (out.sds_dir.size() > 1 && out.sds_dir.back() == '/') out.sds_dir.pop_back();
  out.ipv6 = text("WEFT_IPV6") == "true";
  out.version = node.user_agent_version();
  if (out.version.empty() && node.has_user_agent_build_version()) {
    const auto& v = node.user_agent_build_version().version();
    out.version = node.user_agent_name() + " " + std::to_string(v.major_number()) + "." + std::to_string(v.minor_number()) + "." + std::to_string(v.patch());
  }
  return out;
}

StreamRequest ToRequest(const xds::DeltaDiscoveryRequest& q) {
  StreamRequest out;
  out.type = TypeOfUrl(q.type_url());
  out.nonce = q.response_nonce();
  out.nack = q.has_error_detail();
  out.error = q.error_detail().message();
  out.subscribe.assign(q.resource_names_subscribe().begin(), q.resource_names_subscribe().end());
  out.unsubscribe.assign(q.resource_names_unsubscribe().begin(), q.resource_names_unsubscribe().end());
  out.initial_versions.insert(q.initial_resource_versions().begin(), q.initial_resource_versions().end());
  return out;
}

StreamRequest ToRequest(const xds::DiscoveryRequest& q) {
  StreamRequest out;
  out.type = TypeOfUrl(q.type_url());
  out.nonce = q.response_nonce();
  out.nack = q.has_error_detail();
  out.error = q.error_detail().message();
  out.names.assign(q.resource_names().begin(), q.resource_names().end());
  return out;
}

void FromReply(const Reply& r, xds::DeltaDiscoveryResponse* out) {
  const std::string url(TypeUrl(r.type));
  out->set_type_url(url);
  out->set_nonce(r.nonce);
  out->set_system_version_info(r.version);
  for (const auto& x : r.resources) {
    auto* resource = out->add_resources();
    resource->set_name(x->name);
    resource->set_version(x->version);
    resource->mutable_resource()->set_type_url(url);
    resource->mutable_resource()->set_value(x->bytes);
  }
  for (const auto& name : r.removed) out->add_removed_resources(name);
}

void FromReply(const Reply& r, xds::DiscoveryResponse* out) {
  const std::string url(TypeUrl(r.type));
  out->set_type_url(url);
  out->set_nonce(r.nonce);
  out->set_version_info(r.version);
  for (const auto& x : r.resources) {
    auto* any = out->add_resources();
    any->set_type_url(url);
    any->set_value(x->bytes);
  }
}

template <typename Req, typename Resp>
class Reactor;

// What the control thread holds: outlives the reactor, which it forgets when that is done.
template <typename Req, typename Resp>
class Session : public ReplySink {
 public:
  explicit Session(Reactor<Req, Resp>* reactor) : reactor_(reactor) {}
  void Push(Reply reply) override {
    std::lock_guard lock(mutex_);
    if (reactor_) reactor_->Enqueue(std::move(reply));
  }
  void Ready() override {
    std::lock_guard lock(mutex_);
    if (reactor_) reactor_->ReadNext();
  }
  void Close(int code, const std::string& reason) override {
    std::lock_guard lock(mutex_);
    if (reactor_) reactor_->End(grpc::Status(static_cast<grpc::StatusCode>(code), reason));
  }
  // Called by the reactor, which must not be inside Enqueue on this thread.
  void Forget() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }

 private:
  std::mutex mutex_;
  Reactor<Req, Resp>* reactor_;
};

template <typename Req, typename Resp>
class Reactor : public grpc::ServerBidiReactor<Req, Resp> {
 public:
  Reactor(Control& control, Stream::Variant variant, grpc::CallbackServerContext* context)
      : control_(control), session_(std::make_shared<Session<Req, Resp>>(this)) {
    Peer peer = PeerOf(*context);
    if (!peer.plaintext && peer.spiffe_id.empty()) {
      End(grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "a workload certificate is needed; get one with Mesh.Join"));
      return;
    }
    id_ = control_.OpenStream(session_, variant, std::move(peer));
    this->StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    std::optional<NodeInfo> node;
    if (request_.has_node()) node = ToNode(request_.node());
    control_.Request(id_, std::move(node), ToRequest(request_));
  }

  void ReadNext() {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    request_.Clear();
    this->StartRead(&request_);
  }

  void Enqueue(Reply reply) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    queue_.push_back(std::move(reply));
    if (!writing_) WriteNext();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ended_) {
      this->Finish(final_);
      return;
    }
    if (!ok) {
      queue_.clear();
      return;  // the read side ends the stream
    }
    if (!queue_.empty()) WriteNext();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    session_->Forget();
    if (id_) control_.CloseStream(id_);
    delete this;
  }

  void End(grpc::Status status) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    final_ = std::move(status);
    queue_.clear();
    if (!writing_) this->Finish(final_);
  }

 private:
  void WriteNext() {
    response_.Clear();
    FromReply(queue_.front(), &response_);
    queue_.pop_front();
    writing_ = true;
    this->StartWrite(&response_);
  }

  Control& control_;
  std::shared_ptr<Session<Req, Resp>> session_;
  uint64_t id_ = 0;
  std::mutex mutex_;
  Req request_;
  Resp response_;
  std::deque<Reply> queue_;
  bool writing_ = false, ended_ = false;
  grpc::Status final_;
};

class AdsService final : public xds::AggregatedDiscoveryService::CallbackService {
 public:
  explicit AdsService(Control& control) : control_(control) {}
  grpc::ServerBidiReactor<xds::DeltaDiscoveryRequest, xds::DeltaDiscoveryResponse>* DeltaAggregatedResources(
      grpc::CallbackServerContext* context) override {
    return new Reactor<xds::DeltaDiscoveryRequest, xds::DeltaDiscoveryResponse>(control_, Stream::kDelta, context);
  }
  grpc::ServerBidiReactor<xds::DiscoveryRequest, xds::DiscoveryResponse>* StreamAggregatedResources(
      grpc::CallbackServerContext* context) override {
    return new Reactor<xds::DiscoveryRequest, xds::DiscoveryResponse>(control_, Stream::kSotw, context);
  }

 private:
  Control& control_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdsService(Control& control) { return std::make_unique<AdsService>(control); }

}  // namespace weft::server
