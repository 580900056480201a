#include "xds_server/telemetry/reader_pool.h"

#include <algorithm>

namespace weft::insight {

using std::chrono::steady_clock;

void ReaderPool::Add(std::unique_ptr<duck::Connection> connection) { readers_.push_back(Reader{std::move(connection)}); }

void ReaderPool::Start() {
  watcher_ = std::thread([this] { Watch(); });
}

void ReaderPool::Close() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  watch_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  readers_.clear();
}

base::Status ReaderPool::Read(const std::string& sql, const std::vector<duck::Value>& values,
                              const std::function<void(const duck::Rows&)>& read) {
  Reader* reader = nullptr;
  {
    std::lock_guard lock(mu_);
    for (Reader& r : readers_) {
      if (!r.busy) {
        reader = &r;
        break;
      }
    }
    if (!reader) return base::Error("busy: " + std::to_string(readers_.size()) + " queries are running");
    reader->busy = true, reader->expired = false;
    reader->deadline = steady_clock::now() + std::chrono::milliseconds(timeout_ms_);
  }
  watch_.notify_all();
  base::Status out = base::Ok{};
  {
    auto rows = reader->connection->Run(sql, values);
    if (rows) {
      // The engine is interrupted while it computes; handing out what it found is bounded here.
      for (size_t n = 1; (*rows)->Next(); ++n) {
        read(**rows);
        if (n % 256 == 0 && steady_clock::now() > reader->deadline) {
          std::lock_guard lock(mu_);
          reader->expired = true;
          out = base::Error("too slow");
          break;
        }
      }
    } else {
      out = rows.error();
    }
  }
  std::lock_guard lock(mu_);
  reader->busy = false;
  if (!out && reader->expired) return base::Error("timed out after " + std::to_string(timeout_ms_) + " ms");
  return out;
}

void ReaderPool::Watch() {
  std::unique_lock lock(mu_);
  while (!stop_) {
    auto next = steady_clock::time_point::max();
    auto now = steady_clock::now();
    for (Reader& r : readers_) {
      if (!r.busy || r.expired) continue;
      // The lock is held, so the connection cannot pass to another query meanwhile.
      if (r.deadline <= now) {
        r.expired = true, r.connection->Interrupt();
      } else {
        next = std::min(next, r.deadline);
      }
    }
    if (next == steady_clock::time_point::max()) {
      watch_.wait(lock);
    } else {
      watch_.wait_until(lock, next);
    }
  }
}

}  // namespace weft::insight
