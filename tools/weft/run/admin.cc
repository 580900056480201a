#include "tools/weft/run/admin.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace weft::run {
namespace {

// Undoes chunked coding; "" when the body is not well-formed.
std::string Dechunk(const std::string& in) {
  std::string out;
  size_t at = 0;
  while (true) {
    const size_t eol = in.find("\r\n", at);
    if (eol == std::string::npos) return "";
    const size_t size = strtoul(in.c_str() + at, nullptr, 16);
    if (size == 0) return out;
    if (eol + 2 + size > in.size()) return "";
    out += in.substr(eol + 2, size);
    at = eol + 2 + size + 2;
    if (at > in.size()) return "";
  }
}

}  // namespace

AdminReply CallAdmin(const std::string& path, const std::string& method, const std::string& target, int timeout_ms) {
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  if (path.size() >= sizeof a.sun_path) return {0, "socket path too long: " + path};
  memcpy(a.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return {0, strerror(errno)};
  timeval t = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  const std::string request = method + " " + target + " HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
  std::string in;
  if (connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0 ||
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    AdminReply reply = {0, strerror(errno)};
    close(fd);
    return reply;
  }
  char buf[16384];
  size_t length = std::string::npos, body_at = 0;
  bool chunked = false;
  while (in.size() < (64u << 20)) {
    const ssize_t n = recv(fd, buf, sizeof buf, 0);
    if (n <= 0) break;
    in.append(buf, n);
    if (body_at == 0) {
      const size_t end = in.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      body_at = end + 4;
      std::string head = in.substr(0, end);
      for (char& c : head) c = static_cast<char>(tolower(c));
      if (const size_t cl = head.find("\r\ncontent-length:"); cl != std::string::npos) {
        length = strtoul(head.c_str() + cl + 17, nullptr, 10);
      }
      chunked = head.find("\r\ntransfer-encoding: chunked") != std::string::npos;
    }
    if (length != std::string::npos && in.size() >= body_at + length) break;
    if (chunked && in.size() >= 5 && in.compare(in.size() - 5, 5, "0\r\n\r\n") == 0) break;
  }
  close(fd);
  AdminReply reply;
  if (body_at == 0 || in.compare(0, 7, "HTTP/1.") != 0 || in.size() < 12) return {0, "no answer"};
  reply.status = atoi(in.c_str() + 9);
  reply.body = chunked ? Dechunk(in.substr(body_at)) : in.substr(body_at, length);
  return reply;
}

}  // namespace weft::run
