#include "sidecar/server/options.h"

#include <sched.h>

#include <CLI/CLI.hpp>

#include "envoy/admin/v3/server_info.pb.h"

namespace weft::server {

const char kVersion[] = "0.1.0";

Options ParseOptions(int argc, char** argv) {
  Options o;
  CLI::App app("Weft sidecar: carries a workload's traffic; configured like Envoy (bootstrap file, xDS).", "sidecar");
  app.set_version_flag("--version", std::string("sidecar version: weft/") + kVersion + "/Clean/RELEASE/BoringSSL");
  app.add_option("-c,--config-path", o.config_path, "bootstrap file (YAML or JSON)");
  app.add_option("--config-yaml", o.config_yaml, "bootstrap as text, merged over the file");
  app.add_option("--mode", o.mode, "serve, validate (check the configuration and exit) or init_only")
      ->check(CLI::IsMember({"serve", "validate", "init_only"}));
  app.add_option("--concurrency", o.concurrency, "worker threads (default: one for each CPU)")->check(CLI::Range(0, 256));
  app.add_option("-l,--log-level", o.log_level, "trace, debug, info, warning, error, critical, off");
  app.add_option("--component-log-level", o.component_log_level, "upstream:debug,connection:trace");
  app.add_option("--service-node", o.service_node, "node.id");
  app.add_option("--service-cluster", o.service_cluster, "node.cluster");
  app.add_option("--service-zone", o.service_zone, "node.locality.zone");
  app.add_option("--admin-address-path", o.admin_address_path, "write the admin's address to this file");
  app.add_option("--prometheus-address", o.prometheus_address, "ip:port where /stats/prometheus is served to anyone, and nothing else");
  app.add_option("--drain-time-s", o.drain_time_s, "longest time for open requests after SIGTERM")->check(CLI::Range(0, 86400));
  app.add_option("--base-id", o.base_id, "accepted; there is no hot restart");
  app.add_flag("--disable-hot-restart", o.disable_hot_restart, "accepted; there is no hot restart");
  app.add_flag("--enable-core-dump", o.enable_core_dump, "allow core dumps (they hold private keys)");
  // Flags of Envoy that change nothing here: taken, and named in a warning when given.
  static const char* const kWithValue[] = {"--log-path", "--log-format", "--file-flush-interval-msec", "--file-flush-min-size-kb",
                                           "--parent-shutdown-time-s", "--drain-strategy", "--restart-epoch", "--local-address-ip-version",
                                           "--base-id-path", "--socket-path", "--socket-mode", "--disable-extensions", "--stats-tag"};
  static const char* const kPlain[] = {"--log-format-escaped", "--allow-unknown-fields", "--allow-unknown-static-fields",
                                       "--reject-unknown-dynamic-fields", "--ignore-unknown-dynamic-fields", "--use-dynamic-base-id",
                                       "--skip-hot-restart-on-no-parent", "--skip-hot-restart-parent-stats", "--cpuset-threads",
                                       "--enable-mutex-tracing", "--enable-fine-grain-logging", "--skip-deprecated-logs"};
  for (const char* name : kWithValue) app.add_option(name)->group("")->each([&o, name](const std::string&) { o.ignored.push_back(name); });
  for (const char* name : kPlain) app.add_flag(name)->group("")->each([&o, name](const std::string&) { o.ignored.push_back(name); });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    exit(app.exit(e));
  }
  if (o.concurrency == 0) {
    cpu_set_t cpus;
    o.concurrency = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? static_cast<uint32_t>(CPU_COUNT(&cpus)) : 1;
  }
  return o;
}

std::string Options::Encoded() const {
  envoy::admin::v3::CommandLineOptions p;
  p.set_base_id(base_id), p.set_concurrency(concurrency), p.set_config_path(config_path), p.set_config_yaml(config_yaml.empty() ? "" : "[given]");
  p.set_admin_address_path(admin_address_path), p.set_log_level(log_level), p.set_component_log_level(component_log_level);
  p.set_service_cluster(service_cluster), p.set_service_node(service_node), p.set_service_zone(service_zone);
  p.mutable_drain_time()->set_seconds(drain_time_s);
  p.set_mode(mode == "validate" ? envoy::admin::v3::CommandLineOptions::Validate
             : mode == "init_only" ? envoy::admin::v3::CommandLineOptions::InitOnly : envoy::admin::v3::CommandLineOptions::Serve);
  p.set_disable_hot_restart(true), p.set_enable_core_dump(enable_core_dump);
  return p.SerializeAsString();
}

}  // namespace weft::server
