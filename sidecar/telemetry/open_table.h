// What is open: how many connections, WebSockets and streams of each pair of ends, and what they moved lately.
//
//   OpenTable open;
//   open.Report(report);                           // of an interim record
//   open.Ended(record.open_id);                    // 0: was never told
//   open.Take(now_ns, [&](std::string_view shared, const OpenSums& s) { ... });   // what is to be told now
//
// A row is told kTellNs after it changed and every kAgainNs while anything is open. Bounded: kMaxOpen connections and
// kMaxSeries rows; more are open without being told so (they are counted when they end). Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "sidecar/telemetry/event_encode.h"
#include "sidecar/telemetry/portion.h"

namespace weft::telemetry {

class OpenTable {
 public:
  void Report(const OpenReport& report);
  void Ended(uint64_t open_id);
  void Take(uint64_t now_ns, const std::function<void(std::string_view shared, const OpenSums& sums)>& fn);
  bool empty() const { return rows_.empty(); }

  static constexpr size_t kMaxOpen = 65'536, kMaxSeries = 1'024;
  static constexpr uint64_t kTellNs = 1'000'000'000, kAgainNs = 10'000'000'000;

 private:
  struct Row {
    OpenSums sums;
    bool changed = true;
    uint64_t told_ns = 0;
  };
  using Rows = std::unordered_map<std::string, Row>;
  Rows rows_;
  std::unordered_map<uint64_t, Rows::value_type*> open_;
};

}  // namespace weft::telemetry
