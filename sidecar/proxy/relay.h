// tcp_proxy: a downstream connection and one upstream connection, bytes both ways.
//
// Each direction reads only while the other side's unsent bytes are below a limit, and ends on its own (half-close).
// A host that cannot be connected to is replaced by another one, max_connect_attempts times. Plain and TLS on both
// sides. One record at the end. Owned by its Connection. Threads: the worker's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sidecar/cluster/outlier.h"
#include "sidecar/proxy/connection.h"
#include "sidecar/upstream/transport.h"

namespace weft::proxy {

class Relay final : public io::Handler, public base::ListNode {
 public:
  Relay(Connection* connection, const model::TcpProxy& config);
  ~Relay();
  void Start();
  void OnDownstream(uint32_t events);  // the downstream socket is ready
  void AfterFlush();                   // downstream bytes were written
  void OnDownstreamGone();
  void ReportOpen();
  void CountIstioBytes();  // those since the last time
  void Refuse(std::string_view policy, const std::string& detail);  // the rules changed against an open connection

 private:
  enum class State : uint8_t { kIdle, kConnecting, kHandshake, kOpen, kDone };
  void OnReady(uint32_t events) override;
  void Connect();
  void ConnectFailed(upstream::Failure failure, const std::string& detail);
  void Connected();
  void CountIstioOpened();
  void Pump();
  void FlushUpstream();
  void DropUpstream(bool abort);
  void Fail(ResponseFlag flag, const char* detail);
  void End(bool abort_downstream);
  void OnTimer();
  void OnIdle();
  void OnDuration();
  void Wake() { core_->loop()->Schedule(io::Beat::kAdvance, &pump_); }

  Connection* const conn_;
  WorkerCore* const core_;
  const model::TcpProxy& config_;  // of the listener the connection holds
  TcpStats& stats_;
  State state_ = State::kIdle;
  bool holds_connection_ = false, finished_ = false;
  uint64_t started_ns_, attempt_ns_ = 0, last_activity_ns_;
  Pin snapshot_;
  std::shared_ptr<const model::ClusterEntry> entry_;
  ClusterState* cluster_ = nullptr;
  const cluster::Host* host_ = nullptr;
  std::shared_ptr<const cluster::Host> pseudo_host_;
  std::vector<const cluster::HostCell*> tried_;
  upstream::Transport up_;
  std::unique_ptr<Record> record_;
  // Istio's metrics: where this connection is counted, and what has been.
  std::optional<IstioStats::Connections> istio_;
  std::string upstream_own_identity_;
  uint64_t istio_sent_ = 0, istio_received_ = 0;
  upstream::MemberTask<Relay, &Relay::Pump> pump_{this};
  upstream::MemberTask<Relay, &Relay::FlushUpstream> flush_{this};
  upstream::MemberTimer<Relay, &Relay::OnTimer> timer_{this};       // connect
  upstream::MemberTimer<Relay, &Relay::OnIdle> idle_timer_{this};
  upstream::MemberTimer<Relay, &Relay::OnDuration> duration_timer_{this};
};

}  // namespace weft::proxy
