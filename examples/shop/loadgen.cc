// loadgen: HTTP/1.1 load that keeps its own exact counts, to hold against what the mesh says.
//
//   loadgen --host frontend [--port 80] --mix "GET /,GET /cart?user=$u,POST /cart?user=$u&item=tea,GET /checkout?user=$u"
//           [--requests N (0: until stopped)] [--rate R per second (0: as fast as it goes)] [--connections C]
//           [--cancel-percent P] [--header "k: v"]... [--quiet]
//
// $u is replaced by one of 50 users. A cancelled request is written and its connection closed before the answer. At the
// end (or on SIGTERM/SIGINT) one line of JSON: sent, completed by status and by x-served-by, cancelled, failed
// (connection lost or unreadable answer), and latency quantiles in microseconds.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
std::atomic<bool> stopping{false};

struct Options {
  std::string host, port = "80", mix = "GET /";
  uint64_t requests = 0;
  double rate = 0, cancel_percent = 0;
  int connections = 8;
  std::vector<std::string> headers;
  bool quiet = false;
};

struct Counts {
  uint64_t sent = 0, cancelled = 0, failed = 0;
  std::map<std::string, uint64_t> status, served_by, failures;
  std::vector<uint32_t> latency_us;

  void Add(const Counts& o) {
    sent += o.sent, cancelled += o.cancelled, failed += o.failed;
    for (auto& [k, v] : o.status) status[k] += v;
    for (auto& [k, v] : o.served_by) served_by[k] += v;
    for (auto& [k, v] : o.failures) failures[k] += v;
    latency_us.insert(latency_us.end(), o.latency_us.begin(), o.latency_us.end());
  }
};

std::vector<std::string> Split(const std::string& s, char by) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= s.size();) {
    size_t end = std::min(s.find(by, at), s.size());
    out.push_back(s.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

int Dial(const Options& o) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(o.host.c_str(), o.port.c_str(), &hints, &found)) return -1;
  int fd = -1;
  for (addrinfo* a = found; a && fd < 0; a = a->ai_next) {
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    timeval limit{30, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, a->ai_addr, a->ai_addrlen)) close(fd), fd = -1;
  }
  freeaddrinfo(found);
  return fd;
}

// One response by content-length or chunked; false when the connection broke. Leaves `keep` false if it must close.
struct Reader {
  std::string buffer;
  bool Fill(int fd) {
    char chunk[16384];
    ssize_t n = recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    buffer.append(chunk, n);
    return true;
  }
  bool Line(int fd, std::string& line) {
    size_t end;
    while ((end = buffer.find("\r\n")) == std::string::npos) {
      if (!Fill(fd)) return false;
    }
    line = buffer.substr(0, end);
    buffer.erase(0, end + 2);
    return true;
  }
  bool Skip(int fd, size_t n) {
    while (buffer.size() < n) {
      if (!Fill(fd)) return false;
    }
    buffer.erase(0, n);
    return true;
  }
  bool Response(int fd, std::string& status, std::string& served_by, bool& keep) {
    std::string line;
    if (!Line(fd, line) || line.size() < 12) return false;
    status = line.substr(9, 3);
    size_t length = 0;
    bool chunked = false;
    keep = true;
    while (Line(fd, line) && !line.empty()) {
      const size_t colon = line.find(':');
      std::string name = line.substr(0, colon), value = colon == std::string::npos ? "" : line.substr(colon + 1);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      value.erase(0, value.find_first_not_of(' '));
      if (name == "content-length") length = std::stoul(value);
      if (name == "transfer-encoding") chunked = true;
      if (name == "x-served-by") served_by = value;
      if (name == "connection" && value == "close") keep = false;
    }
    if (!line.empty()) return false;
    if (!chunked) return Skip(fd, length);
    while (Line(fd, line)) {
      const size_t n = std::stoul(line, nullptr, 16);
      if (n == 0) return Line(fd, line);
      if (!Skip(fd, n + 2)) return false;
    }
    return false;
  }
};

void Work(const Options& o, int worker, std::atomic<uint64_t>& tickets, Clock::time_point start, Counts& out) {
  const auto mix = Split(o.mix, ',');
  uint64_t random = 0x9e3779b97f4a7c15u * (worker + 1);
  auto next = [&random] { return random ^= random << 13, random ^= random >> 7, random ^= random << 17, random; };
  int fd = -1;
  Reader reader;
  while (!stopping) {
    const uint64_t ticket = tickets++;
    if (o.requests && ticket >= o.requests) break;
    if (o.rate > 0) std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(ticket / o.rate)));
    if (stopping) break;
    const std::string& what = mix[next() % mix.size()];
    const size_t space = what.find(' ');
    std::string path = what.substr(space + 1);
    for (size_t at; (at = path.find("$u")) != std::string::npos;) path.replace(at, 2, "user" + std::to_string(next() % 50));
    std::string request = what.substr(0, space) + " " + path + " HTTP/1.1\r\nhost: " + o.host + "\r\n";
    for (const auto& h : o.headers) request += h + "\r\n";
    if (what.compare(0, 4, "POST") == 0) request += "content-length: 0\r\n";
    request += "\r\n";
    if (fd < 0) fd = Dial(o), reader.buffer.clear();
    const auto begin = Clock::now();
    if (fd < 0) {
      ++out.failed, ++out.failures["connect: " + std::string(strerror(errno))];
      continue;
    }
    ++out.sent;
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
      ++out.failed, ++out.failures["send: " + std::string(strerror(errno))];
      close(fd), fd = -1;
      continue;
    }
    if (o.cancel_percent > 0 && static_cast<double>(next() % 10000) < o.cancel_percent * 100) {
      ++out.cancelled;
      close(fd), fd = -1;
      continue;
    }
    std::string status, served_by;
    bool keep = false;
    errno = 0;
    if (!reader.Response(fd, status, served_by, keep)) {
      ++out.failed, ++out.failures[errno ? "read: " + std::string(strerror(errno)) : "read: connection closed"];
      close(fd), fd = -1;
      continue;
    }
    ++out.status[status];
    if (!served_by.empty()) ++out.served_by[served_by];
    if (out.latency_us.size() < 2000000) {
      out.latency_us.push_back(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count());
    }
    if (!keep) close(fd), fd = -1;
  }
  if (fd >= 0) close(fd);
}

void Print(Counts c, double seconds) {
  auto& l = c.latency_us;
  std::sort(l.begin(), l.end());
  auto quantile = [&l](double q) { return l.empty() ? 0u : l[std::min(l.size() - 1, static_cast<size_t>(l.size() * q))]; };
  printf("%s\n", nlohmann::json{{"sent", c.sent}, {"cancelled", c.cancelled}, {"failed", c.failed}, {"status", c.status},
                                {"served_by", c.served_by}, {"failures", c.failures}, {"seconds", seconds},
                                {"p50_us", quantile(.5)}, {"p99_us", quantile(.99)}, {"p999_us", quantile(.999)}}
                     .dump()
                     .c_str());
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--quiet") {
      o.quiet = true;
      continue;
    }
    if (i + 1 == argc) return fprintf(stderr, "loadgen: %s needs a value\n", argv[i]), 2;
    const std::string value = argv[++i];
    if (flag == "--host") o.host = value;
    else if (flag == "--port") o.port = value;
    else if (flag == "--mix") o.mix = value;
    else if (flag == "--requests") o.requests = std::stoull(value);
    else if (flag == "--rate") o.rate = std::stod(value);
    else if (flag == "--connections") o.connections = std::max(1, std::stoi(value));
    else if (flag == "--cancel-percent") o.cancel_percent = std::stod(value);
    else if (flag == "--header") o.headers.push_back(value);
    else return fprintf(stderr, "loadgen: unknown flag %s\n", flag.c_str()), 2;
  }
  if (o.host.empty()) return fprintf(stderr, "loadgen: --host is required\n"), 2;
  struct sigaction stop{};
  stop.sa_handler = [](int) { stopping = true; };  // no SA_RESTART: blocked reads return
  sigaction(SIGTERM, &stop, nullptr);
  sigaction(SIGINT, &stop, nullptr);

  std::vector<Counts> counts(o.connections);
  std::vector<std::thread> threads;
  std::atomic<uint64_t> tickets{0};
  const auto start = Clock::now();
  for (int i = 0; i < o.connections; ++i) threads.emplace_back(Work, std::cref(o), i, std::ref(tickets), start, std::ref(counts[i]));
  for (auto& t : threads) t.join();
  Counts total;
  for (const auto& c : counts) total.Add(c);
  Print(std::move(total), std::chrono::duration<double>(Clock::now() - start).count());
}
