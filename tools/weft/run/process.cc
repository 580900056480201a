#include "tools/weft/run/process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>

#include "tools/weft/cli/error.h"
#include "tools/weft/run/network.h"

namespace weft::run {
namespace {

struct Problem {
  char step[64];
  int error;
};

// Linux 5.17 lets CAP_NET_RAW set marks; before, it takes CAP_NET_ADMIN, which may also change the rules.
int MarkCapability() {
  utsname u = {};
  int major = 0, minor = 0;
  uname(&u);
  sscanf(u.release, "%d.%d", &major, &minor);
  return major > 5 || (major == 5 && minor >= 17) ? CAP_NET_RAW : CAP_NET_ADMIN;
}

[[noreturn]] void Give(int pipe, const char* step, int error) {
  Problem p = {};
  snprintf(p.step, sizeof p.step, "%s", step);
  p.error = error;
  if (write(pipe, &p, sizeof p) < 0) _exit(125);
  _exit(127);
}

bool SetCapabilities(int capability) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (capability >= 0) {
    data[capability / 32].effective = data[capability / 32].permitted = data[capability / 32].inheritable =
        1u << (capability % 32);
  }
  return syscall(SYS_capset, &header, data) == 0;
}

void Setup(const Child& c, int fail_pipe, pid_t parent) {
  // Signals as a fresh process expects them.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (c.own_session) setsid();
  else setpgid(0, 0);
  if (c.netns >= 0 && setns(c.netns, CLONE_NEWNET) != 0) Give(fail_pipe, "enter its network namespace", errno);
  if (!c.resolv_conf.empty() || !c.hidden.empty()) {
    if (unshare(CLONE_NEWNS) != 0) Give(fail_pipe, "make a mount namespace", errno);
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) Give(fail_pipe, "make mounts private", errno);
    if (!c.resolv_conf.empty()) {
      char real[PATH_MAX];
      const char* target = realpath("/etc/resolv.conf", real) != nullptr ? real : "/etc/resolv.conf";
      if (mount(c.resolv_conf.c_str(), target, nullptr, MS_BIND, nullptr) != 0) Give(fail_pipe, "mount its resolv.conf", errno);
    }
    for (const auto& dir : c.hidden) {
      if (mount("none", dir.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "size=0,mode=0555") != 0) {
        Give(fail_pipe, "hide the run directory", errno);
      }
    }
  }
  if (c.output >= 0 && (dup2(c.output, 1) < 0 || dup2(c.output, 2) < 0)) Give(fail_pipe, "redirect its output", errno);
  const int keep = c.may_mark ? MarkCapability() : -1;
  if (c.change_user) {
    for (int cap = 0; cap <= 63; cap++) {
      if (cap != keep && prctl(PR_CAPBSET_READ, cap) == 1 && prctl(PR_CAPBSET_DROP, cap) != 0) {
        Give(fail_pipe, "drop capabilities", errno);
      }
    }
    if (keep >= 0 && prctl(PR_SET_KEEPCAPS, 1) != 0) Give(fail_pipe, "keep a capability", errno);
    if (setgroups(0, nullptr) != 0) Give(fail_pipe, "drop groups", errno);
    if (setresgid(c.gid, c.gid, c.gid) != 0) Give(fail_pipe, "change its group", errno);
    if (setresuid(c.uid, c.uid, c.uid) != 0) Give(fail_pipe, "change its user", errno);
    if (!SetCapabilities(keep)) Give(fail_pipe, "set capabilities", errno);
    if (keep >= 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, keep, 0, 0) != 0) Give(fail_pipe, "raise a capability", errno);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Give(fail_pipe, "forbid new privileges", errno);
  // After the change of user, which clears it.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) Give(fail_pipe, "bind its life to ours", errno);
  if (getppid() != parent) _exit(125);
  std::vector<char*> argv, envp;
  for (const auto& a : c.command) argv.push_back(const_cast<char*>(a.c_str()));
  for (const auto& e : c.environment) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  if (c.executable >= 0) {
    fexecve(c.executable, argv.data(), envp.data());
  } else {
    execvpe(argv[0], argv.data(), envp.data());
  }
  Give(fail_pipe, "execute", errno);
}

}  // namespace

pid_t Spawn(const Child& child) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) throw cli::Failure(std::string("pipe: ") + strerror(errno));
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw cli::Failure(std::string("fork: ") + strerror(errno));
  if (pid == 0) Setup(child, pipe_fds[1], parent);
  close(pipe_fds[1]);
  Problem problem = {};
  ssize_t n;
  do {
    n = read(pipe_fds[0], &problem, sizeof problem);
  } while (n < 0 && errno == EINTR);
  close(pipe_fds[0]);
  if (n <= 0) return pid;
  waitpid(pid, nullptr, 0);
  const bool exec = strcmp(problem.step, "execute") == 0;
  throw cli::Failure("cannot " + std::string(problem.step) + " " + child.command[0] + ": " + strerror(problem.error),
                     exec ? (problem.error == ENOENT ? 127 : 126) : cli::kError);
}

}  // namespace weft::run
