// Interim records: what says that a connection, WebSocket or stream is open long before it ends.
//
//   ReportOpen(core, *record_, started_ns, request_bytes, response_bytes);   // from the worker's sweep, kOpenSweepNs apart
//
// The first is made once it is kOpenAgeNs old (plain HTTP exchanges: kPlainAgeNs), further ones every kOpenAgainNs while
// bytes move. Each has the ends, the protocol and the bytes since the last; the record of the end knows what was told
// already. Short requests cost nothing. Threads: the worker's.
#pragma once

#include <cstdint>

#include "sidecar/base/clock.h"
#include "sidecar/proxy/record.h"

namespace weft::proxy {

class WorkerCore;

constexpr uint64_t kOpenSweepNs = base::kSecond / 2, kOpenAgeNs = base::kSecond / 2, kPlainAgeNs = 3 * base::kSecond;
constexpr uint64_t kOpenAgainNs = 10 * base::kSecond;

void ReportOpen(WorkerCore& core, Record& of, uint64_t started_ns, uint64_t request_bytes, uint64_t response_bytes);

}  // namespace weft::proxy
