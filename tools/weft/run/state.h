// The run directory: one folder an instance, so that what a kill -9 left is found at the next start.
//
//   <dir>/<workload id>/instance.json   supervisor's pid and start time, address, uids, pids
//   <dir>/<workload id>/                bootstrap, token, admin socket, identity (owned by the sidecar)
//
// An instance is stale when its supervisor is gone (pid and start time both compared). Its processes die with it by
// themselves (PR_SET_PDEATHSIG), except what the application forked: those carry WEFT_INSTANCE in their environment and
// are killed here. Namespaces and links vanish with their last process. One lock file orders concurrent starts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace weft::run {

struct Instance {
  std::string id, service, ns, version, address, network, admin_socket;
  pid_t supervisor = 0, sidecar = 0, app = 0;
  uint64_t supervisor_start = 0;  // clock ticks after boot, as in /proc/PID/stat
};

// 0 when there is no such process.
uint64_t StartTime(pid_t pid);

// Exclusive while alive.
class StateLock {
 public:
  explicit StateLock(const std::string& dir);  // creates dir (0711); throws Failure
  ~StateLock();
  StateLock(const StateLock&) = delete;
  StateLock& operator=(const StateLock&) = delete;

 private:
  int fd_;
};

void Save(const std::string& dir, const Instance& instance);
std::vector<Instance> LoadAll(const std::string& dir);
// Removes the folders of stale instances and kills what is left of them; returns their ids. Call under the lock.
std::vector<std::string> CleanStale(const std::string& dir);
// Kills every process whose environment names the instance, except the caller; true when there was one.
bool KillLeftovers(const std::string& id);
void Remove(const std::string& dir, const std::string& id);

// "10.77.0.2".. in 10.77.0.0/16: the lowest that no instance of the network holds. Throws when none is left.
std::string FreeAddress(const std::vector<Instance>& instances, const std::string& network);
// 2 for 10.77.0.2: a number for the instance's uids and link names.
uint32_t AddressIndex(const std::string& address);

}  // namespace weft::run
