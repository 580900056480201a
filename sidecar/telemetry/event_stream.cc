#include "sidecar/telemetry/event_stream.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/base/log.h"

namespace weft::telemetry {

namespace pb = weft::telemetry::v1;

namespace {

// Nobody will ask why about such a request: its count is enough when there is no room for more.
bool WentWell(const proxy::Record& r) {
  return r.status < 400 && r.grpc_status <= 0 && r.flags.empty() && r.transport_failure.empty();
}

}  // namespace

EventStream::EventStream(io::Loop* loop, const EventOptions& options, OpenStream open)
    : loop_(loop), options_(options), open_(std::move(open)), encoder_(options), rollups_(options), open_now_(options), overflow_(options) {
  uint8_t random[16];
  if (getrandom(random, sizeof random, 0) != sizeof random) std::fill(random, random + 16, static_cast<uint8_t>(loop->wall_now()));
  static const char* digits = "0123456789abcdef";
  for (uint8_t b : random) epoch_ += digits[b >> 4], epoch_ += digits[b & 15];
  auto& s = base::Stats::Get();
  events_stat_ = s.Counter("weft.events.total"), rolled_stat_ = s.Counter("weft.events.without_detail");
  dropped_stat_ = s.Counter("weft.events.dropped");
  batches_stat_ = s.Counter("weft.events.batches_acknowledged"), resent_stat_ = s.Counter("weft.events.batches_resent");
  unacked_stat_ = s.Gauge("weft.events.batches_unacknowledged");
}
EventStream::~EventStream() { Stop(); }

void EventStream::Stop() {
  stopped_ = true;
  tick_.Cancel();
  if (stream_) std::exchange(stream_, nullptr)->Cancel();
}

void EventStream::ChannelUp() {
  if (!stopped_) Open();
}

void EventStream::Open() {
  if (stream_) return;
  stream_ = open_(this);
  sequence_ = acknowledged_ = 0;
  for (Batch& b : sent_) {
    if (b.sequence) base::Cells::Local().Add(resent_stat_);
    b.sequence = 0;
  }
  if (stream_) SendWaiting();
  else loop_->Arm(&tick_, base::kSecond);
}

void EventStream::ArmTick() {
  if (!tick_.armed()) loop_->Arm(&tick_, kMaxDelayNs);
}

void EventStream::Drop(uint64_t n) {
  dropped_ += n;
  base::Cells::Local().Add(dropped_stat_, n);
}

void EventStream::Add(const proxy::Record& record) {
  if (record.interim) {
    open_now_.Report(record);
    return ArmTick();
  }
  if (record.open_id) open_now_.Ended(record.open_id);
  base::Cells& cells = base::Cells::Local();
  cells.Add(events_stat_);
  if (queued_bytes() >= (WentWell(record) ? kSoftBytes : kHardBytes)) {
    rollups_.Fold(record) ? cells.Add(rolled_stat_) : Drop(1);
    return ArmTick();
  }
  encoder_.Whole(record, ++number_, &pending_);
  pending_revision_ = std::max(pending_revision_, record.config_revision);
  if (pending_.size() >= kMaxBatchBytes) {
    Seal();
    SendWaiting();
  }
  ArmTick();
}

void EventStream::Overflow(const proxy::Record& record) {
  std::lock_guard lock(overflow_mu_);
  if (!overflow_.Fold(record)) ++overflow_lost_;
  if (record.open_id && overflow_ended_.size() < OpenTable::kMaxOpen) overflow_ended_.push_back(record.open_id);
}

// Rollups of the time that is over (or all) become events; they wait in their table while the queue is full.
void EventStream::CollectRollups(bool all) {
  {
    std::lock_guard lock(overflow_mu_);
    if (!overflow_.empty()) overflow_lost_ += rollups_.Merge(overflow_);
    for (uint64_t id : overflow_ended_) open_now_.Ended(id);
    overflow_ended_.clear();
    if (overflow_lost_) Drop(std::exchange(overflow_lost_, 0));
  }
  if (rollups_.empty() || queued_bytes() >= kHardBytes) return;
  rollups_.Take(all ? UINT64_MAX : loop_->wall_now() / base::kSecond, [this](std::string_view shared, const RollupSums& sums) {
    encoder_.Rollup(shared, sums, ++number_, &pending_);
    pending_revision_ = std::max(pending_revision_, sums.config_revision);
    if (pending_.size() >= kMaxBatchBytes) Seal();
  });
}

void EventStream::TellOpen() {
  if (queued_bytes() >= kHardBytes) return;
  open_now_.Take(loop_->now(), [this](std::string_view shared, const OpenSums& sums) {
    encoder_.Open(shared, sums, loop_->wall_now(), &pending_);
  });
}

void EventStream::Seal() {
  if (pending_.empty()) return;
  pb::EventBatch rest;
  rest.set_config_revision(std::exchange(pending_revision_, 0));
  rest.AppendToString(&pending_);
  queued_bytes_ += pending_.size();
  sent_.push_back({std::move(pending_)});
  pending_.clear();
  base::Cells::Local().Set(unacked_stat_, sent_.size());
}

std::string EventStream::Head(uint64_t sequence) {
  pb::EventBatch head;
  head.set_sequence(sequence);
  head.set_workload_id(options_.workload_id), head.set_service(options_.service);
  head.set_namespace_(options_.service_namespace), head.set_version(options_.version);
  head.set_dropped_events_total(dropped_);
  head.set_epoch(epoch_);
  dropped_sent_ = dropped_;
  return head.SerializeAsString();
}

// Traffic may end with a drop: once the queue is empty, a batch without events says how many there were.
void EventStream::ReportDropped() {
  if (!stream_ || !sent_.empty() || dropped_ == dropped_sent_) return;
  const uint64_t before = dropped_sent_;
  if (stream_->Send(Head(sequence_ + 1))) {
    ++sequence_;
  } else {
    dropped_sent_ = before;
    ArmTick();
  }
}

void EventStream::SendWaiting() {
  if (!stream_) return;
  for (Batch& b : sent_) {
    if (b.sequence) continue;
    if (sequence_ - acknowledged_ >= kMaxInFlight) return;  // the next acknowledgement goes on
    // Fields may come in any order on the wire: the head is put behind the encoded events.
    if (!stream_->Send(b.events + Head(sequence_ + 1))) return ArmTick();
    b.sequence = ++sequence_;
  }
}

void EventStream::OnTick() {
  CollectRollups(false);
  TellOpen();
  Seal();
  if (!stream_) Open();
  SendWaiting();
  ReportDropped();
  if (!rollups_.empty() || !open_now_.empty()) ArmTick();
}

bool EventStream::Flush() {
  CollectRollups(true);
  Seal();
  SendWaiting();
  return sent_.empty() && rollups_.empty();
}

void EventStream::OnMessage(std::string_view bytes) {
  pb::BatchAck ack;
  if (!ack.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  while (!sent_.empty() && sent_.front().sequence != 0 && sent_.front().sequence <= ack.sequence()) {
    queued_bytes_ -= sent_.front().events.size();
    sent_.pop_front();
    base::Cells::Local().Add(batches_stat_);
  }
  acknowledged_ = std::max(acknowledged_, std::min(ack.sequence(), sequence_));
  base::Cells::Local().Set(unacked_stat_, sent_.size());
  SendWaiting();
  ReportDropped();
}

void EventStream::OnClosed(const xds::GrpcStatus& status) {
  stream_ = nullptr;
  if (stopped_) return;
  WEFT_LOG(kTelemetry, kInfo, "event stream: ", status.ToString(), "; events are kept and sent again");
  loop_->Arm(&tick_, base::kSecond);
}

}  // namespace weft::telemetry
