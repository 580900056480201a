// Test support: real sockets on loopback around a DataPlane.
//
//   TestServer app({.handler = [](ServerStream& s) { if (s.complete()) s.Respond("200", "hello"); }});
//   Mesh mesh;                       // a plane with one listener, default route to cluster "app"
//   mesh.AddCluster("app", {app.port()});
//   mesh.Start();
//   TestClient c(mesh.port());
//   Reply r = c.Get("/");            // r.status, r.body, r.head
//   Record rec = mesh.NextRecord();
#pragma once

#include <mutex>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "sidecar/cluster/cells.h"
#include "sidecar/codec/codec.h"
#include "sidecar/io/loop.h"
#include "sidecar/model/snapshot.h"
#include "sidecar/proxy/plane.h"
#include "sidecar/upstream/transport.h"

namespace weft::proxy::testing {

using http::HeaderMap;
using http::Token;
using Headers = std::vector<std::pair<std::string, std::string>>;

struct ServerConnection;

// One request at the test server; the handler is called whenever something of it arrived or room appeared.
struct ServerStream {
  codec::Inbound in;
  ServerConnection* connection = nullptr;
  codec::StreamId id = 0;
  bool responded = false, ended = false;
  int calls = 0;
  std::string path() const { return std::string(in.head.Value(Token::kPath)); }
  bool head() const { return in.bits & codec::Inbound::kHead; }
  bool complete() const { return in.bits & codec::Inbound::kEnd; }
  void Respond(const std::string& status, const std::string& body, const Headers& headers = {}, const Headers& trailers = {});
  void Head(const std::string& status, const Headers& headers = {}, bool end = false);
  void Interim(const std::string& status, const Headers& headers = {});
  void Body(const std::string& bytes, bool end);
  void EchoBody();  // what arrived goes back
  void Reset(codec::ResetCode code);
  void CloseConnection();
  void Drain();             // GOAWAY, or "connection: close"
  size_t Room();            // SendRoom
};

struct ServerOptions {
  bool h2 = false;
  std::shared_ptr<const tls::Context> tls;
  std::function<void(ServerStream&)> handler;
  // A raw TCP server instead: called with what arrived (empty: the connection opened), returns what to send.
  std::function<std::string(const std::string&)> raw;
  bool close_at_once = false;  // accept and reset
  uint32_t max_streams = 1024;
};

class TestServer {
 public:
  explicit TestServer(ServerOptions options);
  ~TestServer();
  uint16_t port() const { return port_; }
  int connections() const { return connections_; }
  int requests() const { return requests_; }
  uint64_t received() const { return received_; }  // bytes on the wire, all connections
  void CloseAllConnections();
  void Post(std::function<void()> fn);  // runs on the server's thread, where streams may be used

 private:
  friend struct ServerConnection;
  struct Acceptor;
  ServerOptions options_;
  uint16_t port_ = 0;
  int fd_ = -1;
  std::atomic<int> connections_{0}, requests_{0};
  std::atomic<uint64_t> received_{0};
  io::Loop loop_;
  std::unique_ptr<Acceptor> acceptor_;
  std::map<ServerConnection*, std::unique_ptr<ServerConnection>> open_;
  std::thread thread_;
};

struct Reply {
  bool reset = false;       // no complete answer came
  codec::ResetCode code = codec::ResetCode::kNoError;
  std::string status, body;
  HeaderMap head, trailers;
  std::vector<std::string> interim;
  std::string header(const std::string& name) const { auto v = head.Get(name); return v ? std::string(*v) : ""; }
};

// A client connection that is used from the test's thread; waits at most ten seconds for anything.
class TestClient {
 public:
  explicit TestClient(uint16_t port, bool h2 = false, std::shared_ptr<const tls::Context> tls = nullptr);
  ~TestClient();
  struct Call {
    codec::Inbound in;
    codec::StreamId id = -1;
    std::string body;     // what came so far
    bool hold = false;    // leaves the body in `in`: a reader that stopped
    std::vector<std::string> interim;
  };
  Reply Get(const std::string& path, const Headers& headers = {});
  Reply Post(const std::string& path, const std::string& body, const Headers& headers = {}, const Headers& trailers = {});
  // Piece by piece.
  Call* Open(const std::string& method, const std::string& path, const Headers& headers, bool end);
  void Send(Call* c, const std::string& bytes, bool end);
  void Trailers(Call* c, const Headers& trailers);
  void Reset(Call* c);
  bool Until(const std::function<bool()>& done);  // turns until done; false: the time is over or the connection ended
  Reply Finish(Call* c);
  void Close();
  bool closed() const { return transport_.eof() || transport_.broken(); }
  upstream::Transport& transport() { return transport_; }
  codec::Codec& codec() { return *codec_; }
  // Without a codec.
  void SendRaw(const std::string& bytes);
  std::string ReadRaw(size_t at_least);  // fewer at the end of the connection

 private:
  bool Turn();
  upstream::Transport transport_;
  std::unique_ptr<codec::Codec> codec_;
  std::vector<std::unique_ptr<Call>> calls_;
};

// A data plane with one listener, configured by plain structs; change them and Publish() again.
class Mesh {
 public:
  Mesh();
  ~Mesh();
  model::Cluster& AddCluster(const std::string& name, const std::vector<uint16_t>& ports, std::shared_ptr<const tls::Context> tls = nullptr);
  void Start(uint32_t workers = 1);
  void Publish();
  // What Publish() publishes, for tests that bring their own worker.
  std::shared_ptr<const model::ConfigSnapshot> Build();
  uint16_t port() const;
  // The next finished record; waits for it.
  Record NextRecord();
  // All that have finished since.
  std::deque<Record> TakeRecords();
  model::Forward& forward() { return route->forward; }

  model::HttpConnectionManager hcm;
  model::RouteConfig routes;             // one virtual host "*", whose first route is `route`
  std::shared_ptr<model::Route> route = std::make_shared<model::Route>();
  model::Listener listener;
  model::FilterChain chain;
  std::unique_ptr<model::TcpProxy> tcp;  // set: instead of HTTP
  std::shared_ptr<const tls::Context> server_tls;
  // Further chains, with what stands at their end filled in.
  std::vector<std::pair<model::FilterChain, std::shared_ptr<const tls::Context>>> more_chains;
  struct TestCluster {
    std::shared_ptr<model::Cluster> config;
    std::vector<uint16_t> ports;
    std::shared_ptr<const tls::Context> tls;
    std::vector<std::string> pipes;  // endpoints that are unix sockets
  };
  std::map<std::string, TestCluster> clusters;
  PlaneOptions options;
  std::unique_ptr<DataPlane> plane;
  cluster::CellRegistry cells;
  std::atomic<bool> keep_records{true};

 private:
  std::map<std::string, std::shared_ptr<const model::ClusterEntry>> entries_;
  std::mutex records_mu_;
  std::deque<Record> records_;           // guarded by it
  uint64_t sequence_ = 0;
};

}  // namespace weft::proxy::testing
