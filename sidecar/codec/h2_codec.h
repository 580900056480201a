// HTTP/2 over nghttp2. Private to this folder: the world sees codec.h.
//
// nghttp2 keeps frames, compression, flow control and stream states; this class judges messages (h2_rules.h), maps
// streams to Inbounds, moves bodies without copying them on the way out, returns flow-control credit only for what the
// other side has consumed, and counts abuse.
//
// A Stream lives until nghttp2 has closed it and its owner has released it, whichever comes last.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <vector>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/h2_past.h"
#include "sidecar/codec/h2_rules.h"
#include "sidecar/codec/h2_tap.h"
#include "sidecar/codec/message.h"
#include "sidecar/codec/stream_table.h"

namespace weft::codec {

class Http2Codec final : public Codec {
 public:
  Http2Codec(const Limits& limits, StreamHost* host, base::Clock* clock, bool server);
  ~Http2Codec() override;

  bool Feed(io::Buffer& in) override;
  bool FeedEof() override;
  void Emit(io::Buffer& out) override;
  bool wants_emit() const override;
  void SendHead(StreamId id, const http::HeaderMap& head, bool end) override;
  void SendBody(StreamId id, io::Buffer& body, size_t n, bool end) override;
  void SendTrailers(StreamId id, const http::HeaderMap& trailers) override;
  void Reset(StreamId id, ResetCode code) override;
  size_t SendRoom(StreamId id) const override;
  void Consumed(StreamId id, size_t n) override;
  void Release(StreamId id) override;
  StreamId Open(Inbound* inbound) override;
  size_t OpenRoom() const override;
  void StartDrain() override;
  void Ping() override;
  int pings_outstanding() const override { return pings_; }
  size_t active_streams() const override { return streams_.size(); }
  bool peer_going_away() const override;
  bool closed() const override;
  bool is_http2() const override { return true; }
  const char* error() const override { return error_; }

 private:
  struct Stream;
  struct StreamState {
    StreamId id = 0;             // our handle; the wire id on the server side
    Stream* next_in_slot = nullptr;  // streams_
    int32_t wire = 0;            // nghttp2's id; 0 before the request was submitted
    Inbound* inbound = nullptr;  // null: released
    size_t unconsumed = 0;       // body bytes whose credit was not returned
    uint32_t empty_data = 0;     // DATA frames without content
    uint8_t interims = 0;
    bool head_received = false;  // the final head
    bool head_sent = false, head_on_wire = false, provider = false;
    bool end = false;            // no more body will be given to us
    bool sent_end = false, received_end = false;
    bool closed = false;         // nghttp2 has forgotten it
    bool discard = false;        // malformed: ignore what else arrives
    bool connect = false, tunnel = false, head_only = false;  // head_only: the answer to a HEAD
    int64_t expect = -1;         // content-length of what is received, -1: not given
    uint64_t body_received = 0;
    bool own_reset = false;      // the owner asked for the reset, not the protocol
  };
  struct Stream : StreamState {
    io::Buffer send;
    std::unique_ptr<http::HeaderMap> trailers;   // to send after the body
    std::unique_ptr<http::HeaderMap> held_head;  // extended CONNECT waiting for the peer's SETTINGS
    void Reuse() {
      static_cast<StreamState&>(*this) = {};
      send.Clear(), trailers.reset(), held_head.reset();
    }
  };
  // Refilled by the clock, and by honest work: what an attacker must do to earn tokens costs as much as what it gets.
  // Take() is false when the peer was too fast.
  struct Bucket {
    double tokens = 0, rate, burst;
    uint64_t last = 0;
    bool Take(uint64_t now_ns);
    void Earn(double n) { tokens = tokens + n < burst ? tokens + n : burst; }
  };
  friend struct H2Callbacks;

  // receiving (h2_recv.cc)
  void OnFrameHead(const nghttp2_frame_hd* hd);
  int OnBeginHeaders(const nghttp2_frame* frame);
  int OnHeader(std::string_view name, std::string_view value);
  void OnSuspect(const FrameTap::Frame& frame);
  void OnPastStream(uint8_t type, int32_t wire);
  void OnWindowUpdate(const FrameTap::Frame& frame);
  void ResetPast(int32_t wire);
  void CountReset(int32_t wire);
  int OnFrame(const nghttp2_frame* frame);
  void OnInvalidFrame(const nghttp2_frame* frame, int code);
  void OnData(int32_t wire, std::string_view data);
  void OnClose(int32_t wire, uint32_t code);
  void FinishHeaders(Stream* s, bool end);
  bool FinishBody(Stream* s);  // false: it was not the length that was promised
  void FinishRequest(Stream* s, bool end);
  void FinishResponse(Stream* s, bool end);
  void FinishTrailers(Stream* s, bool end);
  void OnSettings();
  void CountFrame(const nghttp2_frame* frame);

  // sending (h2_codec.cc)
  ssize_t ReadData(Stream* s, size_t length, uint32_t* flags);
  int SendData(Stream* s, const uint8_t* frame_head, size_t length);
  void OnFrameSent(const nghttp2_frame* frame);
  void Pump(io::Buffer& out, size_t limit);
  std::string AdvertisedSettings(const uint8_t* frame, size_t n) const;
  void FillHead(const http::HeaderMap& head, bool trailers);
  bool Submit(Stream* s, const http::HeaderMap& head, bool end);

  Stream* Find(StreamId id) const { return streams_.Find(id); }
  Stream* ByWire(int32_t wire);
  void SetByWire(int32_t wire, Stream* s);
  Stream* New(StreamId id, int32_t wire, Inbound* inbound);
  void Delete(Stream* s);
  void List(Stream* s);
  void ListWritable(Stream* s);
  void Detach(Stream* s);
  void GiveBack(size_t n);  // n held body bytes are gone
  void MarkReset(Stream* s, ResetCode code, const char* detail);
  void ResetWire(Stream* s, ResetCode code);
  void Malformed(Stream* s, uint16_t status, const char* detail);
  // A stream error of the peer's making: RST_STREAM, and the owner hears why.
  void Broken(Stream* s, const char* detail, ResetCode code = ResetCode::kProtocol);
  // A connection error of ours: GOAWAY with the code, then the connection ends.
  void Fail(uint32_t code, const char* why);
  void Glitch();
  void AbortAll(ResetCode code);
  uint64_t Now() const;

  const Limits limits_;
  StreamHost* const host_;
  base::Clock* const clock_;
  const bool server_;
  nghttp2_session* session_ = nullptr;
  StreamTable<Stream> streams_;
  std::vector<Stream*> spare_;  // for reuse
  int32_t last_wire_ = 0;       // ByWire's last answer
  Stream* last_ = nullptr;
  io::Buffer pending_;          // frames produced while feeding
  io::Buffer* sink_ = nullptr;  // where SendData writes, and how much it may hold
  size_t sink_limit_ = 0;
  size_t held_ = 0;             // body bytes received and not consumed, all streams
  size_t owed_ = 0;             // of those, the ones whose connection credit was not returned at once
  std::vector<nghttp2_nv> nva_;
  const char* error_ = "";

  // the header block being received (one at a time on a connection)
  http::HeaderMap* block_ = nullptr;  // null: discarded
  BlockRules rules_;
  std::string cookie_;
  bool block_trailers_ = false;
  uint32_t block_fields_ = 0;
  uint64_t block_bytes_ = 0;

  StreamId next_id_ = 1;
  size_t open_ = 0;  // streams that count against the limit of concurrent ones
  FrameTap tap_;
  PastStreams past_;  // server
  int pings_ = 0, drain_ = 0;
  int32_t goaway_last_ = INT32_MAX;
  bool goaway_received_ = false, settings_received_ = false, draining_ = false;
  bool broken_ = false;  // Feed must answer false
  bool settings_sent_ = false;
  bool eof_ = false;
  uint64_t data_sent_ = 0, window_updates_ = 0, priorities_ = 0;
  Bucket resets_{200, 100, 200}, ping_rate_{100, 100, 100}, settings_rate_{20, 20, 20};
};

}  // namespace weft::codec
