// What others ask the control thread: status of sidecars and workloads, forgetting a service, metrics.
#include <algorithm>
#include <future>
#include <sstream>

#include "xds_server/serve/control.h"

namespace weft::server {
namespace {

// Runs f on the control thread and waits for what it returns; nothing when the thread does not answer in time.
template <typename F>
auto Ask(Control& control, F f) -> std::optional<decltype(f())> {
  auto promise = std::make_shared<std::promise<decltype(f())>>();
  auto future = promise->get_future();
  control.Post([promise, f = std::move(f)]() mutable { promise->set_value(f()); });
  if (future.wait_for(std::chrono::seconds(5)) != std::future_status::ready) return std::nullopt;
  return future.get();
}

}  // namespace

std::optional<std::vector<SidecarStatus>> Control::Status() {
  return Ask(*this, [this] {
    std::map<std::string, SidecarStatus> out;
    for (const auto& [id, r] : registrations_) out[id] = StatusOf(id, r);
    for (const auto& [id, n] : nodes_) {
      if (n->identified) AddStream(*n, out[n->info.id]);
    }
    std::vector<SidecarStatus> list;
    for (auto& [id, s] : out) list.push_back(std::move(s));
    return list;
  });
}

SidecarStatus Control::StatusOf(const std::string& id, const Registration& r) const {
  SidecarStatus s;
  const Workload& w = r.workload;
  s.node = id, s.service = w.service, s.version = w.version, s.address = w.address, s.sidecar_version = w.sidecar_version;
  s.ready = w.ready, s.draining = w.draining, s.active = w.active(), s.reporting = r.session != 0;
  s.last_seen_unix_ms = r.last_seen_unix_ms;
  s.certificate_not_after_unix_s = r.certificate_not_after_unix_s;
  return s;
}

void Control::AddStream(const Node& n, SidecarStatus& s) const {
  const uint64_t now = options_.clock->MonotonicNs();
  s.node = n.info.id, s.service = n.service, s.connected = true;
  s.protocol = n.stream.variant() == Stream::kDelta ? "delta" : "sotw";
  s.synced = n.stream.Synced();
  s.connected_since_unix_ms = n.connected_unix_ms;
  s.last_seen_unix_ms = std::max(s.last_seen_unix_ms, n.last_seen_unix_ms);
  if (n.peer.not_after_unix_s) s.certificate_not_after_unix_s = n.peer.not_after_unix_s;
  if (s.sidecar_version.empty()) s.sidecar_version = n.info.version;
  s.revision = revision_;
  for (int t = 0; t < kTypeCount; ++t) {
    TypeStatus& type = s.types[t] = n.stream.Status(static_cast<Type>(t));
    if (!type.subscribed) continue;
    // A type that lacks nothing is at the newest revision, whether or not that revision touched it.
    if (!type.pending && !type.nack) type.acked_revision = revision_;
    s.revision = std::min(s.revision, type.acked_revision);
    if (type.nack) s.nack_unix_ms[t] = UnixMs() - static_cast<int64_t>((now - type.nack->at_ns) / base::kMs);
  }
}

std::string Control::ForgetService(const Name& name) {
  auto answer = Ask(*this, [this, name]() -> std::string {
    for (const auto& [id, r] : registrations_) {
      if (r.workload.service == name) return "service " + name.ToString() + " has instances: " + id;
    }
    if (known_.erase(name) == 0) return "no such service";
    options_.store->RemoveService(name);
    dirty_ = true;
    return "";
  });
  return answer.value_or("the control thread does not answer");
}

std::optional<std::vector<WorkloadStatus>> Control::Workloads() {
  return Ask(*this, [this] {
    std::vector<WorkloadStatus> out;
    for (const auto& [id, r] : registrations_) out.push_back({r.workload, r.session != 0, r.last_seen_unix_ms});
    return out;
  });
}

std::string Control::MetricsText() {
  std::ostringstream o;
  auto line = [&](const char* name, const char* type, const char* help, uint64_t v) {
    o << "# HELP " << name << " " << help << "\n# TYPE " << name << " " << type << "\n" << name << " " << v << "\n";
  };
  line("weft_xds_streams", "gauge", "Open ADS streams.", streams_);
  line("weft_xds_pushes_total", "counter", "Replies sent on ADS streams.", pushes_);
  line("weft_xds_rejects_total", "counter", "Replies that a sidecar rejected.", nacks_);
  line("weft_xds_refused_nodes_total", "counter", "ADS streams refused because node and certificate did not fit.", refused_nodes_);
  line("weft_world_rebuilds_total", "counter", "Times the configuration was compiled.", rebuilds_);
  line("weft_world_last_rebuild_microseconds", "gauge", "Cost of the last compile and push.", last_rebuild_us_);
  line("weft_workloads", "gauge", "Registered workloads.", workloads_);
  line("weft_workloads_active", "gauge", "Workloads that callers are sent to.", active_);
  line("weft_joins_total", "counter", "Identities issued for a join token.", joins);
  line("weft_joins_refused_total", "counter", "Joins refused.", joins_refused);
  line("weft_renewals_total", "counter", "Identities renewed.", renewals);
  return o.str();
}

}  // namespace weft::server
