// Starts a child with exactly the rights it needs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace weft::run {

struct Child {
  std::vector<std::string> command;
  int executable = -1;                    // open file to execute instead of looking command[0] up (it may lie where `uid` cannot go)
  std::vector<std::string> environment;   // whole
  uid_t uid = 0;
  gid_t gid = 0;
  bool change_user = true;                // false: stays who we are
  int netns = -1;                         // descriptor, -1: stays
  std::string resolv_conf;                // mounted over /etc/resolv.conf in a mount namespace of its own; "": untouched
  std::vector<std::string> hidden;        // folders it sees empty; needs the mount namespace too
  bool own_session = false;               // the scheduler then weighs it against its siblings, not as one of them (sched(7), autogroup)
  bool may_mark = false;                  // keeps the one capability that SO_MARK takes
  int output = -1;                        // descriptor for stdout and stderr; -1: inherited
};

// Forks and executes. The child leads a process group of its own (or a session), dies with its parent, cannot gain privileges, and has
// an empty capability bounding set (but for may_mark). Throws Failure naming the step that failed, with exit code 127
// for a command that is not there and 126 for one that cannot run. Single-threaded fork: the parent thread must outlive it.
pid_t Spawn(const Child& child);

}  // namespace weft::run
