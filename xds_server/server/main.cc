// xds_server: flags, wiring, signals. Configuration (control thread, xDS, REST) and telemetry (insight) meet here only.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "sidecar/base/clock.h"
#include "sidecar/base/log.h"
#include "xds_server/ca/authority.h"
#include "xds_server/query/insight.h"
#include "xds_server/rest/config_api.h"
#include "xds_server/rest/http_server.h"
#include "xds_server/serve/control.h"
#include "xds_server/serve/services.h"
#include "xds_server/store/store.h"
#include "xds_server/ui/assets.h"

namespace weft::server {
namespace {

struct Flags {
  std::string data_dir, http_address = "127.0.0.1:8080", xds_address = "127.0.0.1:15012", xds_plaintext_address;
  std::string otlp_grpc_address = "127.0.0.1:4317", otlp_http_address = "127.0.0.1:4318", trust_domain = "weft.local";
  std::string log_level = "info";
  std::vector<std::string> allowed_hosts, xds_names;
  int http_fd = -1;
  int retain_hours = 72;
  int64_t leaf_lifetime_s = 24 * 3600;
};

int Fail(const std::string& message) {
  fprintf(stderr, "xds_server: %s\n", message.c_str());
  return 1;
}

// The bearer token of the API: made once, readable by its owner only.
base::Result<std::string> ApiToken(const std::string& path) {
  std::ifstream in(path);
  std::string token;
  if (in && std::getline(in, token) && token.size() >= 32) return token;
  token = RandomHex(32);
  const std::string temp = path + ".new";
  unlink(temp.c_str());
  int fd = open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const std::string line = token + "\n";
  if (fd < 0 || write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size()) || close(fd) != 0 || rename(temp.c_str(), path.c_str()) != 0) {
    return base::Error("cannot write " + path + ": " + strerror(errno));
  }
  return token;
}

// What `why` says about the policy behind an answer: its text as of that revision and what the revision changed.
insight::PolicyLookup Lookup(Store& store) {
  return [&store](const insight::PolicyRef& ref) -> std::optional<insight::PolicyText> {
    for (const StoredObject& o : store.ObjectsAt(ref.revision ? ref.revision : store.revision())) {
      if (o.kind != ref.kind || o.name.ns != ref.ns || o.name.name != ref.name) continue;
      insight::PolicyText out;
      out.text = StoredToYaml(o.content);
      out.revision = o.revision;
      if (auto r = store.GetRevision(o.revision)) {
        out.time = IsoTime(r->time_unix_ms), out.message = r->message;
        for (const Change& c : r->changes) {
          if (c.kind == o.kind && c.name == o.name && c.old_content && c.new_content) {
            out.diff = UnifiedDiff(StoredToYaml(*c.old_content), StoredToYaml(*c.new_content));
          }
        }
      }
      return out;
    }
    return std::nullopt;
  };
}

int Run(const Flags& f, int signals) {
  base::Clock* clock = base::Clock::Real();
  const int64_t now_s = static_cast<int64_t>(clock->UnixNs() / base::kSecond);
  if (mkdir(f.data_dir.c_str(), 0700) != 0 && errno != EEXIST) return Fail("cannot make " + f.data_dir + ": " + strerror(errno));
  // Two servers on one store would give out the same addresses and undo each other's work.
  const std::string lock_path = f.data_dir + "/lock";
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return Fail("cannot open " + lock_path + ": " + strerror(errno));
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) return Fail("another xds_server is using " + f.data_dir);

  auto store = Store::Open(f.data_dir + "/weft.db");
  if (!store) return Fail(store.error().ToString());
  auto authority = Authority::Open({f.data_dir + "/ca", f.trust_domain, f.leaf_lifetime_s}, now_s);
  if (!authority) return Fail(authority.error().ToString());
  auto token = ApiToken(f.data_dir + "/api-token");
  if (!token) return Fail(token.error().ToString());

  Control::Options options;
  options.store = store->get(), options.trust_domain = f.trust_domain, options.clock = clock;
  Control control(options);
  control.Start();

  insight::InsightOptions insight_options;
  insight_options.directory = f.data_dir + "/telemetry";
  insight_options.otlp_grpc_address = f.otlp_grpc_address, insight_options.otlp_http_address = f.otlp_http_address;
  insight_options.policy = Lookup(**store);
  insight_options.workload_at = [&control](const std::string& ip) -> std::string {
    const auto workloads = control.Workloads();
    for (const WorkloadStatus& w : workloads ? *workloads : std::vector<WorkloadStatus>()) {
      if (w.workload.address == ip) return w.workload.id + " of service " + w.workload.service.ToString();
    }
    return "";
  };
  insight_options.retain_hours = f.retain_hours;
  auto insight = insight::Insight::Start(insight_options);
  if (!insight) return Fail(insight.error().ToString());

  GrpcServer::Options grpc_options;
  grpc_options.xds_address = f.xds_address, grpc_options.plaintext_address = f.xds_plaintext_address, grpc_options.data_dir = f.data_dir;
  grpc_options.dns_names = {"xds.weft"};
  for (const std::string& n : f.xds_names) grpc_options.dns_names.push_back(n);
  GrpcServer xds(grpc_options, control, **authority, **store, clock);
  xds.AddService((*insight)->telemetry_service());
  if (auto r = xds.Start(); !r) return Fail(r.error().ToString());

  Router router;
  ConfigApi api;
  api.store = store->get(), api.control = &control, api.authority = authority->get(), api.clock = clock;
  api.more_metrics = [&] { return (*insight)->Metrics(); };
  api.more_openapi_paths = insight::InsightOpenApiPaths();
  RegisterConfigRoutes(router, api);
  (*insight)->RegisterRoutes(router);
  HttpServer::Options http_options;
  http_options.address = f.http_address, http_options.fd = f.http_fd, http_options.allowed_hosts = f.allowed_hosts;
  http_options.write_token = *token, http_options.page_csp = std::string(ui::kContentSecurityPolicy);
  HttpServer http(http_options, router);
  if (auto r = http.Start(); !r) return Fail(r.error().ToString());

  // Machines read this line (tests, the demo): keep its form.
  printf("xds_server ready http=127.0.0.1:%d xds=%s port=%d plaintext_port=%d otlp_grpc=%d otlp_http=%d revision=%llu\n", http.port(),
         f.xds_address.c_str(), xds.port(), xds.plaintext_port(), (*insight)->otlp_grpc_port(), (*insight)->otlp_http_port(),
         static_cast<unsigned long long>((*store)->revision()));
  fflush(stdout);

  while (true) {
    pollfd p{signals, POLLIN, 0};
    const int n = poll(&p, 1, 10'000);
    if (n > 0) break;
    if (auto r = xds.RenewCertificate(false); !r) WEFT_LOG(kIdentity, kError, "the server's own certificate: ", r.error().ToString());
  }
  WEFT_LOG(kMain, kInfo, "stopping");
  http.Stop();
  control.Stop();
  xds.Stop();
  insight->reset();
  return 0;
}

}  // namespace
}  // namespace weft::server

int main(int argc, char** argv) {
  // Before any thread is made, so that all inherit the mask and the signals arrive in one place.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM), sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const int signals = signalfd(-1, &set, SFD_CLOEXEC);

  weft::server::Flags f;
  CLI::App app{"Weft's control plane: policy, identity, xDS, telemetry and the page"};
  app.set_version_flag("--version", std::string(weft::server::kVersion));
  app.add_option("--data-dir", f.data_dir, "everything that must survive a restart (made 0700)")->required();
  app.add_option("--http-address", f.http_address, "page and REST API, loopback only")->capture_default_str();
  app.add_option("--http-fd", f.http_fd, "serve them on this inherited listening socket instead");
  app.add_option("--http-allowed-host", f.allowed_hosts, "a further Host name to answer to");
  app.add_option("--xds-address", f.xds_address, "ADS, Mesh and Telemetry over mTLS")->capture_default_str();
  app.add_option("--xds-name", f.xds_names, "a further DNS name in the server's certificate");
  app.add_option("--xds-plaintext-address", f.xds_plaintext_address, "ADS without TLS, loopback only, for development");
  app.add_option("--otlp-grpc-address", f.otlp_grpc_address, "\"\" for none")->capture_default_str();
  app.add_option("--otlp-http-address", f.otlp_http_address, "\"\" for none")->capture_default_str();
  app.add_option("--trust-domain", f.trust_domain)->capture_default_str();
  app.add_option("--retain-hours", f.retain_hours, "how long telemetry is kept")->capture_default_str()->check(CLI::Range(1, 24 * 3650));
  app.add_option("--leaf-lifetime-s", f.leaf_lifetime_s, "of workload certificates, which are renewed at half of it")->check(CLI::Range(20, 7 * 86400));
  app.add_option("-l,--log-level", f.log_level)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  auto level = weft::base::ParseLevel(f.log_level);
  if (!level) return weft::server::Fail(level.error().ToString());
  weft::base::SetAllLevels(*level);
  return weft::server::Run(f, signals);
}
