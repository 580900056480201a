#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "envoy/extensions/transport_sockets/tls/v3/tls.pb.h"
#include "xds_server/compile/parts.h"

namespace weft::server::compile {

namespace core = envoy::config::core::v3;
namespace tls = envoy::extensions::transport_sockets::tls::v3;

std::string Serialize(const google::protobuf::Message& m) {
  std::string out;
  google::protobuf::io::StringOutputStream stream(&out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  m.SerializeToCodedStream(&coded);
  coded.Trim();
  return out;
}

void Pack(const google::protobuf::Message& m, google::protobuf::Any* out) {
  out->set_type_url("type.googleapis.com/" + m.GetDescriptor()->full_name());
  out->set_value(Serialize(m));
}

void SetWeft(core::Metadata* out, const std::string& key, const std::string& value) {
  (*(*out->mutable_filter_metadata())["weft"].mutable_fields())[key].set_string_value(value);
}

void SetProvenance(const Provenance& p, core::Metadata* out) {
  if (p.service) {
    SetWeft(out, "service", p.service->name);
    SetWeft(out, "namespace", p.service->ns);
  }
  if (p.policy) {
    SetWeft(out, "policy", p.policy->Reference());
    (*(*out->mutable_filter_metadata())["weft"].mutable_fields())["revision"].set_number_value(static_cast<double>(p.policy->revision));
  }
}

void SetAddress(const std::string& ip, uint16_t port, core::Address* out) {
  out->mutable_socket_address()->set_address(ip);
  out->mutable_socket_address()->set_port_value(port);
}

void SetTls(TlsSide side, const World& world, const std::string& expected_id, const std::string& sni, bool h2,
            const std::string& sds_dir, core::TransportSocket* out) {
  tls::CommonTlsContext common;
  common.mutable_tls_params()->set_tls_minimum_protocol_version(tls::TlsParameters::TLSv1_3);
  common.mutable_tls_params()->set_tls_maximum_protocol_version(tls::TlsParameters::TLSv1_3);
  if (h2) common.add_alpn_protocols("h2");
  auto source = [&](const char* name, core::ConfigSource* config) {
    config->set_resource_api_version(core::V3);
    if (sds_dir.empty()) {
      config->mutable_ads();
    } else {
      config->mutable_path_config_source()->set_path(sds_dir + "/" + name + ".yaml");
      // `weft bootstrap envoy` renames the new file into place, which Envoy sees only by watching the directory.
      config->mutable_path_config_source()->mutable_watched_directory()->set_path(sds_dir);
    }
  };
  auto* certificate = common.add_tls_certificate_sds_secret_configs();
  certificate->set_name("default");
  source("default", certificate->mutable_sds_config());
  auto* validation = common.mutable_combined_validation_context();
  auto* san = validation->mutable_default_validation_context()->add_match_typed_subject_alt_names();
  san->set_san_type(tls::SubjectAltNameMatcher::URI);
  if (side == TlsSide::kUpstream) san->mutable_matcher()->set_exact(expected_id);
  else san->mutable_matcher()->set_prefix("spiffe://" + world.trust_domain + "/");
  auto* roots = validation->mutable_validation_context_sds_secret_config();
  roots->set_name("ROOTCA");
  source("ROOTCA", roots->mutable_sds_config());

  out->set_name("envoy.transport_sockets.tls");
  if (side == TlsSide::kUpstream) {
    tls::UpstreamTlsContext context;
    *context.mutable_common_tls_context() = std::move(common);
    context.set_sni(sni);
    Pack(context, out->mutable_typed_config());
  } else {
    tls::DownstreamTlsContext context;
    *context.mutable_common_tls_context() = std::move(common);
    context.mutable_require_client_certificate()->set_value(true);
    Pack(context, out->mutable_typed_config());
  }
}

}  // namespace weft::server::compile

namespace weft::server {

std::string ClusterName(const Name& service, uint16_t port, const std::string& version) {
  return "outbound|" + std::to_string(port) + "|" + version + "|" + service.ToString();
}

std::string RouteName(const Name& service, uint16_t port) {
  return "outbound|" + std::to_string(port) + "|" + service.ToString();
}

namespace {
template <typename M>
ResourcePtr ToResource(const std::string& name, const M& m) {
  std::string bytes = compile::Serialize(m);
  std::string version = ContentHash(bytes);
  return std::make_shared<const Resource>(Resource{name, std::move(version), std::move(bytes)});
}
}  // namespace

namespace {
// What resources other than endpoints depend on: the policies and their revision, and of services everything but who is
// ready and where.
std::string Shape(const World& w) {
  std::string out = w.trust_domain + "\n" + std::to_string(w.revision) + "\n";
  for (const auto& [name, s] : w.services) {
    out += name.ToString() + " " + s.vip;
    for (const Port& p : s.ports) out += " " + std::to_string(p.service_port) + ">" + std::to_string(p.target_port) + "/" + std::string(ProtocolName(p.protocol));
    for (const std::string& v : s.versions) out += " =" + v;
    for (const std::string& h : s.hosts) out += " @" + h;
    for (const std::string& e : s.external_endpoints) out += " !" + e;
    out += "\n";
  }
  return out;
}
}  // namespace

Compiler::Compiler(std::shared_ptr<const World> world, Compiler* previous) : world_(std::move(world)), shape_(Shape(*world_)) {
  // Policies are compared by the revision: every accepted change has a new one.
  if (!previous || previous->shape_ != shape_) return;
  routes_done_ = previous->routes_done_;
  routes_ = std::move(previous->routes_), clusters_ = std::move(previous->clusters_), outbound_ = std::move(previous->outbound_);
  dns_ = std::move(previous->dns_), inbound_ = std::move(previous->inbound_);
}

std::shared_ptr<const Snapshot> Compiler::For(const ProxyClass& c) {
  const World& w = *world_;
  if (!shared_done_) {
    for (const auto& e : compile::Endpoints(w)) endpoints_.push_back(ToResource(e.cluster_name(), e));
    shared_done_ = true;
  }
  if (!routes_done_) {
    for (const auto& r : compile::Routes(w)) routes_.push_back(ToResource(r.name(), r));
    routes_done_ = true;
  }
  auto clusters = clusters_.find(c.sds_dir);
  if (clusters == clusters_.end()) {
    clusters = clusters_.emplace(c.sds_dir, std::vector<ResourcePtr>()).first;
    for (const auto& k : compile::OutboundClusters(w, c.sds_dir)) clusters->second.push_back(ToResource(k.name(), k));
    clusters->second.push_back(ToResource("passthrough", compile::Passthrough()));
  }
  ResourcePtr& outbound = outbound_[{c.sds_dir, c.ipv6}];
  if (!outbound) outbound = ToResource("outbound", compile::OutboundListener(w, c.ipv6, c.sds_dir.empty()));
  ResourcePtr& dns = dns_[{c.service.ns, c.ipv6}];
  if (!dns) dns = ToResource("dns", compile::DnsListener(w, c.service.ns, c.ipv6));

  auto s = std::make_shared<Snapshot>();
  s->revision = w.revision;
  for (const auto& r : endpoints_) Add(*s, kEds, r);
  for (const auto& r : routes_) Add(*s, kRds, r);
  for (const auto& r : clusters->second) Add(*s, kCds, r);
  auto [inbound, fresh] = inbound_.try_emplace(c);
  if (fresh) {
    for (const Port& p : c.ports) {
      auto k = compile::InboundCluster(p);
      inbound->second.push_back({kCds, ToResource(k.name(), k)});
    }
    if (!c.ports.empty()) inbound->second.push_back({kLds, ToResource("inbound", compile::InboundListener(w, c))});
  }
  for (const auto& [type, r] : inbound->second) Add(*s, type, r);
  Add(*s, kLds, outbound);
  Add(*s, kLds, dns);
  Seal(*s);
  return s;
}

}  // namespace weft::server
