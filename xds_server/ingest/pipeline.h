// The way of telemetry into the store: a bounded queue and one low-priority writer thread.
//
//   Pipeline p(store, live, {});
//   if (!p.Push(item)) answer "try later";   // full: the item was not taken and is still the caller's
//
// Items carry their own decoding, so that receiving threads (shared with configuration) only move bytes. The writer
// commits every `commit_ms` or `commit_events`, feeds the live counts, and then tells each item whether it is durable.
// Sealing and retention run on the same thread. Threads: Push and stats() from any.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "xds_server/telemetry/aggregate.h"
#include "xds_server/telemetry/store.h"

namespace weft::insight {

struct PipelineOptions {
  int commit_ms = 200;
  size_t commit_events = 4'000;
  size_t max_items = 4'096;
  size_t max_bytes = 96 << 20;         // of the encoded items
  int64_t retain_hours = 72;
  int64_t max_skew_ns = 86'400'000'000'000;  // events further from our clock are dropped and counted
};

struct Item {
  size_t bytes = 0;
  std::function<void(std::vector<Event>&, std::vector<Span>&)> decode;  // on the writer thread
  std::function<void(bool durable)> done;                               // on the writer thread; may be empty
};

struct PipelineStats {
  uint64_t events = 0, without_detail = 0;  // requests counted; those of them that came in rollups
  uint64_t duplicates = 0, spans = 0, commits = 0, failed_commits = 0;
  uint64_t bad_time = 0;               // dropped: clock more than a day off
  uint64_t refused_items = 0;          // Push() said no; the sender was told
  size_t queue_items = 0, queue_bytes = 0;
  int64_t last_commit_us = 0;          // how long it took
};

class Pipeline {
 public:
  Pipeline(Store* store, Live* live, PipelineOptions options);
  ~Pipeline();  // commits what is queued
  bool Push(Item& item);  // moved from when it returns true
  // Calls `room` once, on the writer thread, when the queue has been emptied (at once when it is not full); never
  // once the end has begun, when nothing is taken any more.
  void WhenRoom(std::function<void()> room);
  PipelineStats stats() const;

 private:
  void Run();
  bool Full() const { return items_.size() >= options_.max_items || bytes_ >= options_.max_bytes; }
  void Commit(std::vector<Item>& items);
  void Maintain();

  Store* const store_;
  Live* const live_;
  const PipelineOptions options_;
  mutable std::mutex mu_;
  std::condition_variable wake_;
  std::deque<Item> items_;
  std::vector<std::function<void()>> waiting_;
  size_t bytes_ = 0;
  bool stop_ = false;
  PipelineStats stats_;
  int64_t next_maintenance_ns_ = 0;
  std::thread writer_;
};

// What sidecars said they had to drop because we (or the link) were too slow. Locked inside; bounded.
class DropBook {
 public:
  void Set(const std::string& workload, const std::string& epoch, uint64_t dropped_total);
  uint64_t Total() const;
  std::map<std::string, uint64_t> ByWorkload() const;

 private:
  mutable std::mutex mu_;
  std::map<std::pair<std::string, std::string>, uint64_t> drops_;
  uint64_t forgotten_ = 0;
};

int64_t NowNs();
// Gives the calling thread a low CPU priority; threads it starts inherit it.
void LowerPriority();

}  // namespace weft::insight
