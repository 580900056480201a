// Wide events, a worker's part: finished records encoded, or counted where there is no room for more.
//
//   EventWriter writer(options, number_base, &queued);
//   writer.Add(record, &portion.events);
//
// When more than kSoftBytes wait on their way to the server, it or the link is slower than the traffic: requests that went
// well are then counted in rollups (rollups.h) instead of kept whole. Those that did not go well keep their details up to
// kHardBytes. Only what the rollups' bounded table cannot take is dropped and counted. Interim records (of what has not
// ended) are no events of their own: how much is open is told now and then (open_table.h).
//
// Events are numbered from number_base + 1 without a gap, which must differ between the writers of one epoch.
// Threads: one; `queued` (bytes that wait at main) is read, whoever writes it.
#pragma once

#include <atomic>
#include <cstdint>

#include "sidecar/base/stats.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/event_encode.h"
#include "sidecar/telemetry/portion.h"

namespace weft::telemetry {

class EventWriter {
 public:
  static constexpr size_t kSoftBytes = 2 << 20, kHardBytes = 8 << 20, kMaxOwn = 1 << 20, kMaxOpen = 16'384;

  EventWriter(const EventOptions& own, uint64_t number_base, const std::atomic<size_t>* queued);
  void Add(const proxy::Record& record, EventPortion* portion);

 private:
  EventEncoder encoder_;
  uint64_t number_;
  const std::atomic<size_t>* const queued_;
  base::StatId events_stat_, rolled_stat_;
};

}  // namespace weft::telemetry
