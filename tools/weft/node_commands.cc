// run, network, intercept, inject: what happens on the machine of a workload.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "tools/weft/commands.h"
#include "tools/weft/inject/inject.h"
#include "tools/weft/intercept/intercept.h"
#include "tools/weft/intercept/rules.h"
#include "tools/weft/run/network.h"
#include "tools/weft/run/supervisor.h"

namespace weft {
namespace {

using cli::Failure;

struct RunFlags {
  run::RunOptions o;
  std::vector<std::string> ports;
  std::string ready, health_probes;
  bool no_netns = false, no_intercept = false;
};

void Run(Context& c, RunFlags& f) {
  std::string error;
  for (const auto& text : f.ports) {
    auto port = run::ParsePort(text, error);
    if (!port) throw Failure(error, cli::kUsage);
    f.o.ports.push_back(*port);
  }
  auto ready = run::ParseReady(!f.ready.empty() ? f.ready : f.o.ports.empty() ? "none" : "tcp", f.o.ports.empty() ? 0 : f.o.ports[0].number, error);
  if (!ready) throw Failure(error, cli::kUsage);
  f.o.ready = *ready;
  if (!run::IsLabel(f.o.service)) throw Failure("--service " + f.o.service + ": a DNS label is wanted (a-z, 0-9, -)", cli::kUsage);
  if (!run::IsLabel(f.o.ns)) throw Failure("--namespace " + f.o.ns + ": a DNS label is wanted (a-z, 0-9, -)", cli::kUsage);
  if (!run::IsVersion(f.o.version)) throw Failure("--version " + f.o.version + ": letters, digits, '.', '_' and '-'", cli::kUsage);
  f.o.netns = !f.no_netns;
  f.o.intercept = !f.no_intercept;
  if (f.o.command.empty() && f.o.netns) throw Failure("what to run? weft run ... -- CMD (only --no-netns goes without)", cli::kUsage);
  if (f.o.health_port != 0) {
    if (f.o.netns) throw Failure("--health-port is for a pod: it goes with --no-netns", cli::kUsage);
    f.o.health_probes = run::ParseProbes(f.health_probes, error);
    if (!error.empty()) throw Failure("--health-probes: " + error, cli::kUsage);
  }
  f.o.rest = c.connection;
  c.exit_code = run::Run(f.o);
}

void AddRun(CLI::App& app, Context& c) {
  auto f = std::make_shared<RunFlags>();
  auto* sub = app.add_subcommand("run", "run a program as a workload of the mesh: weft run --service cart --port 8000 -- CMD...");
  sub->fallthrough(false);
  auto& o = f->o;
  sub->add_option("--service", o.service, "its name in the mesh")->required();
  sub->add_option("--port", f->ports, "PORT[:http|http2|grpc|tcp][@SERVICE_PORT], repeatable; none for a program that only calls")->allow_extra_args(false);
  sub->add_option("--namespace", o.ns);
  sub->add_option("--version", o.version);
  sub->add_option("--ready", f->ready, "http:[PORT]/PATH, tcp[:PORT] or none (default: the first port accepts)");
  sub->add_option("--join-token-file", o.token_file, "join token (default: minted through --server)");
  sub->add_option("--server", c.connection.server)->envname("WEFT_SERVER");
  sub->add_option("--token-file", c.connection.token_file)->envname("WEFT_TOKEN_FILE");
  sub->add_option("--xds-server", o.xds_server, "ADDRESS:PORT of the xDS server")->envname("WEFT_XDS_SERVER");
  sub->add_option("--trust-domain", o.trust_domain);
  sub->add_option("--network", o.network, "bridge (default weft0, made when missing)");
  sub->add_option("--address", o.address, "its address (default: the next free one of 10.77.0.0/16)");
  sub->add_flag("--no-netns", f->no_netns, "in the current network namespace (a container, a machine of its own)");
  sub->add_flag("--no-intercept", f->no_intercept, "the rules are there already");
  sub->add_option("--exclude-outbound-ports", o.exclude_outbound_ports)->delimiter(',')->allow_extra_args(false);
  sub->add_option("--exclude-inbound-ports", o.exclude_inbound_ports)->delimiter(',')->allow_extra_args(false);
  sub->add_option("--exclude-outbound-cidrs", o.exclude_outbound_cidrs)->delimiter(',')->allow_extra_args(false);
  sub->add_option("--user", o.user, "NAME or UID[:GID] of the program (default: one of its own)");
  sub->add_option("--sidecar-uid", o.sidecar_uid, "default: one of its own");
  sub->add_option("--sidecar", o.sidecar, "the sidecar program (default: the one of this build)")->envname("WEFT_SIDECAR");
  sub->add_option("--concurrency", o.concurrency, "workers of the sidecar")->check(CLI::Range(1, 256));
  sub->add_option("--sidecar-log", o.sidecar_log, "file for its log (default: stderr)");
  sub->add_option("--sidecar-log-level", o.log_level);
  sub->add_option("--run-dir", o.run_dir)->envname("WEFT_RUN_DIR");
  sub->add_option("--drain-time", o.drain_s, "seconds for callers to leave before the program is told to stop")->check(CLI::Range(0, 3600));
  sub->add_option("--prometheus-port", o.prometheus_port, "serve the sidecar's metrics on its address: PORT/stats/prometheus and nothing else")->check(CLI::Range(1, 65535));
  sub->add_option("--health-port", o.health_port, "answer a kubelet's probes here (weft inject says which)")->check(CLI::Range(1, 65535));
  sub->add_option("--health-probes", f->health_probes, "JSON: path to Kubernetes probe")->envname("WEFT_APP_PROBES");
  sub->add_flag("--restart", o.restart, "start the program again when it ends");
  sub->add_option("command", o.command, "program and arguments, after --");
  sub->callback([&c, f] { Run(c, *f); });
}

void AddNetwork(CLI::App& app) {
  auto bridge = std::make_shared<std::string>(run::kBridge);
  auto* sub = app.add_subcommand("network", "the bridge that instances of weft run hang on");
  sub->require_subcommand(1);
  auto* up = sub->add_subcommand("up", "make it (weft run does so too)");
  auto* down = sub->add_subcommand("down", "remove it");
  for (auto* s : {up, down}) s->add_option("--network", *bridge);
  up->callback([bridge] { run::BridgeUp(*bridge); });
  down->callback([bridge] {
    if (!run::BridgeDown(*bridge)) fprintf(stderr, "no bridge %s\n", bridge->c_str());
  });
}

struct InterceptFlags {
  intercept::Options o;
  bool undo = false, dry_run = false, list = false;
  int64_t sidecar_uid = -1;
  std::string mark = "0x539";
};

void Intercept(InterceptFlags& f) {
  if (f.list) return void(fputs(intercept::List().c_str(), stdout));
  char* end = nullptr;
  f.o.mark = static_cast<uint32_t>(strtoul(f.mark.c_str(), &end, 0));
  if (end == f.mark.c_str() || *end != '\0') throw Failure("--mark " + f.mark + ": not a number", cli::kUsage);
  if (f.sidecar_uid >= 0) f.o.sidecar_uid = static_cast<uint32_t>(f.sidecar_uid);
  std::string error = intercept::Check(f.o);
  if (!error.empty()) throw Failure(error, cli::kUsage);
  const std::string rules = f.undo ? intercept::UndoRules() : intercept::Rules(f.o);
  if (f.dry_run) return void(fputs(rules.c_str(), stdout));
  error = intercept::Apply(rules);
  if (!error.empty()) throw Failure("cannot write the redirect rules (CAP_NET_ADMIN is needed): " + error);
}

void AddIntercept(CLI::App& app) {
  auto f = std::make_shared<InterceptFlags>();
  f->o.exclude_inbound_ports = {"22"};
  auto* sub = app.add_subcommand("intercept", "lead this network namespace's traffic through its sidecar (nftables)");
  sub->add_flag("--undo", f->undo, "remove the rules");
  sub->add_flag("--dry-run", f->dry_run, "print them instead");
  sub->add_flag("--list", f->list, "print those in force");
  sub->add_option("--outbound-port", f->o.outbound_port);
  sub->add_option("--inbound-port", f->o.inbound_port);
  sub->add_option("--dns-port", f->o.dns_port, "0: leave DNS alone");
  sub->add_option("--exclude-outbound-ports", f->o.exclude_outbound_ports, "ports or ranges")->delimiter(',')->allow_extra_args(false);
  sub->add_option("--exclude-inbound-ports", f->o.exclude_inbound_ports, "ports or ranges (default 22, so that no one is locked out)")->delimiter(',')->allow_extra_args(false);
  sub->add_option("--exclude-outbound-cidrs", f->o.exclude_outbound_cidrs)->delimiter(',')->allow_extra_args(false);
  sub->add_option("--mark", f->mark, "of the sidecar's own packets");
  sub->add_option("--sidecar-uid", f->sidecar_uid, "exempt by user as well");
  sub->callback([f] { Intercept(*f); });
}

struct InjectFlags {
  std::string file = "-", output;
  inject::Options o;
};

void Inject(const InjectFlags& f) {
  std::string text;
  if (f.file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    std::ifstream in(f.file, std::ios::binary);
    if (!in) throw Failure("the path \"" + f.file + "\" does not exist or cannot be read");
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  const inject::Outcome result = inject::Inject(text, f.o);
  for (const auto& w : result.notes) fprintf(stderr, "weft: %s\n", w.c_str());
  if (!result.error.empty()) throw Failure(f.file + ": " + result.error);
  fputs(result.text.c_str(), stdout);
}

void AddInject(CLI::App& app) {
  auto f = std::make_shared<InjectFlags>();
  auto* sub = app.add_subcommand("inject", "add the sidecar to Kubernetes manifests; prints them");
  sub->add_option("-f,--filename", f->file, "file or - for the standard input")->required();
  sub->add_option("--image", f->o.image, "image that holds weft and sidecar");
  sub->add_option("--xds-server", f->o.xds_server);
  sub->add_option("--trust-domain", f->o.trust_domain);
  sub->add_option("--token-secret", f->o.token_secret, "secret with the join token under \"token\" (default weft-join-SERVICE)");
  sub->callback([f] { Inject(*f); });
}

}  // namespace

void AddNodeCommands(CLI::App& app, Context& c) {
  AddRun(app, c);
  AddNetwork(app);
  AddIntercept(app);
  AddInject(app);
}

}  // namespace weft
