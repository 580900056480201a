// TLS over buffers, no sockets: bytes from the wire in, plain bytes out, and back. BoringSSL underneath.
//
// Usage (one per connection):
//   Engine e(context, Engine::kServer);
//   e.Feed(wire_in, plain_in);      // consumes wire_in, appends decrypted bytes
//   e.Seal(plain_out, wire_out);    // consumes plain_out once the handshake is done, appends records
//   e.Pump(wire_out);               // moves handshake bytes and alerts that are waiting
//
// Contexts are immutable and shared between threads (std::shared_ptr); a new certificate is a new context, and
// connections keep the one they began with. RFC 8446; peer identity after the SPIFFE X.509-SVID standard.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/clock.h"
#include "sidecar/base/result.h"
#include "sidecar/io/buffer.h"

namespace weft::tls {

// What a peer name must match (Envoy's StringMatcher subset for SANs).
struct SanMatch {
  enum Kind { kExact, kPrefix, kSuffix, kRegex, kContains } kind = kExact;
  enum San { kUri, kDns, kAny } san = kUri;
  std::string value;
};

// What may be negotiated. Empty lists: ours (context.cc). Names are BoringSSL's, as in Envoy's TlsParameters.
struct Parameters {
  uint16_t min_version = 0x0303, max_version = 0x0304;  // TLS 1.2 .. 1.3
  std::vector<std::string> cipher_suites;               // of TLS 1.2: "ECDHE-RSA-AES128-GCM-SHA256", "[A|B]" are equals
  std::vector<std::string> groups;                      // "X25519", "P-256", "X25519MLKEM768"
  std::vector<std::string> signature_algorithms;        // "ecdsa_secp256r1_sha256"; for what we sign and what we accept
  bool fips_202205 = false;                             // BoringSSL's policy of this name, on top of the rest
  bool client_order = false;                            // server: the client's preferences go before ours
};
// Refuses names the library does not know; the error says which. Links no library (:parameters).
base::Status Check(const Parameters& parameters);

struct ContextConfig {
  std::string certificate_chain_pem, private_key_pem;  // both empty: a client without certificate
  std::string trusted_ca_pem;                          // empty: the peer is not verified (plain server TLS)
  std::vector<SanMatch> peer_sans;                     // any must match; empty: any identity under the roots
  bool require_peer_certificate = false;               // server side
  std::vector<std::string> alpn;                       // in order of preference
  std::string sni;                                     // client side
  Parameters parameters;
  // Resumption. Server: whether tickets are given, and for how long they are good. Client: how many sessions are kept.
  bool tickets = true;
  uint32_t session_lifetime_s = 3600;
  uint32_t max_sessions = 1024;
  bool spiffe = false;                                 // apply the X.509-SVID rules to the peer (verify.h lists them)
  std::string trust_domain;                            // with spiffe: the only trust domain the roots speak for; empty: any
  std::string crl_pem;                                 // revocation lists for every issuer of the chain; empty: none
  // First contact, instead of trusted_ca: the last certificate of the peer's chain is the root, when the SHA-256 of its
  // public key (SPKI, DER; lower-case hex) is this. The peer has to send its root.
  std::string pinned_root_spki_sha256;
  base::Clock* clock = nullptr;                        // validity times; null: the real one. Not owned.
};

// Immutable; safe to share between threads. Errors name the field ("private_key: ..."). A server needs a certificate.
class Context {
 public:
  static base::Result<std::shared_ptr<const Context>> Client(const ContextConfig& config);
  static base::Result<std::shared_ptr<const Context>> Server(const ContextConfig& config);
  virtual ~Context() = default;
  virtual int64_t not_after_unix_s() const = 0;  // when our own certificate ends; 0: there is none
};

// Who the peer proved to be.
struct PeerInfo {
  std::string spiffe_id;                 // exact URI SAN, empty when none
  std::vector<std::string> uri_sans, dns_sans;
  std::string subject, issuer, serial_hex, sha256_hex;
  int64_t not_after_unix_s = 0;
  const std::string& identity() const { return spiffe_id.empty() && !uri_sans.empty() ? uri_sans[0] : spiffe_id; }
};

// What our own certificate says.
struct LocalNames {
  std::vector<std::string> uri_sans;
  std::string subject;                   // RFC 2253
};

enum class Failure : uint8_t {  // why a handshake or a connection failed; names appear in stats and in "why"
  kNone, kProtocol, kPeerClosed, kUnknownCa, kExpired, kNotYetValid, kNoCertificate, kSanMismatch, kBadSvid, kAlert, kRevoked,
};
std::string_view FailureName(Failure f);

class Engine {
 public:
  enum Role { kClient, kServer };
  // session_key (client): connections with equal keys (say, the endpoint's address) resume each other's sessions
  // within this context; empty: never resume. role must be the context's.
  Engine(std::shared_ptr<const Context> context, Role role, std::string session_key = {});
  ~Engine();
  Engine(const Engine&) = delete;

  enum class State { kHandshake, kOpen, kPeerClosed, kFailed };  // kPeerClosed: close_notify seen, our side may still write
  // After every Feed call Pump: even a failure may have an alert to send.
  State Feed(io::Buffer& wire_in, io::Buffer& plain_in);
  // The transport ended. A failed handshake, or an end like kPeerClosed with truncated() when close_notify was missing.
  State FeedEof();
  // Seals as much of plain_out as full records allow (max bytes of plaintext per call to bound work).
  State Seal(io::Buffer& plain_out, io::Buffer& wire_out, size_t max = 256 * 1024);
  void Pump(io::Buffer& wire_out);
  bool wants_pump() const;
  void Close(io::Buffer& wire_out);  // close_notify

  State state() const { return state_; }
  bool truncated() const { return truncated_; }
  Failure failure() const { return failure_; }
  std::string_view failure_detail() const { return detail_; }
  std::string_view alpn() const;
  std::string_view sni() const;      // server: what the client named
  std::string_view version() const;  // "TLSv1.3"; empty before the handshake is done
  std::string_view cipher() const;
  std::string_view group() const;    // "X25519MLKEM768"; of the handshake that made the keys
  bool resumed() const;
  std::string session_id() const;         // lower-case hex; empty where there is none (TLS 1.3 without resumption)
  const LocalNames& local_names() const;  // empty without a certificate; lives as long as the context
  // Set once the handshake is done and the peer showed a certificate; shared by all exchanges of the connection.
  const std::shared_ptr<const PeerInfo>& peer() const { return peer_; }
  // The certificates the peer sent, its own first, as PEM (RFC 7468); chain false: only its own. Made anew by each call.
  std::string peer_pem(bool chain) const;

  struct Impl;  // public only for the library's callbacks

 private:
  State Handshake();
  State Fail();
  std::unique_ptr<Impl> impl_;
  State state_ = State::kHandshake;
  Failure failure_ = Failure::kNone;
  bool truncated_ = false;
  std::string detail_;
  std::shared_ptr<const PeerInfo> peer_;
};

}  // namespace weft::tls
