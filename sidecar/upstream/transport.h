// The byte level of one connection, either side: a non-blocking socket, a TLS engine when there is one, and buffers.
//
//   socket -> wire_in -> [TLS] -> in      the owner consumes `in`
//   out -> [TLS] -> wire_out -> socket    the owner appends to `out`
//
// Passive: the owner is the io::Handler, notes events with OnReady(), then calls Read() and Write(). Reading stops at a
// limit; the owner calls Read() again when it has consumed (edge-triggered readiness is remembered in `readable`).
// Threads: the worker's. Errors: `error` is errno (0: none), TLS failures are in tls->failure().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "sidecar/io/buffer.h"
#include "sidecar/tls/engine.h"

namespace weft::upstream {

class Transport {
 public:
  // What a byte stream is read in, and how much of it may wait for its reader: 256 KiB, in whole blocks. Fewer and larger
  // system calls on both sides, while the bytes stay in the processor's cache between them. (64 KiB costs a large body half
  // as much again.)
  static constexpr size_t kPortion = 16 * io::Block::kSize;
  // Many small messages of a shared connection: their answers should not wait for the last of a large portion.
  static constexpr size_t kSharedPortion = 4 * io::Block::kSize;

  Transport() = default;
  ~Transport() { Close(); }
  Transport(const Transport&) = delete;

  void Open(int fd) { fd_ = fd; }
  // session_key (client): connections with equal keys resume each other's TLS sessions; empty: never.
  void StartTls(std::shared_ptr<const tls::Context> context, tls::Engine::Role role, std::string session_key = {});
  // These bytes go out before all others, in the clear. Before anything was written.
  void SendFirst(std::string_view bytes);
  void OnReady(uint32_t events);

  // Receives until the socket is empty, `in` holds `limit` bytes, or the turn's budget is used.
  // True when bytes arrived, the handshake moved, or the state changed.
  bool Read(size_t limit);
  // Sends what there is, until done or the socket is full. False when the connection broke.
  bool Write();
  // Sends FIN (and close_notify) once everything appended before is out.
  void ShutdownWrite();
  void Close();
  // With SO_LINGER 0: the peer sees a reset.
  void Abort();
  // The descriptor leaves this object (peeked bytes are lost).
  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }

  bool handshaking() const { return tls_ && tls_->engine.state() == tls::Engine::State::kHandshake; }
  bool tls_failed() const { return tls_ && tls_->engine.state() == tls::Engine::State::kFailed; }
  const tls::Engine* tls() const { return tls_ ? &tls_->engine : nullptr; }
  bool more_to_read() const { return readable_ && !eof_ && !error_; }
  bool eof() const { return eof_; }            // the peer ended its direction in order
  int error() const { return error_; }
  bool broken() const { return error_ != 0 || tls_failed(); }
  size_t unsent() const { return out.size() + (tls_ ? tls_->wire_out.size() : 0); }
  bool write_shut() const { return fin_sent_; }
  bool can_send_now() const { return writable_; }

  io::Buffer in, out;     // plain bytes
  uint64_t rx = 0, tx = 0;  // bytes on the wire

 private:
  bool WriteSocket(io::Buffer& from);
  ssize_t Receive(io::Buffer& to, size_t most);

  int fd_ = -1;
  struct Tls {  // apart, for plaintext connections are many and small
    Tls(std::shared_ptr<const tls::Context> context, tls::Engine::Role role, std::string session_key)
        : engine(std::move(context), role, std::move(session_key)) {}
    tls::Engine engine;
    io::Buffer wire_in, wire_out;
    bool closed = false;  // close_notify is on its way
  };
  std::unique_ptr<Tls> tls_;
  bool readable_ = false, writable_ = true, hangup_ = false, eof_ = false, fin_ = false, fin_sent_ = false;
  bool bulk_ = false;  // the last read filled what it was given: the next one asks for more at once
  int error_ = 0;
};

}  // namespace weft::upstream
