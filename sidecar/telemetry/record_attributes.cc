#include "sidecar/telemetry/record_attributes.h"

#include <algorithm>
#include <charconv>

#include "sidecar/proxy/format.h"

namespace weft::telemetry {
namespace {

using cel::Arena;
using cel::List;
using cel::Value;
using proxy::Record;
using Found = std::optional<Value>;

Found Text(std::string_view s) { return s.empty() ? Found() : Value::String(s); }
Value Number(uint64_t n) { return Value::Int(static_cast<int64_t>(n)); }

Found AddressOf(const model::Address& a, Arena& arena) {
  if (a.kind == model::Address::kNone) return std::nullopt;
  return arena.String(a.ToString());
}
Found PortOf(const model::Address& a) { return a.kind == model::Address::kIp ? Found(Value::Int(a.port)) : std::nullopt; }

Found PortOf(std::string_view host) {
  const size_t colon = host.rfind(':');
  int64_t port = 0;
  if (host.starts_with('/') || colon == std::string_view::npos) return std::nullopt;
  const auto [end, wrong] = std::from_chars(host.data() + colon + 1, host.data() + host.size(), port);
  return wrong == std::errc() && end == host.data() + host.size() ? Found(Value::Int(port)) : std::nullopt;
}

std::string_view Query(std::string_view path) {
  const size_t mark = path.find('?');
  if (mark == std::string_view::npos) return {};
  path.remove_prefix(mark + 1);
  return path.substr(0, path.find('#'));
}

// Bits as Envoy numbers them: it has two flags more, ResponseFromCacheFilter and NoFilterConfigFound, before DurationTimeout.
int64_t FlagBits(const proxy::ResponseFlags& flags) {
  constexpr auto kFirstAfter = static_cast<uint32_t>(proxy::ResponseFlag::kDurationTimeout);
  const uint64_t low = flags.bits & ((1u << kFirstAfter) - 1), high = flags.bits >> kFirstAfter;
  return static_cast<int64_t>(low | high << (kFirstAfter + 2));
}

// Dynamic metadata: a message of two maps, of which only filter_metadata is written here. Values are texts.
struct Space : cel::Map {
  Space(const http::HeaderMap& all, std::string_view name) : all(all), name(name) {}
  // The key of an entry of this namespace; nothing for others.
  std::optional<std::string_view> KeyOf(std::string_view entry) const {
    if (entry.size() <= name.size() || !entry.starts_with(name) || entry[name.size()] != ':') return std::nullopt;
    return entry.substr(name.size() + 1);
  }
  Found Find(const Value& key, Arena&) const override {
    for (const auto& e : all)
      if (key.kind == Value::kString && KeyOf(e.name()) == key.text) return Value::String(e.value());
    return std::nullopt;
  }
  size_t Size(Arena&) const override {
    size_t n = 0;
    for (const auto& e : all) n += KeyOf(e.name()).has_value();
    return n;
  }
  void Keys(Arena&, List* to) const override {
    for (const auto& e : all)
      if (auto key = KeyOf(e.name())) to->push_back(Value::String(*key));
  }
  const http::HeaderMap& all;
  const std::string_view name;
};

struct FilterMetadata : cel::Map {
  explicit FilterMetadata(const http::HeaderMap& all) : all(all) {}
  Found Find(const Value& key, Arena& arena) const override {
    if (key.kind != Value::kString) return std::nullopt;
    const auto* space = arena.New<Space>(all, key.text);
    return space->Size(arena) ? Found(Value::Of(space)) : std::nullopt;
  }
  size_t Size(Arena& arena) const override {
    List keys;
    Keys(arena, &keys);
    return keys.size();
  }
  void Keys(Arena&, List* to) const override {
    for (const auto& e : all) {
      const std::string_view space = e.name().substr(0, e.name().find(':'));
      if (std::none_of(to->begin(), to->end(), [&](const Value& v) { return v.text == space; })) to->push_back(Value::String(space));
    }
  }
  const http::HeaderMap& all;
};

struct Metadata : cel::Map {
  explicit Metadata(const http::HeaderMap& all) : all(all) {}
  Found Find(const Value& key, Arena& arena) const override {
    static const http::HeaderMap none;
    if (key.text == "filter_metadata") return Value::Of(arena.New<FilterMetadata>(all));
    if (key.text == "typed_filter_metadata") return Value::Of(arena.New<FilterMetadata>(none));
    return std::nullopt;
  }
  Value Has(const Value& key, Arena&) const override {
    if (key.text == "filter_metadata") return Value::Bool(!all.empty());
    return key.text == "typed_filter_metadata" ? Value::Bool(false) : Value::Error("no such field");
  }
  void Keys(Arena&, List* to) const override {
    if (!all.empty()) to->push_back(Value::String("filter_metadata"));
  }
  std::string_view Type() const override { return "envoy.config.core.v3.Metadata"; }
  const http::HeaderMap& all;
};

constexpr bool NameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::string_view("!#$%&'*+-.^_`|~:").find(c) != std::string_view::npos;
}

}  // namespace

int GrpcStatusOf(const Record& r) {
  constexpr int kUnauthenticated = 16, kUnknown = 2, kInternal = 13, kPermissionDenied = 7, kUnimplemented = 12, kUnavailable = 14;
  if (r.grpc_status >= 0) return r.grpc_status;
  switch (r.status) {
    case 0: return -1;
    case 400: return kInternal;
    case 401: return kUnauthenticated;
    case 403: return kPermissionDenied;
    case 404: return kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504: return kUnavailable;
    default: return kUnknown;
  }
}

Found HeaderAttributes::Find(const Value& key, Arena& arena) const {
  if (key.kind != Value::kString || key.text.empty() || !std::all_of(key.text.begin(), key.text.end(), NameByte)) return std::nullopt;
  std::string lower;
  std::string_view name = key.text;
  const auto capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  if (std::any_of(name.begin(), name.end(), capital)) {
    lower = name;
    for (char& c : lower) c = capital(c) ? static_cast<char>(c + 32) : c;
    name = lower;
  }
  if (name == "host") name = ":authority";
  std::string joined;
  auto v = headers_.Joined(name, joined);
  if (!v && name == ":authority") v = headers_.Joined("host", joined);
  if (!v) return std::nullopt;
  return v->data() == joined.data() ? arena.String(std::move(joined)) : Value::String(*v);
}

void HeaderAttributes::Keys(Arena&, List* to) const {
  for (const auto& e : headers_) {
    const std::string_view name = e.name();
    if (std::none_of(to->begin(), to->end(), [&](const Value& v) { return v.text == name; })) to->push_back(Value::String(name));
  }
}

size_t HeaderAttributes::Size(Arena& arena) const {
  List keys;
  Keys(arena, &keys);
  return keys.size();
}

Found RecordAttributes::Find(const Value& key, Arena& arena) const {
  const std::string_view name = key.text;
  if (name == "request") return Value::Of(&request_);
  if (name == "response") return Value::Of(&response_);
  if (name == "connection") return Value::Of(&connection_);
  if (name == "upstream") return Value::Of(&upstream_);
  if (name == "source") return Value::Of(&source_);
  if (name == "destination") return Value::Of(&destination_);
  if (name == "xds") return Value::Of(&xds_);
  if (name == "filter_state") return Value::Of(&nothing_);
  if (name == "upstream_filter_state" && record_.attempt_count > 0) return Value::Of(&nothing_);
  if (name == "metadata") return Value::Of(arena.New<Metadata>(record_.metadata));
  return std::nullopt;
}

Found RecordAttributes::Request(std::string_view name, Arena& arena) const {
  const Record& r = record_;
  const auto header = [&](std::string_view of, std::string_view otherwise) -> std::string_view {
    auto v = r.request_headers.Get(of);
    return v ? *v : otherwise;
  };
  if (name == "headers") return Value::Of(&request_headers_);
  if (name == "headers_bytes") return Number(r.request_header_bytes);
  if (name == "time") return Value::Timestamp(static_cast<__int128>(r.start_unix_ns));
  if (name == "duration") return Value::Duration(r.duration_ns);
  if (name == "total_size") return Number(r.request_bytes + r.request_header_bytes);
  if (name == "size") {
    const std::string_view said = header("content-length", "");
    if (said.empty()) return Number(r.request_bytes);
    int64_t n = 0;
    const auto [end, wrong] = std::from_chars(said.data(), said.data() + said.size(), n);
    return wrong == std::errc() && end == said.data() + said.size() ? Found(Value::Int(n)) : std::nullopt;
  }
  if (r.protocol == proxy::Protocol::kTcp) return std::nullopt;
  const std::string_view path = header(":path", r.path);
  if (name == "protocol") return Text(proxy::ProtocolText(r.protocol));
  if (name == "path") return Text(path);
  if (name == "url_path") return Value::String(path.substr(0, path.find('?')));
  if (name == "query") return Value::String(Query(path));
  if (name == "host") return Text(header(":authority", r.authority));
  if (name == "scheme") return Text(header(":scheme", ""));
  if (name == "method") return Text(header(":method", r.method));
  if (name == "useragent") return Text(header("user-agent", r.user_agent));
  if (name == "id") return Text(header("x-request-id", r.request_id));
  if (name == "referer") return request_headers_.Find(Value::String("referer"), arena);
  return std::nullopt;
}

Found RecordAttributes::Response(std::string_view name, Arena&) const {
  const Record& r = record_;
  if (name == "code") return r.status ? Found(Number(r.status)) : std::nullopt;
  if (name == "headers") return Value::Of(&response_headers_);
  if (name == "trailers") return Value::Of(&response_trailers_);
  if (name == "headers_bytes") return Number(r.response_header_bytes);
  if (name == "size") return Number(r.response_bytes);
  if (name == "total_size") return Number(r.response_bytes + r.response_header_bytes + r.response_trailers.bytes());
  if (name == "flags") return Value::Int(FlagBits(r.flags));
  if (name == "code_details") return r.protocol == proxy::Protocol::kTcp ? std::nullopt : Text(r.detail);
  if (name == "grpc_status") {
    const int status = r.protocol == proxy::Protocol::kTcp ? -1 : GrpcStatusOf(r);
    return status < 0 ? std::nullopt : Found(Value::Int(status));
  }
  if (name == "backend_latency") {
    const bool known = r.upstream_tx_first_ns >= 0 && r.upstream_rx_last_ns >= r.upstream_tx_first_ns;
    return known ? Found(Value::Duration(r.upstream_rx_last_ns - r.upstream_tx_first_ns)) : std::nullopt;
  }
  return std::nullopt;
}

Found RecordAttributes::Connection(std::string_view name, Arena&) const {
  const Record& r = record_;
  const bool tls = !r.tls_version.empty();
  if (name == "mtls") return Value::Bool(tls && !(r.peer_identity.empty() && r.peer_subject.empty()));
  if (name == "requested_server_name") return Value::String(r.requested_server_name);
  if (name == "id") return Value::Uint(r.connection_id);
  if (name == "termination_details") return Text(r.connection_termination);
  if (name == "transport_failure_reason") return Text(r.transport_failure);
  if (!tls) return std::nullopt;
  if (name == "tls_version") return Value::String(r.tls_version);
  if (name == "subject_peer_certificate") return Value::String(r.peer_subject);
  if (name == "uri_san_peer_certificate") return Text(r.peer_identity);
  if (name == "uri_san_local_certificate") return Text(r.local_identity);
  return std::nullopt;
}

Found RecordAttributes::Upstream(std::string_view name, Arena&) const {
  const Record& r = record_;
  if (name == "request_attempt_count") return Value::Uint(r.attempt_count);
  if (r.attempt_count == 0) return std::nullopt;
  const proxy::AttemptRecord& last = r.attempts[r.attempt_count - 1];
  if (name == "address") return Text(r.upstream_host);
  if (name == "port") return PortOf(r.upstream_host);
  if (name == "local_address") return Text(r.upstream_local);
  if (name == "num_endpoints") return Value::Uint(last.total_hosts);
  if (name == "transport_failure_reason") {
    if (last.endpoint.empty()) return std::nullopt;
    return Value::String(proxy::UpstreamFailure(r));
  }
  if (r.upstream_tls_version.empty()) return std::nullopt;
  if (name == "tls_version") return Value::String(r.upstream_tls_version);
  if (name == "uri_san_peer_certificate") return Text(r.upstream_peer_identity);
  return std::nullopt;
}

Found RecordAttributes::Source(std::string_view name, Arena& arena) const {
  if (name == "address") return AddressOf(record_.downstream_remote, arena);
  return name == "port" ? PortOf(record_.downstream_remote) : std::nullopt;
}

Found RecordAttributes::Destination(std::string_view name, Arena& arena) const {
  if (name == "address") return AddressOf(record_.downstream_local, arena);
  return name == "port" ? PortOf(record_.downstream_local) : std::nullopt;
}

Found RecordAttributes::Xds(std::string_view name, Arena&) const {
  const Record& r = record_;
  const bool routed = r.protocol != proxy::Protocol::kTcp && !r.virtual_host.empty() && !r.flags.Has(proxy::ResponseFlag::kNoRouteFound);
  if (name == "cluster_name") return r.flags.Has(proxy::ResponseFlag::kNoClusterFound) ? std::nullopt : Text(r.cluster);
  if (name == "route_name") return routed ? Found(Value::String(r.route)) : std::nullopt;
  if (name == "virtual_host_name") return Text(r.virtual_host);
  if (name == "filter_chain_name") return Value::String(r.filter_chain);
  if (name == "listener_direction") return Value::Int(static_cast<int64_t>(r.direction));
  return std::nullopt;
}

}  // namespace weft::telemetry
