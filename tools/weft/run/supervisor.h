// `weft run`: one application with its sidecar, from the namespace to the exit code.
//
//   rules -> sidecar -> /ready -> application -> its own check passes -> healthcheck/ok -> traffic
//   on the way out: healthcheck/fail -> callers leave -> SIGTERM application -> SIGTERM sidecar -> nothing left
//
// The application runs under a uid of its own, without capabilities and without a way to gain any; the sidecar under
// another, with the one that marks packets. A sidecar that dies is started again; until it is back, traffic fails,
// because the rules stay. Both die with this process, whatever kills it.
#pragma once

#include <string>
#include <vector>

#include "tools/weft/cli/client.h"
#include "tools/weft/run/health.h"
#include "tools/weft/run/spec.h"

namespace weft::run {

struct RunOptions {
  std::string service, ns = "default", version = "v1";
  std::vector<PortSpec> ports;
  ReadySpec ready;
  std::string token_file;                  // join token; empty: minted over REST
  cli::Connection rest;                    // for minting
  std::string xds_server = "10.77.0.1:15012";
  std::string trust_domain = "weft.local";
  std::string network;                     // bridge; empty: weft0
  std::string address;                     // empty: the next free one
  bool netns = true;
  bool intercept = true;
  std::vector<std::string> exclude_outbound_ports, exclude_inbound_ports, exclude_outbound_cidrs;
  std::string user;                        // name or uid[:gid] of the application; empty: one of its own
  int sidecar_uid = -1;                    // -1: one of its own
  std::string sidecar;                     // executable; empty: beside this one
  int concurrency = 1;
  std::string log_level = "warning";
  std::string sidecar_log;                 // file; empty: stderr
  std::string run_dir = "/run/weft";
  int drain_s = 2;
  bool restart = false;                    // start the application again when it ends
  int prometheus_port = 0;                 // where the sidecar's /stats/prometheus is served, in plaintext; 0: nowhere
  int health_port = 0;                     // where the kubelet's probes are answered (health.h); 0: nowhere
  HealthProbes health_probes;
  std::vector<std::string> command;        // empty: only the sidecar (its application runs elsewhere in this namespace)
};

// The application's exit code (128 + n for signal n). Throws cli::Failure when it could not be started.
int Run(const RunOptions& options);

}  // namespace weft::run
