// HTTP codecs without I/O: bytes in -> per-stream Inbound state, commands -> bytes out. One interface for HTTP/1.1
// and HTTP/2, client and server, so that the proxy has one relay for every pair.
//
// A codec never calls into the proxy except StreamHost::OnNewStream. While Feed() runs it writes what arrived into
// the Inbound of each stream and lists the stream in ready(); the connection then schedules those exchanges.
//
// Heads look the same from both protocols (HTTP/2 form): :method :authority :path (:scheme in HTTP/2; for HTTP/1 the
// proxy adds it) or :status first, no host, no hop-by-hop fields, content-length as plain digits when it was given.
// Serialising reads nothing but the parsed fields: framing, connection fields and host are always written anew; a field
// whose name or value could not stand in a message is dropped and counted.
//
// Tunnels, one convention for both protocols:
//   - A WebSocket request is :method CONNECT, :protocol websocket, :path, :authority (RFC 8441), without kEnd; its
//     sec-websocket-version, -protocol and -extensions pass through, -key and -accept never appear. Accepting it is a
//     2xx head with end = false; any other status refuses it. From then on body is the raw byte stream both ways, and
//     end closes one direction. No content-length, no trailers.
//   - The HTTP/1 server makes that form from "GET + Upgrade: websocket", answers 101 with the right Sec-WebSocket-Accept
//     and holds the client's bytes until then. The HTTP/1 client writes the GET with its own key, verifies the 101 and
//     delivers it as :status 200 with kHead | kUpgraded; a wrong accept or another 2xx is a reset (kProtocol).
//     HTTP/2 sends it as it is, after the peer's SETTINGS said that it may (until then the stream waits; if it may not:
//     reset kHttp11Required), and sets kUpgraded with a 2xx head too.
//   - Plain CONNECT has :method CONNECT and :authority only; a 2xx answer makes a tunnel in the same way.
//   - Other Upgrade tokens (h2c ...) are stripped: the request goes on as plain HTTP/1.1.
//
// A connection's turn:
//   codec->Feed(in);                                   // also after Consumed()/Release() when `in` still holds bytes
//   for (Inbound* i : codec->ready()) schedule(i->owner);  codec->ready().clear();
//   ... exchanges act: SendHead, SendBody, Consumed, Release ...
//   if (out.size() < mark) codec->Emit(out);           // not while the socket is blocked: this is the back-pressure
//   for (Inbound* i : codec->writable()) schedule(i->owner);  codec->writable().clear();
//   if (codec->closed() && out.empty()) close; else if (codec->write_closed() && out.empty()) shutdown(fd, SHUT_WR);
//
// Limits and abuse counters live here (Limits, Counters): a peer that exceeds them gets a stream or connection error.
// Threads: one. Units: bytes. RFC 9110, 9112, 9113, 8441, 6455 (upgrade only).
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "sidecar/base/clock.h"
#include "sidecar/http/headers.h"
#include "sidecar/io/buffer.h"

namespace weft::codec {

using StreamId = int32_t;  // HTTP/2: the stream id. HTTP/1: 1, 2, 3 ... per connection.

// RFC 9113 error codes; HTTP/1 maps its failures onto them.
enum class ResetCode : uint8_t {
  kNoError = 0, kProtocol = 1, kInternal = 2, kFlowControl = 3, kStreamClosed = 5, kFrameSize = 6, kRefused = 7,
  kCancel = 8, kCompression = 9, kConnect = 10, kEnhanceYourCalm = 11, kHttp11Required = 13,
  kConnectionLost = 200,   // the connection ended under the stream
  kTruncated = 201,        // HTTP/1 message cut before its end
};

// What has arrived of one direction of one stream. Owned by the proxy (inside its exchange or attempt), written by
// the codec. The proxy consumes head/body/trailers; bits stay set until the owner clears or frees it.
struct Inbound {
  enum : uint16_t {
    kHead = 1,        // head is complete (final response head; interim ones set kInterim)
    kTrailers = 2,    // trailers are complete
    kEnd = 4,         // nothing more will come (set together with the last of head/body/trailers)
    kReset = 8,       // the stream died: see reset
    kInterim = 16,    // a 1xx head is in `interim` (100, 103); the proxy clears the bit when it has passed it on
    kUpgraded = 32,   // client side: the tunnel stands, body is now raw bytes (WebSocket, CONNECT)
    kMalformed = 64,  // server side: the request is invalid (kHead may be missing, nothing more will come): answer
                      // error_status when no response has begun, else Reset(); HTTP/1 closes by itself afterwards
    kGoaway = 128,    // client side: the peer will not process this stream (id above GOAWAY's last id): safe to retry
  };
  uint16_t bits = 0;
  ResetCode reset = ResetCode::kNoError;
  uint16_t error_status = 0;
  const char* error_detail = "";  // static text, Envoy's response code details style, e.g. "http1.invalid_content_length"
  http::HeaderMap head;           // with pseudo-headers :method :scheme :authority :path :protocol / :status
  http::HeaderMap trailers;
  http::HeaderMap interim;
  io::Buffer body;                // decoded body bytes not consumed yet
  uint64_t body_bytes = 0;        // total seen
  uint64_t head_bytes = 0;        // size of the head on the wire (HTTP/2: uncompressed name+value+32 each)
  void* owner = nullptr;          // for the connection that schedules the owner: never touched by the codec
};

// The proxy's answer to "a peer opened a stream": where to put it. Null refuses the stream (REFUSED / 503).
// It is called with the first byte of a request (so that a deadline for the head can start): bits are 0 until kHead,
// kMalformed or kReset comes, perhaps in a later Feed().
class StreamHost {
 public:
  virtual Inbound* OnNewStream(StreamId id) = 0;

 protected:
  ~StreamHost() = default;
};

struct Limits {  // defaults of reliability section 2; an explicit Envoy field overrides
  uint32_t max_header_bytes = 60 * 1024, max_header_count = 100, max_target_bytes = 16 * 1024;
  uint32_t max_concurrent_streams = 1024;            // HTTP/2 server: advertised
  uint32_t stream_window = 256 * 1024, connection_window = 1024 * 1024;
  // HTTP/2: body bytes a connection may hold for its streams together. Below it a stream that is not consumed holds up
  // only itself (its own window); above it the connection's window closes too.
  uint32_t max_buffered_per_connection = 64 * 1024 * 1024;
  uint32_t max_buffered_per_stream = 64 * 1024;      // HTTP/1: Feed stops consuming body above this
  bool accept_http_10 = false;
  bool allow_connect_protocol = false;               // RFC 8441, server: advertise
  bool enable_trailers = true;
  // HTTP/1: how names of fields are written. kProper: "X-Color". kKeep: as the message came, whose names are noted when it is read
  // (Envoy's preserve_case), other names in lower case; kKeepProper: other names as kProper.
  enum HeaderCase : uint8_t { kLower, kProper, kKeep, kKeepProper } header_case = kLower;
  bool answer_expect = true;                         // server: "expect: 100-continue" is answered here and goes no further
};

struct Counters {
  uint64_t rx_reset = 0, tx_reset = 0, protocol_errors = 0, flood_errors = 0, glitches = 0, streams = 0, dropped_fields = 0;
};

class Codec {
 public:
  virtual ~Codec() = default;

  // Reads from in; leaves there what it cannot take yet (HTTP/1: pipelined requests, body above the buffer limit).
  // false: the connection is broken; after Emit() has been flushed it must be closed (error() says why).
  virtual bool Feed(io::Buffer& in) = 0;
  // The peer closed its sending side. Ends close-delimited messages, resets truncated ones. False: close now.
  virtual bool FeedEof() = 0;
  // Appends what there is to send (headers, frames, body allowed by the windows); stops near 256 KiB at once, with
  // wants_emit() still true.
  virtual void Emit(io::Buffer& out) = 0;
  // True when Emit would produce bytes.
  virtual bool wants_emit() const = 0;

  // --- sending, by stream. end: no body and no trailers follow.
  // Server: the response head. An interim (1xx) head has end = false and leaves the message open.
  // Client: the request head of a stream got from Open().
  virtual void SendHead(StreamId id, const http::HeaderMap& head, bool end) = 0;
  // Takes body bytes into the codec's own send buffer; take no more than SendRoom(). Bytes are moved, not copied.
  virtual void SendBody(StreamId id, io::Buffer& body, size_t n, bool end) = 0;
  virtual void SendTrailers(StreamId id, const http::HeaderMap& trailers) = 0;
  // Kills one stream (HTTP/1: the connection with it). The Inbound is released: the codec will not touch it again.
  virtual void Reset(StreamId id, ResetCode code) = 0;
  // How many body bytes this stream may hand over now: bounds what is buffered for a slow peer. 0: wait; the stream
  // is listed in writable() when room appears.
  virtual size_t SendRoom(StreamId id) const = 0;
  // n body bytes of the stream have left on the other side: returns flow-control credit (HTTP/2 WINDOW_UPDATE).
  // HTTP/1: call Feed() again, it may have stopped at max_buffered_per_stream.
  virtual void Consumed(StreamId id, size_t n) = 0;
  // The owner is done with the stream in both directions; the codec forgets its Inbound (also in ready() and
  // writable()). What was handed over before is still sent; a direction that was not ended is reset. HTTP/1: call
  // Feed() again, the next pipelined request may be waiting.
  virtual void Release(StreamId id) = 0;

  // --- client
  // A new stream whose response will be written to inbound; -1 when none can be opened now.
  virtual StreamId Open(Inbound* inbound) = 0;
  // Streams that could be opened right now (HTTP/1: 0 or 1; HTTP/2: by the peer's limit and GOAWAY).
  virtual size_t OpenRoom() const = 0;

  // --- connection
  // Graceful: HTTP/2 GOAWAY (two-phase: call twice), HTTP/1 "connection: close" on the next response.
  virtual void StartDrain() = 0;
  // HTTP/2 keep-alive probe; pings_outstanding() tells whether it was answered.
  virtual void Ping() = 0;
  virtual int pings_outstanding() const = 0;
  virtual size_t active_streams() const = 0;
  virtual bool peer_going_away() const = 0;   // GOAWAY received, or HTTP/1 without keep-alive
  virtual bool closed() const = 0;            // nothing further can be sent or received
  virtual bool write_closed() const { return false; }  // HTTP/1 tunnel: our direction ended, half-close when flushed
  // HTTP/1 client: how many seconds the peer keeps an idle connection, as its last "keep-alive: timeout" said (RFC 2068 19.7.1);
  // -1: it did not say.
  virtual int keep_alive_s() const { return -1; }
  virtual bool is_http2() const = 0;
  virtual const char* error() const = 0;      // "" when none

  // Streams touched by the last Feed()/FeedEof(), and streams that got send room; the connection clears them.
  std::vector<Inbound*>& ready() { return ready_; }
  std::vector<Inbound*>& writable() { return writable_; }
  const Counters& counters() const { return counters_; }

 protected:
  std::vector<Inbound*> ready_, writable_;
  Counters counters_;
};

// A server's codec between two messages remembers nothing: it may serve another connection, so that idle ones need none.
// False: something is under way, or was said that binds the next message.
bool Http1ServerRests(const Codec& codec);
void LendHttp1Server(Codec& codec, const Limits& limits, StreamHost* host);  // it rests; made by NewHttp1Server

// host outlives the codec. clock (null: the system's coarse monotonic one) drives the rate limits of HTTP/2.
std::unique_ptr<Codec> NewHttp1Server(const Limits& limits, StreamHost* host);
std::unique_ptr<Codec> NewHttp1Client(const Limits& limits);
std::unique_ptr<Codec> NewHttp2Server(const Limits& limits, StreamHost* host, base::Clock* clock = nullptr);
std::unique_ptr<Codec> NewHttp2Client(const Limits& limits, base::Clock* clock = nullptr);

}  // namespace weft::codec
