// Access logs that go to servers: entries are batched and sent over gRPC, as Envoy's access log service (a stream per
// log_name) or OTLP (an Export per batch).
//
//   GrpcLogs servers({.loop = &loop, .origin = node, .find = [&](const std::string& cluster) { return target; }});
//   servers.Add(config, entry);  // encoded (grpc_log_encode.h)
//   servers.SnapshotChanged(*snapshot);
//   servers.Sweep();             // once a second: ends the streams of logs that are configured no more
//   servers.Finish();            // at the end, again and again until it is true or time is up
//
// A batch leaves when it reaches the log's buffer_bytes, or its flush interval after the first entry. While the server
// cannot be reached batches wait, in order; what comes when kMaxWaiting bytes wait is dropped. Stream messages are not
// acknowledged (ALS has no such thing): those under way when a connection breaks are lost, as Envoy's are. An Export that
// was answered with UNAVAILABLE is made again, kMaxTries times in all.
//
// Stats, by Envoy's names: access_logs.grpc_access_log.logs_written (taken), .logs_dropped (found no room, or left over at
// the end), .grpc_entries_flushed (handed to the stream); access_logs.open_telemetry_access_log.[PREFIX.]logs_written
// (accepted by the server) and .logs_dropped. Threads: the loop's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/stats.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/grpc_log.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/telemetry/otlp_encode.h"
#include "sidecar/xds/grpc_channel.h"

namespace weft::telemetry {

// Where a cluster's endpoints are now; without addresses: unknown, or it has none.
struct LogTarget {
  std::vector<std::string> addresses;           // "ip:port" or a unix socket's path
  std::shared_ptr<const tls::Context> tls;      // null: plaintext
  bool operator==(const LogTarget&) const = default;
};

// One log's way to its server: its batches, its connection and, for ALS, its stream.
class LogSender final : public xds::GrpcStreamHandler {
 public:
  static constexpr size_t kMaxWaiting = 4u << 20, kMaxQueued = 1u << 20, kMaxCalls = 16;
  static constexpr uint32_t kMaxTries = 5;

  LogSender(io::Loop* loop, std::shared_ptr<const model::GrpcLog> config, const LogOrigin& origin, uint32_t mark);
  ~LogSender();
  LogSender(const LogSender&) = delete;
  void Add(std::string_view entry);     // encoded
  void SetTarget(const LogTarget& target);
  const std::string& cluster() const { return config_->cluster; }
  // Sends what waits and ends the stream; true once both are done. Add() begins anew.
  bool Finish();

  size_t waiting_bytes() const { return waiting_ + pending_.size(); }

 private:
  struct Batch {
    std::string entries;                // encoded, with their tags
    uint32_t count = 0, tries = 0;
  };
  struct FlushTimer : io::Timer {
    explicit FlushTimer(LogSender* s) : io::Timer([](io::Timer* t) { static_cast<FlushTimer*>(t)->sender->OnTimer(); }), sender(s) {}
    LogSender* sender;
  };
  void OnMessage(std::string_view) override {}
  void OnClosed(const xds::GrpcStatus& status) override;
  void OnTimer();
  void Seal();                          // what is pending becomes a batch
  void Send();
  bool SendOnStream(const Batch& batch);
  void Export(Batch batch);
  void OnReply(Batch batch, const xds::GrpcStatus& status, std::string_view reply);

  io::Loop* const loop_;
  const std::shared_ptr<const model::GrpcLog> config_;
  const std::string head_;              // encoded: what begins a stream (Identifier), or every Export (Resource)
  xds::GrpcChannel channel_;
  LogTarget target_;
  xds::GrpcStream* stream_ = nullptr;
  bool identified_ = false;             // on this stream
  bool half_closed_ = false, pause_ = false, finishing_ = false;
  std::string pending_;                 // entries of the next batch, with their tags
  size_t pending_size_ = 0;             // of them without, as Envoy counts
  uint32_t pending_count_ = 0;
  std::deque<Batch> batches_;
  size_t waiting_ = 0;                  // bytes of batches_, and of those in calls
  size_t calls_ = 0;
  FlushTimer timer_{this};
  base::StatId written_, dropped_, flushed_;
};

class GrpcLogs {
 public:
  struct Options {
    io::Loop* loop = nullptr;
    LogOrigin origin;
    uint32_t mark = 0;                  // SO_MARK of the connections
    std::function<LogTarget(const std::string& cluster)> find;
  };
  static constexpr size_t kMaxSenders = 256;
  static constexpr uint64_t kMaxEndingNs = 10'000'000'000;  // for the last batches of a log that is gone

  explicit GrpcLogs(Options options);
  // Logs with equal keys share a sender. Null: there are too many.
  LogSender* For(const std::shared_ptr<const model::GrpcLog>& config);
  // To the log's sender; counted in access_logs.entries_dropped where it has none.
  void Add(const std::shared_ptr<const model::GrpcLog>& config, std::string_view entry);
  // Senders go where their clusters are now; those that no listener names end with the next Sweep().
  void SnapshotChanged(const model::ConfigSnapshot& snapshot);
  void Sweep();
  bool Finish();
  size_t size() const { return senders_.size(); }

 private:
  struct Entry {
    std::unique_ptr<LogSender> sender;
    uint64_t ending_since_ns = 0;       // 0: in use
  };
  const Options options_;
  std::map<std::string, Entry> senders_;  // by GrpcLog::key
  std::vector<std::shared_ptr<const model::ListenerEntry>> listeners_;  // of the snapshot
  std::set<std::string> configured_;      // keys of the logs that they name
  const base::StatId dropped_;
};

}  // namespace weft::telemetry
