// The bridge, and an instance's own network namespace on it.
//
// The namespace has no name and no mount: only processes (and the supervisor's descriptor) hold it, and its link
// disappears with it, so nothing is left behind however the instance ends. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
#pragma once

#include <unistd.h>

#include <string>

namespace weft::run {

constexpr const char* kBridge = "weft0";
constexpr const char* kGateway = "10.77.0.1";

// Creates the bridge with 10.77.0.1/16 in the current namespace unless it is there. Throws Failure.
void BridgeUp(const std::string& bridge);
// Removes it; false when there was none. Throws when links are still on it.
bool BridgeDown(const std::string& bridge);

// A new namespace: loopback up, eth0 with `address`/16 on the bridge, default route over it. Returns its descriptor
// (close-on-exec); the caller stays where it was. Throws Failure.
int MakeNamespace(const std::string& bridge, const std::string& address);

// Whether the current network namespace has an IPv6 loopback.
bool HasIpv6();

// The first address that is neither loopback nor link-local in the current namespace; "" when there is none.
std::string OwnAddress();

void EnterNamespace(int ns_fd);  // for good; throws Failure
int CurrentNamespace();          // descriptor, close-on-exec

// Runs `f` (which must not throw) in the namespace on the calling thread, then comes back.
template <typename F>
void InNamespace(int ns_fd, F f) {
  const int back = CurrentNamespace();
  EnterNamespace(ns_fd);
  f();
  EnterNamespace(back);
  close(back);
}
}  // namespace weft::run
