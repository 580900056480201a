#include "sidecar/server/sidecar.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string_view>
#include <type_traits>
#include <unordered_map>

#include "api/weft/mesh/v1/mesh.pb.h"
#include "envoy/config/bootstrap/v3/bootstrap.pb.h"
#include "sidecar/base/log.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/cluster/outlier.h"
#include "sidecar/server/memory.h"
#include "sidecar/server/own_end.h"
#include "sidecar/telemetry/record_writer.h"

namespace weft::server {

Sidecar::Sidecar(Options options) : options_(std::move(options)) {
  auto& s = base::Stats::Get();
  ids_ = {s.Gauge("server.live"),              s.Gauge("server.uptime"),           s.Gauge("server.state"), s.Gauge("server.concurrency"),
          s.Gauge("server.total_connections"), s.Gauge("server.memory_allocated"), s.Gauge("server.memory_heap_size"), s.Gauge("server.memory_physical_size"), s.Gauge("server.days_until_first_cert_expiring"),
          s.Histogram("server.initialization_time_ms")};
}

Sidecar::~Sidecar() {
  if (signal_fd_ >= 0) loop_.Unwatch(signal_fd_, &signals_), close(signal_fd_);
}

base::Status Sidecar::Load() {
  xds::BootstrapSource source;
  source.config_path = options_.config_path, source.config_yaml = options_.config_yaml;
  source.service_node = options_.service_node, source.service_cluster = options_.service_cluster, source.service_zone = options_.service_zone;
  auto b = xds::LoadBootstrap(source);
  if (!b) return b.error();
  bootstrap_ = std::move(*b);
  for (const std::string& w : bootstrap_.warnings.list()) WEFT_LOG(kConfig, kWarn, w);
  if (size_t n = bootstrap_.warnings.suppressed()) WEFT_LOG(kConfig, kWarn, n, " more warnings of the same kind");
  if (bootstrap_.mesh) mark_ = kMark;

  xds::SnapshotBuilder::Hooks hooks;
  hooks.publish = [this](model::SnapshotPtr s) -> base::Status {
    if (!plane_) return base::Ok{};
    auto status = plane_->Publish(std::move(s));
    // A server behind a cluster may have moved: look once the new snapshot is current.
    if (status) {
      loop_.Post([this] {
        UpdateAdsChannel();
        if (auto snapshot = builder_->current()) log_servers_->SnapshotChanged(*snapshot);
      });
    }
    if (status && !settle_.armed()) loop_.Arm(&settle_, settle_ns_);  // not moved by further changes: they may never end
    return status;
  };
  hooks.resolve = [this](const std::string& name, model::Cluster::DnsFamily family, std::function<void(const xds::ResolveAnswer&)> done) {
    static_assert(static_cast<int>(model::Cluster::kDnsAll) == static_cast<int>(dns::Resolver::kAll));
    resolver_->Resolve(name, static_cast<dns::Resolver::Family>(family), [done = std::move(done)](const dns::Resolver::Answer& a) {
      done({!a.addresses.empty(), a.addresses, a.ttl_s, a.error});
    });
  };
  hooks.on_names = [this] {
    if (ads_) ads_->NamesChanged();
  };
  hooks.on_dns = [this](const model::Listener& l, bool added) { OnDns(l, added); };
  dns::ResolverOptions resolver;
  resolver.mark = mark_;
  resolver_ = std::make_unique<dns::Resolver>(&loop_, resolver);
  builder_ = std::make_unique<xds::SnapshotBuilder>(&loop_, std::move(hooks));
  if (bootstrap_.mesh) builder_->ExpectIdentity();

  auto bodies = [](const auto& list) {
    std::unordered_map<std::string_view, const std::remove_reference_t<decltype(list[0])>*> by_name;
    for (const auto& p : list) by_name.emplace(p.name(), &p);
    return [by_name = std::move(by_name)](const std::string& name) {
      auto it = by_name.find(name);
      return it == by_name.end() ? std::string() : it->second->SerializeAsString();
    };
  };
  const auto& resources = bootstrap_.proto->static_resources();
  auto secret = bodies(resources.secrets());
  for (const auto& s : bootstrap_.secrets) builder_->AddStaticSecret(s, secret(s->name));
  auto cluster = bodies(resources.clusters());
  for (const auto& c : bootstrap_.clusters) builder_->AddStaticCluster(c, cluster(c->name));
  auto listener = bodies(resources.listeners());
  for (const auto& l : bootstrap_.listeners) builder_->AddStaticListener(l, listener(l->name));
  // The translated form is in use from here on; this one is only shown, and ten times as large as its bytes.
  bootstrap_.static_resources = resources.SerializeAsString();
  bootstrap_.proto->clear_static_resources();
  return base::Ok{};
}

// Static resources that can never come into force (a bad certificate): a reason not to start.
std::string Sidecar::StaticErrors() const {
  std::string out;
  for (auto [type, what] : {std::pair{xds::Type::kCluster, "cluster"}, {xds::Type::kListener, "listener"}}) {
    for (const auto& v : builder_->View(type)) {
      if (v.is_static && !v.error.empty()) out += (out.empty() ? "" : "; ") + std::string(what) + " \"" + v.name + "\": " + v.error;
    }
  }
  return out;
}

base::Status Sidecar::StartPlane() {
  proxy::PlaneOptions o;
  o.workers = options_.concurrency;
  o.mark = mark_;
  o.max_connections = bootstrap_.max_downstream_connections;
  o.all_records = bootstrap_.mesh && bootstrap_.mesh->telemetry();
  if (bootstrap_.mesh) {
    const auto& w = bootstrap_.mesh->workload();
    o.sidecar_identity = "spiffe://" + bootstrap_.mesh->trust_domain() + "/ns/" + (w.namespace_().empty() ? "default" : w.namespace_()) + "/sa/" + w.service();
  }
  o.istio = OwnEnd(bootstrap_);
  // Before the workers, who need it.
  telemetry::EventOptions own;
  if (bootstrap_.mesh && bootstrap_.mesh->telemetry()) {
    const auto& w = bootstrap_.mesh->workload();
    own = {w.id(), w.service(), w.namespace_().empty() ? "default" : w.namespace_(), w.version()};
    events_ = std::make_unique<telemetry::EventStream>(&loop_, own, [this](xds::GrpcStreamHandler* h) {
      return mesh_ && mesh_->channel() ? mesh_->channel()->Open(telemetry::EventStream::kPath, h) : nullptr;
    });
    o.report_open = true;
  }
  o.sink = [this, own](io::Loop* loop, uint32_t worker) {
    return std::make_unique<telemetry::RecordWriter>(loop, &handover_, events_ ? events_->queued() : nullptr, own, worker);
  };
  telemetry::GrpcLogs::Options logs;
  logs.loop = &loop_, logs.mark = mark_;
  logs.origin = {bootstrap_.node->SerializeAsString(), bootstrap_.node_id, bootstrap_.node_cluster, bootstrap_.node->locality().zone()};
  logs.find = [this](const std::string& cluster) { return FindCluster(cluster); };
  log_servers_ = std::make_unique<telemetry::GrpcLogs>(std::move(logs));
  plane_ = std::make_unique<proxy::DataPlane>(std::move(o));
  plane_->Start();
  if (auto s = builder_->Start(); !s) return s;
  if (std::string errors = StaticErrors(); !errors.empty()) return base::Error(errors);
  return base::Ok{};
}

void Sidecar::OnDns(const model::Listener& listener, bool added) {
  if (options_.mode == "validate") return;
  auto it = dns_.find(listener.name);
  if (!added) {
    // A changed table follows in the same turn: keep the sockets until it is known that none does.
    loop_.Post([this, name = listener.name] {
      for (const auto& v : builder_->View(xds::Type::kListener)) {
        if (v.name == name) return;
      }
      dns_.erase(name);
    });
    return;
  }
  if (it != dns_.end()) {
    auto at = it->second->addresses();
    bool same = at.size() == listener.addresses.size();
    for (size_t i = 0; same && i < at.size(); ++i) same = at[i].ip == listener.addresses[i].ip && at[i].port == listener.addresses[i].port;
    if (same) return it->second->Update(*listener.dns);
    dns_.erase(it);
  }
  dns::ServerOptions options;
  options.mark = mark_;
  auto server = dns::Server::Create(&loop_, *listener.dns, listener.addresses, options);
  if (!server) {
    WEFT_LOG(kDns, kError, "listener \"", listener.name, "\": ", server.error().ToString());
    return;
  }
  dns_[listener.name] = std::move(*server);
}

// ---- discovery

void Sidecar::StartDiscovery() {
  if (bootstrap_.mesh) return ResolveMeshServer();
  if (!bootstrap_.has_ads) return;
  xds::GrpcChannel::Options o;
  o.authority = bootstrap_.ads.authority.empty() ? bootstrap_.ads.cluster : bootstrap_.ads.authority;
  o.metadata = bootstrap_.ads.initial_metadata;
  o.mark = mark_;
  ads_channel_ = std::make_unique<xds::GrpcChannel>(&loop_, o);
  ads_ = std::make_unique<xds::AdsClient>(&loop_, ads_channel_.get(), bootstrap_.ads.delta ? xds::Ads::kDelta : xds::Ads::kStateOfTheWorld,
                                          bootstrap_.node->SerializeAsString(), builder_.get());
  if (bootstrap_.cds) ads_->WatchAll(xds::Type::kCluster);
  if (bootstrap_.lds) ads_->WatchAll(xds::Type::kListener);
  UpdateAdsChannel();
}

telemetry::LogTarget Sidecar::FindCluster(const std::string& name) const {
  auto snapshot = builder_->current();
  const auto* entry = snapshot ? snapshot->FindCluster(name) : nullptr;
  if (!entry || !entry->hosts) return {};
  telemetry::LogTarget out{{}, entry->tls};
  for (const auto& h : entry->hosts->hosts()) {
    const model::Address& a = h.endpoint.address;
    if (h.usable) out.addresses.push_back(a.kind == model::Address::kPipe ? a.text : h.address);
  }
  return out;
}

// The server's addresses and TLS are those of its static cluster; the channel starts once that is warm.
void Sidecar::UpdateAdsChannel() {
  if (!ads_channel_) return;
  const auto [addresses, tls] = FindCluster(bootstrap_.ads.cluster);
  if (addresses.empty()) return;
  ads_channel_->SetTls(tls);
  if (addresses == ads_addresses_) return;
  bool first = ads_addresses_.empty();
  ads_addresses_ = addresses;
  ads_channel_->SetAddresses(addresses);
  if (first) ads_channel_->Start([this](bool up, const std::string& why) { ads_->OnChannel(up, why); });
}

// The server may be named: its address is looked up first, again and again while nobody knows it.
void Sidecar::ResolveMeshServer() {
  const std::string& address = bootstrap_.mesh->server_address();
  size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon), port = colon == std::string::npos ? "15012" : address.substr(colon + 1);
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  if (model::Ip::Parse(host)) return StartMesh((host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port);
  resolver_->Resolve(host, dns::Resolver::kV4Preferred, [this, host, port](const dns::Resolver::Answer& a) {
    if (a.addresses.empty()) {
      if (resolve_error_ != a.error) WEFT_LOG(kIdentity, kWarn, "the xDS server \"", host, "\" cannot be found (", a.error, "); this sidecar waits for it");
      resolve_error_ = a.error;
      return loop_.Arm(&mesh_retry_, 2 * base::kSecond);
    }
    std::string ip = a.addresses.front().ToString();
    StartMesh((a.addresses.front().family == 6 ? "[" + ip + "]" : ip) + ":" + port);
  });
}

void Sidecar::StartMesh(const std::string& server_address) {
  const auto& m = *bootstrap_.mesh;
  xds::MeshOptions o;
  o.server_address = server_address;
  if (!m.server_name().empty()) o.server_name = m.server_name();
  o.token_file = m.token_file(), o.trust_domain = m.trust_domain(), o.identity_dir = m.identity_dir();
  o.workload = m.workload().SerializeAsString();
  o.workload_id = m.workload().id(), o.service = m.workload().service();
  o.service_namespace = m.workload().namespace_().empty() ? "default" : m.workload().namespace_();
  o.mark = mark_;
  xds::MeshClient::Hooks hooks;
  hooks.on_identity = [this](const xds::MeshIdentity& id) {
    builder_->SetIdentity(id.chain_pem, id.key_pem, id.roots_pem);
    if (ads_) return;
    ads_ = std::make_unique<xds::AdsClient>(&loop_, mesh_->channel(), bootstrap_.ads.delta ? xds::Ads::kDelta : xds::Ads::kStateOfTheWorld,
                                            bootstrap_.node->SerializeAsString(), builder_.get());
    ads_->WatchAll(xds::Type::kCluster);
    ads_->WatchAll(xds::Type::kListener);
  };
  hooks.on_channel = [this](bool up, const std::string& why) {
    if (ads_) ads_->OnChannel(up, why);
    if (events_ && up) events_->ChannelUp();
  };
  mesh_ = std::make_unique<xds::MeshClient>(&loop_, std::move(o), std::move(hooks));
  mesh_->SetReady(!told_health_ ? false : healthy_);
  mesh_->Start();
}

// ---- admin

bool Sidecar::Initialized() {
  if (initialized_) return true;
  bool waited = loop_.now() - started_ns_ >= xds::SnapshotBuilder::kFetchTimeoutNs;
  if (bootstrap_.mesh) {
    // A member without its configuration would pass nothing on: it is not ready, however long that takes.
    if (!mesh_ || !mesh_->joined() || !ads_ || !ads_->initialized() || builder_->warming()) return false;
  } else if (!waited && (builder_->warming() || (ads_ && !ads_->initialized()))) {
    return false;
  }
  initialized_ = true;
  base::Cells::Local().Record(ids_.initialization, (loop_.now() - started_ns_) / 1000);
  WEFT_LOG(kMain, kInfo, "all clusters and listeners initialized: ready after ", (loop_.now() - started_ns_) / base::kMs, " ms");
  return true;
}

admin::AdminState::Phase Sidecar::Phase() {
  // A health check that was failed by hand reads as draining, as in Envoy; in the mesh the flag is the application's.
  if (draining_ || quitting_ || (!bootstrap_.mesh && !healthy_)) return admin::AdminState::kDraining;
  return Initialized() ? admin::AdminState::kLive : admin::AdminState::kInitializing;
}

std::string Sidecar::WhyNotReady() {
  if (draining_) return "draining";
  if (!bootstrap_.mesh && !healthy_) return "health check failed by the admin";
  if (Initialized()) return "";
  if (bootstrap_.mesh && !mesh_) return "looking for the xDS server: " + resolve_error_;
  if (mesh_ && !mesh_->joined()) return mesh_->last_error().empty() ? "joining the mesh" : mesh_->last_error();
  if (ads_ && !ads_->connected()) return "no discovery stream: " + ads_->last_error();
  if (ads_ && !ads_->initialized()) return "waiting for the first configuration";
  return builder_->WarmingText();
}

base::Status Sidecar::StartAdmin() {
  admin_state_.phase = [this] { return Phase(); };
  admin_state_.why_not_ready = [this] { return WhyNotReady(); };
  // In the mesh the flag is the application's readiness and goes to the server; the sidecar's own /ready stays its own.
  admin_state_.healthy = [this] { return bootstrap_.mesh ? true : healthy_; };
  admin_state_.set_health = [this](bool good) {
    healthy_ = good, told_health_ = true;
    if (mesh_) mesh_->SetReady(good);
  };
  admin_state_.drain_listeners = [this] { plane_->StartDrain(uint64_t{options_.drain_time_s} * base::kSecond); };
  admin_state_.quit = [this] { loop_.Post([this] { Quit(); }); };
  admin_state_.reopen_logs = [this] { log_files_.Reopen(); };
  admin_state_.uptime_s = [this] { return (loop_.now() - started_ns_) / base::kSecond; };
  admin_state_.version = kVersion;
  admin_state_.options = options_.Encoded();
  admin_state_.bootstrap = &bootstrap_;
  admin_state_.builder = builder_.get();
  admin_state_.config_stats = &config_stats_;
  admin_state_.plane = plane_.get();
  admin_state_.ads = [this] { return ads_.get(); };
  admin_state_.mesh = [this] { return mesh_.get(); };
  admin_state_.started_unix_ns = loop_.wall_now();
  const model::Address& at = bootstrap_.admin.address;
  if (at.kind == model::Address::kNone) return base::Ok{};
  admin_ = std::make_unique<admin::HttpServer>(&loop_);
  admin::RegisterEndpoints(admin_.get(), &admin_state_);
  auto bound = admin_->Listen(at.kind == model::Address::kPipe ? at.text : at.ToString());
  if (!bound) return std::move(bound.error()).In("admin.address");
  WEFT_LOG(kMain, kInfo, "admin address: ", *bound);
  if (!options_.admin_address_path.empty()) {
    std::ofstream out(options_.admin_address_path);
    out << *bound;
    if (!out) return base::Error("cannot write " + options_.admin_address_path).In("--admin-address-path");
  }
  return base::Ok{};
}

// What is scraped is for everyone who can reach it, so it is a server of its own: the admin stays where it is.
base::Status Sidecar::StartPrometheus() {
  if (options_.prometheus_address.empty()) return base::Ok{};
  prometheus_ = std::make_unique<admin::HttpServer>(&loop_, admin::HttpServer::kPublic);
  admin::RegisterPrometheus(prometheus_.get(), &admin_state_);
  auto bound = prometheus_->Listen(options_.prometheus_address);
  if (!bound) return std::move(bound.error()).In("--prometheus-address");
  WEFT_LOG(kMain, kInfo, "prometheus address: ", *bound);
  return base::Ok{};
}

// ---- what workers hand over, shutdown

void Sidecar::TakePortions() {
  handover_.Take([this](telemetry::Portion& p) {
    for (auto& l : p.lines) log_files_.Append(l.path, &l.text);
    for (auto& e : p.entries) {
      size_t at = 0;
      for (uint32_t size : e.sizes) log_servers_->Add(e.log, std::string_view(e.bytes).substr(at, size)), at += size;
    }
    if (events_ && !p.events.empty()) events_->Add(p.events);
  });
}

void Sidecar::OnTick() {
  loop_.Arm(&tick_, kTickNs);
  if (loop_.now() - last_flush_ns_ >= base::kSecond || draining_) {
    last_flush_ns_ = loop_.now();
    log_files_.Flush();
    log_servers_->Sweep();
  }
  if (loop_.now() - last_gauges_ns_ >= base::kSecond) {
    last_gauges_ns_ = loop_.now();
    // Ejections end on time where nobody asks for the cluster, too.
    if (auto snapshot = builder_->current()) {
      for (const auto& entry : snapshot->clusters) cluster::Sweep(*entry, loop_.now());
    }
    auto& cells = base::Cells::Local();
    auto phase = Phase();
    cells.Set(ids_.live, phase == admin::AdminState::kLive), cells.Set(ids_.state, static_cast<uint64_t>(phase));
    cells.Set(ids_.uptime, (loop_.now() - started_ns_) / base::kSecond);
    cells.Set(ids_.concurrency, options_.concurrency), cells.Set(ids_.connections, plane_->active_connections());
    struct mallinfo2 m = mallinfo2();
    cells.Set(ids_.memory, m.uordblks + m.hblkhd), cells.Set(ids_.heap, m.arena + m.hblkhd);
    cells.Set(ids_.physical, PhysicalMemory());
    if (mesh_ && mesh_->joined()) {
      int64_t left = mesh_->identity().not_after_unix_s - static_cast<int64_t>(loop_.wall_now() / base::kSecond);
      cells.Set(ids_.cert_days, static_cast<uint64_t>(std::max<int64_t>(0, left / 86400)));
    }
  }
  if (quitting_) {
    // What is measured should still arrive: a short wait for the last acknowledgements.
    const bool told = !events_ || events_->Flush(), logged = log_servers_->Finish();
    if ((told && logged) || loop_.now() >= exit_by_ns_) loop_.Stop();
    return;
  }
  if (!draining_) return;
  if (!drain_started_ && loop_.now() >= drain_at_ns_) {
    drain_started_ = true;
    plane_->StartDrain(deadline_ns_ > loop_.now() ? deadline_ns_ - loop_.now() : 0);
  }
  if (drain_started_ && (plane_->active_connections() == 0 || loop_.now() >= deadline_ns_ + base::kSecond)) Quit();
}

void Sidecar::OnSettled() {
  ReturnUnusedMemory();
  settle_ns_ = 10 * base::kSecond;  // later changes are small
}

void Sidecar::BeginDrain() {
  if (draining_) return;
  draining_ = true;
  WEFT_LOG(kMain, kInfo, "draining: up to ", options_.drain_time_s, " s for ", plane_->active_connections(), " connections");
  deadline_ns_ = loop_.now() + uint64_t{options_.drain_time_s} * base::kSecond;
  // Callers are told first and go elsewhere; connections that still come are served until that has spread.
  drain_at_ns_ = loop_.now();
  if (mesh_) {
    mesh_->SetDraining();
    drain_at_ns_ += std::min<uint64_t>(base::kSecond, uint64_t{options_.drain_time_s} * base::kSecond / 2);
  }
}

void Sidecar::Quit() {
  if (quitting_) return;
  quitting_ = true;
  exit_by_ns_ = loop_.now() + 2 * base::kSecond;
  WEFT_LOG(kMain, kInfo, "shutting down");
  // Connections that are still open end here, so that their records are among those sent below.
  plane_->Stop();
  TakePortions();
  log_files_.Flush();
  loop_.Arm(&tick_, 0);
}

void Sidecar::OnSignal() {
  signalfd_siginfo info;
  while (read(signal_fd_, &info, sizeof info) == sizeof info) {
    WEFT_LOG(kMain, kInfo, "caught ", strsignal(static_cast<int>(info.ssi_signo)));
    if (info.ssi_signo == SIGTERM) BeginDrain();
    else if (info.ssi_signo == SIGINT) Quit();
    else if (info.ssi_signo == SIGUSR1) log_files_.Reopen();
  }
}

int Sidecar::Run() {
  auto fail = [&](const base::Error& e) {
    fprintf(stderr, "error: %s\n", e.ToString().c_str());
    return 1;
  };
  auto level = base::ParseLevel(options_.log_level);
  if (!level) return fail(std::move(level.error()).In("--log-level"));
  base::SetAllLevels(*level);
  if (!options_.component_log_level.empty()) {
    if (auto s = base::SetComponentLevels(options_.component_log_level); !s) return fail(std::move(s.error()).In("--component-log-level"));
  }
  for (const std::string& flag : options_.ignored) WEFT_LOG(kMain, kWarn, flag, " does nothing here");
  if (!options_.enable_core_dump) {
    // Keys live in this memory: no other process of the same user reads it, and no core file holds it.
    prctl(PR_SET_DUMPABLE, 0);
    rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&set, s);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);

  std::string name = options_.config_path.empty() ? "--config-yaml" : options_.config_path;
  if (options_.config_path.empty() && options_.config_yaml.empty())
    return fail(base::Error("a bootstrap is needed: -c FILE or --config-yaml TEXT"));
  loop_.RunOnce(0);  // reads the clock
  started_ns_ = loop_.now();
  if (auto s = Load(); !s) return fail(s.error());
  if (options_.mode == "validate") {
    if (auto s = builder_->Start(); !s) return fail(s.error());
    if (std::string errors = StaticErrors(); !errors.empty()) return fail(base::Error(errors).In(name));
    printf("configuration '%s' OK\n", name.c_str());
    return 0;
  }
  signal_fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  loop_.Watch(signal_fd_, &signals_);
  WEFT_LOG(kMain, kInfo, "weft sidecar ", kVersion, " node \"", bootstrap_.node_id, "\", ", options_.concurrency, " workers");
  if (auto s = StartPlane(); !s) {
    plane_->Stop();
    return fail(s.error());
  }
  StartDiscovery();
  for (auto start : {&Sidecar::StartAdmin, &Sidecar::StartPrometheus}) {
    if (auto s = (this->*start)(); !s) {
      plane_->Stop();
      return fail(s.error());
    }
  }
  if (options_.mode == "init_only") {
    plane_->Stop();
    return 0;
  }
  loop_.Arm(&tick_, kTickNs);
  loop_.Run();

  if (ads_) ads_->Stop();
  if (events_) events_->Stop();
  if (mesh_) mesh_->Stop();
  if (ads_channel_) ads_channel_->Stop();
  plane_->Stop();
  TakePortions();
  log_files_.Flush();
  admin_.reset();
  WEFT_LOG(kMain, kInfo, "exiting");
  return 0;
}

}  // namespace weft::server
