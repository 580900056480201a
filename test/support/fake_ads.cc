// A discovery server for tests, driven by lines on standard input; every request it gets is a JSON line on standard
// output. grpc++, so that our client meets a foreign implementation.
//
//   fake_ads [--port N] [--tls CERT KEY CA]  -> {"port": 4711}
//   set TYPE NAME {json of the resource}     resource added or changed (not sent yet)
//   del TYPE NAME
//   push VERSION                             sends what changed to every stream (SotW: full sets of its types)
//   drop                                     ends every stream with UNAVAILABLE
// TYPE: CDS EDS LDS RDS SDS. Delta: a subscribed name that does not exist is answered with removed_resources.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/config/listener/v3/listener.pb.h"
#include "envoy/config/route/v3/route.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb.h"
#include "envoy/service/discovery/v3/ads.grpc.pb.h"

namespace {

namespace disco = envoy::service::discovery::v3;
namespace pb = google::protobuf;

const std::map<std::string, std::string> kTypes = {
    {"CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"},
    {"EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"},
    {"LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"},
    {"RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"},
    {"SDS", "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"},
};
const char* const kOrder[] = {"CDS", "EDS", "LDS", "RDS", "SDS"};

struct Entry {
  std::string version;
  pb::Any body;
};
std::mutex g_mutex;
std::map<std::string, std::map<std::string, Entry>> g_resources;  // by type URL, name
std::string g_version = "0";
int g_nonce = 0;

void Say(const std::string& kind, const pb::Message& m) {
  std::string json;
  (void)pb::util::MessageToJsonString(m, &json);
  static std::mutex out;
  std::lock_guard lock(out);
  std::cout << "{\"" << kind << "\":" << json << "}" << std::endl;
}

struct Stream {
  virtual ~Stream() = default;
  virtual void Push() = 0;
  grpc::ServerContext* context = nullptr;
};
std::set<Stream*> g_streams;

// g_mutex is held.
struct DeltaStream final : Stream {
  struct Sub {
    bool all = false;
    std::set<std::string> names;
    std::map<std::string, std::string> sent;  // name -> version; "" told that it does not exist
  };
  std::map<std::string, Sub> subs;
  grpc::ServerReaderWriter<disco::DeltaDiscoveryResponse, disco::DeltaDiscoveryRequest>* rw = nullptr;

  void Send(const std::string& type, bool always) {
    Sub& s = subs[type];
    disco::DeltaDiscoveryResponse r;
    auto& have = g_resources[type];
    for (auto& [name, e] : have) {
      if (!s.all && !s.names.count(name)) continue;
      if (s.sent[name] == e.version) continue;
      s.sent[name] = e.version;
      auto* x = r.add_resources();
      x->set_name(name), x->set_version(e.version);
      *x->mutable_resource() = e.body;
    }
    std::set<std::string> gone;
    for (auto& [name, version] : s.sent) if (!have.count(name) && version != "-") gone.insert(name);
    for (auto& name : s.names) if (!have.count(name) && s.sent[name] != "-") gone.insert(name);
    for (auto& name : gone) r.add_removed_resources(name), s.sent[name] = "-";
    if (!always && r.resources_size() == 0 && r.removed_resources_size() == 0) return;
    r.set_type_url(type), r.set_system_version_info(g_version), r.set_nonce(std::to_string(++g_nonce));
    rw->Write(r);
  }
  void Push() override {
    for (const char* t : kOrder) if (subs.count(kTypes.at(t))) Send(kTypes.at(t), false);
  }
};

struct SotwStream final : Stream {
  std::map<std::string, std::set<std::string>> names;
  std::map<std::string, std::string> sent_version;
  grpc::ServerReaderWriter<disco::DiscoveryResponse, disco::DiscoveryRequest>* rw = nullptr;

  void Send(const std::string& type) {
    disco::DiscoveryResponse r;
    for (auto& [name, e] : g_resources[type]) {
      if (names[type].empty() || names[type].count(name)) *r.add_resources() = e.body;
    }
    r.set_type_url(type), r.set_version_info(g_version), r.set_nonce(std::to_string(++g_nonce));
    sent_version[type] = g_version;
    rw->Write(r);
  }
  void Push() override {
    for (const char* t : kOrder) if (names.count(kTypes.at(t))) Send(kTypes.at(t));
  }
};

class Service final : public disco::AggregatedDiscoveryService::Service {
  grpc::Status DeltaAggregatedResources(grpc::ServerContext* context,
                                        grpc::ServerReaderWriter<disco::DeltaDiscoveryResponse, disco::DeltaDiscoveryRequest>* rw) override {
    DeltaStream s;
    s.rw = rw, s.context = context;
    { std::lock_guard lock(g_mutex); g_streams.insert(&s); }
    disco::DeltaDiscoveryRequest q;
    while (rw->Read(&q)) {
      Say("delta", q);
      std::lock_guard lock(g_mutex);
      bool first = !s.subs.count(q.type_url());
      auto& sub = s.subs[q.type_url()];
      for (auto& [name, version] : q.initial_resource_versions()) sub.sent[name] = version;
      if (first && q.resource_names_subscribe().empty()) sub.all = true;
      for (auto& n : q.resource_names_subscribe()) sub.names.insert(n);
      for (auto& n : q.resource_names_unsubscribe()) sub.names.erase(n), sub.sent.erase(n);
      if (q.response_nonce().empty()) s.Send(q.type_url(), first && sub.all);
    }
    std::lock_guard lock(g_mutex);
    g_streams.erase(&s);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "dropped by the test");
  }
  grpc::Status StreamAggregatedResources(grpc::ServerContext* context,
                                         grpc::ServerReaderWriter<disco::DiscoveryResponse, disco::DiscoveryRequest>* rw) override {
    SotwStream s;
    s.rw = rw, s.context = context;
    { std::lock_guard lock(g_mutex); g_streams.insert(&s); }
    disco::DiscoveryRequest q;
    while (rw->Read(&q)) {
      Say("sotw", q);
      std::lock_guard lock(g_mutex);
      std::set<std::string> names(q.resource_names().begin(), q.resource_names().end());
      bool first = !s.names.count(q.type_url());
      bool changed = first || s.names[q.type_url()] != names;
      s.names[q.type_url()] = names;
      if (changed) s.Send(q.type_url());
    }
    std::lock_guard lock(g_mutex);
    g_streams.erase(&s);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "dropped by the test");
  }
};

std::string Read(const char* path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

bool Pack(const std::string& type, const std::string& json, pb::Any* any) {
  std::unique_ptr<pb::Message> m;
  if (type == "CDS") m = std::make_unique<envoy::config::cluster::v3::Cluster>();
  if (type == "EDS") m = std::make_unique<envoy::config::endpoint::v3::ClusterLoadAssignment>();
  if (type == "LDS") m = std::make_unique<envoy::config::listener::v3::Listener>();
  if (type == "RDS") m = std::make_unique<envoy::config::route::v3::RouteConfiguration>();
  if (type == "SDS") m = std::make_unique<envoy::extensions::transport_sockets::tls::v3::Secret>();
  auto status = pb::util::JsonStringToMessage(json, m.get());
  if (!status.ok()) return std::cerr << "bad json: " << status.ToString() << std::endl, false;
  any->PackFrom(*m);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  std::string port_wanted = "0";
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--port" && i + 1 < argc) port_wanted = argv[++i];
    if (std::string(argv[i]) == "--tls" && i + 3 < argc) {
      grpc::SslServerCredentialsOptions o(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
      o.pem_root_certs = Read(argv[i + 3]);
      o.pem_key_cert_pairs.push_back({Read(argv[i + 2]), Read(argv[i + 1])});
      credentials = grpc::SslServerCredentials(o);
      i += 3;
    }
  }
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + port_wanted, credentials, &port);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  if (!server || port == 0) return 1;
  std::cout << "{\"port\":" << port << "}" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string verb, type, name, rest;
    words >> verb;
    std::lock_guard lock(g_mutex);
    if (verb == "set") {
      words >> type >> name;
      std::getline(words, rest);
      Entry e;
      if (!Pack(type, rest, &e.body)) return 1;
      static int counter = 0;
      e.version = std::to_string(++counter);
      g_resources[kTypes.at(type)][name] = e;
    } else if (verb == "del") {
      words >> type >> name;
      g_resources[kTypes.at(type)].erase(name);
    } else if (verb == "push") {
      words >> g_version;
      for (Stream* s : g_streams) s->Push();
    } else if (verb == "drop") {
      for (Stream* s : g_streams) s->context->TryCancel();
    }
  }
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}
