#include "sidecar/upstream/transport.h"

#include <algorithm>
#include <cerrno>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sidecar/io/loop.h"

namespace weft::upstream {
namespace {
constexpr size_t kReadBudget = 256 * 1024;  // per call: one peer must not starve the others of a turn
constexpr int kPieces = 32;
constexpr size_t kReadBlocks = 16;
}  // namespace

void Transport::StartTls(std::shared_ptr<const tls::Context> context, tls::Engine::Role role, std::string session_key) {
  tls_ = std::make_unique<Tls>(std::move(context), role, std::move(session_key));
  tls_->wire_in.Move(in);  // what was peeked at
  readable_ = readable_ || !tls_->wire_in.empty();
}

void Transport::SendFirst(std::string_view bytes) {
  if (bytes.empty()) return;
  io::Buffer& to = tls_ ? tls_->wire_out : out;
  io::Buffer rest = std::move(to);
  to.Append(bytes);
  to.Move(rest);
}

void Transport::OnReady(uint32_t events) {
  if (events & (io::kReadable | io::kHangup)) readable_ = true;
  if (events & io::kHangup) hangup_ = true;
  if (events & io::kWritable) writable_ = true;
}

// One system call. Most messages fit what is left of a block; a stream of bytes is read into several blocks at once.
ssize_t Transport::Receive(io::Buffer& to, size_t most) {
  if (!bulk_ || most < 2 * io::Block::kSize) {
    auto room = to.Reserve(1);
    ssize_t n = recv(fd_, room.data(), room.size(), 0);
    if (n > 0) to.Commit(static_cast<size_t>(n));
    bulk_ = n == static_cast<ssize_t>(room.size());
    if (!bulk_) to.ReleaseReserve();
    return n;
  }
  io::Block* blocks[kReadBlocks];
  iovec iov[kReadBlocks];
  int count = static_cast<int>(std::min(most / io::Block::kSize, kReadBlocks));
  for (int i = 0; i < count; ++i) {
    blocks[i] = io::Block::New();
    iov[i] = {blocks[i]->data, io::Block::kSize};
  }
  ssize_t n = readv(fd_, iov, count);
  int error = errno;
  size_t left = n > 0 ? static_cast<size_t>(n) : 0;
  bulk_ = left == static_cast<size_t>(count) * io::Block::kSize;
  for (int i = 0; i < count; ++i) {
    auto length = static_cast<uint32_t>(std::min(left, io::Block::kSize));
    left -= length;
    blocks[i]->used = length;
    to.Append(io::Slice(blocks[i], 0, length));
  }
  errno = error;
  return n;
}

bool Transport::Read(size_t limit) {
  if (fd_ < 0 || eof_ || error_) return false;
  bool changed = false;
  size_t budget = kReadBudget;
  for (;;) {
    if (tls_ && !tls_->wire_in.empty() && in.size() < limit) {
      auto before = tls_->engine.state();
      size_t had = in.size(), raw = tls_->wire_in.size();
      auto state = tls_->engine.Feed(tls_->wire_in, in);
      changed |= in.size() != had || state != before || tls_->wire_in.size() != raw;
      if (state == tls::Engine::State::kFailed) return true;
      if (state == tls::Engine::State::kPeerClosed) return eof_ = true;
    }
    if (!readable_ || in.size() >= limit || budget == 0) return changed;
    io::Buffer& to = tls_ ? tls_->wire_in : in;
    ssize_t n = Receive(to, limit - in.size());
    if (n > 0) {
      rx += n, changed = true;
      budget -= std::min<size_t>(budget, n);
      // A short read has emptied the socket; a FIN that was already there came with a hangup event.
      if (!bulk_ && !hangup_) readable_ = false;
      continue;
    }
    if (n == 0) return readable_ = false, eof_ = true;
    if (errno == EINTR) continue;
    readable_ = false;
    if (errno == EAGAIN) continue;
    error_ = errno;
    return true;
  }
}

bool Transport::WriteSocket(io::Buffer& from) {
  while (!from.empty() && writable_) {
    iovec iov[kPieces];
    int pieces = from.Pieces(iov, kPieces);
    size_t offered = 0;
    for (int i = 0; i < pieces; ++i) offered += iov[i].iov_len;
    ssize_t n;
    if (pieces == 1) {  // the usual case, and the kernel's shorter way
      n = send(fd_, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
    } else {
      msghdr m{};
      m.msg_iov = iov, m.msg_iovlen = static_cast<size_t>(pieces);
      n = sendmsg(fd_, &m, MSG_NOSIGNAL);
    }
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return error_ = errno, false;
      writable_ = false;
      break;
    }
    tx += n;
    from.Consume(n);
    if (static_cast<size_t>(n) < offered) writable_ = false;
  }
  return true;
}

bool Transport::Write() {
  if (fd_ < 0 || error_) return false;
  if (!tls_) {
    if (!WriteSocket(out)) return false;
  } else {
    for (;;) {
      tls_->engine.Pump(tls_->wire_out);
      bool can_seal = tls_->engine.state() == tls::Engine::State::kOpen || tls_->engine.state() == tls::Engine::State::kPeerClosed;
      if (can_seal && !out.empty() && tls_->wire_out.size() < 256 * 1024) tls_->engine.Seal(out, tls_->wire_out);
      if (fin_ && out.empty() && can_seal && !tls_->closed) tls_->engine.Close(tls_->wire_out), tls_->closed = true;
      if (tls_->wire_out.empty()) break;
      if (!WriteSocket(tls_->wire_out)) return false;
      if (!tls_->wire_out.empty()) break;  // the socket is full
      if (!can_seal || out.empty()) {
        if (!(fin_ && !tls_->closed && can_seal)) break;
      }
    }
  }
  if (fin_ && !fin_sent_ && unsent() == 0) {
    fin_sent_ = true;
    shutdown(fd_, SHUT_WR);
  }
  return true;
}

void Transport::ShutdownWrite() { fin_ = true; }

void Transport::Close() {
  if (fd_ < 0) return;
  close(fd_);
  fd_ = -1;
}

void Transport::Abort() {
  if (fd_ < 0) return;
  linger hard{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  Close();
}

}  // namespace weft::upstream
