// Asks the application, from inside its namespace, whether it is ready.
//
// A thread of its own, because a probe blocks (at most its timeout) and a namespace belongs to a thread. `on_change` is
// told of each verdict that differs from the last by one byte, '1' or '0', in a pipe that the caller polls.
// Ready after one success; not ready after `failures` failures in a row.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "tools/weft/run/spec.h"

namespace weft::run {

class Prober {
 public:
  // netns: descriptor or -1; `address` is tried when the loopback refuses.
  Prober(ReadySpec spec, int netns, std::string address, int interval_ms = 1000, int failures = 3);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  int events() const { return pipe_[0]; }
  // The application was started anew: what was known of it is forgotten, and it is asked at once.
  void Restart();

 private:
  void Loop();
  bool Once() const;

  const ReadySpec spec_;
  const int netns_;
  const std::string address_;
  const int interval_ms_, failures_;
  int pipe_[2] = {-1, -1};
  std::mutex mu_;
  std::condition_variable stop_cv_;
  bool stop_ = false, restart_ = false;
  std::thread thread_;
};

// True when the port accepts (and, for HTTP, answers 2xx or 3xx) within timeout_ms.
bool Probe(const ReadySpec& spec, const std::string& address, int timeout_ms);

}  // namespace weft::run
