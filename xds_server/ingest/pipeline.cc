#include "xds_server/ingest/pipeline.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>

namespace weft::insight {

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void LowerPriority() { setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 5); }

Pipeline::Pipeline(Store* store, Live* live, PipelineOptions options) : store_(store), live_(live), options_(options) {
  writer_ = std::thread([this] {
    LowerPriority();
    Run();
  });
}

Pipeline::~Pipeline() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  wake_.notify_all();
  writer_.join();
}

bool Pipeline::Push(Item& item) {
  {
    std::lock_guard lock(mu_);
    if (stop_ || Full()) {
      ++stats_.refused_items;
      return false;
    }
    bytes_ += item.bytes;
    items_.push_back(std::move(item));
  }
  wake_.notify_one();
  return true;
}

void Pipeline::WhenRoom(std::function<void()> room) {
  {
    std::lock_guard lock(mu_);
    if (stop_) return;
    if (Full()) {
      waiting_.push_back(std::move(room));
      return;
    }
  }
  room();
}

PipelineStats Pipeline::stats() const {
  std::lock_guard lock(mu_);
  PipelineStats s = stats_;
  s.queue_items = items_.size(), s.queue_bytes = bytes_;
  return s;
}

void Pipeline::Run() {
  std::unique_lock lock(mu_);
  for (;;) {
    wake_.wait_for(lock, std::chrono::seconds(30), [this] { return stop_ || !items_.empty(); });
    if (!items_.empty() && !stop_) {
      // Gather: one commit costs a disk sync, whatever its size.
      wake_.wait_for(lock, std::chrono::milliseconds(options_.commit_ms),
                     [this] { return stop_ || Full() || bytes_ > options_.commit_events * 400; });
    }
    bool stopping = stop_;
    std::vector<Item> items;
    size_t taken = 0;
    // At least one item, then as many as make a commit of sensible size.
    while (!items_.empty() && (items.empty() || taken < options_.commit_events * 2'000)) {
      taken += items_.front().bytes, bytes_ -= items_.front().bytes;
      items.push_back(std::move(items_.front()));
      items_.pop_front();
    }
    std::vector<std::function<void()>> room;
    if (!Full() && !stop_) room.swap(waiting_);
    bool more = !items_.empty();
    lock.unlock();
    if (!items.empty()) Commit(items);
    for (auto& r : room) r();
    if (!stopping) Maintain();
    lock.lock();
    if (stopping && !more && items_.empty()) return;
  }
}

void Pipeline::Commit(std::vector<Item>& items) {
  std::vector<Event> events;
  std::vector<Span> spans;
  for (Item& i : items) i.decode(events, spans);
  int64_t now = NowNs();
  size_t before = events.size() + spans.size();
  auto off = [&](int64_t end) { return end < now - options_.max_skew_ns || end > now + options_.max_skew_ns; };
  std::erase_if(events, [&](const Event& e) { return off(e.end_ns); });
  std::erase_if(spans, [&](const Span& s) { return off(s.end_ns) || off(s.start_ns); });
  size_t bad_time = before - events.size() - spans.size();
  // What is open is of the moment: shown, not stored.
  auto interim = std::partition(events.begin(), events.end(), [](const Event& e) { return !e.interim; });
  live_->Open({std::make_move_iterator(interim), std::make_move_iterator(events.end())}, now);
  events.erase(interim, events.end());
  auto result = store_->Append(events, spans);
  uint64_t requests = 0, without_detail = 0;
  if (result) {
    live_->Add(events, NowNs());
    for (const Event& e : events) requests += e.count, without_detail += e.without_detail ? e.count : 0;
  } else {
    fprintf(stderr, "telemetry: batch not kept: %s\n", result.error().ToString().c_str());
  }
  {
    std::lock_guard lock(mu_);
    stats_.bad_time += bad_time;
    stats_.last_commit_us = (NowNs() - now) / 1000;
    if (result) {
      ++stats_.commits;
      stats_.events += requests, stats_.without_detail += without_detail, stats_.duplicates += result->duplicates, stats_.spans += result->spans;
    } else {
      ++stats_.failed_commits;
    }
  }
  for (Item& i : items) {
    if (i.done) i.done(static_cast<bool>(result));
  }
}

void Pipeline::Maintain() {
  int64_t now = NowNs();
  if (now < next_maintenance_ns_) return;
  next_maintenance_ns_ = now + 60'000'000'000;
  if (auto s = store_->Seal(now); !s) fprintf(stderr, "telemetry: %s\n", s.error().ToString().c_str());
  if (auto s = store_->Retain(now - options_.retain_hours * 3'600'000'000'000); !s) {
    fprintf(stderr, "telemetry: %s\n", s.error().ToString().c_str());
  }
}

void DropBook::Set(const std::string& workload, const std::string& epoch, uint64_t dropped_total) {
  if (dropped_total == 0) return;
  std::lock_guard lock(mu_);
  if (drops_.size() >= 10'000 && !drops_.count({workload, epoch})) {
    forgotten_ += drops_.begin()->second;
    drops_.erase(drops_.begin());
  }
  uint64_t& v = drops_[{workload, epoch}];
  v = std::max(v, dropped_total);
}

uint64_t DropBook::Total() const {
  std::lock_guard lock(mu_);
  uint64_t n = forgotten_;
  for (const auto& [key, v] : drops_) n += v;
  return n;
}

std::map<std::string, uint64_t> DropBook::ByWorkload() const {
  std::lock_guard lock(mu_);
  std::map<std::string, uint64_t> out;
  for (const auto& [key, v] : drops_) out[key.first] += v;
  return out;
}

}  // namespace weft::insight
