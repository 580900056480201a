// Which instances there are: sidecars' reports, their deadlines, and the services remembered after the last one left.
#include <arpa/inet.h>

#include <algorithm>

#include "sidecar/base/log.h"
#include "xds_server/model/policy.h"
#include "xds_server/serve/control.h"

namespace weft::server {
namespace {

constexpr size_t kMaxWorkloads = 20'000;

// "" or what is wrong with what a sidecar says about itself.
std::string CheckWorkload(const Workload& w, const Name& identity) {
  if (w.service != identity) return "the certificate is for " + identity.ToString() + ", the workload says " + w.service.ToString();
  if (w.id.empty() || w.id.size() > 128 || !std::all_of(w.id.begin(), w.id.end(), [](unsigned char c) { return isalnum(c) || c == '-' || c == '.' || c == '_'; })) {
    return "workload id: 1..128 letters, digits, '-', '.', '_'";
  }
  if (!w.version.empty() && !IsDnsLabel(w.version)) return "version must be a DNS label";
  unsigned char buf[16];
  if (inet_pton(AF_INET, w.address.c_str(), buf) != 1 && inet_pton(AF_INET6, w.address.c_str(), buf) != 1) return "address is not an IP address";
  if (w.ports.size() > 64) return "more than 64 ports";
  for (const Port& p : w.ports) {
    if (p.target_port == 0 || p.service_port == 0) return "port 0";
  }
  size_t bytes = w.sidecar_version.size();
  for (const auto& [k, v] : w.labels) bytes += k.size() + v.size();
  if (w.labels.size() > 64 || bytes > 8192) return "labels: at most 64, 8 KiB";
  return "";
}

}  // namespace

void Control::Remember() {
  const int64_t now = UnixMs();
  std::map<Name, std::vector<Port>> present;
  for (const auto& [id, r] : registrations_) {
    auto& ports = present[r.workload.service];
    for (const Port& p : r.workload.ports) {
      if (std::none_of(ports.begin(), ports.end(), [&](const Port& x) { return x.service_port == p.service_port; })) ports.push_back(p);
    }
  }
  for (auto& [name, ports] : present) {
    Store::KnownService& k = known_[name];
    // Written when something changed, and once an hour so that its age stays true.
    const bool write = k.ports != ports || now - k.seen_unix_ms > 3'600'000;
    k.name = name, k.ports = std::move(ports);
    if (write) {
      k.seen_unix_ms = now;
      after_push_.push_back([this, k] { options_.store->PutService(k); });
    }
  }
  for (auto it = known_.begin(); it != known_.end();) {
    if (present.count(it->first) || now - it->second.seen_unix_ms < options_.remember_service_ms) {
      ++it;
      continue;
    }
    after_push_.push_back([this, name = it->first] { options_.store->RemoveService(name); });
    it = known_.erase(it);
  }
}

uint64_t Control::OpenReport(Name identity, int64_t certificate_not_after_unix_s) {
  const uint64_t id = next_id_++;
  Post([this, id, identity = std::move(identity), certificate_not_after_unix_s] { sessions_[id] = {identity, certificate_not_after_unix_s, ""}; });
  return id;
}

std::string Control::ApplyReport(ReportSession& s, uint64_t session, Report& report) {
  if (report.workload) {
    Workload& w = *report.workload;
    if (std::string error = CheckWorkload(w, s.identity); !error.empty()) return error;
    if (!s.workload_id.empty() && s.workload_id != w.id) return "the workload id cannot change";
    auto it = registrations_.find(w.id);
    if (it != registrations_.end() && it->second.workload.service != w.service) return "workload id " + w.id + " belongs to another service";
    if (it == registrations_.end() && registrations_.size() >= kMaxWorkloads) return "too many workloads";
    s.workload_id = w.id;
  }
  if (s.workload_id.empty()) return "the first report must carry the workload";
  Registration& r = registrations_[s.workload_id];
  Workload next = report.workload ? *report.workload : r.workload;
  if (next.id.empty()) return "the workload was removed; report it again in full";
  next.ready = report.ready, next.draining = report.draining;
  r.session = session;
  r.deadline_ns = options_.clock->MonotonicNs() + options_.silence_ns;
  r.last_seen_unix_ms = UnixMs();
  r.certificate_not_after_unix_s = s.certificate_not_after_unix_s;
  if (next != r.workload) {
    const bool was = r.workload.active();
    r.workload = std::move(next);
    dirty_ = true;
    rebuild_not_before_ns_ = std::min(rebuild_not_before_ns_, options_.clock->MonotonicNs() + 20 * base::kMs);
    // On disk after the push: sidecars do not wait for it.
    after_push_.push_back([this, w = r.workload] { options_.store->PutWorkload(w, UnixMs()); });
    if (was != r.workload.active()) {
      WEFT_LOG(kXds, kInfo, "workload ", r.workload.id, " of ", r.workload.service.ToString(), " at ", r.workload.address,
               r.workload.active() ? " is ready" : r.workload.draining ? " is draining" : " is not ready");
    }
  }
  return "";
}

void Control::OnReport(uint64_t session, Report report, std::function<void(bool, std::string)> reply) {
  Post([this, session, report = std::move(report), reply = std::move(reply)]() mutable {
    auto it = sessions_.find(session);
    if (it == sessions_.end()) return reply(false, "the session is closed");
    if (std::string error = ApplyReport(it->second, session, report); !error.empty()) return reply(false, error);
    after_push_.push_back([this, id = it->second.workload_id, reply = std::move(reply)] {
      auto r = registrations_.find(id);
      reply(r != registrations_.end() && r->second.workload.active(), "");
    });
  });
}

void Control::CloseReport(uint64_t session) {
  Post([this, session] {
    auto it = sessions_.find(session);
    if (it == sessions_.end()) return;
    auto r = registrations_.find(it->second.workload_id);
    if (r != registrations_.end() && r->second.session == session) {
      r->second.session = 0;
      if (r->second.workload.draining) {
        Remove(it->second.workload_id, "left");
      } else {
        r->second.deadline_ns = options_.clock->MonotonicNs() + options_.stream_end_grace_ns;
      }
    }
    sessions_.erase(it);
  });
}

void Control::Remove(const std::string& workload_id, const char* why) {
  auto it = registrations_.find(workload_id);
  if (it == registrations_.end()) return;
  WEFT_LOG(kXds, kInfo, "workload ", workload_id, " of ", it->second.workload.service.ToString(), " is removed: ", why);
  registrations_.erase(it);
  after_push_.push_back([this, workload_id] { options_.store->RemoveWorkload(workload_id); });
  dirty_ = true;
}

uint64_t Control::Expire(uint64_t now_ns) {
  std::vector<std::string> gone;
  uint64_t next = 0;
  for (const auto& [id, r] : registrations_) {
    if (r.deadline_ns <= now_ns) gone.push_back(id);
    else if (next == 0 || r.deadline_ns < next) next = r.deadline_ns;
  }
  for (const std::string& id : gone) Remove(id, registrations_[id].session ? "silent" : "its sidecar is gone");
  return next;
}

}  // namespace weft::server
