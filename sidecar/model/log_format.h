// Envoy's format strings ("%REQ(:METHOD)% %DURATION%"), parsed: what access logs and added headers are made of. Values are those of a record (proxy/format.h).
//
//   auto f = LogFormat::Parse("%REQ(X-A?:PATH):20% 100%%\n");     // or an error that names the operator
//   for (const LogFormat::Op& op : f->ops) ...
//
// An operator that is not in the table is refused: a log that silently lacks what was asked for is worse than none.
// Threads: any; a parsed format is a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"

namespace weft::model {

// Operator, its name, and what its parentheses hold: kNever, kMay (optional), kMust.
#define WEFT_LOG_OPERATORS(X)                                                                                             \
  X(kReq, "REQ", kMust) X(kResp, "RESP", kMust) X(kTrailer, "TRAILER", kMust) X(kStartTime, "START_TIME", kMay)           \
  X(kStartTimeLocal, "START_TIME_LOCAL", kMay) X(kEmitTime, "EMIT_TIME", kMay) X(kProtocol, "PROTOCOL", kNever)           \
  X(kUpstreamProtocol, "UPSTREAM_PROTOCOL", kNever) X(kResponseCode, "RESPONSE_CODE", kNever)                             \
  X(kResponseFlags, "RESPONSE_FLAGS", kNever) X(kResponseFlagsLong, "RESPONSE_FLAGS_LONG", kNever)                        \
  X(kDetails, "RESPONSE_CODE_DETAILS", kMay) X(kTermination, "CONNECTION_TERMINATION_DETAILS", kNever)                    \
  X(kBytesReceived, "BYTES_RECEIVED", kNever) X(kBytesSent, "BYTES_SENT", kNever) X(kDuration, "DURATION", kNever)        \
  X(kRequestDuration, "REQUEST_DURATION", kNever) X(kRequestTxDuration, "REQUEST_TX_DURATION", kNever)                    \
  X(kResponseDuration, "RESPONSE_DURATION", kNever) X(kResponseTxDuration, "RESPONSE_TX_DURATION", kNever)                \
  X(kCommonDuration, "COMMON_DURATION", kMust) X(kUpstreamHost, "UPSTREAM_HOST", kNever)                                  \
  X(kUpstreamRemote, "UPSTREAM_REMOTE_ADDRESS", kNever) X(kUpstreamRemoteNoPort, "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kNever) \
  X(kUpstreamPort, "UPSTREAM_REMOTE_PORT", kNever) X(kUpstreamLocal, "UPSTREAM_LOCAL_ADDRESS", kNever)                    \
  X(kUpstreamLocalNoPort, "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kNever) X(kUpstreamLocalPort, "UPSTREAM_LOCAL_PORT", kNever) \
  X(kUpstreamCluster, "UPSTREAM_CLUSTER", kNever) X(kUpstreamClusterRaw, "UPSTREAM_CLUSTER_RAW", kNever)                  \
  X(kAttempts, "UPSTREAM_REQUEST_ATTEMPT_COUNT", kNever) X(kUpstreamTlsFailure, "UPSTREAM_TRANSPORT_FAILURE_REASON", kNever) \
  X(kUpstreamTx, "UPSTREAM_WIRE_BYTES_SENT", kNever) X(kUpstreamRx, "UPSTREAM_WIRE_BYTES_RECEIVED", kNever)               \
  X(kDownstreamTx, "DOWNSTREAM_WIRE_BYTES_SENT", kNever) X(kDownstreamRx, "DOWNSTREAM_WIRE_BYTES_RECEIVED", kNever)       \
  X(kRequestHeadersBytes, "REQUEST_HEADERS_BYTES", kNever) X(kDownstreamHeaderRx, "DOWNSTREAM_HEADER_BYTES_RECEIVED", kNever) \
  X(kResponseHeadersBytes, "RESPONSE_HEADERS_BYTES", kNever) X(kDownstreamHeaderTx, "DOWNSTREAM_HEADER_BYTES_SENT", kNever) \
  X(kRemote, "DOWNSTREAM_REMOTE_ADDRESS", kNever) X(kRemoteNoPort, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kNever)      \
  X(kRemotePort, "DOWNSTREAM_REMOTE_PORT", kNever) X(kDirectRemote, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", kNever)           \
  X(kDirectRemoteNoPort, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", kNever)                                         \
  X(kDirectRemotePort, "DOWNSTREAM_DIRECT_REMOTE_PORT", kNever) X(kLocal, "DOWNSTREAM_LOCAL_ADDRESS", kNever)             \
  X(kLocalNoPort, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kNever) X(kLocalPort, "DOWNSTREAM_LOCAL_PORT", kNever)         \
  X(kPeerUriSan, "DOWNSTREAM_PEER_URI_SAN", kNever) X(kLocalUriSan, "DOWNSTREAM_LOCAL_URI_SAN", kNever)                   \
  X(kPeerSubject, "DOWNSTREAM_PEER_SUBJECT", kNever) X(kTlsVersion, "DOWNSTREAM_TLS_VERSION", kNever)                     \
  X(kTlsCipher, "DOWNSTREAM_TLS_CIPHER", kNever) X(kSni, "REQUESTED_SERVER_NAME", kNever) X(kRouteName, "ROUTE_NAME", kNever) \
  X(kVirtualHost, "VIRTUAL_HOST_NAME", kNever) X(kFilterChain, "FILTER_CHAIN_NAME", kNever) X(kHostname, "HOSTNAME", kNever) \
  X(kConnectionId, "CONNECTION_ID", kNever) X(kGrpcStatus, "GRPC_STATUS", kMay) X(kGrpcStatusNumber, "GRPC_STATUS_NUMBER", kNever) \
  X(kTraceId, "TRACE_ID", kNever) X(kSpanId, "SPAN_ID", kNever) X(kStreamId, "STREAM_ID", kNever)                         \
  X(kDownstreamTlsFailure, "DOWNSTREAM_TRANSPORT_FAILURE_REASON", kNever) X(kUpstreamTlsVersion, "UPSTREAM_TLS_VERSION", kNever) \
  X(kUpstreamPeerUriSan, "UPSTREAM_PEER_URI_SAN", kNever) X(kEnvironment, "ENVIRONMENT", kMust)                           \
  X(kLogType, "ACCESS_LOG_TYPE", kNever) X(kQueryParam, "QUERY_PARAM", kMust) X(kPath, "PATH", kMay)                      \
  X(kDynamicMetadata, "DYNAMIC_METADATA", kMust)                                                                          \
  /* Nothing here writes filter state, and virtual clusters are not kept: always missing. */                              \
  X(kFilterState, "FILTER_STATE", kMust)                                   \
  X(kUpstreamFilterState, "UPSTREAM_FILTER_STATE", kMust) X(kVirtualCluster, "VIRTUAL_CLUSTER_NAME", kNever)

enum class LogOperator : uint8_t {
  kLiteral,
#define X(id, name, argument) id,
  WEFT_LOG_OPERATORS(X)
#undef X
};

struct LogFormat {
  struct Op {
    LogOperator code = LogOperator::kLiteral;
    std::string text;         // literal, or the argument (header names in lower case)
    std::string alternative;  // the header after '?'; of a duration its end; of PATH its kind
    std::string unit;         // of COMMON_DURATION
    size_t max_length = SIZE_MAX;
  };
  std::vector<Op> ops;

  static base::Result<LogFormat> Parse(std::string_view text);
};

// Moments a COMMON_DURATION may name that are not kept in records are refused as well.
bool KnownMoment(std::string_view name);

}  // namespace weft::model
