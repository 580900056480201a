// Both ends of a connection, as its record tells them.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "sidecar/io/socket.h"
#include "sidecar/proxy/testing/harness.h"

namespace weft::proxy::testing {
namespace {

// Binds the client to from, asks at `to` once, and returns what the record says.
Record Ask(Mesh& mesh, const model::Address& from, const model::Address& to) {
  sockaddr_storage own, peer;
  const socklen_t own_length = from.ToSockaddr(&own), peer_length = to.ToSockaddr(&peer);
  io::Fd fd(socket(peer.ss_family, SOCK_STREAM, 0));
  EXPECT_TRUE(own_length == 0 || bind(fd.get(), reinterpret_cast<sockaddr*>(&own), own_length) == 0);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&peer), peer_length), 0);
  constexpr std::string_view kAsk = "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";
  EXPECT_EQ(write(fd.get(), kAsk.data(), kAsk.size()), static_cast<ssize_t>(kAsk.size()));
  char answer[1024];
  EXPECT_GT(read(fd.get(), answer, sizeof answer), 0);
  return mesh.NextRecord();
}

class Addresses : public ::testing::Test {
 protected:
  TestServer app_{{.h2 = false, .handler = [](ServerStream& s) {
    if (s.complete()) s.Respond("200", "ok");
  }}};
  Mesh mesh_;
};

TEST_F(Addresses, OfUnixSocketsAreTheirPaths) {
  char folder[] = "/tmp/weft-addresses-XXXXXX";  // short: a socket's path has at most 107 characters
  ASSERT_TRUE(mkdtemp(folder));
  const std::string here = std::string(folder) + "/here", there = std::string(folder) + "/there";
  mesh_.AddCluster("app", {app_.port()});
  mesh_.listener.addresses = {model::Address::Pipe(here)};
  mesh_.Start();
  Record r = Ask(mesh_, model::Address::Pipe(there), model::Address::Pipe(here));
  EXPECT_EQ(r.downstream_local.ToString(), here);
  EXPECT_EQ(r.downstream_remote.ToString(), there);
  EXPECT_EQ(r.downstream_direct_remote.ToString(), there);
  r = Ask(mesh_, model::Address(), model::Address::Pipe(here));  // a client without a name
  EXPECT_EQ(r.downstream_local.ToString(), here);
  EXPECT_EQ(r.downstream_remote.ToString(), "");
  unlink(here.c_str()), unlink(there.c_str()), rmdir(folder);
}

TEST_F(Addresses, OfIp) {
  mesh_.AddCluster("app", {app_.port()});
  mesh_.Start();
  const auto to = *model::Address::FromIp("127.0.0.1", mesh_.port());
  const Record r = Ask(mesh_, *model::Address::FromIp("127.0.0.2", 0), to);
  EXPECT_EQ(r.downstream_local, to);
  EXPECT_EQ(r.downstream_direct_remote.WithoutPort(), "127.0.0.2");
  EXPECT_EQ(r.downstream_remote, r.downstream_direct_remote);
}

}  // namespace
}  // namespace weft::proxy::testing
