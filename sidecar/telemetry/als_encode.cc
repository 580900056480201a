#include "sidecar/telemetry/als_encode.h"

#include <charconv>
#include <optional>

#include "envoy/data/accesslog/v3/accesslog.pb.h"
#include "sidecar/proxy/format.h"
#include "sidecar/telemetry/proto_wire.h"

namespace weft::telemetry {
namespace {

namespace als = envoy::data::accesslog::v3;
namespace core = envoy::config::core::v3;
using proxy::Record;
using proxy::ResponseFlag;

// As Envoy does with what is not UTF-8.
std::string Text(std::string_view s) { return wire::IsAscii(s) ? std::string(s) : wire::Repair(s, '!'); }

void SetAddress(const model::Address& a, core::Address* to) {
  if (a.kind == model::Address::kPipe) return to->mutable_pipe()->set_path(a.text);
  to->mutable_socket_address()->set_address(a.WithoutPort());
  to->mutable_socket_address()->set_port_value(a.port);
}

// From the text of records: "10.0.0.1:80", "[::1]:80", "/run/x.sock".
void SetAddress(std::string_view text, core::Address* to) {
  const size_t colon = text.rfind(':');
  if (text.starts_with('/') || colon == std::string_view::npos) return to->mutable_pipe()->set_path(Text(text));
  std::string_view host = text.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  uint32_t port = 0;
  std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  to->mutable_socket_address()->set_address(Text(host));
  to->mutable_socket_address()->set_port_value(port);
}

template <typename T>
void SetNs(uint64_t ns, T* to) {  // a Duration or a Timestamp
  to->set_seconds(static_cast<int64_t>(ns / 1'000'000'000));
  to->set_nanos(static_cast<int32_t>(ns % 1'000'000'000));
}

als::TLSProperties::TLSVersion Version(std::string_view v) {
  return v == "TLSv1.3"   ? als::TLSProperties::TLSv1_3
         : v == "TLSv1.2" ? als::TLSProperties::TLSv1_2
         : v == "TLSv1.1" ? als::TLSProperties::TLSv1_1
         : v == "TLSv1"   ? als::TLSProperties::TLSv1
                          : als::TLSProperties::VERSION_UNSPECIFIED;
}

// IANA's numbers of the suites that BoringSSL has.
std::optional<uint32_t> CipherNumber(std::string_view name) {
  static constexpr std::pair<std::string_view, uint32_t> kSuites[] = {
      {"TLS_AES_128_GCM_SHA256", 0x1301},
      {"TLS_AES_256_GCM_SHA384", 0x1302},
      {"TLS_CHACHA20_POLY1305_SHA256", 0x1303},
      {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b},
      {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c},
      {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f},
      {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030},
      {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8},
      {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9},
      {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xc009},
      {"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", 0xc00a},
      {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xc013},
      {"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", 0xc014},
      {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xc027},
      {"TLS_RSA_WITH_AES_128_GCM_SHA256", 0x009c},
      {"TLS_RSA_WITH_AES_256_GCM_SHA384", 0x009d},
      {"TLS_RSA_WITH_AES_128_CBC_SHA", 0x002f},
      {"TLS_RSA_WITH_AES_256_CBC_SHA", 0x0035},
  };
  for (const auto& [suite, number] : kSuites) {
    if (suite == name) return number;
  }
  return std::nullopt;
}

void SetFlags(const proxy::ResponseFlags& flags, als::ResponseFlags* to) {
  using F = ResponseFlag;
  const auto set = [&](F flag, void (als::ResponseFlags::*setter)(bool)) {
    if (flags.Has(flag)) (to->*setter)(true);
  };
  set(F::kFailedLocalHealthCheck, &als::ResponseFlags::set_failed_local_healthcheck);
  set(F::kNoHealthyUpstream, &als::ResponseFlags::set_no_healthy_upstream);
  set(F::kUpstreamRequestTimeout, &als::ResponseFlags::set_upstream_request_timeout);
  set(F::kLocalReset, &als::ResponseFlags::set_local_reset);
  set(F::kUpstreamRemoteReset, &als::ResponseFlags::set_upstream_remote_reset);
  set(F::kUpstreamConnectionFailure, &als::ResponseFlags::set_upstream_connection_failure);
  set(F::kUpstreamConnectionTermination, &als::ResponseFlags::set_upstream_connection_termination);
  set(F::kUpstreamOverflow, &als::ResponseFlags::set_upstream_overflow);
  set(F::kNoRouteFound, &als::ResponseFlags::set_no_route_found);
  set(F::kDelayInjected, &als::ResponseFlags::set_delay_injected);
  set(F::kFaultInjected, &als::ResponseFlags::set_fault_injected);
  set(F::kRateLimited, &als::ResponseFlags::set_rate_limited);
  set(F::kRateLimitServiceError, &als::ResponseFlags::set_rate_limit_service_error);
  set(F::kDownstreamConnectionTermination, &als::ResponseFlags::set_downstream_connection_termination);
  set(F::kUpstreamRetryLimitExceeded, &als::ResponseFlags::set_upstream_retry_limit_exceeded);
  set(F::kStreamIdleTimeout, &als::ResponseFlags::set_stream_idle_timeout);
  set(F::kInvalidEnvoyRequestHeaders, &als::ResponseFlags::set_invalid_envoy_request_headers);
  set(F::kDownstreamProtocolError, &als::ResponseFlags::set_downstream_protocol_error);
  set(F::kUpstreamMaxStreamDurationReached, &als::ResponseFlags::set_upstream_max_stream_duration_reached);
  set(F::kDurationTimeout, &als::ResponseFlags::set_duration_timeout);
  set(F::kUpstreamProtocolError, &als::ResponseFlags::set_upstream_protocol_error);
  set(F::kNoClusterFound, &als::ResponseFlags::set_no_cluster_found);
  set(F::kOverloadManager, &als::ResponseFlags::set_overload_manager);
  set(F::kDnsResolutionFailed, &als::ResponseFlags::set_dns_resolution_failure);
  set(F::kDownstreamRemoteReset, &als::ResponseFlags::set_downstream_remote_reset);
  if (flags.Has(F::kUnauthorizedExternalService)) {
    to->mutable_unauthorized_details()->set_reason(als::ResponseFlags::Unauthorized::EXTERNAL_SERVICE);
  }
}

void SetTls(const Record& r, als::AccessLogCommon& c) {
  if (!r.requested_server_name.empty()) c.mutable_tls_properties()->set_tls_sni_hostname(Text(r.requested_server_name));
  if (r.tls_version.empty()) return;
  auto* t = c.mutable_tls_properties();
  t->set_tls_version(Version(r.tls_version));
  if (auto number = CipherNumber(r.tls_cipher)) t->mutable_tls_cipher_suite()->set_value(*number);
  auto* local = t->mutable_local_certificate_properties();
  if (!r.local_identity.empty()) local->add_subject_alt_name()->set_uri(Text(r.local_identity));
  local->set_subject(Text(r.local_subject));
  t->set_tls_session_id(Text(r.tls_session_id));
  auto* peer = t->mutable_peer_certificate_properties();
  if (!r.peer_identity.empty()) peer->add_subject_alt_name()->set_uri(Text(r.peer_identity));
  peer->set_subject(Text(r.peer_subject));
  peer->set_issuer(Text(r.peer_issuer));
}

void SetTimes(const Record& r, als::AccessLogCommon& c) {
  const auto set = [&](int64_t ns, auto get) {
    if (ns >= 0) SetNs(static_cast<uint64_t>(ns), (c.*get)());
  };
  using C = als::AccessLogCommon;
  set(r.request_rx_ns, &C::mutable_time_to_last_rx_byte);
  set(r.upstream_tx_first_ns, &C::mutable_time_to_first_upstream_tx_byte);
  set(r.upstream_tx_ns, &C::mutable_time_to_last_upstream_tx_byte);
  set(r.upstream_first_rx_ns, &C::mutable_time_to_first_upstream_rx_byte);
  set(r.upstream_rx_last_ns, &C::mutable_time_to_last_upstream_rx_byte);
  set(r.response_tx_first_ns, &C::mutable_time_to_first_downstream_tx_byte);
  set(r.response_tx_last_ns, &C::mutable_time_to_last_downstream_tx_byte);
}

void SetCommon(const Record& r, const model::GrpcLog& config, als::AccessLogCommon& c) {
  const bool tcp = r.protocol == proxy::Protocol::kTcp;
  if (r.downstream_remote.kind != model::Address::kNone) SetAddress(r.downstream_remote, c.mutable_downstream_remote_address());
  if (r.downstream_direct_remote.kind != model::Address::kNone) {
    SetAddress(r.downstream_direct_remote, c.mutable_downstream_direct_remote_address());
  }
  if (r.downstream_local.kind != model::Address::kNone) SetAddress(r.downstream_local, c.mutable_downstream_local_address());
  SetTls(r, c);
  SetNs(r.start_unix_ns, c.mutable_start_time());
  SetNs(static_cast<uint64_t>(r.duration_ns), c.mutable_duration());
  if (!tcp) SetTimes(r, c);
  if (!r.upstream_host.empty()) {
    SetAddress(r.upstream_host, c.mutable_upstream_remote_address());
    c.set_upstream_cluster(Text(r.cluster));
  }
  if (!r.upstream_local.empty()) SetAddress(r.upstream_local, c.mutable_upstream_local_address());
  c.set_upstream_transport_failure_reason(Text(proxy::UpstreamFailure(r)));
  c.set_route_name(Text(r.route));
  c.set_upstream_request_attempt_count(r.attempt_count);
  c.set_connection_termination_details(Text(r.connection_termination));
  c.set_stream_id(Text(r.request_id));
  c.set_downstream_transport_failure_reason(Text(r.transport_failure));
  c.set_downstream_wire_bytes_sent(r.response_bytes + r.response_header_bytes);
  c.set_downstream_wire_bytes_received(r.request_bytes + r.request_header_bytes);
  c.set_upstream_wire_bytes_sent(r.upstream_tx_bytes + r.upstream_tx_header_bytes);
  c.set_upstream_wire_bytes_received(r.upstream_rx_bytes + r.upstream_rx_header_bytes);
  if (!r.flags.empty()) SetFlags(r.flags, c.mutable_response_flags());
  for (const auto& m : r.metadata) {
    const size_t colon = m.name().find(':');
    auto& space = (*c.mutable_metadata()->mutable_filter_metadata())[std::string(m.name().substr(0, colon))];
    (*space.mutable_fields())[Text(m.name().substr(colon + 1))].set_string_value(Text(m.value()));
  }
  for (const model::LogTag& tag : config.tags) {
    const std::string_view value = TagValue(tag, r);
    if (!value.empty()) (*c.mutable_custom_tags())[tag.name] = Text(value);
  }
  c.set_access_log_type(tcp ? als::AccessLogType::TcpConnectionEnd : als::AccessLogType::DownstreamEnd);
}

template <typename Map>
void SetHeaders(const std::vector<std::string>& names, const http::HeaderMap& kept, Map* to) {
  std::string scratch;
  for (const std::string& name : names) {
    if (auto value = kept.Joined(name, scratch)) (*to)[name] = Text(*value);
  }
}

}  // namespace

std::string_view TagValue(const model::LogTag& tag, const Record& record) {
  const std::string_view header = tag.header.empty() ? std::string_view() : proxy::RequestHeader(record, tag.header);
  return header.empty() ? std::string_view(tag.text) : header;
}

std::string EncodeHttpEntry(const Record& r, const model::GrpcLog& config) {
  als::HTTPAccessLogEntry e;
  SetCommon(r, config, *e.mutable_common_properties());
  switch (r.protocol) {
    case proxy::Protocol::kHttp10: e.set_protocol_version(als::HTTPAccessLogEntry::HTTP10); break;
    case proxy::Protocol::kHttp11: e.set_protocol_version(als::HTTPAccessLogEntry::HTTP11); break;
    case proxy::Protocol::kHttp2: e.set_protocol_version(als::HTTPAccessLogEntry::HTTP2); break;
    case proxy::Protocol::kTcp: break;
  }
  als::HTTPRequestProperties& q = *e.mutable_request();
  core::RequestMethod method = core::METHOD_UNSPECIFIED;
  core::RequestMethod_Parse(std::string(proxy::RequestHeader(r, ":method")), &method);
  q.set_request_method(method);
  q.set_scheme(Text(proxy::RequestHeader(r, ":scheme")));
  q.set_authority(Text(proxy::RequestHeader(r, ":authority")));
  q.set_path(Text(proxy::RequestHeader(r, ":path")));
  q.set_user_agent(Text(proxy::RequestHeader(r, "user-agent")));
  q.set_referer(Text(proxy::RequestHeader(r, "referer")));
  q.set_forwarded_for(Text(proxy::RequestHeader(r, "x-forwarded-for")));
  q.set_request_id(Text(proxy::RequestHeader(r, "x-request-id")));
  q.set_original_path(Text(proxy::RequestHeader(r, "x-envoy-original-path")));
  q.set_request_headers_bytes(r.request_header_bytes);
  q.set_downstream_header_bytes_received(r.request_header_bytes);
  q.set_upstream_header_bytes_sent(r.upstream_tx_header_bytes);
  q.set_request_body_bytes(r.request_bytes);
  SetHeaders(config.request_headers, r.request_headers, q.mutable_request_headers());
  als::HTTPResponseProperties& p = *e.mutable_response();
  if (r.status) p.mutable_response_code()->set_value(r.status);
  p.set_response_code_details(Text(r.detail));
  p.set_response_headers_bytes(r.response_header_bytes);
  p.set_downstream_header_bytes_sent(r.response_header_bytes);
  p.set_upstream_header_bytes_received(r.upstream_rx_header_bytes);
  p.set_response_body_bytes(r.response_bytes);
  SetHeaders(config.response_headers, r.response_headers, p.mutable_response_headers());
  SetHeaders(config.response_trailers, r.response_trailers, p.mutable_response_trailers());
  return e.SerializeAsString();
}

std::string EncodeTcpEntry(const Record& r, const model::GrpcLog& config) {
  als::TCPAccessLogEntry e;
  SetCommon(r, config, *e.mutable_common_properties());
  e.mutable_connection_properties()->set_received_bytes(r.request_bytes);
  e.mutable_connection_properties()->set_sent_bytes(r.response_bytes);
  return e.SerializeAsString();
}

}  // namespace weft::telemetry
