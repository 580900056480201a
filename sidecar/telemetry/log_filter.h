// Whether an access log takes a record: Envoy's semantics over what we remember of a request.
//
//   if (Passes(*log.filter, record, random.Next())) ...
//
// random: what sampling filters without a request id go by, a fresh one for each record and log. Pure; any thread.
#pragma once

#include <cstdint>

#include "sidecar/model/log_filter.h"
#include "sidecar/proxy/record.h"

namespace weft::telemetry {

bool Passes(const model::LogFilter& filter, const proxy::Record& record, uint64_t random);

}  // namespace weft::telemetry
