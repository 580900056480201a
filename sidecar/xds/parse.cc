#include "sidecar/xds/parse.h"

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb.h"
#include "envoy/service/discovery/v3/discovery.pb.h"
#include "sidecar/base/log.h"
#include "sidecar/base/stats.h"
#include "sidecar/xds/bootstrap.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

namespace {

constexpr size_t kMaxResource = 16u << 20;

template <typename Proto>
base::Status Decode(const std::string& body, Proto* p) {
  if (body.size() > kMaxResource) return base::Error("is larger than 16 MiB");
  if (!p->ParseFromString(body)) return base::Error("does not decode as its type");
  return base::Ok{};
}

void Report(const Warnings& w, const char* what, const std::string& name) {
  static const base::StatId unsupported = base::Stats::Get().Counter("weft.config.unsupported_fields");
  for (const std::string& line : w.list()) {
    base::Cells::Local().Add(unsupported);
    WEFT_LOG(kConfig, kWarn, what, " \"", name, "\": ", line);
  }
}

}  // namespace

base::Result<std::shared_ptr<const model::Cluster>> ParseCluster(const std::string& body) {
  envoy::config::cluster::v3::Cluster p;
  if (auto s = Decode(body, &p); !s) return s.error();
  Warnings w;
  auto r = TranslateCluster(p, &w);
  Report(w, "cluster", p.name());
  return r;
}

base::Result<std::shared_ptr<const model::Listener>> ParseListener(const std::string& body) {
  envoy::config::listener::v3::Listener p;
  if (auto s = Decode(body, &p); !s) return s.error();
  Warnings w;
  auto r = TranslateListener(p, &w);
  Report(w, "listener", p.name());
  return r;
}

base::Result<std::shared_ptr<const route::RouteTable>> ParseRoutes(const std::string& body) {
  envoy::config::route::v3::RouteConfiguration p;
  if (auto s = Decode(body, &p); !s) return s.error();
  Warnings w;
  auto r = TranslateRoutes(p, &w);
  Report(w, "routes", p.name());
  return r;
}

base::Result<std::shared_ptr<const model::Endpoints>> ParseEndpoints(const std::string& body) {
  envoy::config::endpoint::v3::ClusterLoadAssignment p;
  if (auto s = Decode(body, &p); !s) return s.error();
  Warnings w;
  auto r = TranslateEndpoints(p, &w);
  Report(w, "endpoints", p.cluster_name());
  return r;
}

base::Result<std::shared_ptr<const model::Secret>> ParseSecret(const std::string& body) {
  envoy::extensions::transport_sockets::tls::v3::Secret p;
  if (auto s = Decode(body, &p); !s) return s.error();
  Warnings w;
  auto r = TranslateSecret(p, &w);
  Report(w, "secret", p.name());
  return r;
}

base::Result<std::vector<std::shared_ptr<const model::Secret>>> ReadSecretFile(const std::string& path) {
  auto text = ReadSource({model::DataSource::kFile, path});
  if (!text) return text.error();
  envoy::service::discovery::v3::DiscoveryResponse response;
  if (auto s = ParseYaml(*text, &response); !s) return std::move(s.error()).In(path);
  std::vector<std::shared_ptr<const model::Secret>> out;
  for (const auto& any : response.resources()) {
    envoy::extensions::transport_sockets::tls::v3::Secret p;
    if (!any.UnpackTo(&p)) return base::Error("holds a " + any.type_url() + ", not a Secret").In(path);
    auto secret = TranslateSecret(p, nullptr);
    if (!secret) return std::move(secret.error()).In(path);
    out.push_back(*secret);
  }
  return out;
}

std::string RedactSecret(const std::string& body) {
  envoy::extensions::transport_sockets::tls::v3::Secret p;
  if (!p.ParseFromString(body)) return "";
  auto redact = [](envoy::config::core::v3::DataSource* source) { source->set_inline_string("[redacted]"); };
  if (p.has_tls_certificate()) {
    if (p.tls_certificate().has_private_key()) redact(p.mutable_tls_certificate()->mutable_private_key());
    if (p.tls_certificate().has_password()) redact(p.mutable_tls_certificate()->mutable_password());
  }
  if (p.has_session_ticket_keys()) {
    for (auto& key : *p.mutable_session_ticket_keys()->mutable_keys()) redact(&key);
  }
  if (p.has_generic_secret()) redact(p.mutable_generic_secret()->mutable_secret());
  return p.SerializeAsString();
}

}  // namespace weft::xds
