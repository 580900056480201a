// Test support: one worker, one caller and one server in one thread, on a clock that only the test moves.
//
//   Stage stage(mesh, {.down_h2 = true});   // mesh: what the worker is configured with, cluster "app" among it
//   stage.Open();                           // a caller's connection arrives
//   ... stage.caller().codec->SendHead(...) ...
//   stage.Settle();                         // everybody acts until nothing moves any more
//   stage.Wait(100 * base::kMs);            // time passes, in slices
//   stage.records                           // what the worker has recorded
//
// Both sides are unix sockets, whose bytes and ends arrive within the system call that sent them: a run is the same
// every time. Threads: one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sidecar/base/clock.h"
#include "sidecar/codec/codec.h"
#include "sidecar/filters/local_ratelimit/local_ratelimit.h"
#include "sidecar/proxy/core.h"
#include "sidecar/proxy/testing/harness.h"
#include "sidecar/proxy/worker.h"
#include "sidecar/upstream/transport.h"

namespace weft::proxy::testing {

// The far end of one of the worker's connections; consumes whatever comes.
class Peer : public codec::StreamHost {
 public:
  struct Message {
    codec::StreamId id = 0;
    codec::Inbound in;
    std::string body;
    bool over = false;      // released: the codec knows it no more
    bool answered = false;  // server: the last of the answer has been given to the codec
    bool head() const { return in.bits & codec::Inbound::kHead; }
    bool ended() const { return in.bits & codec::Inbound::kEnd; }
  };
  // tls: the peer's own side; null: plaintext.
  Peer(int fd, bool h2, bool server, std::shared_ptr<const tls::Context> tls);
  codec::Inbound* OnNewStream(codec::StreamId id) override;
  Message* NewRequest();          // caller: a stream to send on
  Message* newest() { return newest_; }
  bool Pump();                    // reads, parses, sends; true when something moved
  void Reset(Message* m);
  void SendRaw(const std::string& bytes);  // past the codec, which only reads from now on
  std::string TakeOutput();       // what the codec has to send, instead of sending it
  void AppendWire(const std::string& bytes);  // bytes taken before
  void HalfClose();
  void Close();
  bool open() const { return transport_.open(); }
  uint64_t sent() const { return transport_.tx; }  // bytes that the kernel took
  bool complains() const;         // what came cannot be read
  bool usable(const Message* m) const { return m && open() && !m->over && !raw_ && !codec->closed(); }

  std::unique_ptr<codec::Codec> codec;
  bool hold = false;              // sends nothing until cleared
  bool deaf = false;              // reads nothing until cleared

 private:
  upstream::Transport transport_;
  std::vector<std::unique_ptr<Message>> messages_;
  Message* newest_ = nullptr;
  bool raw_ = false, told_eof_ = false;
};

class Stage {
 public:
  Stage(Mesh* mesh, bool down_h2, bool up_h2);
  ~Stage();
  Peer& Open();                   // a further connection of a caller
  Peer& caller() { return *callers_.front(); }
  // The server's side of the newest request that has arrived; null peer: none has.
  struct Served { Peer* peer = nullptr; Peer::Message* message = nullptr; };
  Served served();
  size_t server_connections() const;
  Peer* newest_server() { return servers_.empty() ? nullptr : servers_.back().get(); }
  // A server got something from the worker that it cannot read.
  bool server_complains() const;
  void CloseServers();
  void CloseCallers();
  void ForgetCallers();
  void Settle();
  void Wait(uint64_t ns);         // in slices of a second, everybody acting after each
  void WaitLong(uint64_t ns);     // of ten
  void Publish();                 // the mesh's present configuration
  Worker& worker() { return *workers_[0]; }
  WorkerCore& core() { return *core_; }
  cluster::ClusterCells& cells() { return *cells_; }

  std::vector<Record> records;
  std::shared_ptr<const tls::Context> caller_tls, server_tls;  // of peers that come from now on

 private:
  bool AcceptAll();
  void WaitSlices(uint64_t ns, uint64_t slice);

  Mesh* mesh_;
  const bool down_h2_, up_h2_;
  base::ManualClock clock_;
  PlaneOptions options_;
  int listen_fd_ = -1;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<WorkerCore> core_;
  std::shared_ptr<cluster::ClusterCells> cells_;
  std::vector<std::unique_ptr<Peer>> callers_, servers_;
};

}  // namespace weft::proxy::testing
