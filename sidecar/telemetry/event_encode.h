// Records as encoded weft.telemetry.v1.RequestEvent, written straight into a batch's bytes: no message objects, and no
// allocation beyond the growth of the buffer.
//
//   EventEncoder encoder(options);
//   encoder.Whole(record, number, &batch);            // appends one `events` field of an EventBatch
//   std::string_view shared = encoder.Shared(record);  // what alike requests have in common: the key of a rollup
//
// Every text is cut to a bound and made valid UTF-8, because one bad byte would make a whole batch undecodable.
// Threads: one encoder belongs to one thread (it keeps scratch memory).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sidecar/proxy/record.h"

namespace weft::telemetry {

// Who this sidecar is.
struct EventOptions {
  std::string workload_id, service, service_namespace, version;
};

// The sums of a rollup; see RequestEvent.count. Times are Unix nanoseconds.
struct RollupSums {
  uint64_t count = 0, duration_us = 0, last_end_ns = 0, request_bytes = 0, response_bytes = 0, retries = 0, config_revision = 0;
  uint64_t told_request_bytes = 0, told_response_bytes = 0;
};

// See RequestEvent.interim.
struct OpenSums {
  uint64_t open = 0, request_bytes = 0, response_bytes = 0;
};

class EventEncoder {
 public:
  explicit EventEncoder(const EventOptions& own);
  // One request with all its details.
  void Whole(const proxy::Record& record, uint64_t number, std::string* batch);
  // Encoded fields that a rollup keeps: ends, protocol, result. Valid until the next call.
  std::string_view Shared(const proxy::Record& record);
  // A rollup: `shared` as it came from Shared().
  void Rollup(std::string_view shared, const RollupSums& sums, uint64_t number, std::string* batch);
  // What is open, of an interim record's Shared().
  void Open(std::string_view shared, const OpenSums& sums, uint64_t now_unix_ns, std::string* batch);

 private:
  void PutShared(const proxy::Record& record);
  void PutAddress(int field, const model::Address& address);
  void Append(std::string* batch) const;  // event_ as an `events` field

  const bool named_;
  const std::string own_;  // "cart.default"
  std::string event_, nested_;
};

inline uint64_t EndNs(const proxy::Record& r) { return r.start_unix_ns + (r.duration_ns > 0 ? static_cast<uint64_t>(r.duration_ns) : 0); }
inline uint64_t DurationUs(const proxy::Record& r) { return r.duration_ns > 0 ? static_cast<uint64_t>(r.duration_ns) / 1000 : 0; }

}  // namespace weft::telemetry
