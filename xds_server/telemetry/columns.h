// The columns of the two tables, once: the same list makes the table, appends a row and reads one back. Likewise the
// fields of an attempt, which the table and the API hold as JSON. Internal.
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
  f("committed_ms", e.committed_ms), f("count", e.count);
}

// Calls f("field", a.member) for every plain field; `ejections` is a list and stands apart. A is Attempt or const Attempt.
template <typename A, typename F>
void AttemptFields(A& a, F&& f) {
  f("endpoint", a.endpoint), f("workload", a.workload), f("version", a.version), f("outcome", a.outcome), f("detail", a.detail);
  f("start_us", a.start_us), f("duration_us", a.duration_us), f("connect_us", a.connect_us), f("status", a.status);
  f("ejected", a.ejected), f("reused", a.reused), f("healthy_hosts", a.healthy_hosts), f("total_hosts", a.total_hosts);
  f("active_requests", a.active_requests), f("max_requests", a.max_requests), f("local_address", a.local_address);
  f("not_retried", a.not_retried), f("active_retries", a.active_retries), f("max_retries", a.max_retries);
  f("retry_budget_percent", a.retry_budget_percent);
}

template <typename E, typename F>
void EjectionFields(E& e, F&& f) {
  f("endpoint", e.endpoint), f("workload", e.workload), f("version", e.version), f("rule", e.rule), f("kinds", e.kinds);
  f("errors", e.errors), f("at_ms", e.at_ms), f("until_ms", e.until_ms);
}

template <typename S, typename F>
void SpanColumns(S& s, F&& f) {
  f("trace_id", s.trace_id), f("span_id", s.span_id), f("parent_span_id", s.parent_span_id), f("name", s.name);
  f("kind", s.kind), f("service", s.service), f("workload", s.workload), f("start_ns", s.start_ns);
  f("end_ns", s.end_ns), f("error", s.error), f("status_message", s.status_message), f("attributes", s.attributes);
  f("committed_ms", s.committed_ms);
}

}  // namespace weft::insight
