#include "sidecar/proxy/record.h"

#include <cstring>

#include "sidecar/http/ids.h"

namespace weft::proxy {
namespace {

constexpr std::string_view kShort[] = {
#define X(id, short_name, long_name) short_name,
    WEFT_RESPONSE_FLAGS(X)
#undef X
};
constexpr std::string_view kLong[] = {
#define X(id, short_name, long_name) long_name,
    WEFT_RESPONSE_FLAGS(X)
#undef X
};

std::string Join(const ResponseFlags& flags, const std::string_view* names) {
  std::string out;
  for (int i = 0; i < flags.count; ++i) {
    if (i > 0) out += ',';
    out += names[flags.order[i]];
  }
  return out;
}

}  // namespace

static_assert(static_cast<int>(ResponseFlag::kCount) <= 32);

std::string_view ShortName(ResponseFlag flag) { return kShort[static_cast<int>(flag)]; }
std::string_view LongName(ResponseFlag flag) { return kLong[static_cast<int>(flag)]; }
std::string ResponseFlags::ToString() const { return Join(*this, kShort); }
std::string ResponseFlags::ToLongString() const { return Join(*this, kLong); }

std::string_view ProtocolText(Protocol p) {
  switch (p) {
    case Protocol::kTcp: return "";
    case Protocol::kHttp10: return "HTTP/1.0";
    case Protocol::kHttp11: return "HTTP/1.1";
    case Protocol::kHttp2: return "HTTP/2";
  }
  return "";
}

void MintTrace(Record& record) {
  for (auto [to, n] : {std::pair<uint8_t*, size_t>(record.trace_id, 16), {record.span_id, 8}}) {
    for (size_t i = 0; i < n; i += 8) {
      uint64_t id = http::RandomId();
      memcpy(to + i, &id, 8);
    }
  }
}

void Record::Reset() {
  static_cast<RecordFigures&>(*this) = {};
  const auto clear = [](auto&... texts) { (texts.clear(), ...); };
  clear(request_id, method, path, authority, user_agent, detail, transport_failure, transport_failure_detail, upstream_transport_failure,
        connection_termination, listener, filter_chain, route, virtual_host, cluster, stat_prefix, upstream_host, upstream_local,
        requested_server_name, tls_version, tls_cipher, peer_identity, peer_subject, local_identity, peer_issuer, local_subject, tls_session_id, upstream_tls_version,
        upstream_peer_identity, policy, destination_service, destination_namespace, fault);
  request_headers.Clear(), response_headers.Clear(), response_trailers.Clear(), metadata.Clear();
  access_logs.reset();
}

}  // namespace weft::proxy
