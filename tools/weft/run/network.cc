#include "tools/weft/run/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include "tools/weft/cli/error.h"
#include "tools/weft/run/state.h"

namespace weft::run {

using cli::Failure;

namespace {

// Runs `ip -batch -` on the lines: one process for all of them. "" or its message.
std::string IpBatch(const std::string& lines) {
  int in[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return strerror(errno);
  const pid_t pid = fork();
  if (pid < 0) return strerror(errno);
  if (pid == 0) {
    dup2(in[0], 0);
    dup2(err[1], 1);
    dup2(err[1], 2);
    execlp("ip", "ip", "-batch", "-", nullptr);
    for (const char* path : {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"}) execl(path, "ip", "-batch", "-", nullptr);
    dprintf(2, "cannot start ip (package iproute2): %s", strerror(errno));
    _exit(127);
  }
  close(in[0]);
  close(err[1]);
  // Far below a pipe's buffer: cannot block.
  if (write(in[1], lines.data(), lines.size()) < 0) fprintf(stderr, "weft: ip: %s\n", strerror(errno));
  close(in[1]);
  std::string output;
  char buf[512];
  for (ssize_t n; (n = read(err[0], buf, sizeof buf)) > 0;) output.append(buf, n);
  close(err[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  while (!output.empty() && output.back() == '\n') output.pop_back();
  return output.empty() ? "ip failed" : output;
}

bool Exists(const std::string& link) { return if_nametoindex(link.c_str()) != 0; }

}  // namespace

int CurrentNamespace() {
  const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Failure(std::string("cannot open the network namespace: ") + strerror(errno));
  return fd;
}

void EnterNamespace(int fd) {
  if (setns(fd, CLONE_NEWNET) != 0) throw Failure(std::string("cannot enter the network namespace: ") + strerror(errno));
}

void BridgeUp(const std::string& bridge) {
  if (Exists(bridge)) return;
  // A fixed hardware address: a bridge without one takes that of its lowest port and changes it as instances come, and
  // whoever had learnt the old one then talks to nobody for half a minute.
  const std::string error = IpBatch("link add " + bridge + " address 02:57:65:66:74:01 type bridge\naddr add " + std::string(kGateway) +
                                    "/16 dev " + bridge + "\nlink set " + bridge + " up\nlink set lo up\n");
  if (!error.empty()) throw Failure("cannot make the bridge " + bridge + ": " + error);
}

bool BridgeDown(const std::string& bridge) {
  if (!Exists(bridge)) return false;
  const std::string error = IpBatch("link del " + bridge + "\n");
  if (!error.empty()) throw Failure("cannot remove the bridge " + bridge + ": " + error);
  return true;
}

int MakeNamespace(const std::string& bridge, const std::string& address) {
  const int home = CurrentNamespace();
  if (unshare(CLONE_NEWNET) != 0) throw Failure(std::string("cannot make a network namespace: ") + strerror(errno));
  const int ns = CurrentNamespace();
  EnterNamespace(home);
  close(home);
  const std::string link = "weft-" + std::to_string(AddressIndex(address));
  const std::string ns_path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(ns);
  // Left by an end that is being torn down: the kernel may be first, so a failure says nothing; `link add` would tell.
  if (Exists(link)) IpBatch("link del " + link + "\n");
  std::string error = IpBatch("link add " + link + " type veth peer name eth0 netns " + ns_path + "\nlink set " + link + " master " + bridge +
                  " up\n");
  if (error.empty()) {
    InNamespace(ns, [&] {
      error = IpBatch("link set lo up\naddr add " + address + "/16 dev eth0\nlink set eth0 up\nroute add default via " +
                      std::string(kGateway) + "\n");
      // The application has no capabilities, and the port is its own: let it listen on 80.
      std::ofstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") << "0\n";
    });
  }
  if (!error.empty()) {
    close(ns);
    throw Failure("cannot link the namespace to " + bridge + ": " + error);
  }
  return ns;
}

bool HasIpv6() {
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 loopback = {};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  const bool has = fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback) == 0;
  if (fd >= 0) close(fd);
  return has;
}

std::string OwnAddress() {
  ifaddrs* list = nullptr;
  std::string out;
  if (getifaddrs(&list) != 0) return out;
  for (ifaddrs* a = list; a != nullptr && out.empty(); a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET || (a->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(a->ifa_addr)->sin_addr, text, sizeof text);
    if (strncmp(text, "169.254.", 8) != 0) out = text;
  }
  freeifaddrs(list);
  return out;
}

}  // namespace weft::run
