#include "sidecar/server/own_end.h"

#include "api/weft/mesh/v1/mesh.pb.h"
#include "envoy/config/core/v3/base.pb.h"
#include "sidecar/server/options.h"

namespace weft::server {

proxy::IstioOwn OwnEnd(const xds::Bootstrap& bootstrap) {
  using Struct = google::protobuf::Struct;
  const auto text = [](const Struct& s, const char* key) {
    auto it = s.fields().find(key);
    return it == s.fields().end() ? std::string() : it->second.string_value();
  };
  const Struct& node = bootstrap.node->metadata();
  auto found = node.fields().find("LABELS");
  const Struct& labels = found == node.fields().end() ? Struct::default_instance() : found->second.struct_value();
  proxy::IstioOwn own;
  own.workload = text(node, "WORKLOAD_NAME"), own.ns = text(node, "NAMESPACE"), own.cluster = text(node, "CLUSTER_ID");
  own.app = text(labels, "app"), own.version = text(labels, "version");
  own.canonical_service = text(labels, "service.istio.io/canonical-name");
  own.canonical_revision = text(labels, "service.istio.io/canonical-revision");
  own.build = text(node, "ISTIO_VERSION");
  if (own.build.empty()) own.build = std::string("weft-") + kVersion;
  if (bootstrap.mesh) {
    const auto& w = bootstrap.mesh->workload();
    const auto otherwise = [](std::string& to, const std::string& value) {
      if (to.empty()) to = value;
    };
    otherwise(own.workload, w.service()), otherwise(own.app, w.service()), otherwise(own.canonical_service, w.service());
    otherwise(own.ns, w.namespace_().empty() ? "default" : w.namespace_());
    otherwise(own.version, w.version()), otherwise(own.canonical_revision, w.version());
    own.names_in_identity = true;
  }
  return own;
}

}  // namespace weft::server
