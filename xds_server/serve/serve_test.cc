// The control plane end to end over real mTLS on the loopback, with grpc++ as the sidecar.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

#include "api/weft/mesh/v1/mesh.grpc.pb.h"
#include "envoy/config/cluster/v3/cluster.pb.h"
#include "envoy/config/endpoint/v3/endpoint.pb.h"
#include "envoy/service/discovery/v3/ads.grpc.pb.h"
#include "xds_server/model/policy.h"
#include "xds_server/serve/services.h"

namespace weft::server {
namespace {

namespace mesh = weft::mesh::v1;
namespace xds = envoy::service::discovery::v3;
using DeltaStream = grpc::ClientReaderWriter<xds::DeltaDiscoveryRequest, xds::DeltaDiscoveryResponse>;
using SotwStream = grpc::ClientReaderWriter<xds::DiscoveryRequest, xds::DiscoveryResponse>;

std::string TempDir() {
  std::string dir = std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") + "/serveXXXXXX";
  return mkdtemp(dir.data());
}

// One xDS server on free ports.
struct Server {
  explicit Server(const std::string& dir, uint64_t restart_grace_ns = 30 * base::kSecond) {
    store = std::move(*Store::Open(dir + "/weft.db"));
    authority = std::move(*Authority::Open({dir + "/ca", "weft.local"}, time(nullptr)));
    Control::Options o;
    o.store = store.get(), o.trust_domain = "weft.local", o.clock = base::Clock::Real();
    o.stream_end_grace_ns = 50 * base::kMs, o.restart_grace_ns = restart_grace_ns;
    control = std::make_unique<Control>(o);
    control->Start();
    grpc = std::make_unique<GrpcServer>(GrpcServer::Options{"127.0.0.1:0", "127.0.0.1:0", dir}, *control, *authority, *store, base::Clock::Real());
    auto started = grpc->Start();
    if (!started) ADD_FAILURE() << started.error().ToString();
  }
  ~Server() {
    control->Stop();
    grpc->Stop();
  }
  std::string Token(const std::string& service, int uses = 1) {
    std::string id = RandomHex(4), secret = RandomHex(16);
    EXPECT_TRUE(store->PutToken({id, Sha256Hex(secret), {"default", service}, time(nullptr) + 60, uses}));
    return id + "." + secret;
  }
  void Apply(const std::string& yaml) {
    ParseOutcome p = ParsePolicies(yaml, "test");
    ASSERT_TRUE(p.issues.empty()) << p.issues[0].ToString();
    std::vector<Store::Write> writes;
    for (const auto& o : p.objects) writes.push_back({o.kind, o.name, ToStoredJson(*o.object)});
    ASSERT_TRUE(store->Commit("apply", "", writes, 0, false));
    control->PoliciesChanged();
  }
  std::shared_ptr<grpc::Channel> Channel(const std::string& key = "", const std::string& cert = "") {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = authority->bundle_pem();
    ssl.pem_private_key = key, ssl.pem_cert_chain = cert;
    grpc::ChannelArguments args;
    args.SetSslTargetNameOverride("xds.weft");
    args.SetInt("grpc.use_local_subchannel_pool", 1);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(grpc->port()), grpc::SslCredentials(ssl), args);
  }
  std::unique_ptr<Store> store;
  std::unique_ptr<Authority> authority;
  std::unique_ptr<Control> control;
  std::unique_ptr<GrpcServer> grpc;
};

struct Sidecar {
  Sidecar(Server& s, const std::string& service, int n, const std::string& version = "v1") : id(service + "-" + std::to_string(n)) {
    auto [k, csr] = MakeKeyAndRequest();
    key = k;
    auto stub = mesh::Mesh::NewStub(s.Channel());
    mesh::JoinRequest q;
    mesh::JoinResponse a;
    q.set_token(s.Token(service)), q.set_csr_der(csr), q.set_workload_id(id);
    grpc::ClientContext context;
    auto status = stub->Join(&context, q, &a);
    EXPECT_TRUE(status.ok()) << status.error_message();
    cert = a.identity().certificate_chain_pem();
    channel = s.Channel(key, cert);
    workload.set_id(id), workload.set_service(service), workload.set_namespace_("default"), workload.set_version(version);
    workload.set_address("10.9.0." + std::to_string(n));
    auto* port = workload.add_ports();
    port->set_number(8000), port->set_service_port(80), port->set_protocol(mesh::HTTP);
  }
  ~Sidecar() { StopReport(); }

  // Reports and waits for the answer.
  mesh::ReportReply Report(bool ready, bool draining = false) {
    if (!report) {
      mesh_stub = mesh::Mesh::NewStub(channel);
      report_context = std::make_unique<grpc::ClientContext>();
      report = mesh_stub->Report(report_context.get());
    }
    mesh::WorkloadReport r;
    *r.mutable_workload() = workload;
    r.set_ready(ready), r.set_draining(draining), r.set_sequence(++sequence);
    mesh::ReportReply a;
    EXPECT_TRUE(report->Write(r));
    EXPECT_TRUE(report->Read(&a));
    return a;
  }
  void StopReport() {
    if (!report) return;
    report->WritesDone();
    report->Finish();
    report.reset();
  }

  std::string id, key, cert;
  mesh::Workload workload;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<mesh::Mesh::Stub> mesh_stub;
  std::unique_ptr<grpc::ClientContext> report_context;
  std::unique_ptr<grpc::ClientReaderWriter<mesh::WorkloadReport, mesh::ReportReply>> report;
  uint64_t sequence = 0;
};

// A delta ADS client that acknowledges everything and follows clusters to their endpoints and listeners to routes.
struct Ads {
  Ads(Sidecar& s) : stub(xds::AggregatedDiscoveryService::NewStub(s.channel)), stream(stub->DeltaAggregatedResources(&context)) {
    xds::DeltaDiscoveryRequest q;
    q.mutable_node()->set_id(s.id);
    q.mutable_node()->set_cluster(s.workload.service());
    q.set_type_url(std::string(TypeUrl(kCds)));
    EXPECT_TRUE(stream->Write(q));
    q.clear_node();
    q.set_type_url(std::string(TypeUrl(kLds)));
    EXPECT_TRUE(stream->Write(q));
  }
  ~Ads() {
    context.TryCancel();
    stream->Finish();
  }
  // Reads one response, stores and acknowledges it; nack: with this reason instead.
  Type Next(const std::string& nack = "") {
    xds::DeltaDiscoveryResponse r;
    if (!stream->Read(&r)) {
      ADD_FAILURE() << "stream ended: " << stream->Finish().error_message();
      return kTypeCount;
    }
    Type t = TypeOfUrl(r.type_url());
    xds::DeltaDiscoveryRequest ack;
    ack.set_type_url(r.type_url());
    ack.set_response_nonce(r.nonce());
    if (!nack.empty()) ack.mutable_error_detail()->set_message(nack);
    EXPECT_TRUE(stream->Write(ack));
    xds::DeltaDiscoveryRequest ask;
    for (const auto& x : r.resources()) {
      bool fresh = !have[t].count(x.name());
      have[t][x.name()] = x.resource().value();
      if (t == kCds && fresh && x.name().rfind("outbound", 0) == 0) ask.add_resource_names_subscribe(x.name());
      if (t == kLds && x.name() == "outbound") {
        xds::DeltaDiscoveryRequest rds;
        rds.set_type_url(std::string(TypeUrl(kRds)));
        for (const std::string& name : routes) rds.add_resource_names_subscribe(name);
        if (!routes.empty() && !asked_routes) stream->Write(rds);
        asked_routes = true;
      }
    }
    for (const auto& x : r.removed_resources()) have[t].erase(x);
    if (ask.resource_names_subscribe_size()) {
      ask.set_type_url(std::string(TypeUrl(kEds)));
      EXPECT_TRUE(stream->Write(ask));
    }
    return t;
  }
  template <typename F>
  void Until(F done) {
    for (int i = 0; i < 50 && !done(); ++i) Next();
    EXPECT_TRUE(done());
  }
  size_t Endpoints(const std::string& cluster) {
    envoy::config::endpoint::v3::ClusterLoadAssignment a;
    a.ParseFromString(have[kEds][cluster]);
    size_t n = 0;
    for (const auto& l : a.endpoints()) n += static_cast<size_t>(l.lb_endpoints_size());
    return n;
  }
  grpc::ClientContext context;
  std::unique_ptr<xds::AggregatedDiscoveryService::Stub> stub;
  std::unique_ptr<DeltaStream> stream;
  std::map<std::string, std::string> have[kTypeCount + 1];
  std::vector<std::string> routes;
  bool asked_routes = false;
};

TEST(Serve, JoinRegisterAndReceive) {
  Server s(TempDir());
  Sidecar cart(s, "cart", 1), front(s, "frontend", 2);
  EXPECT_FALSE(cart.Report(false).endpoint_active());
  auto reply = cart.Report(true);
  EXPECT_TRUE(reply.endpoint_active());
  EXPECT_EQ(reply.acknowledged_sequence(), 2u);
  EXPECT_TRUE(front.Report(true).endpoint_active());

  Ads ads(front);
  ads.routes = {"outbound|80|cart.default", "outbound|80|frontend.default"};
  ads.Until([&] { return ads.have[kRds].size() == 2; });
  EXPECT_TRUE(ads.have[kCds].count("outbound|80|v1|cart.default"));
  EXPECT_TRUE(ads.have[kCds].count("inbound|8000"));
  EXPECT_TRUE(ads.have[kLds].count("inbound"));
  EXPECT_TRUE(ads.have[kLds].count("dns"));
  EXPECT_EQ(ads.Endpoints("outbound|80||cart.default"), 1u);

  // A policy reaches the stream; the new version's cluster comes before the route that names it.
  s.Apply("apiVersion: weft/v1\nkind: Route\nmetadata: {name: cart}\nspec: {rules: [{name: canary, to: [{version: v1, weight: 9}, {version: v2, weight: 1}]}]}\n");
  EXPECT_EQ(ads.Next(), kCds);
  EXPECT_TRUE(ads.have[kCds].count("outbound|80|v2|cart.default"));
  EXPECT_EQ(ads.Next(), kEds);
  EXPECT_EQ(ads.Next(), kRds);

  // A second instance; then one drains.
  Sidecar cart2(s, "cart", 3, "v2");
  cart2.Report(true);
  ads.Until([&] { return ads.Endpoints("outbound|80||cart.default") == 2 && ads.Endpoints("outbound|80|v2|cart.default") == 1; });
  EXPECT_FALSE(cart2.Report(true, true).endpoint_active());
  ads.Until([&] { return ads.Endpoints("outbound|80||cart.default") == 1; });
  // A stream that ends without a word: out after the grace.
  cart.StopReport();
  ads.Until([&] { return ads.Endpoints("outbound|80||cart.default") == 0; });
  // Its name, address and cluster stay: callers are told that nobody is there.
  EXPECT_TRUE(ads.have[kCds].count("outbound|80||cart.default"));
  EXPECT_FALSE(s.control->world()->FindService({"default", "cart"})->vip.empty());

  // A rejection shows in status with its reason, and goes with the next acknowledgement.
  s.Apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: frontend}\nspec: {breakers: {max_requests: 7}}\n");
  EXPECT_EQ(ads.Next("cluster outbound|80||frontend.default: no"), kCds);
  SidecarStatus front_status;
  for (int i = 0; i < 500; ++i) {
    const auto all = s.control->Status();
    for (const SidecarStatus& x : all.value()) {
      if (x.node == "frontend-2") front_status = x;
    }
    if (front_status.types[kCds].nack) break;
  }
  ASSERT_TRUE(front_status.types[kCds].nack);
  EXPECT_EQ(front_status.types[kCds].nack->reason, "cluster outbound|80||frontend.default: no");
  EXPECT_TRUE(front_status.connected);
  EXPECT_FALSE(front_status.synced);
  EXPECT_GT(front_status.certificate_not_after_unix_s, time(nullptr) + 80000);
  s.Apply("apiVersion: weft/v1\nkind: Traffic\nmetadata: {name: frontend}\nspec: {breakers: {max_requests: 8}}\n");
  EXPECT_EQ(ads.Next(), kCds);
  for (int i = 0; i < 500 && !front_status.synced; ++i) {
    const auto all = s.control->Status();
    for (const SidecarStatus& x : all.value()) {
      if (x.node == "frontend-2") front_status = x;
    }
  }
  EXPECT_TRUE(front_status.synced);
  EXPECT_EQ(front_status.revision, s.store->revision());
}

TEST(Serve, IdentityDecides) {
  Server s(TempDir());
  auto call = [&](std::shared_ptr<grpc::Channel> channel, const std::string& token, const std::string& csr) {
    auto stub = mesh::Mesh::NewStub(channel);
    mesh::JoinRequest q;
    mesh::JoinResponse a;
    q.set_token(token), q.set_csr_der(csr);
    grpc::ClientContext context;
    return stub->Join(&context, q, &a).error_code();
  };
  auto [key, csr] = MakeKeyAndRequest();
  std::string token = s.Token("cart");
  EXPECT_EQ(call(s.Channel(), token, "junk"), grpc::StatusCode::INVALID_ARGUMENT);  // does not use it up
  EXPECT_EQ(call(s.Channel(), token, csr), grpc::StatusCode::OK);
  EXPECT_EQ(call(s.Channel(), token, csr), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(call(s.Channel(), "a.b", csr), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(call(s.Channel(), "", csr), grpc::StatusCode::UNAUTHENTICATED);

  // Without a certificate only Join is there.
  auto stub = xds::AggregatedDiscoveryService::NewStub(s.Channel());
  grpc::ClientContext c1, c2, c3, c4;
  EXPECT_EQ(stub->DeltaAggregatedResources(&c1)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(mesh::Mesh::NewStub(s.Channel())->Report(&c2)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  mesh::RenewRequest rq;
  mesh::RenewResponse ra;
  rq.set_csr_der(csr);
  EXPECT_EQ(mesh::Mesh::NewStub(s.Channel())->Renew(&c3, rq, &ra).error_code(), grpc::StatusCode::UNAUTHENTICATED);

  Sidecar cart(s, "cart", 1);
  EXPECT_TRUE(mesh::Mesh::NewStub(cart.channel)->Renew(&c4, rq, &ra).ok());
  EXPECT_EQ(ra.identity().spiffe_id(), "spiffe://weft.local/ns/default/sa/cart");

  // Another service's name in the node or the workload is refused.
  auto ads = xds::AggregatedDiscoveryService::NewStub(cart.channel);
  grpc::ClientContext c5, c6;
  auto stream = ads->DeltaAggregatedResources(&c5);
  xds::DeltaDiscoveryRequest q;
  q.mutable_node()->set_id("x"), q.mutable_node()->set_cluster("payments");
  q.set_type_url(std::string(TypeUrl(kCds)));
  stream->Write(q);
  xds::DeltaDiscoveryResponse r;
  EXPECT_FALSE(stream->Read(&r));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  auto mesh_stub = mesh::Mesh::NewStub(cart.channel);
  auto report = mesh_stub->Report(&c6);
  mesh::WorkloadReport w;
  *w.mutable_workload() = cart.workload;
  w.mutable_workload()->set_service("payments");
  report->Write(w);
  mesh::ReportReply reply;
  EXPECT_FALSE(report->Read(&reply));
  EXPECT_EQ(report->Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);

  // A certificate of another authority does not get through the handshake.
  Server other(TempDir());
  Sidecar stranger(other, "cart", 1);
  auto channel = s.Channel(stranger.key, stranger.cert);
  grpc::ClientContext c7;
  c7.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(mesh::Mesh::NewStub(channel)->Renew(&c7, rq, &ra).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(Serve, ARestartedServerKnowsItsEndpoints) {
  const std::string dir = TempDir();
  std::string vip;
  {
    Server s(dir);
    Sidecar cart(s, "cart", 1);
    EXPECT_TRUE(cart.Report(true).endpoint_active());
    vip = s.control->world()->FindService({"default", "cart"})->vip;
    s.Apply("apiVersion: weft/v1\nkind: MeshTls\nmetadata: {name: cart}\nspec: {mode: PERMISSIVE}\n");
    s.control->Stop();  // as killed: no goodbye is processed
  }
  Server s(dir);
  const Service* cart = s.control->world()->FindService({"default", "cart"});
  ASSERT_TRUE(cart);
  EXPECT_EQ(cart->vip, vip);
  ASSERT_EQ(cart->workloads.size(), 1u);
  EXPECT_TRUE(cart->workloads[0]->active());
  EXPECT_TRUE(s.control->world()->FindPolicy("MeshTls", {"default", "cart"}));
}

// Two hundred streams get one change; the last of them has it well within the second that an operator is promised.
TEST(Serve, AChangeReachesTwoHundredStreams) {
  Server s(TempDir());
  std::vector<std::unique_ptr<Sidecar>> services;
  for (int i = 0; i < 5; ++i) {
    services.push_back(std::make_unique<Sidecar>(s, "svc-" + std::to_string(i), i + 1));
    services.back()->Report(true);
  }
  struct One {
    grpc::ClientContext context;
    std::unique_ptr<DeltaStream> stream;
  };
  auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(s.grpc->plaintext_port()), grpc::InsecureChannelCredentials());
  auto stub = xds::AggregatedDiscoveryService::NewStub(channel);
  std::vector<std::unique_ptr<One>> streams;
  xds::DeltaDiscoveryResponse r;
  for (int i = 0; i < 200; ++i) {
    auto one = std::make_unique<One>();
    one->stream = stub->DeltaAggregatedResources(&one->context);
    xds::DeltaDiscoveryRequest q;
    q.mutable_node()->set_id("node-" + std::to_string(i)), q.mutable_node()->set_cluster("svc-" + std::to_string(i % 5));
    q.set_type_url(std::string(TypeUrl(kRds)));
    q.add_resource_names_subscribe("outbound|80|svc-0.default");
    ASSERT_TRUE(one->stream->Write(q));
    ASSERT_TRUE(one->stream->Read(&r));
    xds::DeltaDiscoveryRequest ack;
    ack.set_type_url(r.type_url()), ack.set_response_nonce(r.nonce());
    ASSERT_TRUE(one->stream->Write(ack));
    streams.push_back(std::move(one));
  }
  const auto begin = std::chrono::steady_clock::now();
  s.Apply("apiVersion: weft/v1\nkind: Route\nmetadata: {name: svc-0}\nspec: {rules: [{timeout: 3s}]}\n");
  for (auto& one : streams) {
    ASSERT_TRUE(one->stream->Read(&r));
    EXPECT_EQ(r.resources_size(), 1);
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
  RecordProperty("milliseconds", static_cast<int>(took.count()));
  printf("a change on 200 streams: %d ms\n", static_cast<int>(took.count()));
  EXPECT_LT(took.count(), 1000);
  for (auto& one : streams) {
    one->context.TryCancel();
    one->stream->Finish();
  }
}

TEST(Serve, PlaintextStateOfTheWorld) {
  Server s(TempDir());
  Sidecar cart(s, "cart", 1);
  cart.Report(true);
  auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(s.grpc->plaintext_port()), grpc::InsecureChannelCredentials());
  auto stub = xds::AggregatedDiscoveryService::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->StreamAggregatedResources(&context);
  xds::DiscoveryRequest q;
  q.mutable_node()->set_id("dev"), q.mutable_node()->set_cluster("dev");
  q.set_type_url(std::string(TypeUrl(kCds)));
  stream->Write(q);
  xds::DiscoveryResponse r;
  ASSERT_TRUE(stream->Read(&r));
  std::set<std::string> names;
  for (const auto& any : r.resources()) {
    envoy::config::cluster::v3::Cluster c;
    any.UnpackTo(&c);
    names.insert(c.name());
  }
  EXPECT_EQ(names, (std::set<std::string>{"outbound|80||cart.default", "outbound|80|v1|cart.default", "passthrough"}));
  context.TryCancel();
  stream->Finish();
}

}  // namespace
}  // namespace weft::server
