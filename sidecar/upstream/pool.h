// Connections to one host, made and kept for HTTP requests: HTTP/1.1 one request at a time with a LIFO idle list,
// HTTP/2 many streams on one connection and a second when the first is full.
//
//   Stream s;  s.task = &exchange_task;
//   pool.Acquire(&s);                       // s.state: kOpen now, kWaiting, or kFailed (see s.failure)
//   ... kOpen: s.conn->codec().SendHead(s.id, head, end), s.conn->MarkDirty();
//   ... what arrives is in s.in, and s.task is scheduled
//   s.Close(codec::ResetCode::kCancel);     // at any time, in any state; complete exchanges leave the connection usable
//
// A pool's identity is everything that makes two connections interchangeable: cluster, address, TLS context, protocol.
// The owner (a worker) compares; a pool that left the configuration is drained: streams finish, idle connections close.
// Threads: the worker's. Ownership: the pool owns its connections; a Stream belongs to its exchange.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "sidecar/base/list.h"
#include "sidecar/base/stats.h"
#include "sidecar/codec/codec.h"
#include "sidecar/io/loop.h"
#include "sidecar/upstream/bind.h"
#include "sidecar/upstream/dial.h"
#include "sidecar/upstream/transport.h"

namespace weft::upstream {

class Pool;
class HttpConnection;

// Which HTTP version a connection speaks.
enum class HttpMode : uint8_t { kHttp1, kHttp2, kAlpn };  // kAlpn: what TLS negotiated, HTTP/1.1 without an answer

// Limits shared by all workers, counted with relaxed atomics; filled by the owner from the cluster's breaker cell.
struct BreakerHooks {
  void* cell = nullptr;
  bool (*acquire_connection)(void*) = nullptr;
  void (*release_connection)(void*) = nullptr;
  bool (*acquire_pending)(void*) = nullptr;
  void (*release_pending)(void*) = nullptr;
};

// Stat ids of the cluster a pool belongs to; kNoStat entries count nowhere.
struct PoolStats {
  base::StatId cx_total = 0, cx_active = 0, cx_http1_total = 0, cx_http2_total = 0, cx_connect_fail = 0,
               cx_connect_timeout = 0, cx_connect_ms = 0, cx_destroy = 0, cx_destroy_remote_with_active_rq = 0,
               cx_idle_timeout = 0, cx_max_requests = 0, cx_max_duration = 0, cx_overflow = 0, cx_protocol_error = 0, cx_rx_bytes = 0, cx_tx_bytes = 0,
               rq_pending_total = 0, rq_pending_active = 0, rq_pending_overflow = 0, rq_pending_failure_eject = 0,
               rq_cancelled = 0, ssl_handshake = 0, ssl_session_reused = 0, ssl_connection_error = 0, ssl_fail_verify_san = 0,
               ssl_fail_verify_error = 0, ssl_fail_verify_no_cert = 0, host_cx_connect_fail = 0;
};

struct PoolConfig {
  DialConfig dial;
  HttpMode mode = HttpMode::kHttp1;
  codec::Limits limits;
  uint64_t idle_timeout_ns = 60'000'000'000;
  uint32_t max_requests_per_connection = 0;  // 0: no limit
  uint64_t max_connection_duration_ns = 0;   // 0: no limit; then it takes no new requests
  // Connections are made ahead, for this many times the requests there are (Envoy's per_upstream_preconnect_ratio, 1 to 3).
  double preconnect_ratio = 1;
  // HTTP/2: a connection that was silent this long is asked whether it lives, and has so long to answer. 0: never.
  // With requests under way the shorter time counts, so that they do not wait long for a host that is gone.
  uint64_t ping_interval_ns = 30'000'000'000, ping_active_ns = 3'000'000'000, ping_timeout_ns = 5'000'000'000;
  BreakerHooks breaker;
  PoolStats stats;
};

// One request's place on an upstream connection, embedded in an attempt. Reused after Close().
struct Stream : base::ListNode {
  enum class State : uint8_t { kIdle, kWaiting, kOpen, kFailed };
  State state = State::kIdle;
  Failure failure = Failure::kNone;
  bool reused = false;         // the connection had served a request before
  codec::StreamId id = -1;
  io::Task* task = nullptr;    // scheduled (advance beat) whenever something here changes
  io::Loop* loop = nullptr;
  HttpConnection* conn = nullptr;  // kOpen
  Pool* pool = nullptr;
  codec::Inbound in;
  std::string failure_detail;  // errno text, TLS alert, ...
  std::string local_address;   // our end of the connection that failed before it could be used, when it had one
  uint64_t connect_ns = 0;     // TCP and TLS of the connection, when it was made for a first request

  ~Stream() { Close(codec::ResetCode::kCancel); }
  // Gives the place back: a finished stream is released, one under way is reset, a waiting one leaves the queue.
  void Close(codec::ResetCode code);
  // The message is complete both ways: the connection may be used again.
  void Finish();
  void Clear();  // empties `in` for the next use, keeping memory
};

class HttpConnection final : public base::ListNode, public io::Handler {
 public:
  HttpConnection(Pool* pool, io::Loop* loop);
  ~HttpConnection();

  codec::Codec& codec() { return *codec_; }
  // Something was given to the codec: emit and send in this turn's flush beat.
  void MarkDirty() { loop_->Schedule(io::Beat::kFlush, &flush_); }
  // A stream's body was consumed: reading may go on.
  void Consumed(codec::StreamId id, size_t n);
  const Transport& transport() const { return transport_; }
  const std::string& local_address() const { return local_address_; }
  bool http2() const { return codec_ && codec_->is_http2(); }

 private:
  friend class Pool;
  friend struct Stream;
  enum class State : uint8_t { kConnecting, kHandshake, kReady, kClosed };

  void Connect();
  void OnReady(uint32_t events) override;
  void Input();    // read, feed, schedule what is ready
  void Flush();
  void Ready();
  void Dispatch();
  void CountBytes();
  void Fail(Failure failure, std::string detail);  // closes; every stream learns why
  void Detach(Stream* s);
  void OnTimer();
  void OnPing();
  void Watch(uint64_t delay);  // OnPing comes then
  uint64_t PingInterval() const;
  size_t ReadLimit() const { return http2() ? Transport::kSharedPortion : Transport::kPortion; }
  void BeginIdle();
  uint64_t IdleTimeout() const;
  void OnAge();
  bool usable() const;
  size_t room() const;

  void Reap() { delete this; }

  Pool* pool_;
  io::Loop* loop_;
  State state_ = State::kConnecting;
  bool draining_ = false, served_ = false;
  static constexpr uint64_t kWatchNs = 1'000'000'000;  // between two looks at a connection that requests wait for
  uint64_t started_ = 0, connect_ns_ = 0, requests_ = 0, last_rx_ns_ = 0, asked_ns_ = 0, watch_due_ns_ = 0, idle_since_ = 0, idle_due_ns_ = 0;
  size_t streams_ = 0;
  Transport transport_;
  std::unique_ptr<codec::Codec> codec_;
  base::List<Stream> open_;
  std::string local_address_;
  MemberTask<HttpConnection, &HttpConnection::Flush> flush_{this};
  MemberTask<HttpConnection, &HttpConnection::Input> input_{this};
  MemberTask<HttpConnection, &HttpConnection::Reap> reap_{this};
  MemberTimer<HttpConnection, &HttpConnection::OnTimer> timer_{this};  // connect timeout, then idle timeout
  MemberTimer<HttpConnection, &HttpConnection::OnAge> age_timer_{this};
  MemberTimer<HttpConnection, &HttpConnection::OnPing> ping_timer_{this};  // is the peer still there?
};

class Pool {
 public:
  Pool(io::Loop* loop, PoolConfig config);
  ~Pool();
  Pool(const Pool&) = delete;

  void Acquire(Stream* s);
  // One connection ahead of the request that is expected, where there is none.
  void Preconnect();
  // No stream starts on the present connections any more; idle ones close now, others when their streams end.
  void Drain();
  // Nothing is waiting or open: the owner may delete it (in the reap beat).
  bool empty() const { return connections_ == 0 && waiting_.empty(); }
  const PoolConfig& config() const { return config_; }
  size_t connections() const { return connections_; }

 private:
  friend class HttpConnection;
  friend struct Stream;
  bool StartConnection();
  void ConnectAhead();
  size_t PerConnection() const;  // streams that a connection under way is expected to carry
  bool OpenOn(HttpConnection* c, Stream* s);
  void ServeWaiting();
  void OnStreamDone(HttpConnection* c);
  void FailWaiting(size_t n, Failure failure, const std::string& detail, const std::string& local_address);
  void StopWaiting(Stream* s);
  void Sort(HttpConnection* c);  // into idle_, busy_ or full_ after a change

  io::Loop* loop_;
  PoolConfig config_;
  base::List<HttpConnection> idle_, usable_, full_, connecting_;
  base::List<Stream> waiting_;
  size_t connections_ = 0, connecting_count_ = 0, waiting_count_ = 0, streams_ = 0;
};

}  // namespace weft::upstream
