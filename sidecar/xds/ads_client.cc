#include "sidecar/xds/ads_client.h"

#include <algorithm>

#include "sidecar/base/log.h"
#include "sidecar/base/random.h"

namespace weft::xds {

AdsClient::AdsClient(io::Loop* loop, GrpcChannel* channel, Ads::Mode mode, std::string node, SnapshotBuilder* builder)
    : loop_(loop), channel_(channel), mode_(mode), builder_(builder), ads_(mode, std::move(node), builder) {
  auto& s = base::Stats::Get();
  static const char* const kScopes[kTypes] = {"cluster_manager.cds", "cluster_manager.eds", "listener_manager.lds", "http.rds", "sds"};
  for (int i = 0; i < kTypes; ++i) {
    std::string scope = kScopes[i];
    per_type_[i].attempt = s.Counter(scope + ".update_attempt");
    per_type_[i].success = s.Counter(scope + ".update_success");
    per_type_[i].rejected = s.Counter(scope + ".update_rejected");
    per_type_[i].failure = s.Counter(scope + ".update_failure");
  }
  connected_ = s.Gauge("control_plane.connected_state");
  pending_ = s.Gauge("control_plane.pending_requests");
  rate_limit_ = s.Counter("control_plane.rate_limit_enforced");
}
AdsClient::~AdsClient() { Stop(); }

void AdsClient::Stop() {
  retry_.Cancel();
  if (stream_) std::exchange(stream_, nullptr)->Cancel();
  base::Cells::Local().Set(connected_, 0);
}

void AdsClient::OnChannel(bool up, const std::string& why) {
  if (up) {
    attempt_ = 0;
    Open();
    return;
  }
  if (why != error_) WEFT_LOG(kConfig, kWarn, "discovery: ", why, "; the configuration in force stays");
  error_ = why;
  for (auto& t : per_type_) base::Cells::Local().Add(t.failure);
}

void AdsClient::Open() {
  if (stream_ || !channel_->up()) return;
  stream_ = channel_->Open(mode_ == Ads::kDelta ? "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
                                                : "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                           this);
  if (!stream_) {
    loop_->Arm(&retry_, base::kSecond);
    return;
  }
  base::Cells::Local().Set(connected_, 1);
  blocked_.clear();
  ads_.OnOpen();
  NamesChanged();
  Pump();
}

void AdsClient::NamesChanged() {
  for (Type t : {Type::kEndpoint, Type::kRoute, Type::kSecret}) ads_.SetNames(t, builder_->Names(t));
  if (!in_message_) Pump();
}

void AdsClient::Pump() {
  if (!stream_) return;
  if (!blocked_.empty()) {
    if (!stream_->Send(blocked_)) return;
    blocked_.clear();
  }
  std::string request;
  while (ads_.Next(&request)) {
    if (!stream_->Send(request)) {
      blocked_ = request;
      return;
    }
  }
}

void AdsClient::OnMessage(std::string_view bytes) {
  error_.clear();
  attempt_ = 0;
  in_message_ = true;
  ads_.OnMessage(bytes);
  in_message_ = false;
  for (int i = 0; i < kTypes; ++i) {
    const Ads::TypeState& t = ads_.state(static_cast<Type>(i));
    PerType& p = per_type_[i];
    if (t.updates + t.rejected == p.updates + p.refusals) continue;
    base::Cells::Local().Add(p.attempt);
    if (t.rejected != p.refusals) {
      base::Cells::Local().Add(p.rejected);
      WEFT_LOG(kConfig, kWarn, "refused: ", t.last_error);
    } else {
      base::Cells::Local().Add(p.success);
      WEFT_LOG(kConfig, kDebug, TypeShort(static_cast<Type>(i)), " version \"", t.version, "\" applied, ", t.versions.size(), " resources");
    }
    p.updates = t.updates, p.refusals = t.rejected;
    builder_->SetVersion(static_cast<Type>(i), t.version);
    // Our server's version is its configuration revision; a foreign one's is an opaque word and stays out of records.
    if (!t.version.empty() && std::all_of(t.version.begin(), t.version.end(), [](char c) { return c >= '0' && c <= '9'; }))
      builder_->SetRevision(t.version);
  }
  Pump();
}

void AdsClient::OnClosed(const GrpcStatus& status) {
  stream_ = nullptr;
  ads_.OnClosed();
  base::Cells::Local().Set(connected_, 0);
  std::string why = "stream closed: " + status.ToString();
  if (why != error_) WEFT_LOG(kConfig, kWarn, "discovery: ", why, "; the configuration in force stays");
  error_ = why;
  if (!channel_->up()) return;  // OnChannel opens the next
  uint64_t ceiling = std::min<uint64_t>(30 * base::kSecond, (500 * base::kMs) << std::min(attempt_++, 6u));
  loop_->Arm(&retry_, 50 * base::kMs + base::Random::ThisThread().Below(ceiling));
}

bool AdsClient::initialized() const {
  for (int i = 0; i < kTypes; ++i) {
    const auto& t = ads_.state(static_cast<Type>(i));
    if (t.all && !t.answered) return false;
  }
  return true;
}

}  // namespace weft::xds
