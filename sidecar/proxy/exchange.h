// One HTTP request and its response, from the first byte of the head to the record.
//
//   kHead -> (filters) [kDelay] [kBuffer] -> route -> kAttempt [-> kBackoff -> kAttempt ...] -> kDone
//                          \______________ kReply (an answer of our own) ________/
//
// Events only set bits (codec, timers) and Wake() the exchange; Advance() is the one place that acts, run once per turn
// and event. Backpressure is not consuming: a side without send room leaves bytes in the other's Inbound, whose window
// or socket then fills.
//
// Files: exchange.cc (phases, relay, end), exchange_filters.cc, exchange_upstream.cc (attempts, retries),
// local_reply.cc, heads.cc (header rules). Threads: the worker's. Exchanges are reused: see WorkerCore::NewExchange.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "sidecar/base/list.h"
#include "sidecar/cluster/outlier.h"
#include "sidecar/cluster/retry.h"
#include "sidecar/codec/grpc.h"
#include "sidecar/http/ids.h"
#include "sidecar/proxy/connection.h"
#include "sidecar/proxy/core.h"
#include "sidecar/route/route_table.h"
#include "sidecar/upstream/pool.h"

namespace weft::proxy {

class Exchange final : public base::ListNode {
 public:
  explicit Exchange(WorkerCore* core);
  // A stream has begun on c; what arrives of the request goes to the returned place.
  codec::Inbound* Begin(Connection* c, codec::StreamId id);
  // Schedules Advance for this turn.
  void Wake();
  void HeadOverdue() { OnHeadTimer(); }  // its time began before it did
  void ReportOpen();

 private:
  enum class Phase : uint8_t { kHead, kDelay, kBuffer, kBackoff, kAttempt, kReply, kDone };
  enum : uint8_t { kHeadTimer = 1, kRouteTimer = 2, kTryTimer = 4, kIdleTimer = 8, kWaitTimer = 16, kDurationTimer = 32 };

  void Advance();
  void AwaitHead();
  void OnHead();
  // Filters from next_filter_ on; true when the request may go on to its route.
  bool RunFilters();
  bool RunRbac(const model::RbacConfig& config);
  void NoteRbac(const model::RbacConfig& config, const filters::rbac::Verdict& verdict);
  bool RunFault(const model::FaultConfig& config);
  bool RunRateLimit(const model::LocalRateLimitConfig& config);
  bool RunBuffer(const model::BufferConfig& config);
  bool Gather();
  bool AbortByFault();
  void EndFault();
  void Route();
  bool FindRoute();
  void Redirect();

  void StartAttempt();
  void ConnectAhead(upstream::HttpMode mode);
  AttemptRecord& NextAttemptRecord();
  void DecidedByCluster();
  void FillBreaker(AttemptRecord& a, const char* outcome, std::string_view detail);
  void NoResponse();
  void AdvanceAttempt();
  void SendRequestHead();
  void PumpRequest();
  void OnResponseHead();
  void AttemptFailed(cluster::TryResult result, ResponseFlag flag, const char* outcome, std::string detail);
  bool Retry(const cluster::TryResult& result);
  void FinalFailure(ResponseFlag flag, cluster::TryResult::Kind kind, const std::string& detail);
  void EndAttempt(const char* outcome, const std::string& detail, const cluster::Outcome* report);
  void ReleaseStream();
  bool TimeoutCoversResponse() const;
  void ArmRouteTimeout();
  void HandleTimers();
  bool UnderscoresAllowed();

  void PumpResponse();
  void SendInterim();
  void SendResponseHead(http::HeaderMap& head, bool end);
  void MaybeFinish();
  void ResponseBroken();
  void ResponseTimedOut();
  void DownstreamGone();
  void Finish();

  // Answers by ourselves. grpc_status -1: derived from the status. Never after the response has begun.
  void LocalReply(uint32_t status, std::string_view detail, std::string_view body, int grpc_status = -1);

  // heads.cc
  void PrepareRequestHead();
  void JoinLines(http::Token token);
  void TrustForwardedFor(uint32_t skip);
  void TraceHead();
  void ForwardClientCert();
  void StripHopHeaders();
  void PrepareResponseHead(http::HeaderMap& head);
  void ApplyRequestMutations();
  void ApplyResponseMutations(http::HeaderMap& head);
  void Capture(const http::HeaderMap& from, bool all, const std::vector<std::string>& names, http::HeaderMap& to);

  void BeginRecord();
  void DescribeRecord();
  void FillRecord();
  void CountIstio(const model::IstioStats& config);
  int64_t Since() const { return static_cast<int64_t>(core_->loop()->now() - started_ns_); }
  bool RequestEnded() const { return down_.bits & codec::Inbound::kEnd; }
  void TouchIdle() { last_activity_ns_ = core_->loop()->now(); }
  void OnHeadTimer() { timers_ |= kHeadTimer, Wake(); }
  void OnRouteTimer() { timers_ |= kRouteTimer, Wake(); }
  void OnTryTimer() { timers_ |= kTryTimer, Wake(); }
  void SetIdle(uint64_t idle_ns);
  void OnIdleTimer();
  void OnWaitTimer() { timers_ |= kWaitTimer, Wake(); }
  void OnDurationTimer() { timers_ |= kDurationTimer, Wake(); }
  void Reap();

  WorkerCore* const core_;
  Connection* conn_ = nullptr;
  codec::StreamId id_ = 0;
  Phase phase_ = Phase::kDone;
  uint8_t timers_ = 0, next_filter_ = 0;
  bool head_seen_ = false, counted_active_ = false;
  bool told_ = false;  // somebody reads the record: its texts are wanted
  bool grpc_ = false, head_request_ = false, upgrade_ = false, overloaded_ = false;
  bool request_sent_ = false, request_end_seen_ = false, request_abandoned_ = false;
  bool response_begun_ = false, response_ended_ = false;
  bool counts_messages_ = false;  // gRPC's, where Istio's metrics are counted
  bool cluster_limits_ = false;  // it is the cluster's limit that duration_timer_ stands for
  bool holds_request_ = false, holds_retry_ = false, holds_host_ = false, fault_counted_ = false, fault_abort_due_ = false;
  bool attempt_open_ = false, head_sent_ = false, replayable_ = true;
  uint64_t started_ns_ = 0, last_activity_ns_ = 0, idle_ns_ = 0, idle_due_ns_ = 0, attempt_started_ns_ = 0, route_timeout_ns_ = 0;
  uint64_t replay_limit_ = 64 * 1024, buffer_limit_ = 0, grpc_timeout_ns_ = 0;
  uint32_t fault_status_ = 0, local_status_ = 0;  // local_status_: of our own answer, before gRPC made it a 200
  int fault_grpc_status_ = -1;

  Pin snapshot_;
  const route::RouteTable* table_ = nullptr;  // of snapshot_ or of the listener the connection holds
  route::Found found_;
  http::TraceContext trace_;
  const model::ClusterEntry* entry_ = nullptr;     // of snapshot_, or newest_ after a retry
  std::shared_ptr<const model::ClusterEntry> newest_;
  ClusterState* cluster_ = nullptr;
  const model::BreakerThresholds* thresholds_ = nullptr;
  cluster::Breakers* breakers_ = nullptr;
  cluster::RetryState retry_;
  const cluster::Host* host_ = nullptr;
  std::shared_ptr<const cluster::Host> pseudo_host_;
  std::vector<const cluster::HostCell*> tried_;

  codec::Inbound down_;            // the request
  upstream::Stream stream_;        // the attempt's place upstream; its `in` is the response
  codec::Inbound reply_;           // an answer of our own
  codec::Inbound* source_ = nullptr;  // where the response comes from: &stream_.in or &reply_
  io::Buffer replay_;              // request body sent so far, while it may be needed again; before: gathered by the buffer filter
  io::Buffer again_;               // what a retry has to send first
  codec::GrpcMessageCount request_messages_, response_messages_;
  std::unique_ptr<Record> record_;
  std::string scratch_, location_;
  std::string upstream_own_identity_;  // what our certificate calls us there; kept where Istio's metrics are counted
  const char* reset_reason_ = "";
  const std::vector<std::pair<std::string, std::string>>* reply_headers_ = nullptr;  // of the configuration

  upstream::MemberTask<Exchange, &Exchange::Advance> advance_{this};
  upstream::MemberTask<Exchange, &Exchange::Reap> reap_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnHeadTimer> head_timer_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnRouteTimer> route_timer_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnTryTimer> try_timer_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnIdleTimer> idle_timer_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnWaitTimer> wait_timer_{this};
  upstream::MemberTimer<Exchange, &Exchange::OnDurationTimer> duration_timer_{this};
};

}  // namespace weft::proxy
