// What the data path does for every request must not allocate once it is warm.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "sidecar/base/testing/alloc_counter.h"
#include "sidecar/io/buffer.h"
#include "sidecar/io/loop.h"
#include "sidecar/io/socket.h"

namespace weft::io {
namespace {

TEST(SteadyState, BuffersUseTheirPool) {
  if (!base::kAllocCounterWorks) GTEST_SKIP() << "the sanitizer owns malloc";
  Buffer in, out, kept;
  auto round = [&] {
    for (int i = 0; i < 20; ++i) {
      auto span = in.Reserve(1);
      span[0] = 'x';
      in.Commit(span.size());
    }
    out.Move(in, in.size() / 2);
    in.ShareTo(kept, in.size());
    out.Move(in);
    out.Append("tail");
    out.Linearize(100);
    iovec iov[64];
    out.Pieces(iov, 64);
    out.Clear();
    kept.Clear();
    Buffer fresh[3];  // rings are lent, too
    for (Buffer& b : fresh) b.Append("a message");
  };
  round();
  base::AllocCounter count;
  for (int i = 0; i < 100; ++i) round();
  EXPECT_EQ(count.calls(), 0u);
  EXPECT_EQ(Block::live(), 0u);
}

TEST(SteadyState, LoopTurnsTimersTasksAndSockets) {
  if (!base::kAllocCounterWorks) GTEST_SKIP() << "the sanitizer owns malloc";
  struct Echo final : Handler, Task {
    Echo() : Task([](Task* t) { static_cast<Echo*>(t)->Flush(); }), timer([](Timer*) {}) {}
    void OnReady(uint32_t events) override {
      if (!(events & kReadable)) return;
      ReadInto(fd.get(), buffer, 65536, events & kHangup);
      loop->Schedule(Beat::kFlush, this);
      loop->Arm(&timer, 10 * base::kSecond);
    }
    void Flush() { WriteFrom(fd.get(), buffer); }
    Loop* loop = nullptr;
    Fd fd;
    Buffer buffer;
    Timer timer;
  } echo;
  int p[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p), 0);
  Loop loop;
  Fd peer(p[1]);
  echo.loop = &loop, echo.fd = Fd(p[0]);
  loop.Watch(p[0], &echo);
  std::string data(20'000, 'd');
  char back[32'768];
  auto round = [&] {
    ASSERT_EQ(send(peer.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
    size_t got = 0;
    while (got < data.size()) {
      loop.RunOnce(base::kSecond);
      ssize_t n = recv(peer.get(), back, sizeof back, 0);
      if (n > 0) got += static_cast<size_t>(n);
    }
  };
  round();
  base::AllocCounter count;
  for (int i = 0; i < 100; ++i) round();
  EXPECT_EQ(count.calls(), 0u);
  EXPECT_EQ(Block::live(), 0u);  // an idle connection holds no block
  loop.Unwatch(p[0], &echo);
}

}  // namespace
}  // namespace weft::io
