// Envoy's access log operators over proxy::Record.
#include <unistd.h>

#include <cctype>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <optional>

#include "sidecar/telemetry/access_log.h"

namespace weft::telemetry {

const char kDefaultFormat[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" "
    "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

namespace {

using proxy::Record;

enum Code : int {
  kReq, kResp, kTrailer, kStartTime, kStartTimeLocal, kProtocol, kUpstreamProtocol, kResponseCode, kResponseFlags, kResponseFlagsLong,
  kDetails, kTermination, kBytesReceived, kBytesSent, kDuration, kRequestDuration, kRequestTxDuration, kResponseDuration,
  kResponseTxDuration, kUpstreamHost, kUpstreamHostNoPort, kUpstreamPort, kUpstreamLocal, kUpstreamLocalNoPort, kUpstreamCluster,
  kAttempts, kUpstreamTlsFailure, kUpstreamTx, kUpstreamRx, kDownstreamTx, kDownstreamRx, kRequestHeadersBytes, kResponseHeadersBytes,
  kRemote, kRemoteNoPort, kRemotePort, kDirectRemote, kDirectRemoteNoPort, kDirectRemotePort, kLocal, kLocalNoPort, kLocalPort,
  kPeerUriSan, kLocalUriSan, kPeerSubject, kTlsVersion, kTlsCipher, kSni, kRouteName, kVirtualHost, kFilterChain, kHostname,
  kConnectionId, kGrpcStatus, kGrpcStatusNumber, kTraceId, kSpanId, kStreamId, kDownstreamTlsFailure, kUpstreamTlsVersion,
  kUpstreamPeerUriSan, kEnvironment, kLogType, kNothing, kPercentSign,
};

struct Operator {
  std::string_view name;
  int code;
  bool argument;
};
constexpr Operator kOperators[] = {
    {"REQ", kReq, true}, {"RESP", kResp, true}, {"TRAILER", kTrailer, true}, {"START_TIME", kStartTime, false},
    {"START_TIME_LOCAL", kStartTimeLocal, false}, {"PROTOCOL", kProtocol, false}, {"UPSTREAM_PROTOCOL", kUpstreamProtocol, false},
    {"RESPONSE_CODE", kResponseCode, false}, {"RESPONSE_FLAGS", kResponseFlags, false},
    {"RESPONSE_FLAGS_LONG", kResponseFlagsLong, false}, {"RESPONSE_CODE_DETAILS", kDetails, false},
    {"CONNECTION_TERMINATION_DETAILS", kTermination, false}, {"BYTES_RECEIVED", kBytesReceived, false},
    {"BYTES_SENT", kBytesSent, false}, {"DURATION", kDuration, false}, {"REQUEST_DURATION", kRequestDuration, false},
    {"REQUEST_TX_DURATION", kRequestTxDuration, false}, {"RESPONSE_DURATION", kResponseDuration, false},
    {"RESPONSE_TX_DURATION", kResponseTxDuration, false}, {"UPSTREAM_HOST", kUpstreamHost, false},
    {"UPSTREAM_REMOTE_ADDRESS", kUpstreamHost, false}, {"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kUpstreamHostNoPort, false},
    {"UPSTREAM_REMOTE_PORT", kUpstreamPort, false}, {"UPSTREAM_LOCAL_ADDRESS", kUpstreamLocal, false},
    {"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kUpstreamLocalNoPort, false}, {"UPSTREAM_CLUSTER", kUpstreamCluster, false},
    {"UPSTREAM_CLUSTER_RAW", kUpstreamCluster, false}, {"UPSTREAM_REQUEST_ATTEMPT_COUNT", kAttempts, false},
    {"UPSTREAM_TRANSPORT_FAILURE_REASON", kUpstreamTlsFailure, false}, {"UPSTREAM_WIRE_BYTES_SENT", kUpstreamTx, false},
    {"UPSTREAM_WIRE_BYTES_RECEIVED", kUpstreamRx, false}, {"DOWNSTREAM_WIRE_BYTES_SENT", kDownstreamTx, false},
    {"DOWNSTREAM_WIRE_BYTES_RECEIVED", kDownstreamRx, false}, {"REQUEST_HEADERS_BYTES", kRequestHeadersBytes, false},
    {"DOWNSTREAM_HEADER_BYTES_RECEIVED", kRequestHeadersBytes, false}, {"RESPONSE_HEADERS_BYTES", kResponseHeadersBytes, false},
    {"DOWNSTREAM_HEADER_BYTES_SENT", kResponseHeadersBytes, false}, {"DOWNSTREAM_REMOTE_ADDRESS", kRemote, false},
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kRemoteNoPort, false}, {"DOWNSTREAM_REMOTE_PORT", kRemotePort, false},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", kDirectRemote, false},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", kDirectRemoteNoPort, false},
    {"DOWNSTREAM_DIRECT_REMOTE_PORT", kDirectRemotePort, false}, {"DOWNSTREAM_LOCAL_ADDRESS", kLocal, false},
    {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kLocalNoPort, false}, {"DOWNSTREAM_LOCAL_PORT", kLocalPort, false},
    {"DOWNSTREAM_PEER_URI_SAN", kPeerUriSan, false}, {"DOWNSTREAM_LOCAL_URI_SAN", kLocalUriSan, false},
    {"DOWNSTREAM_PEER_SUBJECT", kPeerSubject, false}, {"DOWNSTREAM_TLS_VERSION", kTlsVersion, false},
    {"DOWNSTREAM_TLS_CIPHER", kTlsCipher, false}, {"REQUESTED_SERVER_NAME", kSni, false}, {"ROUTE_NAME", kRouteName, false},
    {"VIRTUAL_HOST_NAME", kVirtualHost, false}, {"FILTER_CHAIN_NAME", kFilterChain, false}, {"HOSTNAME", kHostname, false},
    {"CONNECTION_ID", kConnectionId, false}, {"GRPC_STATUS", kGrpcStatus, false}, {"GRPC_STATUS_NUMBER", kGrpcStatusNumber, false},
    {"TRACE_ID", kTraceId, false}, {"SPAN_ID", kSpanId, false}, {"STREAM_ID", kStreamId, false},
    {"DOWNSTREAM_TRANSPORT_FAILURE_REASON", kDownstreamTlsFailure, false}, {"UPSTREAM_TLS_VERSION", kUpstreamTlsVersion, false},
    {"UPSTREAM_PEER_URI_SAN", kUpstreamPeerUriSan, false}, {"ENVIRONMENT", kEnvironment, true}, {"ACCESS_LOG_TYPE", kLogType, false},
    {"DYNAMIC_METADATA", kNothing, true}, {"FILTER_STATE", kNothing, true}, {"CLUSTER_METADATA", kNothing, true},
    {"UPSTREAM_METADATA", kNothing, true}, {"METADATA", kNothing, true}, {"DOWNSTREAM_PEER_CERT", kNothing, false},
    {"VIRTUAL_CLUSTER_NAME", kNothing, false},
};

constexpr std::string_view kGrpcCamel[] = {"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
                                           "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted",
                                           "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"};
constexpr std::string_view kGrpcSnake[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
                                           "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
                                           "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
                                           "UNAUTHENTICATED"};

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view WithoutPort(std::string_view a) {
  if (a.empty() || a[0] == '/') return a;
  size_t colon = a.rfind(':');
  if (colon == std::string_view::npos) return a;
  a = a.substr(0, colon);
  if (a.size() > 1 && a.front() == '[' && a.back() == ']') a = a.substr(1, a.size() - 2);
  return a;
}
std::string_view PortOf(std::string_view a) {
  size_t colon = a.rfind(':');
  return a.empty() || a[0] == '/' || colon == std::string_view::npos ? std::string_view() : a.substr(colon + 1);
}

// What a header operator finds: the kept headers first, then what the record holds of every request.
std::string_view RequestHeader(const Record& r, const std::string& name) {
  if (auto v = r.request_headers.Get(name)) return *v;
  if (name == ":method") return r.method;
  if (name == ":path") return r.path;
  if (name == ":authority" || name == "host") return r.authority;
  if (name == "x-request-id") return r.request_id;
  if (name == "user-agent") return r.user_agent;
  return {};
}

std::string Hex(const uint8_t* bytes, size_t n) {
  static const char* digits = "0123456789abcdef";
  std::string out;
  bool any = false;
  for (size_t i = 0; i < n; ++i) {
    any |= bytes[i] != 0;
    out += digits[bytes[i] >> 4];
    out += digits[bytes[i] & 15];
  }
  return any ? out : std::string();
}

// strftime plus Envoy's %s (seconds), %f / %Nf (fraction with N digits; default 9), %3s ... (seconds and N digits).
std::string FormatTime(uint64_t unix_ns, std::string_view format, bool local) {
  time_t seconds = static_cast<time_t>(unix_ns / 1'000'000'000);
  char nanos[16];
  snprintf(nanos, sizeof nanos, "%09llu", static_cast<unsigned long long>(unix_ns % 1'000'000'000));
  tm parts{};
  if (local) localtime_r(&seconds, &parts);
  else gmtime_r(&seconds, &parts);
  if (format.empty()) format = "%Y-%m-%dT%H:%M:%S.%3fZ";
  std::string strf;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      strf += format[i];
      continue;
    }
    size_t j = i + 1;
    int digits = 9;
    if (format[j] >= '1' && format[j] <= '9' && j + 1 < format.size()) digits = format[j++] - '0';
    if (format[j] == 'f') strf.append(nanos, static_cast<size_t>(digits)), i = j;
    else if (format[j] == 's') {
      strf += std::to_string(seconds);
      if (j > i + 1) strf.append(nanos, static_cast<size_t>(digits));
      i = j;
    } else strf += '%', strf += format[i + 1], ++i;
  }
  char text[256];
  size_t n = strftime(text, sizeof text, strf.c_str(), &parts);
  return std::string(text, n);
}

struct Value {
  enum Kind { kMissing, kText, kNumber } kind = kMissing;
  std::string_view view;  // into the record or into scratch
  int64_t number = 0;
};

Value Text(std::string_view s) { return s.empty() ? Value{} : Value{Value::kText, s}; }
Value Number(int64_t n) { return {Value::kNumber, {}, n}; }
Value Ms(int64_t ns) { return ns < 0 ? Value{} : Number(ns / 1'000'000); }

Value Evaluate(const Format::Op& op, const Record& r, std::string& scratch) {
  auto keep = [&](std::string s) { return scratch = std::move(s), Text(scratch); };
  switch (op.code) {
    case kReq: {
      std::string_view v = RequestHeader(r, op.text);
      if (v.empty() && !op.alternative.empty()) v = RequestHeader(r, op.alternative);
      return Text(v);
    }
    case kResp: {
      auto v = r.response_headers.Get(op.text);
      if (!v && !op.alternative.empty()) v = r.response_headers.Get(op.alternative);
      if (v) return Text(*v);
      if (op.text == ":status" && r.status) return keep(std::to_string(r.status));
      if (op.text == "x-envoy-upstream-service-time" && r.upstream_service_ns >= 0)
        return keep(std::to_string(r.upstream_service_ns / 1'000'000));
      return {};
    }
    case kTrailer: {
      auto v = r.response_trailers.Get(op.text);
      if (!v && !op.alternative.empty()) v = r.response_trailers.Get(op.alternative);
      if (v) return Text(*v);
      if (op.text == "grpc-status" && r.grpc_status >= 0) return keep(std::to_string(r.grpc_status));
      return {};
    }
    case kStartTime: return keep(FormatTime(r.start_unix_ns, op.text, false));
    case kStartTimeLocal: return keep(FormatTime(r.start_unix_ns, op.text, true));
    case kProtocol: return Text(proxy::ProtocolText(r.protocol));
    case kUpstreamProtocol: return r.upstream_host.empty() ? Value{} : Text(proxy::ProtocolText(r.upstream_protocol));
    case kResponseCode: return Number(r.status);
    case kResponseFlags: return keep(r.flags.ToString());
    case kResponseFlagsLong: return keep(r.flags.ToLongString());
    case kDetails: return Text(r.detail);
    case kTermination: return Text(r.connection_termination);
    case kBytesReceived: return Number(static_cast<int64_t>(r.request_bytes));
    case kBytesSent: return Number(static_cast<int64_t>(r.response_bytes));
    case kDuration: return Ms(r.duration_ns);
    case kRequestDuration: return Ms(r.request_rx_ns);
    case kRequestTxDuration: return Ms(r.upstream_tx_ns);
    case kResponseDuration: return Ms(r.upstream_first_rx_ns);
    case kResponseTxDuration:
      return r.upstream_first_rx_ns < 0 || r.duration_ns < r.upstream_first_rx_ns ? Value{} : Ms(r.duration_ns - r.upstream_first_rx_ns);
    case kUpstreamHost: return Text(r.upstream_host);
    case kUpstreamHostNoPort: return Text(WithoutPort(r.upstream_host));
    case kUpstreamPort: return Text(PortOf(r.upstream_host));
    case kUpstreamLocal: return Text(r.upstream_local);
    case kUpstreamLocalNoPort: return Text(WithoutPort(r.upstream_local));
    case kUpstreamCluster: return Text(r.cluster);
    case kAttempts: return Number(r.attempt_count);
    case kUpstreamTlsFailure: return Text(r.upstream_transport_failure);
    case kUpstreamTx: return Number(static_cast<int64_t>(r.upstream_tx_bytes));
    case kUpstreamRx: return Number(static_cast<int64_t>(r.upstream_rx_bytes));
    case kDownstreamTx: return Number(static_cast<int64_t>(r.response_bytes + r.response_header_bytes));
    case kDownstreamRx: return Number(static_cast<int64_t>(r.request_bytes + r.request_header_bytes));
    case kRequestHeadersBytes: return Number(static_cast<int64_t>(r.request_header_bytes));
    case kResponseHeadersBytes: return Number(static_cast<int64_t>(r.response_header_bytes));
    case kRemote: return Text(r.downstream_remote);
    case kRemoteNoPort: return Text(WithoutPort(r.downstream_remote));
    case kRemotePort: return Text(PortOf(r.downstream_remote));
    case kDirectRemote: return Text(r.downstream_direct_remote);
    case kDirectRemoteNoPort: return Text(WithoutPort(r.downstream_direct_remote));
    case kDirectRemotePort: return Text(PortOf(r.downstream_direct_remote));
    case kLocal: return Text(r.downstream_local);
    case kLocalNoPort: return Text(WithoutPort(r.downstream_local));
    case kLocalPort: return Text(PortOf(r.downstream_local));
    case kPeerUriSan: return Text(r.peer_identity);
    case kLocalUriSan: return Text(r.local_identity);
    case kPeerSubject: return Text(r.peer_subject);
    case kTlsVersion: return Text(r.tls_version);
    case kTlsCipher: return Text(r.tls_cipher);
    case kSni: return Text(r.requested_server_name);
    case kRouteName: return Text(r.route);
    case kVirtualHost: return Text(r.virtual_host);
    case kFilterChain: return Text(r.filter_chain);
    case kHostname: {
      char name[256] = {};
      gethostname(name, sizeof name - 1);
      return keep(name);
    }
    case kConnectionId: return Number(static_cast<int64_t>(r.connection_id));
    case kGrpcStatus:
      if (r.grpc_status < 0) return {};
      if (op.text == "number") return keep(std::to_string(r.grpc_status));
      if (r.grpc_status > 16) return keep(std::to_string(r.grpc_status));
      return Text(op.text == "snake_string" ? kGrpcSnake[r.grpc_status] : kGrpcCamel[r.grpc_status]);
    case kGrpcStatusNumber: return r.grpc_status < 0 ? Value{} : Number(r.grpc_status);
    case kTraceId: return keep(Hex(r.trace_id, sizeof r.trace_id));
    case kSpanId: return keep(Hex(r.span_id, sizeof r.span_id));
    case kStreamId: return Text(r.request_id);
    case kDownstreamTlsFailure: return Text(r.transport_failure);
    case kUpstreamTlsVersion: return Text(r.upstream_tls_version);
    case kUpstreamPeerUriSan: return Text(r.upstream_peer_identity);
    case kEnvironment: {
      const char* v = getenv(op.text.c_str());
      return v ? Text(v) : Value{};
    }
    case kLogType: return Text(r.protocol == proxy::Protocol::kTcp ? "TcpConnectionEnd" : "DownstreamEnd");
    default: return {};
  }
}

// Envoy prints 0, not "-", for a response that never came, and "-" for flags: both fall out of Value.
void AppendValue(const Format::Op& op, const Record& r, std::string* out) {
  std::string scratch;
  Value v = Evaluate(op, r, scratch);
  size_t start = out->size();
  if (v.kind == Value::kMissing) *out += '-';
  else if (v.kind == Value::kNumber) *out += std::to_string(v.number);
  else out->append(v.view);
  if (out->size() - start > op.max_length) out->resize(start + op.max_length);
}

}  // namespace

base::Result<Format> Format::Compile(std::string_view text) {
  Format f;
  std::string literal;
  auto flush = [&] {
    if (!literal.empty()) f.ops_.push_back({-1, literal, {}, SIZE_MAX}), literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      literal += text[i];
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == '%') {
      literal += '%', ++i;
      continue;
    }
    size_t name_end = i + 1;
    while (name_end < text.size() && (std::isalnum(static_cast<unsigned char>(text[name_end])) || text[name_end] == '_')) ++name_end;
    std::string_view name = text.substr(i + 1, name_end - i - 1);
    size_t at = name_end;
    std::string_view argument;
    bool has_argument = false;
    if (at < text.size() && text[at] == '(') {
      size_t close = text.find(')', at);
      if (close == std::string_view::npos) return base::Error("\"%" + std::string(name) + "(\" has no closing parenthesis");
      argument = text.substr(at + 1, close - at - 1), has_argument = true;
      at = close + 1;
    }
    Op op;
    if (at < text.size() && text[at] == ':') {
      size_t n = 0;
      auto [p, ec] = std::from_chars(text.data() + at + 1, text.data() + text.size(), n);
      if (ec != std::errc()) return base::Error("\"%" + std::string(name) + "\" has a length that is not a number");
      op.max_length = n, at = static_cast<size_t>(p - text.data());
    }
    if (at >= text.size() || text[at] != '%') return base::Error("\"%" + std::string(name) + "\" is not closed by %");
    const Operator* found = nullptr;
    for (const Operator& o : kOperators) {
      if (o.name == name) found = &o;
    }
    if (!found) return base::Error("unknown operator %" + std::string(name) + "%");
    if (found->argument && (!has_argument || argument.empty())) return base::Error("%" + std::string(name) + "% needs an argument in parentheses");
    op.code = found->code;
    if (found->code == kReq || found->code == kResp || found->code == kTrailer) {
      size_t q = argument.find('?');
      op.text = Lower(argument.substr(0, q));
      if (q != std::string_view::npos) op.alternative = Lower(argument.substr(q + 1));
    } else if (found->code == kGrpcStatus) {
      op.text = Lower(argument);
    } else {
      op.text = std::string(argument);
    }
    flush();
    f.ops_.push_back(std::move(op));
    i = at;
  }
  flush();
  return f;
}

void Format::Append(const Record& record, std::string* out) const {
  for (const Op& op : ops_) {
    if (op.code < 0) *out += op.text;
    else AppendValue(op, record, out);
  }
}

bool Format::Missing(const Record& record) const {
  if (ops_.size() != 1 || ops_[0].code < 0) return false;
  std::string scratch;
  return Evaluate(ops_[0], record, scratch).kind == Value::kMissing;
}

void Format::AppendJson(const Record& record, std::string* out) const {
  if (ops_.size() == 1 && ops_[0].code >= 0) {
    std::string scratch;
    Value v = Evaluate(ops_[0], record, scratch);
    if (v.kind == Value::kMissing) *out += "null";
    else if (v.kind == Value::kNumber) *out += std::to_string(v.number);
    else AppendJsonString(v.view.substr(0, ops_[0].max_length), out);
    return;
  }
  std::string text;
  Append(record, &text);
  AppendJsonString(text, out);
}

void AppendJsonString(std::string_view s, std::string* out) {
  *out += '"';
  for (size_t i = 0; i < s.size(); ++i) {
    unsigned char c = static_cast<unsigned char>(s[i]);
    if (c == '"' || c == '\\') *out += '\\', *out += static_cast<char>(c);
    else if (c == '\n') *out += "\\n";
    else if (c == '\r') *out += "\\r";
    else if (c == '\t') *out += "\\t";
    else if (c < 0x20 || c == 0x7f) {
      char hex[8];
      snprintf(hex, sizeof hex, "\\u%04x", c);
      *out += hex;
    } else if (c < 0x80) *out += static_cast<char>(c);
    else {
      size_t n = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 0;
      bool good = n && i + n <= s.size();
      for (size_t k = 1; good && k < n; ++k) good = (static_cast<unsigned char>(s[i + k]) & 0xc0) == 0x80;
      unsigned char second = good ? static_cast<unsigned char>(s[i + 1]) : 0;
      if (good && ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f)))
        good = false;
      if (good) out->append(s.substr(i, n)), i += n - 1;
      else *out += "\xef\xbf\xbd";
    }
  }
  *out += '"';
}

}  // namespace weft::telemetry
