// HTTP/1.1, both roles. Private to this folder: the world sees codec.h.
//
// Http1Codec reads messages (h1_read.cc: lines, fields, bodies) and writes them (h1_write.cc); Http1Server and
// Http1Client decide what a head means and when a connection may be used again (h1_server.cc, h1_client.cc).
//
// Reading is strict and incremental: whole lines are parsed in place, only a line cut by the end of what has arrived is
// gathered in line_. There is one stream at a time; a pipelined request stays in the input until the stream is released.
#pragma once

#include <cstring>
#include <string>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/message.h"
#include "sidecar/codec/websocket.h"

namespace weft::codec {

class Http1Codec : public Codec {
 public:
  bool Feed(io::Buffer& in) final;
  bool FeedEof() final;
  void Emit(io::Buffer& out) final;
  bool wants_emit() const final { return !tx_.empty(); }
  void SendBody(StreamId id, io::Buffer& body, size_t n, bool end) final;
  void SendTrailers(StreamId id, const http::HeaderMap& trailers) final;
  void Reset(StreamId id, ResetCode code) final;
  size_t SendRoom(StreamId id) const final;
  void Consumed(StreamId, size_t) final {}
  void Ping() final {}
  int pings_outstanding() const final { return 0; }
  size_t active_streams() const final { return inbound_ ? 1 : 0; }
  bool closed() const final { return closing_ && tx_.empty(); }
  bool write_closed() const final { return tunnel_ && sent_end_ && tx_.empty() && !closing_; }
  bool is_http2() const final { return false; }
  const char* error() const final { return error_; }

 protected:
  enum class State : uint8_t {
    kIdle,       // between messages
    kIdleCr,     // the CR of an empty line before a request
    kFirstLine, kFields,
    kLength, kUntilEof, kChunkSize, kChunkData, kChunkEnd, kTrailers,
    kHold,       // tunnel asked for, not granted: bytes wait in the input
    kTunnel,
    kDone,       // message complete, stream not released
    kDead,       // input is thrown away
  };
  // How the message being sent is framed.
  enum class Framing : uint8_t { kNone, kLength, kChunked, kUntilEof, kTunnel };
  // What the fields of the head being read say about framing and connection.
  struct HeadInfo {
    bool http10 = false, has_length = false, chunked = false, connection_close = false, connection_keep_alive = false;
    bool connection_upgrade = false, upgrade_websocket = false, has_host = false, has_te = false, absolute = false;
    uint64_t length = 0;
  };
  // A look into the input that advances without touching it; Sync() makes the input follow.
  struct Cursor {
    io::Buffer& in;
    std::string_view front;
    size_t pos = 0;
    explicit Cursor(io::Buffer& b) : in(b), front(b.Front()) {}
    void Sync() {
      if (pos > 0) in.Consume(pos);
      pos = 0, front = in.Front();
    }
    bool More() {
      if (pos < front.size()) return true;
      Sync();
      return !front.empty();
    }
  };

  Http1Codec(const Limits& limits, bool server) : limits_(limits), server_(server) {}

  // --- roles
  virtual bool BeginMessage() = 0;                        // the first byte of a message; false: stop reading
  virtual bool FirstLine(std::string_view line) = 0;      // false: Bad() was called
  virtual bool HeadDone() = 0;
  virtual void MessageDone() = 0;                         // the received message is complete
  virtual void SentDone() = 0;                            // the sent message is complete
  virtual void BadMessage(uint16_t status, const char* detail) = 0;
  virtual bool IdleByte() = 0;                            // input between messages; false: refuse
  virtual void KeepAlive(std::string_view) {}  // the value of such a field
  virtual bool AtEof() = 0;                               // everything before the end was read; false: close now

  // --- reading
  int Line(Cursor& c, size_t most, std::string_view& line);
  bool Field(std::string_view line);
  bool TransferEncoding(std::string_view value);
  bool Connection(std::string_view value);
  bool Trailer(std::string_view line);
  bool ChunkSize(std::string_view line);
  bool SplitField(std::string_view line, std::string_view& name, std::string_view& value);
  void StripNamedFields();
  bool StepHead(Cursor& c);
  bool StepBody(Cursor& c);
  bool TakeBody(Cursor& c, uint64_t most, bool& blocked);
  bool Bad(uint16_t status, const char* detail);
  void EndMessage();
  void StartHead();
  size_t max_line() const { return limits_.max_header_bytes; }

  // --- writing
  void Put(std::string_view s) {
    if (room_.size() - room_used_ < s.size()) [[unlikely]] return PutSlowly(s);
    memcpy(room_.data() + room_used_, s.data(), s.size());
    room_used_ += s.size();
  }
  void PutSlowly(std::string_view s);
  void BeginPut(const http::HeaderMap& head) {  // before a head's first name
    spellings_ = head.spellings();
    styled_ = spellings_ || limits_.header_case == Limits::kProper;
  }
  void PutName(std::string_view lower) {
    if (styled_) [[unlikely]] return PutStyled(lower);
    Put(lower);
  }
  void PutStyled(std::string_view lower);
  void PutNumber(uint64_t v, int base);
  void PutField(const http::HeaderMap::Entry& e);
  void PutFields(const http::HeaderMap& head);  // all that may be sent; not framing, connection or handshake fields
  void Flush();
  void EndSending();
  void Broken(const char* why);
  void List();
  void MarkReset(ResetCode code, const char* detail);
  void Forget();

  Limits limits_;
  const bool server_;
  State state_ = State::kIdle;
  Framing framing_ = Framing::kNone;
  bool closing_ = false;    // close once tx_ is flushed
  bool eof_ = false, draining_ = false;
  bool tunnel_ = false;
  bool sent_head_ = false, sent_end_ = false, received_end_ = false;
  bool discard_ = false;    // the body is read but not delivered
  bool line_done_ = false;  // line_ holds a line that was handed out
  bool last_stored_ = false, last_framing_ = false;
  bool styled_ = false;     // names of the head being written are not simply in lower case
  const http::Spellings* spellings_ = nullptr;  // of that head
  uint8_t empty_lines_ = 0;
  uint8_t interims_ = 0;
  StreamId id_ = 0;
  Inbound* inbound_ = nullptr;
  HeadInfo info_;
  uint32_t fields_ = 0;
  uint64_t head_bytes_ = 0, left_ = 0 /* of body or chunk */, extension_bytes_ = 0, send_left_ = 0;
  uint64_t discarded_ = 0;
  size_t input_left_ = 0;   // what the last Feed could not take
  io::Buffer tx_;
  std::span<char> room_;    // reserved at the end of tx_, while a head is written
  size_t room_used_ = 0;
  std::string line_;        // a line cut by the end of the input
  std::string authority_, strip_, websocket_;  // Host; fields named by Connection; handshake key or accept
  const char* error_ = "";
};

}  // namespace weft::codec
