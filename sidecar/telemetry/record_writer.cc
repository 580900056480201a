#include "sidecar/telemetry/record_writer.h"

namespace weft::telemetry {
namespace {
constexpr int kNumberBits = 40;  // the server keeps numbers in ranges, the page in 53 bits: room for 8,191 workers
}

RecordWriter::RecordWriter(io::Loop* loop, Handover* handover, const std::atomic<size_t>* queued, const EventOptions& own, uint32_t worker)
    : loop_(loop), handover_(handover), own_(own), portion_(std::make_unique<Portion>(own_)) {
  if (queued) events_.emplace(own_, (uint64_t{worker} + 1) << kNumberBits, queued);  // main's own begin at 1
}

RecordWriter::~RecordWriter() { Put(true); }

void RecordWriter::Take(proxy::Record& record) {
  if (!record.interim) logs_.Write(record, portion_.get());
  if (events_) events_->Add(record, &portion_->events);
  if (portion_->bytes() >= put_at_) return Put();
  if (!due_.armed()) loop_->Arm(&due_, kMaxDelayNs);
}

void RecordWriter::Put(bool last) {
  due_.Cancel();
  logs_.Forget();
  if (portion_->empty()) return;
  if (!handover_->Put(portion_, last)) {  // main is busy: later
    put_at_ = portion_->bytes() + kPortionBytes;
    loop_->Arm(&due_, kMaxDelayNs);
    return;
  }
  put_at_ = kPortionBytes;
  if (!portion_) portion_ = std::make_unique<Portion>(own_);
}

}  // namespace weft::telemetry
