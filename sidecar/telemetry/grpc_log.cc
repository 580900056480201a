#include "sidecar/telemetry/grpc_log.h"

#include <algorithm>
#include <utility>

#include "sidecar/base/log.h"
#include "sidecar/telemetry/proto_wire.h"

namespace weft::telemetry {
namespace {

using model::GrpcLog;

constexpr char kStreamPath[] = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
constexpr char kExportPath[] = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

// StreamAccessLogsMessage.identifier, or ResourceLogs.resource: both are field 1 of what they begin.
std::string Head(const GrpcLog& config, const LogOrigin& origin) {
  std::string body, out;
  if (config.kind == GrpcLog::kOtlp) {
    body = EncodeResource(config, origin);
  } else {
    wire::PutBytes(1, origin.node, &body);
    wire::PutBytes(2, config.name, &body);
  }
  wire::PutBytes(1, body, &out);
  return out;
}

xds::GrpcChannel::Options ChannelOptions(const GrpcLog& config, uint32_t mark) {
  xds::GrpcChannel::Options o;
  o.authority = config.authority.empty() ? config.cluster : config.authority;
  o.metadata = config.metadata;
  o.mark = mark;
  o.max_queued = LogSender::kMaxQueued + config.buffer_bytes, o.max_calls = LogSender::kMaxCalls;
  return o;
}

}  // namespace

LogSender::LogSender(io::Loop* loop, std::shared_ptr<const GrpcLog> config, const LogOrigin& origin, uint32_t mark)
    : loop_(loop), config_(std::move(config)), head_(Head(*config_, origin)), channel_(loop, ChannelOptions(*config_, mark)) {
  const bool otlp = config_->kind == GrpcLog::kOtlp;
  std::string prefix = otlp ? "access_logs.open_telemetry_access_log." : "access_logs.grpc_access_log.";
  if (otlp && !config_->stat_prefix.empty()) prefix += config_->stat_prefix + ".";
  auto& stats = base::Stats::Get();
  written_ = stats.Counter(prefix + "logs_written");
  dropped_ = stats.Counter(prefix + "logs_dropped");
  flushed_ = otlp ? written_ : stats.Counter(prefix + "grpc_entries_flushed");
  channel_.Start([this](bool up, const std::string& why) {
    if (up) Send();
    else if (!why.empty()) WEFT_LOG(kMain, kDebug, "access log \"", config_->name, "\": ", why);
  });
}

LogSender::~LogSender() {
  channel_.Stop();
  uint64_t lost = pending_count_;
  for (const Batch& b : batches_) lost += b.count;
  if (lost) base::Cells::Local().Add(dropped_, lost);
}

void LogSender::SetTarget(const LogTarget& target) {
  if (target == target_) return;
  const bool moved = channel_.up() && (std::find(target.addresses.begin(), target.addresses.end(), channel_.peer_address()) == target.addresses.end() ||
                                       !target.tls != !target_.tls);
  target_ = target;
  channel_.SetTls(target.tls);
  channel_.SetAddresses(target.addresses);
  if (moved) channel_.Reconnect("the endpoints of cluster \"" + config_->cluster + "\" changed");
}

void LogSender::Add(std::string_view entry) {
  finishing_ = false;
  if (waiting_bytes() + entry.size() > kMaxWaiting + config_->buffer_bytes) return base::Cells::Local().Add(dropped_);
  const bool otlp = config_->kind == GrpcLog::kOtlp;
  wire::PutBytes(otlp ? 2 : 1, entry, &pending_);
  if (!otlp) base::Cells::Local().Add(written_);
  pending_size_ += entry.size(), ++pending_count_;
  if (pending_size_ >= config_->buffer_bytes) {
    Seal();
    Send();
  }
  if (!timer_.armed()) loop_->Arm(&timer_, config_->flush_interval_ns);
}

void LogSender::OnTimer() {
  pause_ = false;
  Seal();
  Send();
  if (!batches_.empty() && !timer_.armed()) loop_->Arm(&timer_, config_->flush_interval_ns);
}

void LogSender::Seal() {
  if (pending_count_ == 0) return;
  waiting_ += pending_.size();
  batches_.push_back({std::exchange(pending_, {}), std::exchange(pending_count_, 0)});
  pending_size_ = 0;
}

void LogSender::Send() {
  if (!channel_.up() || pause_) return;
  while (!batches_.empty()) {
    if (config_->kind == GrpcLog::kOtlp) {
      if (calls_ >= kMaxCalls) return;
      Batch batch = std::move(batches_.front());
      batches_.pop_front();
      Export(std::move(batch));
      continue;
    }
    const Batch& batch = batches_.front();
    if (!SendOnStream(batch)) return;
    base::Cells::Local().Add(flushed_, batch.count);
    waiting_ -= batch.entries.size();
    batches_.pop_front();
  }
}

// False: not now; the timer tries again.
bool LogSender::SendOnStream(const Batch& batch) {
  if (half_closed_) return false;  // a stream that ends; the next one follows it
  if (!stream_) {
    stream_ = channel_.Open(kStreamPath, this);
    if (!stream_) return false;
    identified_ = false;
  }
  std::string message = identified_ ? std::string() : head_;
  wire::PutBytes(config_->kind == GrpcLog::kHttp ? 2 : 3, batch.entries, &message);
  if (!stream_->Send(message)) return false;
  identified_ = true;
  return true;
}

void LogSender::Export(Batch batch) {
  std::string resource_logs = head_, request;
  wire::PutBytes(2, batch.entries, &resource_logs);  // ScopeLogs, without a scope
  wire::PutBytes(1, resource_logs, &request);
  ++calls_, ++batch.tries;
  auto shared = std::make_shared<Batch>(std::move(batch));
  channel_.Call(kExportPath, request, config_->timeout_ns, [this, shared](const xds::GrpcStatus& status, std::string_view reply) {
    OnReply(std::move(*shared), status, reply);
  });
}

void LogSender::OnReply(Batch batch, const xds::GrpcStatus& status, std::string_view reply) {
  --calls_;
  if (status.code == xds::kGrpcUnavailable && batch.tries < kMaxTries) {
    batches_.push_front(std::move(batch));
    pause_ = true;  // until the timer: a server that refuses is not asked at once again
    if (!timer_.armed()) loop_->Arm(&timer_, config_->flush_interval_ns);
    return;
  }
  waiting_ -= batch.entries.size();
  const uint64_t rejected = status.ok() ? std::min<uint64_t>(RejectedRecords(reply), batch.count) : batch.count;
  base::Cells& cells = base::Cells::Local();
  if (rejected) cells.Add(dropped_, rejected);
  if (rejected < batch.count) cells.Add(written_, batch.count - rejected);
  if (!status.ok()) WEFT_LOG(kMain, kDebug, "access log \"", config_->name, "\": ", batch.count, " records were not taken: ", status.ToString());
  Send();
}

void LogSender::OnClosed(const xds::GrpcStatus& status) {
  WEFT_LOG(kMain, kDebug, "access log \"", config_->name, "\": stream closed: ", status.ToString());
  stream_ = nullptr;
  pause_ = !half_closed_;  // a server that ends every stream is not asked at once again
  half_closed_ = false;
  if ((pending_count_ || !batches_.empty()) && !timer_.armed()) loop_->Arm(&timer_, config_->flush_interval_ns);
}

bool LogSender::Finish() {
  if (!finishing_) pause_ = false;
  finishing_ = true;
  Seal();
  Send();
  if (!batches_.empty() || calls_ > 0) {
    if (!timer_.armed()) loop_->Arm(&timer_, config_->flush_interval_ns);
    return false;
  }
  if (stream_ && !half_closed_) {
    half_closed_ = true;
    stream_->HalfClose();
  }
  return !stream_;
}

GrpcLogs::GrpcLogs(Options options)
    : options_(std::move(options)), dropped_(base::Stats::Get().Counter("access_logs.entries_dropped")) {}

LogSender* GrpcLogs::For(const std::shared_ptr<const GrpcLog>& config) {
  auto it = senders_.find(config->key);
  if (it != senders_.end()) {
    it->second.ending_since_ns = 0;
    return it->second.sender.get();
  }
  if (senders_.size() >= kMaxSenders) return nullptr;
  auto& sender = senders_[config->key].sender;
  sender = std::make_unique<LogSender>(options_.loop, config, options_.origin, options_.mark);
  sender->SetTarget(options_.find(config->cluster));
  return sender.get();
}

void GrpcLogs::Add(const std::shared_ptr<const GrpcLog>& config, std::string_view entry) {
  LogSender* sender = For(config);
  sender ? sender->Add(entry) : base::Cells::Local().Add(dropped_);
}

void GrpcLogs::SnapshotChanged(const model::ConfigSnapshot& snapshot) {
  if (snapshot.listeners != listeners_) {
    listeners_ = snapshot.listeners;
    configured_.clear();
    const auto add = [this](const std::shared_ptr<const model::AccessLogs>& logs) {
      if (!logs) return;
      for (const model::AccessLog& log : logs->logs) {
        if (log.grpc) configured_.insert(log.grpc->key);
      }
    };
    for (const auto& l : listeners_) {
      add(l->config->access_logs);
      const auto chain = [&](const model::FilterChain& c) {
        if (c.http()) add(c.http()->access_logs);
        if (c.tcp()) add(c.tcp()->access_logs);
      };
      for (const auto& c : l->config->chains) chain(*c);
      if (l->config->default_chain) chain(*l->config->default_chain);
    }
  }
  for (auto& [key, e] : senders_) e.sender->SetTarget(options_.find(e.sender->cluster()));
}

void GrpcLogs::Sweep() {
  for (auto it = senders_.begin(); it != senders_.end();) {
    auto& [key, e] = *it;
    const bool used = configured_.contains(key);
    if (used) e.ending_since_ns = 0;
    if (!used && !e.ending_since_ns) e.ending_since_ns = options_.loop->now();
    const bool over = !used && (e.sender->Finish() || options_.loop->now() - e.ending_since_ns > kMaxEndingNs);
    it = over ? senders_.erase(it) : std::next(it);
  }
}

bool GrpcLogs::Finish() {
  bool done = true;
  for (auto& [key, e] : senders_) done &= e.sender->Finish();
  return done;
}

}  // namespace weft::telemetry
