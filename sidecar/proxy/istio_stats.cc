#include "sidecar/proxy/istio_stats.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <span>

#include "sidecar/base/str.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/proxy/connection.h"

namespace weft::proxy {
namespace {

constexpr size_t kMostText = 256;  // of a text that a peer chose
constexpr std::string_view kUnknown = "unknown", kLatest = "latest";
constexpr std::string_view kReporters[] = {"source", "destination", "waypoint"}, kProtocols[] = {"http", "grpc", "tcp"};

// How many series there are, and who makes the next one.
std::mutex g_mutex;
size_t g_series = 0;
std::atomic<bool> g_told{false};

std::string_view Or(std::string_view text, std::string_view otherwise) { return text.empty() ? otherwise : text; }

// The part between `after` and the next slash.
std::string_view Part(std::string_view id, std::string_view after) {
  const size_t at = id.find(after);
  if (at == std::string_view::npos) return {};
  id.remove_prefix(at + after.size());
  return id.substr(0, id.find('/'));
}

struct End {
  std::string_view workload, ns, app, version, canonical, revision, cluster;
};

End OwnEnd(const IstioOwn& own) {
  return {own.workload, own.ns, own.app, own.version, own.canonical_service, own.canonical_revision, own.cluster};
}

End CallerEnd(const IstioSubject& s, const IstioOwn& own) {
  End e;
  e.ns = Part(s.client_id, "/ns/");
  if (own.names_in_identity) e.workload = e.app = e.canonical = Part(s.client_id, "/sa/");
  return e;
}

End CalleeEnd(const IstioSubject& s) {
  End e;
  if (!s.istio_workload.empty()) {
    std::string_view parts[5], rest = s.istio_workload;
    for (std::string_view& p : parts) {
      p = rest.substr(0, rest.find(';'));
      rest.remove_prefix(std::min(rest.size(), p.size() + 1));
    }
    e.workload = parts[0], e.ns = parts[1], e.canonical = parts[2], e.revision = parts[3], e.cluster = parts[4];
  } else if (!s.service.empty()) {
    e.workload = e.app = e.canonical = s.service;
    e.ns = s.service_namespace, e.version = e.revision = s.version;
  }
  if (std::string_view ns = Part(s.server_id, "/ns/"); !ns.empty()) e.ns = ns;
  return e;
}

// What Envoy takes a gRPC call without a status for.
int32_t GrpcOf(uint32_t http) {
  switch (http) {
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 429: case 502: case 503: case 504: return 14;
    default: return 2;
  }
}

std::string GrpcText(const IstioSubject& s) {
  if (s.protocol != IstioSubject::kGrpc) return "";
  if (s.grpc_status >= 0) return std::to_string(s.grpc_status);
  return s.status ? std::to_string(GrpcOf(s.status)) : "";
}

void Put(std::string_view text, std::string* key) {
  const auto n = static_cast<uint16_t>(std::min<size_t>(text.size(), UINT16_MAX));
  key->append(reinterpret_cast<const char*>(&n), sizeof n);
  key->append(text.substr(0, n));
}

void MakeKey(const IstioSubject& s, std::string* key) {
  key->clear();
  struct Figures {
    uint32_t status;
    int32_t grpc_status;
    uint8_t flags[sizeof s.flags.order], count, reporter, protocol, mutual_tls;
  } figures = {s.status, s.grpc_status, {}, s.flags.count, s.reporter, s.protocol, s.mutual_tls};
  memcpy(figures.flags, s.flags.order, s.flags.count);
  key->append(reinterpret_cast<const char*>(&figures), offsetof(Figures, mutual_tls) + 1);
  for (std::string_view text : {std::string_view(s.config->key), s.client_id, s.server_id, s.istio_workload, s.service, s.service_namespace,
                                s.version, s.host, s.name})
    Put(text, key);
}

bool Changes(const model::IstioStats::Change& change, std::string_view metric) { return change.metric.empty() || change.metric == metric; }

}  // namespace

IstioSubject SubjectOf(const Connection& c, const model::IstioStats& config) {
  IstioSubject s;
  s.config = &config;
  const auto direction = c.listener().config->direction;
  s.reporter = config.reporter == model::IstioStats::kWaypoint   ? IstioSubject::kWaypoint
               : direction == model::Listener::kInbound ? IstioSubject::kDestination
                                                        : IstioSubject::kSource;
  s.service = c.chain().service, s.service_namespace = c.chain().service_namespace;
  if (s.reporter == IstioSubject::kSource) return s;
  if (const tls::Engine* e = c.tls()) {
    if (e->peer()) s.client_id = e->peer()->identity();
    if (!e->local_names().uri_sans.empty()) s.server_id = e->local_names().uri_sans[0];
    else s.server_id = c.own_identity();
  }
  s.mutual_tls = !s.client_id.empty() && !s.server_id.empty();
  return s;
}

void SetCallee(const model::ClusterEntry* entry, const cluster::Host* host, std::string_view route, std::string_view authority, IstioSubject* s) {
  authority = authority.substr(0, kMostText);
  if (entry && !entry->config->service.empty()) s->service = entry->config->service, s->service_namespace = entry->config->service_namespace;
  if (s->reporter != IstioSubject::kDestination && host) s->istio_workload = host->endpoint.istio_workload, s->version = host->endpoint.version;
  const std::string_view cluster = entry ? std::string_view(entry->config->name) : std::string_view();
  if (route == "block_all" || cluster == "BlackHoleCluster") s->host = authority, s->name = "BlackHoleCluster";
  else if (route == "allow_any" || cluster == "passthrough") s->host = authority, s->name = "PassthroughCluster";
  else if (cluster == "PassthroughCluster" || cluster.starts_with("InboundPassthroughCluster")) s->host = authority, s->name = cluster;
  else if (entry && !entry->config->istio_host.empty()) s->host = entry->config->istio_host, s->name = entry->config->istio_name;
  else if (s->service.empty()) s->host = s->name = authority;
}

base::TagList IstioLabels(const IstioSubject& s, const IstioOwn& own) {
  const bool sends = s.reporter == IstioSubject::kSource, receives = s.reporter == IstioSubject::kDestination;
  const End from = sends ? OwnEnd(own) : CallerEnd(s, own), to = receives ? OwnEnd(own) : CalleeEnd(s);
  // Without a name for the service: as Istio, what the receiving workload is called.
  std::string host(s.host), name(s.name);
  if (host.empty() && name.empty() && !s.service.empty()) {
    host = base::Cat(s.service, s.service_namespace.empty() ? "" : ".", s.service_namespace, ".mesh");
    name = s.service;
  }
  const std::string_view unnamed = sends ? kUnknown : Or(to.canonical, kUnknown);
  base::TagList out;
  out.reserve(25);
  auto add = [&](const char* label, std::string_view value) { out.emplace_back(label, value); };
  auto known = [&](const char* label, std::string_view value) { add(label, Or(value, kUnknown)); };
  add("reporter", kReporters[s.reporter]);
  known("source_workload", from.workload);
  known("source_canonical_service", from.canonical);
  add("source_canonical_revision", Or(from.revision, kLatest));
  known("source_workload_namespace", from.ns);
  known("source_principal", s.client_id);
  known("source_app", from.app);
  known("source_version", from.version);
  known("source_cluster", from.cluster);
  known("destination_workload", to.workload);
  known("destination_workload_namespace", to.ns);
  known("destination_principal", s.server_id);
  known("destination_app", to.app);
  known("destination_version", to.version);
  add("destination_service", Or(host, unnamed));
  known("destination_canonical_service", to.canonical);
  add("destination_canonical_revision", Or(to.revision, kLatest));
  add("destination_service_name", Or(name, unnamed));
  known("destination_service_namespace", to.ns);
  known("destination_cluster", to.cluster);
  add("request_protocol", kProtocols[s.protocol]);
  if (s.protocol != IstioSubject::kTcp) {
    add("response_code", std::to_string(s.status));
    add("grpc_response_status", GrpcText(s));
  }
  add("response_flags", s.flags.empty() ? "-" : s.flags.ToString());
  add("connection_security_policy", sends ? kUnknown : s.mutual_tls ? "mutual_tls" : "none");
  return out;
}

IstioStats::IstioStats(const IstioOwn* own, size_t max_series)
    : own_(own), max_series_(max_series), overflow_(base::Stats::Get().Counter("stats.istio_overflow")) {}

size_t IstioStats::series() {
  std::lock_guard<std::mutex> lock(g_mutex);
  return g_series;
}

void IstioStats::TellBuild(const IstioOwn& own) {
  if (g_told.exchange(true)) return;
  const std::string_view tag = Or(own.build, kUnknown);
  base::Cells::Local().Set(base::Stats::Get().Gauge(base::Cat("istiocustom.istio_build.component.proxy.tag.", tag), "istiocustom.istio_build",
                                                    {{"component", "proxy"}, {"tag", tag}}),
                           1);
}

const IstioStats::Series& IstioStats::Find(const IstioSubject& s) {
  MakeKey(s, &key_);
  auto it = known_.find(std::string_view(key_));
  if (it != known_.end()) [[likely]] return it->second;
  // Whoever is too many: only what all have in common.
  IstioSubject rest;
  rest.config = s.config, rest.reporter = s.reporter, rest.protocol = s.protocol;
  if (known_.size() < 2 * max_series_) {
    std::string key = key_;
    if (auto made = Make(s, false)) return known_.emplace(std::move(key), *made).first->second;
  }
  base::Cells::Local().Add(overflow_);
  MakeKey(rest, &key_);
  it = known_.find(std::string_view(key_));
  return it != known_.end() ? it->second : known_.emplace(key_, *Make(rest, true)).first->second;
}

// None: there are too many.
std::optional<IstioStats::Series> IstioStats::Make(const IstioSubject& s, bool always) {
  using base::StatKind;
  struct Metric {
    const char* name;
    StatKind kind;
  };
  static constexpr Metric kHttp[] = {{"requests_total", StatKind::kCounter}, {"request_duration_milliseconds", StatKind::kHistogram},
                                     {"request_bytes", StatKind::kHistogram}, {"response_bytes", StatKind::kHistogram},
                                     {"request_messages_total", StatKind::kCounter}, {"response_messages_total", StatKind::kCounter}};
  static constexpr Metric kTcp[] = {{"tcp_connections_opened_total", StatKind::kCounter}, {"tcp_connections_closed_total", StatKind::kCounter},
                                    {"tcp_sent_bytes_total", StatKind::kCounter}, {"tcp_received_bytes_total", StatKind::kCounter}};
  const std::span<const Metric> http(kHttp, s.protocol == IstioSubject::kGrpc ? 6 : 4);
  const std::span<const Metric> metrics = s.protocol == IstioSubject::kTcp ? std::span<const Metric>(kTcp) : http;
  const auto labels = std::make_shared<const base::TagList>(IstioLabels(s, *own_));
  base::Stats& stats = base::Stats::Get();
  std::lock_guard<std::mutex> lock(g_mutex);
  Series out = {};  // dropped metrics stay the sink's
  bool fresh = false;
  for (size_t i = 0; i < metrics.size(); ++i) {
    std::shared_ptr<const base::TagList> tags = labels;
    bool dropped = false;
    for (const auto& change : s.config->changes) {
      if (!Changes(change, metrics[i].name)) continue;
      dropped = dropped || change.drop;
      if (change.without.empty()) continue;
      auto fewer = std::make_shared<base::TagList>();
      for (const auto& tag : *tags) {
        if (std::find(change.without.begin(), change.without.end(), tag.first) == change.without.end()) fewer->push_back(tag);
      }
      tags = std::move(fewer);
    }
    if (dropped) continue;
    const std::string base = base::Cat("istiocustom.istio_", metrics[i].name);
    std::string name = base;
    for (const auto& [k, v] : *tags) name.append(".").append(k).append(".").append(v);
    if (!stats.Has(name)) {
      if (!always && g_series >= max_series_) return std::nullopt;
      fresh = true;
    }
    out[i] = stats.Define(metrics[i].kind, name, base, std::move(tags));
  }
  if (fresh) ++g_series;
  return out;
}

void IstioStats::CountRequest(const IstioSubject& s, const Request& request) {
  const Series& series = Find(s);
  base::Cells& cells = base::Cells::Local();
  cells.Add(series[0]);
  // Histograms are made for times, in microseconds and shown in milliseconds; a byte is shown as a byte.
  cells.Record(series[1], request.duration_us);
  cells.Record(series[2], request.request_bytes * 1000);
  cells.Record(series[3], request.response_bytes * 1000);
  if (s.protocol != IstioSubject::kGrpc) return;
  cells.Add(series[4], request.request_messages), cells.Add(series[5], request.response_messages);
}

IstioStats::Connections IstioStats::Opened(const IstioSubject& s) {
  const Series& series = Find(s);
  base::Cells::Local().Add(series[0]);
  return {series[0], series[1], series[2], series[3]};
}

}  // namespace weft::proxy
