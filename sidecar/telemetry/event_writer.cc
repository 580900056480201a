#include "sidecar/telemetry/event_writer.h"

#include <algorithm>

namespace weft::telemetry {
namespace {

// Nobody will ask why about such a request: its count is enough when there is no room for more.
bool WentWell(const proxy::Record& r) {
  return r.status < 400 && r.grpc_status <= 0 && r.flags.empty() && r.transport_failure.empty();
}

}  // namespace

EventWriter::EventWriter(const EventOptions& own, uint64_t number_base, const std::atomic<size_t>* queued)
    : encoder_(own), number_(number_base), queued_(queued) {
  auto& s = base::Stats::Get();
  events_stat_ = s.Counter("weft.events.total"), rolled_stat_ = s.Counter("weft.events.without_detail");
}

void EventWriter::Add(const proxy::Record& record, EventPortion* portion) {
  if (record.interim) {
    if (portion->open.size() >= kMaxOpen) return;
    portion->open.push_back({record.open_id, record.request_bytes, record.response_bytes, std::string(encoder_.Shared(record))});
    return;
  }
  if (record.open_id) portion->ended.push_back(record.open_id);
  base::Cells& cells = base::Cells::Local();
  cells.Add(events_stat_);
  const size_t own = portion->bytes.size(), waiting = own + queued_->load(std::memory_order_relaxed);
  if (own >= kMaxOwn || waiting >= (WentWell(record) ? kSoftBytes : kHardBytes)) {
    portion->rollups.Fold(record) ? cells.Add(rolled_stat_) : void(++portion->dropped);
    return;
  }
  encoder_.Whole(record, ++number_, &portion->bytes);
  portion->config_revision = std::max(portion->config_revision, record.config_revision);
}

}  // namespace weft::telemetry
