#include "sidecar/telemetry/event_encode.h"

#include <algorithm>
#include <cstring>

#include "api/weft/telemetry/v1/telemetry.pb.h"
#include "sidecar/telemetry/proto_wire.h"

namespace weft::telemetry {
namespace {

using namespace wire;

using E = weft::telemetry::v1::RequestEvent;
using A = weft::telemetry::v1::Attempt;
using J = weft::telemetry::v1::Ejection;

// A cap on every text a peer chooses: an event stays small whatever was sent to us.
void PutText(int field, std::string_view s, size_t most, std::string* out) {
  s = s.substr(0, most);
  IsAscii(s) ? PutBytes(field, s, out) : PutBytes(field, Repair(s, '?'), out);
}

bool AnySet(const uint8_t* bytes, size_t n) { return std::any_of(bytes, bytes + n, [](uint8_t b) { return b != 0; }); }
void PutId(int field, const uint8_t* bytes, size_t n, std::string* out) {
  if (AnySet(bytes, n)) PutBytes(field, {reinterpret_cast<const char*>(bytes), n}, out);
}

uint64_t Us(int64_t ns) { return ns > 0 ? static_cast<uint64_t>(ns) / 1000 : 0; }

std::string_view ProtocolOf(const proxy::Record& r) {
  return r.websocket ? "websocket" : r.grpc ? "grpc" : r.protocol == proxy::Protocol::kTcp ? "tcp"
         : r.protocol == proxy::Protocol::kHttp2 ? "h2" : "http/1.1";
}

// "spiffe://td/ns/shop/sa/cart" -> "cart.shop"
std::string ServiceOf(std::string_view id) {
  size_t ns = id.find("/ns/"), sa = id.find("/sa/");
  if (ns == std::string_view::npos || sa == std::string_view::npos || sa < ns) return "";
  return std::string(id.substr(sa + 4)).append(".").append(id.substr(ns + 4, sa - ns - 4));
}

std::string_view LastVersion(const proxy::Record& r) {
  for (size_t i = std::min<size_t>(r.attempt_count, r.attempts.size()); i > 0; --i) {
    if (!r.attempts[i - 1].version.empty()) return r.attempts[i - 1].version;
  }
  return {};
}

// A message of which nothing is known still is one: the field is there even when empty.
void PutMessage(int field, std::string_view encoded, std::string* out) {
  Tag(field, 2, out);
  Varint(encoded.size(), out);
  out->append(encoded);
}

void PutAttempt(const proxy::AttemptRecord& a, std::string* out) {
  PutText(A::kEndpointFieldNumber, a.endpoint, 256, out);
  PutText(A::kEndpointWorkloadFieldNumber, a.workload, 256, out);
  PutText(A::kEndpointVersionFieldNumber, a.version, 128, out);
  Put(A::kStartOffsetUsFieldNumber, Us(a.start_offset_ns), out), Put(A::kDurationUsFieldNumber, Us(a.duration_ns), out);
  Put(A::kStatusFieldNumber, a.status, out);
  PutText(A::kOutcomeFieldNumber, a.outcome, 64, out), PutText(A::kDetailFieldNumber, a.detail, 256, out);
  Put(A::kHostEjectedFieldNumber, a.host_ejected, out);
  Put(A::kHealthyHostsFieldNumber, a.healthy_hosts, out), Put(A::kTotalHostsFieldNumber, a.total_hosts, out);
  Put(A::kActiveRequestsFieldNumber, a.active_requests, out), Put(A::kMaxRequestsFieldNumber, a.max_requests, out);
  Put(A::kConnectionReusedFieldNumber, a.connection_reused, out), Put(A::kConnectUsFieldNumber, Us(a.connect_ns), out);
  PutText(A::kLocalAddressFieldNumber, a.local_address, 128, out);
  PutText(A::kNotRetriedFieldNumber, a.not_retried, 32, out);
  Put(A::kActiveRetriesFieldNumber, a.active_retries, out), Put(A::kMaxRetriesFieldNumber, a.max_retries, out);
  if (a.retry_budget_percent != 0) {
    Tag(A::kRetryBudgetPercentFieldNumber, 1, out);
    char raw[8];
    memcpy(raw, &a.retry_budget_percent, 8);  // the wire's order is ours: little-endian
    out->append(raw, 8);
  }
  for (const proxy::EjectionRecord& j : a.ejections) {
    std::string one;
    PutText(J::kEndpointFieldNumber, j.endpoint, 256, &one);
    PutText(J::kEndpointWorkloadFieldNumber, j.workload, 256, &one);
    PutText(J::kEndpointVersionFieldNumber, j.version, 128, &one);
    PutText(J::kRuleFieldNumber, j.rule, 64, &one), PutText(J::kKindsFieldNumber, j.kinds, 128, &one);
    Put(J::kErrorsFieldNumber, j.errors, &one);
    Put(J::kAtUnixMsFieldNumber, j.at_unix_ns / 1'000'000, &one), Put(J::kUntilUnixMsFieldNumber, j.until_unix_ns / 1'000'000, &one);
    PutMessage(A::kEjectionsFieldNumber, one, out);
  }
}

}  // namespace

EventEncoder::EventEncoder(const EventOptions& own) : named_(!own.service.empty()), own_(own.service + "." + own.service_namespace) {}

void EventEncoder::PutShared(const proxy::Record& r) {
  std::string* out = &event_;
  const bool inbound = r.direction == proxy::Direction::kInbound;
  Put(E::kDirectionFieldNumber, inbound ? v1::INBOUND : r.direction == proxy::Direction::kOutbound ? v1::OUTBOUND : v1::DIRECTION_UNSPECIFIED, out);
  PutBytes(E::kProtocolFieldNumber, ProtocolOf(r), out);
  Put(E::kStatusFieldNumber, r.status, out);
  const int32_t grpc = r.grpc ? r.grpc_status : -1;
  Put(E::kGrpcStatusFieldNumber, static_cast<uint32_t>(grpc << 1) ^ static_cast<uint32_t>(grpc >> 31), out);  // zigzag
  if (!r.flags.empty()) PutBytes(E::kResponseFlagsFieldNumber, r.flags.ToString(), out);
  PutText(E::kResponseDetailFieldNumber, r.transport_failure_detail.empty() ? r.detail : r.transport_failure_detail, 512, out);
  PutText(E::kClusterFieldNumber, r.cluster, 256, out);
  if (inbound) {
    PutText(E::kSourceIdentityFieldNumber, r.peer_identity, 512, out);
    if (!r.peer_identity.empty()) PutText(E::kSourceServiceFieldNumber, ServiceOf(r.peer_identity), 256, out);
    if (named_) PutText(E::kDestinationServiceFieldNumber, own_, 256, out);
    PutText(E::kDestinationIdentityFieldNumber, r.local_identity, 512, out);
    PutText(E::kTlsVersionFieldNumber, r.tls_version, 32, out);
  } else {
    if (named_) PutText(E::kSourceServiceFieldNumber, own_, 256, out);
    PutText(E::kSourceIdentityFieldNumber, r.local_identity, 512, out);
    if (!r.destination_service.empty()) {
      nested_ = r.destination_service;
      if (!r.destination_namespace.empty()) nested_.append(".").append(r.destination_namespace);
      PutText(E::kDestinationServiceFieldNumber, nested_, 256, out);
    }
    PutText(E::kDestinationIdentityFieldNumber, r.upstream_peer_identity, 512, out);
    PutText(E::kTlsVersionFieldNumber, r.upstream_tls_version, 32, out);
  }
  PutText(E::kPolicyFieldNumber, r.policy, 256, out);
  Put(E::kPolicyRevisionFieldNumber, r.policy_revision, out);
  PutText(E::kTlsFailureFieldNumber, r.transport_failure, 128, out);
}

void EventEncoder::Append(std::string* batch) const {
  PutMessage(v1::EventBatch::kEventsFieldNumber, event_, batch);
}

void EventEncoder::PutAddress(int field, const model::Address& address) {
  nested_.clear();
  address.AppendTo(&nested_);
  PutText(field, nested_, 128, &event_);
}

std::string_view EventEncoder::Shared(const proxy::Record& r) {
  event_.clear();
  PutShared(r);
  if (r.direction == proxy::Direction::kInbound) return event_;
  PutText(E::kDestinationVersionFieldNumber, LastVersion(r), 128, &event_);
  if (r.destination_service.empty() && r.upstream_peer_identity.empty()) {
    // Outside the mesh the name is all that says where a request went.
    PutText(E::kAuthorityFieldNumber, r.authority, 256, &event_);
    if (r.authority.empty()) PutAddress(E::kOriginalDestinationFieldNumber, r.downstream_local);
  }
  return event_;
}

void EventEncoder::Rollup(std::string_view shared, const RollupSums& s, uint64_t number, std::string* batch) {
  event_ = shared;
  std::string* out = &event_;
  const uint64_t mean_us = s.count ? s.duration_us / s.count : 0;
  Put(E::kNumberFieldNumber, number, out);
  Put(E::kCountFieldNumber, s.count, out);
  Put(E::kStartUnixNsFieldNumber, s.last_end_ns - std::min(s.last_end_ns, mean_us * 1000), out);
  Put(E::kDurationUsFieldNumber, mean_us, out);
  Put(E::kConfigRevisionFieldNumber, s.config_revision, out);
  Put(E::kRequestBytesFieldNumber, s.request_bytes, out), Put(E::kResponseBytesFieldNumber, s.response_bytes, out);
  Put(E::kRetriesFieldNumber, s.retries, out);
  Put(E::kToldRequestBytesFieldNumber, s.told_request_bytes, out), Put(E::kToldResponseBytesFieldNumber, s.told_response_bytes, out);
  Append(batch);
}

void EventEncoder::Open(std::string_view shared, const OpenSums& s, uint64_t now_unix_ns, std::string* batch) {
  event_ = shared;
  std::string* out = &event_;
  Put(E::kInterimFieldNumber, 1, out);
  Put(E::kOpenFieldNumber, s.open, out);
  Put(E::kStartUnixNsFieldNumber, now_unix_ns, out);
  Put(E::kRequestBytesFieldNumber, s.request_bytes, out), Put(E::kResponseBytesFieldNumber, s.response_bytes, out);
  Append(batch);
}

void EventEncoder::Whole(const proxy::Record& r, uint64_t number, std::string* batch) {
  event_.clear();
  PutShared(r);
  std::string* out = &event_;
  Put(E::kNumberFieldNumber, number, out);
  PutText(E::kRequestIdFieldNumber, r.request_id, 128, out);
  PutId(E::kTraceIdFieldNumber, r.trace_id, 16, out);
  PutId(E::kSpanIdFieldNumber, r.span_id, 8, out);
  PutId(E::kParentSpanIdFieldNumber, r.parent_span_id, 8, out);
  Put(E::kStartUnixNsFieldNumber, r.start_unix_ns, out);
  Put(E::kDurationUsFieldNumber, DurationUs(r), out);
  PutText(E::kMethodFieldNumber, r.method, 32, out);
  PutText(E::kPathFieldNumber, std::string_view(r.path).substr(0, r.path.find_first_of("?#")), 1024, out);
  PutText(E::kAuthorityFieldNumber, r.authority, 256, out);
  PutText(E::kRouteFieldNumber, r.route, 256, out);
  Put(E::kConfigRevisionFieldNumber, r.config_revision, out);
  for (size_t i = 0; i < r.attempt_count && i < r.attempts.size() && i < 16; ++i) {
    nested_.clear();
    PutAttempt(r.attempts[i], &nested_);
    PutMessage(E::kAttemptsFieldNumber, nested_, out);
  }
  Put(E::kRequestBytesFieldNumber, r.request_bytes, out), Put(E::kResponseBytesFieldNumber, r.response_bytes, out);
  PutAddress(E::kDownstreamAddressFieldNumber, r.downstream_remote);
  PutAddress(E::kOriginalDestinationFieldNumber, r.downstream_local);
  Put(E::kRetriesFieldNumber, r.retries, out);
  PutText(E::kFaultFieldNumber, r.fault, 64, out);
  Put(E::kToldRequestBytesFieldNumber, r.told_request_bytes, out), Put(E::kToldResponseBytesFieldNumber, r.told_response_bytes, out);
  Append(batch);
}

}  // namespace weft::telemetry
