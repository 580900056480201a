// The columns of the two tables, once: the same list makes the table, appends a row and reads one back. Internal.
#pragma once

#include "xds_server/telemetry/record.h"

namespace weft::insight {

// Calls f("column", e.member) for every column in table order. E is Event or const Event.
template <typename E, typename F>
void EventColumns(E& e, F&& f) {
  f("workload", e.workload), f("epoch", e.epoch), f("number", e.number);
  f("service", e.service), f("namespace", e.ns), f("version", e.version), f("direction", e.direction);
  f("request_id", e.request_id), f("trace_id", e.trace_id), f("span_id", e.span_id);
  f("parent_span_id", e.parent_span_id), f("start_ns", e.start_ns), f("end_ns", e.end_ns);
  f("duration_us", e.duration_us), f("protocol", e.protocol), f("method", e.method), f("path", e.path);
  f("authority", e.authority), f("status", e.status), f("grpc_status", e.grpc_status);
  f("response_flags", e.response_flags), f("response_detail", e.response_detail), f("route", e.route);
  f("cluster", e.cluster), f("source_service", e.source_service), f("source_identity", e.source_identity);
  f("destination_service", e.destination_service), f("destination_identity", e.destination_identity);
  f("tls_version", e.tls_version), f("policy", e.policy), f("policy_revision", e.policy_revision);
  f("config_revision", e.config_revision), f("attempts", e.attempts), f("request_bytes", e.request_bytes);
  f("response_bytes", e.response_bytes), f("downstream_address", e.downstream_address);
  f("original_destination", e.original_destination), f("retries", e.retries), f("fault", e.fault);
  f("tls_failure", e.tls_failure), f("source", e.source), f("destination", e.destination);
  f("destination_version", e.destination_version), f("outcome", e.outcome), f("bucket", e.bucket);
  f("committed_ms", e.committed_ms);
}

template <typename S, typename F>
void SpanColumns(S& s, F&& f) {
  f("trace_id", s.trace_id), f("span_id", s.span_id), f("parent_span_id", s.parent_span_id), f("name", s.name);
  f("kind", s.kind), f("service", s.service), f("workload", s.workload), f("start_ns", s.start_ns);
  f("end_ns", s.end_ns), f("error", s.error), f("status_message", s.status_message), f("attributes", s.attributes);
  f("committed_ms", s.committed_ms);
}

}  // namespace weft::insight
