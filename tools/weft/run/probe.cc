#include "tools/weft/run/probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tools/weft/cli/error.h"
#include "tools/weft/run/network.h"

namespace weft::run {

bool Probe(const ReadySpec& spec, const std::string& address, int timeout_ms) {
  if (spec.kind == ReadySpec::Kind::kNone) return true;
  sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_port = htons(spec.port);
  if (inet_pton(AF_INET, address.c_str(), &a.sin_addr) != 1) return false;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  bool ok = false;
  pollfd p = {fd, POLLOUT, 0};
  int error = 0;
  socklen_t n = sizeof error;
  if ((connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0 || errno == EINPROGRESS) &&
      poll(&p, 1, timeout_ms) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0) {
    ok = spec.kind == ReadySpec::Kind::kTcp;
    if (!ok) {
      const std::string request = "GET " + spec.path + " HTTP/1.1\r\nHost: " + address +
                                  "\r\nUser-Agent: weft-probe\r\nConnection: close\r\n\r\n";
      std::string head;
      if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
        p.events = POLLIN;
        char buf[64];
        while (head.size() < 12 && poll(&p, 1, timeout_ms) == 1) {
          const ssize_t got = recv(fd, buf, sizeof buf, 0);
          if (got <= 0) break;
          head.append(buf, got);
        }
      }
      ok = head.size() >= 12 && head.compare(0, 7, "HTTP/1.") == 0 && (head[9] == '2' || head[9] == '3');
    }
  }
  close(fd);
  return ok;
}

Prober::Prober(ReadySpec spec, int netns, std::string address, int interval_ms, int failures)
    : spec_(std::move(spec)), netns_(netns), address_(std::move(address)), interval_ms_(interval_ms), failures_(failures) {
  if (pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) != 0) throw cli::Failure(std::string("pipe: ") + strerror(errno));
  // Signals are the main thread's business.
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  thread_ = std::thread([this] { Loop(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

Prober::~Prober() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  stop_cv_.notify_all();
  thread_.join();
  close(pipe_[0]);
  close(pipe_[1]);
}

void Prober::Restart() {
  {
    std::lock_guard lock(mu_);
    restart_ = true;
  }
  stop_cv_.notify_all();
}

bool Prober::Once() const { return Probe(spec_, "127.0.0.1", 1000) || (!address_.empty() && Probe(spec_, address_, 1000)); }

void Prober::Loop() {
  if (netns_ >= 0) EnterNamespace(netns_);
  bool ready = false;
  int failed = 0, wait_ms = 25;
  while (true) {
    const bool ok = Once();
    std::unique_lock lock(mu_);
    if (std::exchange(restart_, false)) {
      // Its answer may have come from the one before.
      ready = false, failed = 0, wait_ms = 25;
      continue;
    }
    failed = ok ? 0 : failed + 1;
    const bool now = ok || (ready && failed < failures_);
    if (now != ready) {
      ready = now;
      const char verdict = ready ? '1' : '0';
      if (write(pipe_[1], &verdict, 1) < 0) return;
    }
    // Often until it is ready for the first time, then at leisure.
    wait_ms = ready ? interval_ms_ : std::min(wait_ms * 3 / 2, interval_ms_);
    stop_cv_.wait_for(lock, std::chrono::milliseconds(wait_ms), [this] { return stop_ || restart_; });
    if (stop_) return;
    if (std::exchange(restart_, false)) ready = false, failed = 0, wait_ms = 25;
  }
}

}  // namespace weft::run
