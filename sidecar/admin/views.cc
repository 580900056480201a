// /clusters, /listeners, /certs, /server_info, /memory, /weft/status.
#include <google/protobuf/util/time_util.h>
#include <malloc.h>

#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "envoy/admin/v3/certs.pb.h"
#include "envoy/admin/v3/clusters.pb.h"
#include "envoy/admin/v3/listeners.pb.h"
#include "envoy/admin/v3/memory.pb.h"
#include "envoy/admin/v3/server_info.pb.h"
#include "sidecar/admin/endpoints.h"
#include "sidecar/admin/proto_json.h"
#include "sidecar/cluster/host_set.h"
#include "sidecar/tls/keys.h"

namespace weft::admin {

namespace {

namespace core = envoy::config::core::v3;
namespace admin = envoy::admin::v3;

void SetAddress(core::Address* to, const model::Address& a) {
  if (a.kind == model::Address::kPipe) return to->mutable_pipe()->set_path(a.text);
  auto* s = to->mutable_socket_address();
  s->set_address(a.kind == model::Address::kIp ? a.ip.ToString() : a.text);
  s->set_port_value(a.port);
  if (a.udp) s->set_protocol(core::SocketAddress::UDP);
}

struct Metric {
  const char* name;
  uint64_t value;
  bool gauge;
};
std::vector<Metric> Metrics(const cluster::HostCell& c) {
  auto get = [](const auto& a) { return static_cast<uint64_t>(a.load(std::memory_order_relaxed)); };
  return {{"cx_active", get(c.active_connections), true}, {"cx_connect_fail", get(c.cx_connect_fail), false},
          {"cx_total", get(c.cx_total), false},           {"rq_active", get(c.active_requests), true},
          {"rq_error", get(c.rq_error), false},           {"rq_success", get(c.rq_success), false},
          {"rq_timeout", get(c.rq_timeout), false},       {"rq_total", get(c.rq_total), false}};
}

std::string Flags(const cluster::Host& h) {
  std::string out;
  if (h.cell->ejected.load(std::memory_order_relaxed)) out += "/failed_outlier_check";
  if (!h.eds_healthy) out += "/failed_eds_health";
  if (h.degraded) out += "/degraded_eds_health";
  return out.empty() ? "healthy" : out;
}

}  // namespace

Response Clusters(const AdminState& state, const Request& request) {
  auto snapshot = state.builder->current();
  bool json = request.Get("format") == "json";
  admin::Clusters out;
  std::string text;
  if (snapshot) {
    for (const auto& entry : snapshot->clusters) {
      const model::Cluster& c = *entry->config;
      auto line = [&](const std::string& rest) { text += c.name + "::" + rest + "\n"; };
      admin::ClusterStatus* s = nullptr;
      if (json) {
        s = out.add_cluster_statuses();
        s->set_name(c.name);
        s->set_added_via_api(entry->via_api);
        s->set_observability_name(c.alt_stat_name.empty() ? c.name : c.alt_stat_name);
        if (c.type == model::Cluster::kEds) s->set_eds_service_name(c.eds_service_name);
      } else {
        line("observability_name::" + (c.alt_stat_name.empty() ? c.name : c.alt_stat_name));
      }
      for (int p = 0; p < 2; ++p) {
        const model::BreakerThresholds& b = c.breakers[p];
        if (json) {
          auto* t = s->mutable_circuit_breakers()->add_thresholds();
          t->set_priority(p ? core::HIGH : core::DEFAULT);
          t->mutable_max_connections()->set_value(b.max_connections);
          t->mutable_max_pending_requests()->set_value(b.max_pending);
          t->mutable_max_requests()->set_value(b.max_requests);
          t->mutable_max_retries()->set_value(b.max_retries);
          continue;
        }
        std::string prefix = p ? "high_priority::" : "default_priority::";
        line(prefix + "max_connections::" + std::to_string(b.max_connections));
        line(prefix + "max_pending_requests::" + std::to_string(b.max_pending));
        line(prefix + "max_requests::" + std::to_string(b.max_requests));
        line(prefix + "max_retries::" + std::to_string(b.max_retries));
      }
      if (!json) {
        line(std::string("added_via_api::") + (entry->via_api ? "true" : "false"));
        if (c.type == model::Cluster::kEds) line("eds_service_name::" + c.eds_service_name);
      }
      if (!entry->hosts) continue;
      for (const cluster::Host& h : entry->hosts->hosts()) {
        static const model::Locality kNowhere;
        const model::Locality& at = entry->endpoints && h.endpoint.locality < entry->endpoints->localities.size()
                                        ? entry->endpoints->localities[h.endpoint.locality] : kNowhere;
        if (json) {
          auto* host = s->add_host_statuses();
          SetAddress(host->mutable_address(), h.endpoint.address);
          for (const Metric& m : Metrics(*h.cell)) {
            auto* metric = host->add_stats();
            metric->set_name(m.name), metric->set_value(m.value);
            metric->set_type(m.gauge ? admin::SimpleMetric::GAUGE : admin::SimpleMetric::COUNTER);
          }
          auto* health = host->mutable_health_status();
          health->set_failed_outlier_check(h.cell->ejected.load(std::memory_order_relaxed));
          health->set_eds_health_status(h.eds_healthy ? core::HEALTHY : core::UNHEALTHY);
          host->set_weight(h.endpoint.weight), host->set_hostname(h.endpoint.hostname), host->set_priority(h.endpoint.priority);
          host->mutable_locality()->set_region(at.region), host->mutable_locality()->set_zone(at.zone);
          host->mutable_locality()->set_sub_zone(at.sub_zone);
          continue;
        }
        std::string prefix = h.address + "::";
        for (const Metric& m : Metrics(*h.cell)) line(prefix + m.name + "::" + std::to_string(m.value));
        line(prefix + "hostname::" + h.endpoint.hostname);
        line(prefix + "health_flags::" + Flags(h));
        line(prefix + "weight::" + std::to_string(h.endpoint.weight));
        line(prefix + "region::" + at.region), line(prefix + "zone::" + at.zone), line(prefix + "sub_zone::" + at.sub_zone);
        line(prefix + "canary::" + (h.endpoint.canary ? "true" : "false"));
        line(prefix + "priority::" + std::to_string(h.endpoint.priority));
        line(prefix + "success_rate::-1"), line(prefix + "local_origin_success_rate::-1");
      }
    }
  }
  return json ? Json(out) : Response{200, text};
}

Response Listeners(const AdminState& state, const Request& request) {
  auto snapshot = state.builder->current();
  bool json = request.Get("format") == "json";
  admin::Listeners out;
  std::string text;
  if (snapshot) {
    for (const auto& entry : snapshot->listeners) {
      const model::Listener& l = *entry->config;
      if (l.addresses.empty()) continue;
      std::string bound = state.plane ? state.plane->BoundAddress(l.name) : "";
      model::Address first = l.addresses.front();
      if (size_t colon = bound.rfind(':'); colon != std::string::npos && first.kind == model::Address::kIp)
        first.port = static_cast<uint16_t>(atoi(bound.c_str() + colon + 1));
      if (json) {
        auto* s = out.add_listener_statuses();
        s->set_name(l.name);
        SetAddress(s->mutable_local_address(), first);
        for (size_t i = 1; i < l.addresses.size(); ++i) SetAddress(s->add_additional_local_addresses(), l.addresses[i]);
      } else {
        text += l.name + "::" + first.ToString() + "\n";
      }
    }
  }
  return json ? Json(out) : Response{200, text};
}

Response Certs(const AdminState& state, const Request&) {
  admin::Certificates out;
  auto fill = [](admin::CertificateDetails* d, const tls::CertInfo& c, const std::string& where) {
    d->set_path(where);
    d->set_serial_number(c.serial_hex);
    for (const std::string& uri : c.uri_sans) d->add_subject_alt_names()->set_uri(uri);
    for (const std::string& dns : c.dns_sans) d->add_subject_alt_names()->set_dns(dns);
    int64_t left = c.not_after_unix_s - time(nullptr);
    d->set_days_until_expiration(left > 0 ? static_cast<uint64_t>(left / 86400) : 0);
    *d->mutable_valid_from() = google::protobuf::util::TimeUtil::SecondsToTimestamp(c.not_before_unix_s);
    *d->mutable_expiration_time() = google::protobuf::util::TimeUtil::SecondsToTimestamp(c.not_after_unix_s);
  };
  for (const auto& view : state.builder->Certificates()) {
    auto* one = out.add_certificates();
    if (auto list = tls::ParseBundlePem(view.roots_pem)) {
      for (const auto& c : *list) fill(one->add_ca_cert(), c, view.where);
    }
    if (auto list = tls::ParseBundlePem(view.chain_pem)) {
      for (const auto& c : *list) fill(one->add_cert_chain(), c, view.where);
    }
  }
  return Json(out, true);
}

Response ServerInfo(const AdminState& state) {
  admin::ServerInfo out;
  out.set_version("weft/" + state.version + "/Clean/RELEASE/BoringSSL");
  out.set_state(static_cast<admin::ServerInfo::State>(state.phase()));
  out.mutable_uptime_current_epoch()->set_seconds(static_cast<int64_t>(state.uptime_s()));
  out.mutable_uptime_all_epochs()->set_seconds(static_cast<int64_t>(state.uptime_s()));
  out.set_hot_restart_version("disabled");
  out.mutable_command_line_options()->ParseFromString(state.options);
  if (state.bootstrap && state.bootstrap->node) *out.mutable_node() = *state.bootstrap->node;
  return Json(out, true);
}

Response Memory() {
  struct mallinfo2 m = mallinfo2();
  admin::Memory out;
  out.set_allocated(m.uordblks + m.hblkhd);
  out.set_heap_size(m.arena + m.hblkhd);
  out.set_pageheap_free(m.fordblks);
  unsigned long pages = 0;
  if (FILE* f = fopen("/proc/self/statm", "re")) {
    if (fscanf(f, "%*u %lu", &pages) != 1) pages = 0;
    fclose(f);
  }
  out.set_total_physical_bytes(pages * 4096);
  return Json(out);
}

// What `weft run` and `weft status` want to know, in one answer.
Response WeftStatus(const AdminState& state) {
  nlohmann::json out;
  out["ready"] = state.phase() == AdminState::kLive;
  out["healthy"] = state.healthy();
  out["waiting_for"] = state.why_not_ready();
  auto snapshot = state.builder->current();
  out["snapshot"] = snapshot ? snapshot->sequence : 0;
  out["config_revision"] = snapshot ? snapshot->config_revision : "";
  if (const auto* ads = state.ads()) {
    nlohmann::json types;
    for (int i = 0; i < xds::kTypes; ++i) {
      auto type = static_cast<xds::Type>(i);
      const auto& t = ads->state().state(type);
      types[std::string(xds::TypeShort(type))] = {{"version", t.version}, {"resources", t.versions.size()}, {"updates", t.updates},
                                                  {"rejected", t.rejected}, {"error", t.last_error}};
    }
    out["ads"] = {{"connected", ads->connected()}, {"error", ads->last_error()}, {"types", types}};
  }
  if (const auto* mesh = state.mesh()) {
    out["mesh"] = {{"joined", mesh->joined()}, {"identity", mesh->identity().spiffe_id}, {"expires_unix_s", mesh->identity().not_after_unix_s},
                   {"endpoint_active", mesh->endpoint_active()}, {"error", mesh->last_error()}};
  }
  return {200, out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", "application/json"};
}

}  // namespace weft::admin
