// What Istio adds to Envoy's configuration: the filter istio.stats, and the metadata that its metrics are made of.
#include "sidecar/xds/translate_internal.h"
#include "third_party/istio_api/stats.pb.h"

namespace weft::xds {
namespace {

using google::protobuf::Value;

const Value* Field(const core::Metadata& m, const char* name) {
  auto istio = m.filter_metadata().find("istio");
  if (istio == m.filter_metadata().end()) return nullptr;
  auto field = istio->second.fields().find(name);
  return field == istio->second.fields().end() ? nullptr : &field->second;
}

}  // namespace

bool IsIstioStats(const std::string& name, const google::protobuf::Any& config) {
  const std::string type = TypeOf(config);
  return type == "stats.PluginConfig" || (type.empty() && name == "istio.stats");
}

std::shared_ptr<const model::IstioStats> ToIstioStats(const Ctx& c, const google::protobuf::Any& config) {
  auto out = std::make_shared<model::IstioStats>();
  if (config.type_url().empty()) return out;
  auto p = Unpack<stats::PluginConfig>(c, config);
  if (p.reporter() == stats::SERVER_GATEWAY) out->reporter = model::IstioStats::kWaypoint;
  out->host_header_fallback = !p.disable_host_header_fallback();
  if (p.has_tcp_reporting_duration() && Ns(c / "tcp_reporting_duration", p.tcp_reporting_duration()) != 5'000'000'000)
    (c / "tcp_reporting_duration").Warn("connections are counted every 5 s");
  for (const auto& m : p.metrics()) {
    model::IstioStats::Change change;
    change.metric = m.name(), change.drop = m.drop();
    change.without.assign(m.tags_to_remove().begin(), m.tags_to_remove().end());
    if (change.drop || !change.without.empty()) out->changes.push_back(std::move(change));
  }
  if (!out->changes.empty()) out->key = Fingerprint(p);
  return out;
}

std::string IstioWorkload(const core::Metadata& endpoint) {
  const Value* v = Field(endpoint, "workload");
  return v ? v->string_value() : "";
}

void SetIstioService(const core::Metadata& cluster, model::Cluster& to) {
  const Value* v = Field(cluster, "services");
  if (!v || v->list_value().values().empty()) return;
  for (const auto& [k, text] : StructStrings(v->list_value().values(0).struct_value())) {
    if (k == "host") to.istio_host = text;
    if (k == "name") to.istio_name = text;
  }
  if (to.istio_name.empty()) to.istio_name = to.istio_host.substr(0, to.istio_host.find('.'));
}

}  // namespace weft::xds
