// Injected delays and aborts. Pure: decides, the proxy waits and answers.
//
//   Plan p = Decide(config, headers, cluster, random1, random2, active_faults);
//   wait p.delay_ns; then, when p.abort, answer p.http_status (or grpc-status p.grpc_status).
#pragma once

#include <cstdint>
#include <string_view>

#include "sidecar/http/headers.h"
#include "sidecar/model/filters.h"

namespace weft::filters::fault {

struct Plan {
  uint64_t delay_ns = 0;        // 0: none
  bool abort = false;
  uint32_t http_status = 0;     // of the abort; 200 with grpc_status for gRPC aborts
  int32_t grpc_status = -1;
};

// cluster: of the route, for FaultConfig::upstream_cluster. active_faults: running now, against max_active_faults.
Plan Decide(const model::FaultConfig& config, const http::HeaderMap& headers, std::string_view cluster, uint64_t delay_random,
            uint64_t abort_random, uint32_t active_faults);

}  // namespace weft::filters::fault
