#include "sidecar/telemetry/event_stream.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/base/log.h"

namespace weft::telemetry {

namespace pb = weft::telemetry::v1;

EventStream::EventStream(io::Loop* loop, const EventOptions& options, OpenStream open)
    : loop_(loop), options_(options), open_(std::move(open)), encoder_(options), rollups_(options) {
  uint8_t random[16];
  if (getrandom(random, sizeof random, 0) != sizeof random) std::fill(random, random + 16, static_cast<uint8_t>(loop->wall_now()));
  static const char* digits = "0123456789abcdef";
  for (uint8_t b : random) epoch_ += digits[b >> 4], epoch_ += digits[b & 15];
  auto& s = base::Stats::Get();
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

void EventStream::Add(EventPortion& portion) {
  for (const OpenReport& r : portion.open) open_now_.Report(r);
  for (uint64_t id : portion.ended) open_now_.Ended(id);
  uint64_t lost = portion.dropped;
  if (!portion.rollups.empty()) lost += rollups_.Merge(portion.rollups);
  if (lost) Drop(lost);
  pending_revision_ = std::max(pending_revision_, portion.config_revision);
  if (pending_.empty()) pending_.swap(portion.bytes);
  else pending_ += portion.bytes;
  if (pending_.size() >= kMaxBatchBytes) {
    Seal();
    SendWaiting();
  }
  TellQueued();
  ArmTick();
}

// Rollups of the time that is over (or all) become events; they wait in their table while the queue is full.
void EventStream::CollectRollups(bool all) {
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
  TellQueued();
  if (!rollups_.empty() || !open_now_.empty()) ArmTick();
}

bool EventStream::Flush() {
  CollectRollups(true);
  Seal();
  SendWaiting();
  TellQueued();
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
  TellQueued();
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
