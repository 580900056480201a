// weft run as a user meets it, in namespaces of the test's own.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/weft/run/state.h"

namespace weft::run {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class WeftRun : public testing::Test {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) GTEST_SKIP() << "no namespaces: " << strerror(errno);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    char dir[] = "/tmp/weft-run-XXXXXX";
    dir_ = mkdtemp(dir);
    chmod(dir, 0755);
    std::ofstream(dir_ + "/token") << "id.secret.hash\n";
  }
  void TearDown() override {
    if (!dir_.empty()) std::filesystem::remove_all(dir_);
  }

  std::string Command(const std::string& flags, const std::string& program) const {
    return "exec tools/weft/weft run --service cart --port 8000 --sidecar tools/weft/run/sidecar_double --run-dir " + dir_ +
           "/run --join-token-file " + dir_ + "/token --drain-time 0 " + flags + " -- " + program;
  }
  // Output and exit code of the whole.
  std::pair<std::string, int> Run(const std::string& flags, const std::string& program) const {
    FILE* f = popen((Command(flags, program) + " 2>" + dir_ + "/stderr").c_str(), "r");
    std::string out;
    char buf[4096];
    for (size_t n; (n = fread(buf, 1, sizeof buf, f)) > 0;) out.append(buf, n);
    const int status = pclose(f);
    return {out, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
  }
  pid_t Start(const std::string& flags, const std::string& program) const {
    const pid_t pid = fork();
    if (pid == 0) {
      execl("/bin/sh", "sh", "-c", Command(flags, program).c_str(), nullptr);
      _exit(127);
    }
    return pid;
  }
  // The one instance, once `ready` holds for it.
  template <typename F>
  Instance Await(F ready) const {
    for (int i = 0; i < 1000; i++) {
      for (const Instance& x : LoadAll(dir_ + "/run")) {
        if (ready(x)) return x;
      }
      usleep(10000);
    }
    ADD_FAILURE() << "never came to be";
    return {};
  }
  std::string AdminLog(const Instance& i) const { return Slurp(i.admin_socket + ".log"); }

  std::string dir_;
};

TEST_F(WeftRun, ForwardsOutputAndExitCode) {
  auto [out, code] = Run("", "sh -c 'echo hello; exit 7'");
  EXPECT_EQ(out, "hello\n") << Slurp(dir_ + "/stderr");
  EXPECT_EQ(code, 7);
  EXPECT_EQ(Run("", "sh -c 'kill -USR1 $$'").second, 128 + SIGUSR1);
  EXPECT_EQ(Run("", "/no/such/program").second, 127);
  // Nothing stays: no instance folder, no link on the bridge.
  EXPECT_TRUE(LoadAll(dir_ + "/run").empty());
  EXPECT_EQ(system("ip -o link show type veth | grep -q weft-"), 256);
}

TEST_F(WeftRun, TheApplicationHasNoRightsAndSeesNoSecrets) {
  auto [out, code] = Run("", "sh -c 'grep -E \"^(Uid|CapBnd|CapEff|CapAmb|NoNewPrivs)\" /proc/self/status; "
                             "ls -A " + dir_ + "/run; nft list ruleset >/dev/null 2>&1 || echo no rules for me; "
                             "cat /etc/resolv.conf; ip -o -4 addr show eth0 | grep -o 10.77.0.2/16; "
                             "env | grep -c ^WEFT_'");
  const std::string expected =
      "Uid:\t200002\t200002\t200002\t200002\n"
      "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"
      "no rules for me\n"
      "nameserver 127.0.0.1\noptions timeout:2 attempts:3\n"
      "10.77.0.2/16\n"
      "1\n";
  EXPECT_EQ(out, expected) << Slurp(dir_ + "/stderr");
  EXPECT_EQ(code, 0);
}

TEST_F(WeftRun, SidecarHasItsOwnUserMayMarkAndIsToldAboutTheApplication) {
  const pid_t pid = Start("--ready tcp --prometheus-port 15090", "python3 -m http.server 8000 --bind 127.0.0.1");
  const Instance i = Await([&](const Instance& x) { return AdminLog(x).find("/healthcheck/ok") != std::string::npos; });
  const std::string log = AdminLog(i);
  EXPECT_EQ(log.substr(0, log.find("POST")), "started uid 300002 token 1\nmetrics 10.77.0.2:15090\nmark 0\n");
  EXPECT_EQ(getsid(i.sidecar), i.sidecar) << "no session of its own";
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/run/" + i.id + "/sidecar/token")) << "a spent token stays on disk";
  kill(pid, SIGTERM);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(LoadAll(dir_ + "/run").empty());
}

TEST_F(WeftRun, ACrashedSidecarIsStartedAgainAndToldAgain) {
  const pid_t pid = Start("", "python3 -m http.server 8000");
  const Instance first = Await([&](const Instance& x) { return AdminLog(x).find("/healthcheck/ok") != std::string::npos; });
  kill(first.sidecar, SIGKILL);
  Await([&](const Instance& x) {
    const std::string log = AdminLog(x);
    return x.sidecar != first.sidecar && log.find("started", 10) != std::string::npos &&
           log.rfind("/healthcheck/ok") > log.rfind("started");
  });
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
}

TEST_F(WeftRun, ARestartedApplicationIsAnnouncedAgain) {
  const pid_t pid = Start("--restart", "python3 -m http.server 8000");
  const Instance first = Await([&](const Instance& x) { return AdminLog(x).find("/healthcheck/ok") != std::string::npos; });
  kill(first.app, SIGKILL);
  Await([&](const Instance& x) {
    const std::string log = AdminLog(x);
    const size_t gone = log.find("/healthcheck/fail");
    return x.app != first.app && gone != std::string::npos && log.find("/healthcheck/ok", gone) != std::string::npos;
  });
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
}

TEST_F(WeftRun, KillNineLeavesNothingBehindButFilesAndTheNextStartCleansThose) {
  // The application forks something that would outlive it.
  const pid_t pid = Start("", "sh -c 'setsid sleep 1000 & exec python3 -m http.server 8000'");
  const Instance i = Await([&](const Instance& x) { return AdminLog(x).find("/healthcheck/ok") != std::string::npos; });
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  for (int n = 0; n < 500 && (StartTime(i.app) != 0 || StartTime(i.sidecar) != 0); n++) usleep(10000);
  EXPECT_EQ(StartTime(i.app), 0u);
  EXPECT_EQ(StartTime(i.sidecar), 0u);
  auto [out, code] = Run("", "true");
  EXPECT_EQ(code, 0) << Slurp(dir_ + "/stderr");
  EXPECT_NE(Slurp(dir_ + "/stderr").find("cleaned up after " + i.id), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/run/" + i.id));
  EXPECT_FALSE(KillLeftovers(i.id)) << "the forked sleep survived";
}

TEST_F(WeftRun, TwoInstancesGetTwoAddresses) {
  const pid_t pid = Start("", "sleep 1000");
  Await([](const Instance& x) { return x.app != 0; });
  auto [out, code] = Run("--exclude-outbound-cidrs 10.77.0.0/16", "sh -c 'ip -o -4 addr show eth0 | grep -o \"10.77.0.3/\"'");
  EXPECT_EQ(out, "10.77.0.3/\n") << Slurp(dir_ + "/stderr");
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
}

}  // namespace
}  // namespace weft::run
