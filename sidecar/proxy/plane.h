// The data plane as the main thread sees it: listening sockets and N workers.
//
//   DataPlane plane({.workers = 2, .mark = 0x539});
//   plane.Start();
//   if (auto s = plane.Publish(snapshot); !s) ...        // binds what is new; an address in use is the error
//   plane.StartDrain(30 * base::kSecond);                // SIGTERM; then wait until active_connections() is 0
//   plane.Stop();
//
// Threads: all calls are the main thread's. Snapshots are published in order; each worker swaps between turns, and
// exchanges under way keep the snapshot they began with.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/clock.h"
#include "sidecar/base/result.h"
#include "sidecar/proxy/istio_stats.h"
#include "sidecar/proxy/record.h"

namespace weft::model {
struct ConfigSnapshot;
}

namespace weft::io {
class Loop;
}

namespace weft::filters::local_ratelimit {
class BucketRegistry;
}

namespace weft::proxy {

class ServerFirst;
class Worker;

struct PlaneOptions {
  uint32_t workers = 1;
  uint32_t mark = 0;                  // SO_MARK of sockets to upstreams; 0: none (needs CAP_NET_ADMIN otherwise)
  uint64_t max_connections = 0;       // downstream, all workers; 0: 45 % of RLIMIT_NOFILE
  // What reads a worker's finished records; empty: nobody does. Called on the worker's thread when it starts.
  std::function<std::unique_ptr<RecordSink>(io::Loop* loop, uint32_t worker)> sink;
  // False: the sink reads only the records that an access log asks for.
  bool all_records = true;
  std::string service_cluster;        // user-agent of requests without one, when add_user_agent is on
  std::string hostname;               // %HOSTNAME% in header values
  std::string sidecar_identity;       // for the record's local_identity when the listener has no certificate
  IstioOwn istio;                     // our end in Istio's metrics
  base::Clock* clock = base::Clock::Real();
  std::shared_ptr<filters::local_ratelimit::BucketRegistry> buckets;  // null: the plane makes its own
  std::shared_ptr<ServerFirst> server_first;                              // the same
  bool report_open = false;           // records of what is open yet, too (open_report.h)
};

// A bound, listening descriptor; closed with its last owner.
struct ListenSocket {
  int fd = -1;
  std::string address;  // as bound: "127.0.0.1:15006" with the real port
  ListenSocket(int f, std::string a) : fd(f), address(std::move(a)) {}
  ListenSocket(const ListenSocket&) = delete;
  ~ListenSocket();
};
using ListenSockets = std::map<std::string, std::shared_ptr<const ListenSocket>>;  // by listener name (and address)

class DataPlane {
 public:
  explicit DataPlane(PlaneOptions options);
  ~DataPlane();

  void Start();
  // Binds the listeners that are new or moved, then publishes. On error nothing changes (a listener that cannot bind
  // names itself in the error), so that the update can be refused (NACK).
  base::Status Publish(std::shared_ptr<const model::ConfigSnapshot> snapshot);

  // Graceful: no new connections are accepted, HTTP/2 gets GOAWAY, HTTP/1 "connection: close", idle ones close;
  // what is left after deadline_ns is closed hard. Idempotent.
  void StartDrain(uint64_t deadline_ns);
  uint64_t active_connections() const;
  uint64_t active_requests() const;
  // Stops and joins the workers; open connections are closed.
  void Stop();

  // The address a listener is bound to ("" unknown): port 0 listeners, /listeners, tests.
  std::string BoundAddress(const std::string& listener) const;
  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }

 private:
  PlaneOptions options_;
  std::vector<std::unique_ptr<Worker>> workers_;
  struct Bound {
    std::string wanted;    // as configured; the socket knows the real port
    std::string listener;
    std::shared_ptr<const ListenSocket> socket;
  };
  using Sockets = std::map<std::string, Bound>;  // by listener name, "\n<n>" appended for further addresses
  Sockets sockets_;
  bool started_ = false;
};

}  // namespace weft::proxy
