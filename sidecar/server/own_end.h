// Our own end in Istio's metrics, from the bootstrap: the node's metadata as Istio writes it (WORKLOAD_NAME, NAMESPACE, LABELS,
// CLUSTER_ID, ISTIO_VERSION), else the membership in our own mesh, where a service is what Istio calls a workload.
//
//   options.istio = OwnEnd(bootstrap);
//
// Main thread, at start.
#pragma once

#include "sidecar/proxy/istio_stats.h"
#include "sidecar/xds/bootstrap.h"

namespace weft::server {

proxy::IstioOwn OwnEnd(const xds::Bootstrap& bootstrap);

}  // namespace weft::server
