// Spike: what the queued beats cost. One wake-up of an exchange by a direct call, and by Schedule() + run from the beat's
// list, at 1 and 64 exchanges a turn.
//   bazel run --config=opt //test/spikes:dispatch
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "sidecar/base/list.h"
#include "sidecar/io/loop.h"

namespace {

struct Exchange : weft::io::Task {
  Exchange() : Task([](Task* t) { static_cast<Exchange*>(t)->Advance(); }) {}
  __attribute__((noinline)) void Advance() { benchmark::DoNotOptimize(++count); }
  uint64_t count = 0;
};

void Inline(benchmark::State& state) {
  std::vector<std::unique_ptr<Exchange>> all(state.range(0));
  for (auto& e : all) e = std::make_unique<Exchange>();
  for (auto _ : state) {
    for (auto& e : all) e->Advance();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void Queued(benchmark::State& state) {
  std::vector<std::unique_ptr<Exchange>> all(state.range(0));
  for (auto& e : all) e = std::make_unique<Exchange>();
  weft::base::List<weft::io::Task> beat;
  for (auto _ : state) {
    for (auto& e : all) {
      if (!e->linked()) beat.PushBack(e.get());
    }
    while (weft::io::Task* t = beat.PopFront()) t->run(t);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK(Inline)->Arg(1)->Arg(64);
BENCHMARK(Queued)->Arg(1)->Arg(64);

}  // namespace
