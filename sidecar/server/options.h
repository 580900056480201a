// The command line: Envoy's flags.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace weft::server {

extern const char kVersion[];  // "0.1.0"

struct Options {
  std::string config_path, config_yaml, service_node, service_cluster, service_zone;
  std::string log_level = "info", component_log_level, admin_address_path;
  std::string mode = "serve";      // serve | validate | init_only
  uint32_t concurrency = 0;        // 0: one worker for each CPU this process may use
  uint32_t drain_time_s = 30;
  std::string prometheus_address;  // "ip:port" that serves /stats/prometheus and nothing else; "": none
  uint32_t base_id = 0;
  bool disable_hot_restart = false, enable_core_dump = false;
  std::vector<std::string> ignored;  // Envoy's flags that were given and do nothing here

  std::string Encoded() const;     // envoy.admin.v3.CommandLineOptions
};

// Exits the process for --help, --version and bad flags. Otherwise the options.
Options ParseOptions(int argc, char** argv);

}  // namespace weft::server
