#include "tools/weft/run/admin.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <thread>

namespace weft::run {
namespace {

// Answers one connection with the bytes, then closes.
AdminReply Against(const std::string& answer, std::string* request = nullptr) {
  std::string dir = "/tmp/adm-XXXXXX";  // a socket path holds 107 bytes: TempDir() may not fit
  const std::string path = std::string(mkdtemp(dir.data())) + "/s";
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  strncpy(a.sun_path, path.c_str(), sizeof a.sun_path - 1);
  EXPECT_EQ(bind(l, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  listen(l, 1);
  std::thread server([&] {
    int c = accept(l, nullptr, nullptr);
    char buf[1024];
    ssize_t n = read(c, buf, sizeof buf);
    if (request != nullptr && n > 0) request->assign(buf, n);
    EXPECT_EQ(write(c, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
    close(c);
  });
  AdminReply reply = CallAdmin(path, "GET", "/ready");
  server.join();
  close(l);
  return reply;
}

TEST(CallAdmin, ReadsBodyByLengthByChunksAndByClose) {
  std::string request;
  AdminReply r = Against("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n", &request);
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "LIVE\n");
  EXPECT_EQ(request.substr(0, 21), "GET /ready HTTP/1.1\r\n");
  r = Against("HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(r.status, 503);
  EXPECT_EQ(r.body, "abcde");
  EXPECT_EQ(Against("HTTP/1.0 200 OK\r\n\r\nuntil close").body, "until close");
}

TEST(CallAdmin, SaysWhyItFailed) {
  EXPECT_EQ(Against("nonsense").status, 0);
  AdminReply r = CallAdmin("/nonexistent/admin.sock", "GET", "/");
  EXPECT_EQ(r.status, 0);
  EXPECT_EQ(r.body, "No such file or directory");
}

}  // namespace
}  // namespace weft::run
