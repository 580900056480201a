// ADS over a GrpcChannel: keeps one stream open, feeds the state machine, tells the builder, subscribes to what the
// builder refers to. Counts Envoy's stats (control_plane.*, cluster_manager.cds.*, listener_manager.lds.* ...).
//
//   AdsClient ads(loop, &channel, Ads::kDelta, node_bytes, &builder);
//   ads.WatchAll(Type::kCluster); ads.WatchAll(Type::kListener);
//   ads.OnChannel(up, why);      // from the channel's state function
//   ads.NamesChanged();          // from the builder's on_names
//
// Threads: main.
#pragma once

#include <functional>
#include <string>

#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"
#include "sidecar/xds/ads.h"
#include "sidecar/xds/grpc_channel.h"
#include "sidecar/xds/snapshot_builder.h"

namespace weft::xds {

class AdsClient final : public GrpcStreamHandler {
 public:
  AdsClient(io::Loop* loop, GrpcChannel* channel, Ads::Mode mode, std::string node, SnapshotBuilder* builder);
  ~AdsClient();
  void WatchAll(Type type) { ads_.WatchAll(type); }
  void OnChannel(bool up, const std::string& why);
  void NamesChanged();
  void Stop();

  bool connected() const { return stream_ != nullptr; }
  // Every type watched as a whole has been answered once.
  bool initialized() const;
  const Ads& state() const { return ads_; }
  const std::string& last_error() const { return error_; }

 private:
  void OnMessage(std::string_view bytes) override;
  void OnClosed(const GrpcStatus& status) override;
  void Open();
  void Pump();

  struct Retry : io::Timer {
    explicit Retry(AdsClient* c) : io::Timer([](io::Timer* t) { static_cast<Retry*>(t)->client->Open(); }), client(c) {}
    AdsClient* client;
  };
  io::Loop* const loop_;
  GrpcChannel* const channel_;
  const Ads::Mode mode_;
  SnapshotBuilder* const builder_;
  Ads ads_;
  GrpcStream* stream_ = nullptr;
  std::string error_;
  uint32_t attempt_ = 0;
  bool in_message_ = false;
  std::string blocked_;  // a request the stream had no room for
  Retry retry_{this};
  struct PerType {
    base::StatId attempt, success, rejected, failure;
    uint64_t updates = 0, refusals = 0;
  } per_type_[kTypes];
  base::StatId connected_, pending_, rate_limit_;
};

}  // namespace weft::xds
