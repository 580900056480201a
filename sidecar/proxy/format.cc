// Envoy's access log operators over Record.
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <ctime>
#include <map>
#include <optional>

#include "sidecar/proxy/format.h"

namespace weft::proxy {

const char kDefaultFormat[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" "
    "\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

namespace {


using Op = model::LogFormat::Op;
using enum model::LogOperator;

constexpr char kUtcTime[] = "%Y-%m-%dT%H:%M:%S.%3fZ", kLocalTime[] = "%Y-%m-%dT%H:%M:%S.%3f%z";
constexpr std::string_view kGrpcCamel[] = {"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
                                           "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted",
                                           "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"};
constexpr std::string_view kGrpcSnake[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
                                           "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
                                           "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
                                           "UNAUTHENTICATED"};

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

std::string PortOf(const model::Address& a) { return a.kind == model::Address::kIp ? std::to_string(a.port) : std::string(); }

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

struct Value {
  enum Kind { kMissing, kText, kNumber } kind = kMissing;
  std::string_view view;  // into the record or into scratch
  int64_t number = 0;
};

Value Text(std::string_view s) { return s.empty() ? Value{} : Value{Value::kText, s}; }
Value Number(int64_t n) { return {Value::kNumber, {}, n}; }
Value Ms(int64_t ns) { return ns < 0 ? Value{} : Number(ns / 1'000'000); }

Value Between(int64_t from, int64_t to, int64_t unit) { return from < 0 || to < from ? Value{} : Number((to - from) / unit); }

// A moment of COMMON_DURATION, in ns from the start; -1: it did not come.
int64_t Moment(const Record& r, std::string_view name) {
  if (name == "DS_RX_BEG") return 0;
  if (name == "DS_RX_END") return r.request_rx_ns;
  if (name == "US_TX_END") return r.upstream_tx_ns;
  if (name == "US_RX_BEG") return r.upstream_first_rx_ns;
  return name == "DS_TX_BEG" ? r.response_tx_first_ns : r.response_tx_last_ns;
}

// The host of the attempt that was connected; "" when none was.
std::string_view Connected(const Record& r) { return r.upstream_local.empty() ? std::string_view() : std::string_view(r.upstream_host); }

std::string Underscored(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c == ' ') c = '_';
  return out;
}

std::string QueryParameter(std::string_view path, std::string_view name) {
  const size_t q = path.find('?');
  for (size_t at = q; at != std::string_view::npos; at = path.find('&', at + 1)) {
    const std::string_view pair = path.substr(at + 1, path.find('&', at + 1) - at - 1);
    if (pair.substr(0, pair.find('=')) == name) return std::string(pair.find('=') == std::string_view::npos ? "" : pair.substr(pair.find('=') + 1));
  }
  return {};
}

TimeText TimeOf(const Op& op) {
  const bool local = op.code == kStartTimeLocal;
  return TimeText(!op.text.empty() ? std::string_view(op.text) : local ? kLocalTime : kUtcTime, local);
}
bool IsTime(const Op& op) { return op.code == kStartTime || op.code == kStartTimeLocal || op.code == kEmitTime; }

// time: of operators that print one; null: made for this once. heads: of a finished record null.
Value Evaluate(const Op& op, TimeText* time, const Record& r, const LiveHeads* heads, std::string& scratch) {
  auto keep = [&](std::string s) { return scratch = std::move(s), Text(scratch); };
  auto moment = [&](uint64_t unix_ns) {
    scratch.clear();
    if (time) time->Append(unix_ns, &scratch);
    else TimeOf(op).Append(unix_ns, &scratch);
    return Text(scratch);
  };
  auto request = [&](std::string_view name) {
    return heads ? heads->request->Get(name == "host" ? ":authority" : name).value_or("") : RequestHeader(r, name);
  };
  switch (op.code) {
    case kReq: {
      std::string_view v = request(op.text);
      if (v.empty() && !op.alternative.empty()) v = request(op.alternative);
      return Text(v);
    }
    case kResp: {
      if (heads && !heads->response) return {};
      const http::HeaderMap& from = heads ? *heads->response : r.response_headers;
      auto v = from.Get(op.text);
      if (!v && !op.alternative.empty()) v = from.Get(op.alternative);
      if (v) return Text(*v);
      if (op.text == ":status" && r.status) return keep(std::to_string(r.status));
      if (op.text == "x-envoy-upstream-service-time" && r.upstream_service_ns >= 0)
        return keep(std::to_string(r.upstream_service_ns / 1'000'000));
      return {};
    }
    case kTrailer: {
      auto v = r.response_trailers.Get(op.text);
      if (!v && !op.alternative.empty()) v = r.response_trailers.Get(op.alternative);
      return v ? Text(*v) : Value{};
    }
    case kStartTime:
    case kStartTimeLocal: return moment(r.start_unix_ns);
    case kEmitTime: {
      timespec now{};
      clock_gettime(CLOCK_REALTIME, &now);
      return moment(static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec));
    }
    case kProtocol: return Text(ProtocolText(r.protocol));
    case kUpstreamProtocol: return r.upstream_host.empty() ? Value{} : Text(ProtocolText(r.upstream_protocol));
    case kResponseCode: return Number(r.status);
    case kResponseFlags: return r.flags.empty() ? Text("-") : keep(r.flags.ToString());  // never missing, also in JSON
    case kResponseFlagsLong: return r.flags.empty() ? Text("-") : keep(r.flags.ToLongString());
    case kDetails:
      if (r.protocol == Protocol::kTcp) return {};  // of responses only; see CONNECTION_TERMINATION_DETAILS
      if (heads && heads->from_upstream && r.detail.empty()) return Text("via_upstream");
      return op.text == "ALLOW_WHITESPACES" ? Text(r.detail) : keep(Underscored(r.detail));
    case kTermination: return Text(r.connection_termination);
    case kBytesReceived: return Number(static_cast<int64_t>(r.request_bytes));
    case kBytesSent: return Number(static_cast<int64_t>(r.response_bytes));
    case kDuration: return Ms(r.duration_ns);
    case kRequestDuration: return Ms(r.request_rx_ns);
    case kRequestTxDuration: return Ms(r.upstream_tx_ns);
    case kResponseDuration: return r.protocol == Protocol::kTcp ? Value{} : Ms(r.upstream_first_rx_ns);
    case kResponseTxDuration: return Between(r.upstream_first_rx_ns, r.response_tx_last_ns, 1'000'000);
    case kCommonDuration: return Between(Moment(r, op.text), Moment(r, op.alternative), op.unit == "ms" ? 1'000'000 : op.unit == "us" ? 1000 : 1);
    case kUpstreamHost: return Text(r.upstream_host);
    case kUpstreamRemote: return Text(Connected(r));
    case kUpstreamRemoteNoPort: return Text(WithoutPort(Connected(r)));
    case kUpstreamPort: return Text(PortOf(Connected(r)));
    case kUpstreamLocal: return Text(r.upstream_local);
    case kUpstreamLocalNoPort: return Text(WithoutPort(r.upstream_local));
    case kUpstreamLocalPort: return Text(PortOf(r.upstream_local));
    case kUpstreamCluster:
    case kUpstreamClusterRaw: return r.flags.Has(ResponseFlag::kNoClusterFound) ? Value{} : Text(r.cluster);
    case kAttempts: return Number(heads && !heads->response ? 1 : r.attempt_count);  // a request's headers are added before its first
    case kUpstreamTlsFailure: return keep(Underscored(UpstreamFailure(r)));
    case kUpstreamTx: return Number(static_cast<int64_t>(r.upstream_tx_bytes + r.upstream_tx_header_bytes));
    case kUpstreamRx: return Number(static_cast<int64_t>(r.upstream_rx_bytes + r.upstream_rx_header_bytes));
    case kDownstreamTx: return Number(static_cast<int64_t>(r.response_bytes + r.response_header_bytes));
    case kDownstreamRx: return Number(static_cast<int64_t>(r.request_bytes + r.request_header_bytes));
    case kRequestHeadersBytes:
    case kDownstreamHeaderRx: return Number(static_cast<int64_t>(r.request_header_bytes));
    case kResponseHeadersBytes:
    case kDownstreamHeaderTx: return Number(static_cast<int64_t>(r.response_header_bytes));
    case kRemote: return keep(r.downstream_remote.ToString());
    case kRemoteNoPort: return keep(r.downstream_remote.WithoutPort());
    case kRemotePort: return keep(PortOf(r.downstream_remote));
    case kDirectRemote: return keep(r.downstream_direct_remote.ToString());
    case kDirectRemoteNoPort: return keep(r.downstream_direct_remote.WithoutPort());
    case kDirectRemotePort: return keep(PortOf(r.downstream_direct_remote));
    case kLocal: return keep(r.downstream_local.ToString());
    case kLocalNoPort: return keep(r.downstream_local.WithoutPort());
    case kLocalPort: return keep(PortOf(r.downstream_local));
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
      return Text(v && *v ? v : "-");  // never missing
    }
    case kLogType: return Text(r.protocol == Protocol::kTcp ? "TcpConnectionEnd" : "DownstreamEnd");
    case kQueryParam: return keep(QueryParameter(request(":path"), op.text));
    case kPath: {
      std::string_view original = request("x-envoy-original-path"), path = original;
      if (op.alternative == "PATH" || (path.empty() && op.alternative != "ORIG")) path = request(":path");
      return Text(op.text == "NQ" ? path.substr(0, path.find('?')) : path);
    }
    case kDynamicMetadata: {
      // One value, or all of a namespace as JSON.
      if (auto v = r.metadata.Get(op.text)) return Text(*v);
      if (op.text.find(':') != std::string::npos) return {};
      std::map<std::string_view, std::string_view> members;
      for (const auto& e : r.metadata) {
        const std::string_view name = e.name();
        if (name.size() > op.text.size() && name.starts_with(op.text) && name[op.text.size()] == ':') members[name.substr(op.text.size() + 1)] = e.value();
      }
      if (members.empty()) return {};
      scratch.clear();
      for (const auto& [key, value] : members) {
        scratch += scratch.empty() ? '{' : ',';
        AppendJsonString(key, &scratch), scratch += ':', AppendJsonString(value, &scratch);
      }
      return scratch += '}', Text(scratch);
    }
    case kFilterState:
    case kUpstreamFilterState:
    case kVirtualCluster:
    case kLiteral: break;
  }
  return {};
}

void AppendNumber(int64_t n, std::string* out) {
  char digits[24];
  out->append(digits, std::to_chars(digits, digits + sizeof digits, n).ptr);
}

void AppendOne(const Op& op, TimeText* time, const Record& record, const LiveHeads* heads, std::string_view missing, std::string& scratch, std::string* out) {
  if (op.code == kLiteral) {
    *out += op.text;
    return;
  }
  const Value v = Evaluate(op, time, record, heads, scratch);
  const size_t start = out->size();
  if (v.kind == Value::kMissing) out->append(missing);
  else if (v.kind == Value::kNumber) AppendNumber(v.number, out);
  else out->append(v.view);
  if (out->size() - start > op.max_length) out->resize(start + op.max_length);
}

}  // namespace

std::string_view RequestHeader(const Record& r, std::string_view name) {
  if (auto v = r.request_headers.Get(name)) return *v;
  if (name == ":method") return r.method;
  if (name == ":path") return r.path;
  if (name == ":authority" || name == "host") return r.authority;
  if (name == "x-request-id" && r.protocol != Protocol::kTcp) return r.request_id;
  if (name == "user-agent") return r.user_agent;
  return {};
}

std::string_view UpstreamFailure(const Record& r) {
  // A connection that was refused is a failure of the transport too.
  const bool refused = r.upstream_transport_failure.empty() && r.attempt_count > 0;
  const std::string_view last = refused ? std::string_view(r.attempts[r.attempt_count - 1].detail) : std::string_view();
  return last.starts_with("delayed connect error") ? last : std::string_view(r.upstream_transport_failure);
}

base::Result<Format> Format::Compile(std::string_view text) {
  auto parsed = model::LogFormat::Parse(text);
  if (!parsed) return parsed.error();
  Format f;
  for (Op& op : parsed->ops) {
    auto time = IsTime(op) ? std::make_unique<TimeText>(TimeOf(op)) : nullptr;
    f.steps_.push_back({std::move(op), std::move(time)});
  }
  return f;
}

// Envoy prints 0, not "-", for a response that never came, and "-" for flags: both fall out of Value.
void Format::Append(const Record& record, bool omit_empty, std::string* out) const {
  std::string scratch;
  for (const Step& step : steps_) AppendOne(step.op, step.time.get(), record, nullptr, omit_empty ? "" : "-", scratch, out);
}

void AppendLive(const model::LogFormat& format, const Record& record, const LiveHeads& heads, std::string* out) {
  std::string scratch;
  for (const Op& op : format.ops) AppendOne(op, nullptr, record, &heads, "", scratch, out);
}

bool Format::Missing(const Record& record) const {
  if (steps_.size() != 1 || steps_[0].op.code == kLiteral) return false;
  std::string scratch;
  return Evaluate(steps_[0].op, steps_[0].time.get(), record, nullptr, scratch).kind == Value::kMissing;
}

void Format::AppendJson(const Record& record, bool omit_empty, std::string* out) const {
  if (steps_.size() == 1 && steps_[0].op.code != kLiteral) {
    std::string scratch;
    const Value v = Evaluate(steps_[0].op, steps_[0].time.get(), record, nullptr, scratch);
    if (v.kind == Value::kMissing) *out += "null";
    else if (v.kind == Value::kNumber) AppendNumber(v.number, out);
    else AppendJsonString(v.view.substr(0, steps_[0].op.max_length), out);
    return;
  }
  std::string text;
  Append(record, omit_empty, &text);
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

}  // namespace weft::proxy
