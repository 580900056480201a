// What lives on a worker's thread: the snapshot in force, acceptors, connections, clusters, free lists.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "sidecar/base/list.h"
#include "sidecar/base/random.h"
#include "sidecar/codec/codec.h"
#include "sidecar/filters/local_ratelimit/local_ratelimit.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/proxy/clusters.h"
#include "sidecar/proxy/istio_stats.h"
#include "sidecar/proxy/plane.h"
#include "sidecar/proxy/record.h"
#include "sidecar/proxy/stats.h"
#include "sidecar/upstream/bind.h"

namespace weft::proxy {

class Acceptor;
class Connection;
class Exchange;
class Relay;
class Worker;

// A snapshot as one worker holds it: exchanges pin it with a plain count instead of an atomic one.
struct LocalSnapshot {
  explicit LocalSnapshot(model::SnapshotPtr c) : config(std::move(c)), revision(strtoull(config->config_revision.c_str(), nullptr, 10)) {}
  model::SnapshotPtr config;
  uint64_t revision;
  uint32_t pins = 0;
};
class Pin {
 public:
  Pin() = default;
  explicit Pin(LocalSnapshot* s) : s_(s) { if (s_) ++s_->pins; }
  Pin(Pin&& o) noexcept : s_(o.s_) { o.s_ = nullptr; }
  Pin& operator=(Pin&& o) noexcept { std::swap(s_, o.s_); return *this; }
  ~Pin() { Reset(); }
  void Reset() {
    if (s_ && --s_->pins == 0) delete s_;
    s_ = nullptr;
  }
  explicit operator bool() const { return s_ != nullptr; }
  const model::ConfigSnapshot* operator->() const { return s_->config.get(); }
  const model::ConfigSnapshot& operator*() const { return *s_->config; }
  LocalSnapshot* get() const { return s_; }

 private:
  LocalSnapshot* s_ = nullptr;
};

class WorkerCore {
 public:
  WorkerCore(Worker* worker, io::Loop* loop, const PlaneOptions& options, uint32_t index);
  ~WorkerCore();

  // Between turns (mailbox).
  void Swap(model::SnapshotPtr snapshot, ListenSockets sockets);
  void StartDrain(uint64_t deadline_ns);
  void CloseAll();
  // A connection accepted here or handed over by another worker.
  void Adopt(int fd, const std::string& listener, const model::Address& peer);
  // Accepted: to the least loaded worker. False: over the limit, the descriptor is closed.
  bool Place(int fd, const std::string& listener, const model::Address& peer);

  Pin Snapshot() { return Pin(current_.get()); }
  bool has_snapshot() const { return static_cast<bool>(current_); }
  io::Loop* loop() { return loop_; }
  Clusters& clusters() { return clusters_; }
  base::Random& random() { return base::Random::ThisThread(); }
  const PlaneOptions& options() const { return options_; }
  bool draining() const { return draining_; }
  IstioStats& istio_stats() { return istio_stats_; }
  // Its bytes are counted from time to time while it lasts.
  void CountWhileOpen(Relay* relay);
  RateLimitStats& RateLimit(const std::string& prefix);
  TcpStats& Tcp(const std::string& prefix);
  ProxyProtocolStats& ProxyProtocol(const std::string& prefix);
  ListenerStats& ListenerStatsOf(const model::Listener& listener);
  filters::local_ratelimit::Bucket* BucketOf(const model::LocalRateLimitConfig& config);

  // Exchanges are kept for reuse with the memory of their header maps.
  // HTTP/1.1 codecs are lent to connections that have something to read: an idle one needs none.
  std::unique_ptr<codec::Codec> Http1Server(const codec::Limits& limits, codec::StreamHost* host);
  void Rest(std::unique_ptr<codec::Codec> http1);
  Exchange* NewExchange();
  void FreeExchange(Exchange* e);
  // Records are kept for reuse with the memory of their texts.
  std::unique_ptr<Record> NewRecord();
  void Finish(std::unique_ptr<Record> record);  // shown to the sink, then kept
  uint64_t NextOpenId() { return ++next_open_ * 64 + index_; }

  // Into the attempt that found no host: which ones are ejected (at most 16), since when and why.
  void ListEjected(const model::ClusterEntry& entry, AttemptRecord& attempt);

  void OnConnectionOpen(Connection* c);
  void OnConnectionClosed(Connection* c);
  void Reap(Connection* c);  // closed, and nothing refers to it any more: deleted at the end of the turn
  void OnRequest(int delta);
  uint64_t NextConnectionId();
  // Text that lives as long as the worker, for outcomes from a small closed set.
  const char* Intern(const std::string& text);
  uint32_t active_faults = 0;

 private:
  void OnSweep();
  void OnOpenSweep();
  void OnReap();

  Worker* worker_;
  io::Loop* loop_;
  const PlaneOptions options_;
  const uint32_t index_;
  Pin current_;
  Clusters clusters_;
  IstioStats istio_stats_;
  base::List<Relay> counted_relays_;
  std::unordered_map<std::string, std::unique_ptr<Acceptor>> acceptors_;  // by listener name
  base::List<Connection> connections_, dead_;
  std::vector<Exchange*> free_exchanges_;
  std::vector<std::unique_ptr<codec::Codec>> resting_codecs_;
  std::vector<std::unique_ptr<Record>> spare_records_;
  std::unique_ptr<RecordSink> sink_;  // null: nobody reads records
  std::unordered_map<std::string, std::unique_ptr<RateLimitStats>> rate_limit_stats_;
  std::unordered_map<std::string, std::unique_ptr<TcpStats>> tcp_stats_;
  std::unordered_map<std::string, std::unique_ptr<ListenerStats>> listener_stats_;
  std::unordered_map<std::string, ProxyProtocolStats> proxy_protocol_stats_;
  std::unordered_map<std::string, std::shared_ptr<filters::local_ratelimit::Bucket>> buckets_;  // by configuration key
  upstream::MemberTask<WorkerCore, &WorkerCore::OnReap> reap_{this};
  upstream::MemberTimer<WorkerCore, &WorkerCore::OnSweep> sweep_{this};
  upstream::MemberTimer<WorkerCore, &WorkerCore::OnOpenSweep> open_sweep_{this};
  upstream::MemberTimer<WorkerCore, &WorkerCore::CloseAll> drain_deadline_{this};
  std::set<std::string> interned_;
  bool draining_ = false;
  uint64_t next_connection_ = 0, next_open_ = 0;
};

}  // namespace weft::proxy
