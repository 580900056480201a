#include "sidecar/proxy/open_report.h"

#include "sidecar/proxy/core.h"

namespace weft::proxy {

void ReportOpen(WorkerCore& core, Record& of, uint64_t started_ns, uint64_t request_bytes, uint64_t response_bytes) {
  const uint64_t now = core.loop()->now();
  const bool stays = of.websocket || of.grpc || of.protocol == Protocol::kTcp;
  if (of.cluster.empty() || now - started_ns < (stays ? kOpenAgeNs : kPlainAgeNs)) return;
  if (of.open_id) {
    const bool moved = request_bytes != of.told_request_bytes || response_bytes != of.told_response_bytes;
    if (!moved || now - of.told_ns < kOpenAgainNs) return;
  }
  std::unique_ptr<Record> r = core.NewRecord();
  r->interim = true;
  r->open_id = of.open_id ? of.open_id : core.NextOpenId();
  r->direction = of.direction, r->protocol = of.protocol, r->grpc = of.grpc, r->websocket = of.websocket;
  r->cluster = of.cluster, r->authority = of.authority, r->downstream_local = of.downstream_local;
  r->destination_service = of.destination_service, r->destination_namespace = of.destination_namespace;
  r->peer_identity = of.peer_identity, r->local_identity = of.local_identity, r->tls_version = of.tls_version;
  r->upstream_peer_identity = of.upstream_peer_identity, r->upstream_tls_version = of.upstream_tls_version;
  if (of.attempt_count) {
    if (r->attempts.empty()) r->attempts.emplace_back();
    r->attempts[0] = {};
    r->attempts[0].version = of.attempts[of.attempt_count - 1].version;
    r->attempt_count = 1;
  }
  r->start_unix_ns = core.loop()->wall_now();
  r->request_bytes = request_bytes - of.told_request_bytes, r->response_bytes = response_bytes - of.told_response_bytes;
  of.open_id = r->open_id, of.told_ns = now, of.told_request_bytes = request_bytes, of.told_response_bytes = response_bytes;
  core.Finish(std::move(r));
}

}  // namespace weft::proxy
