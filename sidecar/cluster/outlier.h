// Outlier ejection: what hosts answered → which hosts are left out for a while. Envoy's rules; off for clusters without
// outlier_detection.
//
//   Report(entry, host, {.kind = Outcome::kResponse, .status = 503}, now);   // any worker, once per attempt
//   Sweep(entry, now);      // cheap when nothing is due; Picker calls it, main may call it on a timer as well
//
// Ejection time is base × number of ejections, at most max; at most max_ejection_percent of the hosts (but one may always
// be ejected). A host returns when its time is over; each interval without an ejection lowers its multiplier.
// Threads: any. Times: monotonic nanoseconds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sidecar/cluster/host_set.h"
#include "sidecar/model/snapshot.h"

namespace weft::cluster {

struct Outcome {
  enum Kind : uint8_t {
    kResponse,        // status counts (for gRPC: the HTTP status mapped from grpc-status, see GrpcToHttpStatus)
    kConnectFailure,  // refused, unreachable, TLS failure
    kConnectTimeout,
    kReset,           // after the connection stood
    kTimeout,         // per-try or route timeout waiting for the response
    kRefusedStream,
  } kind = kResponse;
  uint16_t status = 0;
};

// Returns true when this report ejected the host.
bool Report(const model::ClusterEntry& entry, const Host& host, const Outcome& outcome, uint64_t now_ns);
void Sweep(const model::ClusterEntry& entry, uint64_t now_ns);

// Why and for how long a host is out. Values of an ejection that another thread is writing may be mixed; they are for
// telling people.
struct EjectionInfo {
  const char* rule;            // "consecutive_gateway_failure", "consecutive_5xx", "consecutive_local_origin_failure",
                               // "success_rate", "failure_percentage"
  std::string kinds;           // of the errors in a row: "timeout,connect_failure", "503"
  uint32_t errors;             // how many in a row; 0 with the rules that compare rates
  uint64_t at_ns, until_ns;    // monotonic
};
std::optional<EjectionInfo> WhyEjected(const HostCell& cell);  // nothing when it is in

// As Envoy's: UNAVAILABLE → 503, DEADLINE_EXCEEDED → 504, RESOURCE_EXHAUSTED → 429, ...; OK → 200.
uint16_t GrpcToHttpStatus(int grpc_status);

}  // namespace weft::cluster
