// A fixed number of read connections, each query with a deadline. Internal to the store.
//
//   ReaderPool pool(10'000);
//   pool.Add(connection); ...
//   Status s = pool.Read("SELECT ...", {value}, [&](const duck::Rows& row) { ... });
//
// Threads: Read from any; "busy: ..." when all connections are taken, "timed out ..." when the deadline passed (the engine
// is interrupted by a thread of this pool).
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "xds_server/telemetry/duck.h"

namespace weft::insight {

class ReaderPool {
 public:
  explicit ReaderPool(int timeout_ms) : timeout_ms_(timeout_ms) {}
  ~ReaderPool() { Close(); }
  void Add(std::unique_ptr<duck::Connection> connection);  // before the first Read
  void Start();
  void Close();
  base::Status Read(const std::string& sql, const std::vector<duck::Value>& values, const std::function<void(const duck::Rows&)>& read);

 private:
  struct Reader {
    std::unique_ptr<duck::Connection> connection;
    bool busy = false, expired = false;
    std::chrono::steady_clock::time_point deadline;
  };
  void Watch();

  const int timeout_ms_;
  std::mutex mu_;
  std::condition_variable watch_;
  bool stop_ = false;
  std::vector<Reader> readers_;
  std::thread watcher_;
};

}  // namespace weft::insight
