// One downstream connection, from accept to close:
//
//   kProxyHeader -> kSniff -> kHandshake -> kPickCodec -> kHttp (exchanges) | kTcp (a relay) -> kClosing -> kClosed
//
// A PROXY header is waited for where the listener has that filter: it says who the peer is and where it wanted to go.
// Sniffing waits only when the filter chain can depend on what the client says first; where the chain that would take
// silence ends in tcp_proxy, the wait is short, so that server-first protocols do not stall.
// Events read, decrypt and feed the codec, then schedule exchanges; Flush is the only writer; deletion is by reap, when
// the last exchange has gone. An idle HTTP/1.1 connection is this object alone: what only some connections need, or only
// for a while, is behind pointers. Threads: the worker's.
#pragma once

#include <memory>
#include <string>

#include "sidecar/base/list.h"
#include "sidecar/codec/codec.h"
#include "sidecar/filters/listener/http_inspector.h"
#include "sidecar/filters/listener/tls_inspector.h"
#include "sidecar/filters/rbac/rbac.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/proxy/core.h"
#include "sidecar/upstream/transport.h"

namespace weft::proxy {

class Exchange;
class Relay;

class Connection final : public base::ListNode, public io::Handler, public codec::StreamHost {
 public:
  Connection(WorkerCore* core, int fd, std::shared_ptr<const model::ListenerEntry> listener, const model::Address& peer);
  ~Connection();
  void Start();

  // For exchanges and relays.
  WorkerCore* core() { return core_; }
  codec::Codec& codec() { return *codec_; }
  upstream::Transport& transport() { return transport_; }
  void MarkDirty() { core_->loop()->Schedule(io::Beat::kFlush, &flush_); }
  void Consumed(codec::StreamId id, size_t n);
  void ExchangeDone(Exchange* e, codec::StreamId id);
  bool gone() const { return state_ == State::kClosed; }
  bool http2() const { return codec_ && codec_->is_http2(); }
  const model::ListenerEntry& listener() const { return *listener_; }
  const model::FilterChain& chain() const { return *chain_; }
  const model::HttpConnectionManager& hcm() const { return *chain_->http(); }
  uint64_t HeadTimeout() const;  // 0: none
  bool chain_ready() const { return chain_ && chain_->http(); }
  HttpStats& http_stats() { return *http_stats_; }
  // Who the connection is from: as the PROXY header says, else the socket's peer, which is direct_peer().
  model::Address peer() const { return rare_ && rare_->peer.kind ? rare_->peer : peer_.ToAddress(); }
  model::Address direct_peer() const { return rare_ && rare_->introduction ? rare_->introduction->direct_peer : peer(); }
  model::Address destination() const { return restored_ ? destination_.ToAddress() : local(); }
  // Where an ORIGINAL_DST cluster goes. False: the connection was meant for the listener itself, and sending it on
  // would come back to us for ever.
  bool OriginalTarget(const model::Cluster& cluster, model::Address* to) const;
  const tls::Engine* tls() const { return transport_.tls(); }
  const tls::PeerInfo* peer_info() const { return tls() ? tls()->peer().get() : nullptr; }
  const std::string& own_identity() const { return core_->options().sidecar_identity; }
  // Of a relay whose chain was found by sniffing: its server spoke before the client; the client's first bytes are in the transport.
  void NoteServerSpoke() const;
  void NoteFirstBytes();
  std::string_view server_name() const { return rare_ && !rare_->sni.empty() ? rare_->sni : tls() ? tls()->sni() : ""; }
  uint64_t id() const { return id_; }
  // What a connection to that cluster begins with on behalf of this one: a PROXY header, or nothing.
  std::string FirstBytes(const model::Cluster& cluster) const;
  // The part of a record that is the same for everything on this connection: where it runs, and the texts about it.
  void Place(Record& record) const;
  void Describe(Record& record) const;  // its access_logs are set already

  // HTTP/2: GOAWAY in two steps a second apart; HTTP/1: "connection: close" with the next answer, and with the second
  // step idle connections close when the whole plane drains (before, a request could be on its way to them).
  void StartDrain();
  // The listener changed: an open TCP connection that its rules now refuse is cut, as a new one would be refused.
  void Reconsider(const model::ListenerEntry& now);
  // Graceful: what is queued is sent, then FIN, then the peer has a moment to read it.
  void CloseAfterFlush();
  void ReportOpen();  // see open_report.h
  void CloseNow();
  void AbortNow();  // the peer sees a reset

 private:
  friend class Relay;
  enum class State : uint8_t { kProxyHeader, kSniff, kHandshake, kPickCodec, kHttp, kTcp, kClosing, kClosed };

  void OnReady(uint32_t events) override;
  codec::Inbound* OnNewStream(codec::StreamId id) override;
  void Input();
  void Flush();
  void OnTimer();
  void OnSecondGoaway();
  void OnAge();

  // Made when first asked for; gone again once an HTTP connection without TLS has been told apart.
  struct Rare {
    explicit Rare(Connection* c) : second_goaway(c), age_timer(c) {}
    std::unique_ptr<filters::TlsInspector> tls_inspector;
    std::unique_ptr<filters::HttpInspector> http_inspector;
    std::string sni;                // sniffed
    std::vector<std::string> alpn;  // sniffed
    bool hello = false;             // a TLS ClientHello was sniffed
    bool sniffed = false;           // the chain depends on what the client says first
    model::Address peer, local;     // of a Unix socket
    struct Introduction {           // by a PROXY header
      model::Address direct_peer;   // the balancer
      std::string tlvs;
    };
    std::unique_ptr<Introduction> introduction;
    upstream::MemberTimer<Connection, &Connection::OnSecondGoaway> second_goaway;
    upstream::MemberTimer<Connection, &Connection::OnAge> age_timer;
  };
  Rare& rare() {
    if (!rare_) rare_ = std::make_unique<Rare>(this);
    return *rare_;
  }
  void DropRare();
  bool hello() const { return rare_ && rare_->hello; }
  model::Address local() const { return rare_ && rare_->local.kind ? rare_->local : local_.ToAddress(); }

  void ProxyHeader(bool timed_out);
  void HandOver();
  void Enter(std::shared_ptr<const model::ListenerEntry> listener);
  void Leave();
  void BeginSniff();
  // A client that has said nothing may be waiting for the server: where silence leads to plain TCP, that is waited for no longer.
  bool ServerFirst() const;
  bool WaitLonger();
  bool SniffNeeded();
  void Sniff(bool timed_out);
  void Match();
  void OnChain();
  void AfterTransport();
  bool NetworkAllowed();
  // The verdict of the first of the chain's rule sets that refuses; allowed when none does.
  filters::rbac::Verdict NetworkVerdict(const model::FilterChain& chain);
  bool PickCodec();
  void StartHttp(bool h2);
  void TakeHttp1();
  void RestCodec();
  void HttpInput(bool changed);
  void Dispatch();
  void CountBytes();
  void HandshakeFailed();
  // tls_failure: "plaintext", or the engine's failure with its words in tls_detail; "" when TLS was not the reason.
  void RecordRefusal(ResponseFlag flag, const char* detail, std::string_view policy, std::string_view tls_failure, std::string_view tls_detail);
  size_t ReadLimit() const { return http2() ? upstream::Transport::kSharedPortion : upstream::Transport::kPortion; }
  void AwaitCodec();
  void CodecOverdue();
  void BeginIdle();
  void OnIdle();
  model::ConnInfo Info() const;

  WorkerCore* core_;
  std::shared_ptr<const model::ListenerEntry> listener_;
  const model::FilterChain* chain_ = nullptr;  // owned by listener_
  State state_ = State::kProxyHeader;
  bool restored_ = false, draining_ = false, counted_http_ = false, long_wait_ = false;
  uint32_t exchange_count_ = 0, requests_ = 0;
  model::IpPort peer_, local_, destination_;  // destination_: when restored_
  uint64_t id_, started_ns_, idle_since_ns_ = 0;
  upstream::Transport transport_;  // HTTP: its byte counts are those not reported yet
  std::unique_ptr<codec::Codec> codec_;  // HTTP/1.1: null between requests
  std::unique_ptr<Relay> relay_;
  std::unique_ptr<Rare> rare_;
  base::List<Exchange> exchanges_;
  HttpStats* http_stats_ = nullptr;
  ListenerStats* listener_stats_ = nullptr;
  upstream::MemberTask<Connection, &Connection::Flush> flush_{this};
  upstream::MemberTask<Connection, &Connection::Input> input_{this};
  upstream::MemberTimer<Connection, &Connection::OnTimer> timer_{this};  // of the present state
};

}  // namespace weft::proxy
