// Adds the sidecar to Kubernetes manifests: a pure function of text, so that a webhook can do the same one day.
//
// Touched: the pod of Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and Pod; other documents pass through
// unchanged. A pod gets an init container for the redirect rules (NET_ADMIN, ends before anything else runs), a native
// sidecar (an init container with restartPolicy Always: up before the application, down after it), and a volume with its
// join token that only these two mount. Injecting twice changes nothing. What is not touched keeps its comments, order and
// quotes (patch.h).
//
// Probes: a kubelet has no certificate, so under strict mTLS it cannot ask the application's ports. HTTP, TCP and gRPC
// probes therefore ask port 15020, which the rules leave alone, where `weft run` asks the application from inside the pod
// (run/health.h): /app-health/<container>/livez, readyz or startupz. HTTPS probes and those with a host stay, with a note.
//
// Annotations of the pod template:
//   weft/inject: "false"                   leave this pod alone
//   weft/service, weft/version             default: the label "app" (or the object's name), the label "version" (or v1)
//   weft/ports: "8000:http@80,9000:tcp"    default: the containers' ports; the protocol from a port's name (http-web,
//                                          grpc, tcp-...), the service port the same number
//   weft/ready: "http:/healthz"            default: the first container's readiness probe, or tcp
//   weft/rewrite-probes: "false"           leave the probes alone
//   weft/prometheus-port: "15090"          the sidecar's metrics are served there: /stats/prometheus, in plaintext
//   weft/exclude-outbound-ports, weft/exclude-inbound-ports, weft/exclude-outbound-cidrs
#pragma once

#include <string>
#include <vector>

namespace weft::inject {

struct Options {
  std::string image = "weft/sidecar:0.1.0";
  std::string xds_server = "xds.weft-system.svc:15012";
  std::string trust_domain = "weft.local";
  std::string token_secret;   // empty: weft-join-<service>
};

struct Outcome {
  std::string text;                 // the manifests
  std::vector<std::string> notes;   // what was done or left alone, one line an object
  std::string error;                // not empty: nothing was done
};

Outcome Inject(const std::string& manifests, const Options& options);

}  // namespace weft::inject
