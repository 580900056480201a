#include "tools/weft/join/foreign.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tools/weft/cli/client.h"
#include "tools/weft/cli/error.h"
#include "tools/weft/cli/output.h"
#include "tools/weft/join/identity.h"

namespace weft::join {
namespace {

using cli::Json;

void Replace(const std::string& path, const std::string& text, mode_t mode) {
  const std::string fresh = path + ".new";
  unlink(fresh.c_str());
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  const bool ok = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!ok || rename(fresh.c_str(), path.c_str()) != 0) throw cli::Failure("cannot write " + path + ": " + strerror(ok ? errno : error));
}

constexpr const char* kType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.";

Json SdsConfig(const Foreign& f, const char* name) {
  return {{"name", name},
          {"sds_config",
           {{"path_config_source", {{"path", f.dir + "/" + name + ".yaml"}, {"watched_directory", {{"path", f.dir}}}}},
            {"resource_api_version", "V3"}}}};
}

}  // namespace

std::string RenderEnvoyBootstrap(const Foreign& f) {
  const size_t colon = f.xds_server.rfind(':');
  const std::string host = f.xds_server.substr(0, colon);
  const int port = colon == std::string::npos ? 15012 : atoi(f.xds_server.c_str() + colon + 1);
  const Json ads = {{"ads", Json::object()}, {"resource_api_version", "V3"}};
  Json b;
  b["node"] = {{"id", f.workload_id},
               {"cluster", f.service},
               {"metadata", {{"NAMESPACE", f.ns}, {"VERSION", f.version}, {"WEFT_SDS_DIR", f.dir}}}};
  if (f.admin_port > 0) {
    b["admin"]["address"]["socket_address"] = {{"address", "127.0.0.1"}, {"port_value", f.admin_port}};
  } else {
    b["admin"]["address"]["pipe"] = {{"path", f.dir + "/admin.sock"}, {"mode", 0600}};
  }
  Json grpc = {{"envoy_grpc", {{"cluster_name", "weft-xds"}}}};
  b["dynamic_resources"]["ads_config"] = {
      {"api_type", "DELTA_GRPC"}, {"transport_api_version", "V3"}, {"grpc_services", Json::array({grpc})}};
  b["dynamic_resources"]["cds_config"] = ads;
  b["dynamic_resources"]["lds_config"] = ads;

  Json san = {{"san_type", "URI"}, {"matcher", {{"exact", "spiffe://" + f.trust_domain + "/ns/weft-system/sa/xds"}}}};
  Json combined = {{"default_validation_context", {{"match_typed_subject_alt_names", Json::array({san})}}},
                   {"validation_context_sds_secret_config", SdsConfig(f, "ROOTCA")}};
  Json tls = {{"@type", std::string(kType) + "UpstreamTlsContext"},
              {"sni", f.server_name},
              {"common_tls_context",
               {{"tls_params", {{"tls_minimum_protocol_version", "TLSv1_3"}, {"tls_maximum_protocol_version", "TLSv1_3"}}},
                {"tls_certificate_sds_secret_configs", Json::array({SdsConfig(f, "default")})},
                {"combined_validation_context", combined}}}};
  Json http2 = {{"@type", "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"},
                {"explicit_http_config",
                 {{"http2_protocol_options", {{"connection_keepalive", {{"interval", "30s"}, {"timeout", "5s"}}}}}}}};
  Json endpoint = {{"endpoint", {{"address", {{"socket_address", {{"address", host}, {"port_value", port}}}}}}}};
  Json locality = {{"lb_endpoints", Json::array({endpoint})}};
  Json cluster = {{"name", "weft-xds"},
                  {"type", "STRICT_DNS"},
                  {"connect_timeout", "5s"},
                  {"typed_extension_protocol_options", {{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", http2}}},
                  {"load_assignment", {{"cluster_name", "weft-xds"}, {"endpoints", Json::array({locality})}}},
                  {"transport_socket", {{"name", "envoy.transport_sockets.tls"}, {"typed_config", tls}}}};
  b["static_resources"]["clusters"] = Json::array({cluster});
  return b.dump(2) + "\n";
}

void WriteIdentity(const std::string& dir, const std::string& key_pem, const Identity& i) {
  Json own = {{"@type", std::string(kType) + "Secret"},
              {"name", "default"},
              {"tls_certificate",
               {{"certificate_chain", {{"inline_string", i.chain_pem}}}, {"private_key", {{"inline_string", key_pem}}}}}};
  Json roots = {{"@type", std::string(kType) + "Secret"},
                {"name", "ROOTCA"},
                {"validation_context", {{"trusted_ca", {{"inline_string", i.bundle_pem}}}}}};
  Replace(dir + "/ROOTCA.yaml", Json({{"resources", Json::array({roots})}}).dump(2) + "\n", 0644);
  Replace(dir + "/key.pem", key_pem, 0600);
  Replace(dir + "/chain.pem", i.chain_pem, 0600);
  // Key and certificate travel in one file: no moment in which they do not fit each other.
  Replace(dir + "/default.yaml", Json({{"resources", Json::array({own})}}).dump(2) + "\n", 0600);
}

void KeepRenewed(const Foreign& f, Identity identity, std::string key_pem) {
  unsigned backoff_s = 1;
  while (true) {
    const int64_t left = identity.not_after_unix_s - static_cast<int64_t>(time(nullptr));
    sleep(static_cast<unsigned>(std::max<int64_t>(left / 2, backoff_s)));
    try {
      const KeyPair fresh = MakeKeyPair();
      Identity next = Renew({f.xds_server, f.server_name, identity.bundle_pem}, key_pem, identity.chain_pem, fresh.csr_der);
      WriteIdentity(f.dir, fresh.key_pem, next);
      identity = std::move(next);
      key_pem = fresh.key_pem;
      backoff_s = 1;
      fprintf(stderr, "weft: renewed %s\n", identity.spiffe_id.c_str());
    } catch (const cli::Failure& e) {
      fprintf(stderr, "weft: %s\n", e.what());
      // Half of what is left shrinks by itself; the backoff is the floor near the end.
      backoff_s = std::min(backoff_s * 2, 60u);
    }
  }
}

}  // namespace weft::join
