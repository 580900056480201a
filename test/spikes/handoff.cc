// Spike: what it costs to give the upstream half of a request to another worker: the head and the answer (1 KiB each) are
// written by one thread and read by the other, in batches of as many requests as one turn of the loop brings (one Post
// there, one back: the cheapest way there is). CPU of both threads for each request, against the same reading and writing
// on one thread.
//   bazel run --config=opt //test/spikes:handoff
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

#include "sidecar/io/loop.h"

namespace {

using weft::io::Loop;

struct Request {
  char head[1024], answer[1024];
};

double CpuUs(clockid_t id) {
  timespec t;
  clock_gettime(id, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

uint64_t Sum(const char (&bytes)[1024]) {
  uint64_t sum = 0, word;
  for (size_t i = 0; i < sizeof bytes; i += sizeof word) memcpy(&word, bytes + i, sizeof word), sum += word;
  return sum;
}

struct Sides {
  std::vector<Request> batch;
  uint64_t seen = 0;
  void Ask() { for (Request& r : batch) memset(r.head, static_cast<int>(seen & 0x7f), sizeof r.head); }
  void Serve() { for (Request& r : batch) memset(r.answer, static_cast<int>(Sum(r.head) & 0x7f), sizeof r.answer); }
  void Take() { for (Request& r : batch) seen += Sum(r.answer); }
};

double Alone(size_t batch, int rounds) {
  Sides s{std::vector<Request>(batch)};
  const double before = CpuUs(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < rounds; ++i) s.Ask(), s.Serve(), s.Take();
  const double took = CpuUs(CLOCK_THREAD_CPUTIME_ID) - before;
  return s.seen == 1 ? 0 : took / (static_cast<double>(batch) * rounds);
}

double HandedOver(size_t batch, int rounds) {
  Sides s{std::vector<Request>(batch)};
  Loop mine, other;
  std::thread thread([&] { other.Run(); });
  int left = rounds;
  std::function<void()> turn = [&] {
    if (left < rounds) s.Take();
    if (left-- == 0) return mine.Stop();
    s.Ask();
    other.Post([&] {
      s.Serve();
      mine.Post([&] { turn(); });
    });
  };
  const double before = CpuUs(CLOCK_PROCESS_CPUTIME_ID);
  turn();
  mine.Run();
  const double took = CpuUs(CLOCK_PROCESS_CPUTIME_ID) - before;
  other.Stop();
  thread.join();
  return took / (static_cast<double>(batch) * rounds);
}

}  // namespace

int main() {
  printf("requests a turn   one worker   handed over   the difference (us of CPU for each request)\n");
  for (size_t batch : {1, 4, 16, 64}) {
    const int rounds = static_cast<int>(400'000 / (batch + 7));
    const double alone = Alone(batch, rounds), over = HandedOver(batch, rounds);
    printf("%15zu %12.2f %13.2f %16.2f\n", batch, alone, over, over - alone);
  }
}
