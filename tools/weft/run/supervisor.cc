#include "tools/weft/run/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "tools/weft/cli/error.h"
#include "tools/weft/cli/output.h"
#include "tools/weft/intercept/intercept.h"
#include "tools/weft/intercept/rules.h"
#include "tools/weft/run/admin.h"
#include "tools/weft/run/bootstrap.h"
#include "tools/weft/run/network.h"
#include "tools/weft/run/probe.h"
#include "tools/weft/run/process.h"
#include "tools/weft/run/state.h"

extern char** environ;

namespace weft::run {
namespace {

using cli::Failure;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Above what people and Debian hand out, below nobody.
constexpr uid_t kAppUidBase = 200000, kSidecarUidBase = 300000;

void WriteFile(const std::string& path, const std::string& text, mode_t mode, uid_t owner) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
  const bool ok = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                  fchmod(fd, mode) == 0 && (geteuid() != 0 || fchown(fd, owner, owner) == 0);
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!ok) throw Failure("cannot write " + path + ": " + strerror(error));
}

std::string RandomSuffix() {
  unsigned char b[4];
  if (getrandom(b, sizeof b, 0) != sizeof b) throw Failure("no random numbers");
  char text[16];
  snprintf(text, sizeof text, "%02x%02x%02x%02x", b[0], b[1], b[2], b[3]);
  return text;
}

std::string FindSidecar(const std::string& given) {
  std::vector<std::string> places;
  if (!given.empty()) {
    places = {given};
  } else {
    std::error_code error;
    const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
    places = {here / "sidecar", (here / "../../sidecar/sidecar").lexically_normal(), "/usr/local/bin/sidecar", "/usr/bin/sidecar"};
  }
  for (const auto& p : places) {
    struct stat st;
    if (stat(p.c_str(), &st) == 0 && S_ISREG(st.st_mode)) return p;
  }
  throw Failure("no sidecar program at " + places[0] + (given.empty() ? " (--sidecar names it)" : ""));
}

struct User {
  uid_t uid;
  gid_t gid;
  std::string home = "/";
};

User ParseUser(const std::string& text, uint32_t index) {
  if (text.empty()) return {kAppUidBase + index, kAppUidBase + index};
  if (const passwd* pw = getpwnam(text.c_str())) return {pw->pw_uid, pw->pw_gid, pw->pw_dir};
  char* end = nullptr;
  const unsigned long uid = strtoul(text.c_str(), &end, 10);
  unsigned long gid = uid;
  if (*end == ':') gid = strtoul(end + 1, &end, 10);
  if (end == text.c_str() || *end != '\0' || uid > 0xfffffffe || gid > 0xfffffffe) {
    throw Failure("--user " + text + ": no such user", cli::kUsage);
  }
  return {static_cast<uid_t>(uid), static_cast<gid_t>(gid)};
}

class Supervisor {
 public:
  explicit Supervisor(const RunOptions& o) : o_(o) {}
  ~Supervisor();
  int Run();

 private:
  void BlockSignals();
  void Claim();
  void PrepareFiles();
  void PrepareNetwork();
  void StartSidecar();
  void StartApp();
  bool WaitSidecarReady();
  void HandleSignals();
  void Reap();
  void TellSidecar();
  void Drain();
  void WaitFor(pid_t& pid, int signal, milliseconds patience);
  void Say(const std::string& text) const { fprintf(stderr, "weft[%s]: %s\n", instance_.id.c_str(), text.c_str()); }
  std::string Dir() const { return o_.run_dir + "/" + instance_.id; }

  const RunOptions& o_;
  Instance instance_;
  User app_user_ = {0, 0};
  uid_t sidecar_uid_ = 0;
  bool claimed_ = false;
  int signals_ = -1, netns_ = -1, sidecar_exe_ = -1, sidecar_log_ = -1;
  pid_t sidecar_ = 0, app_ = 0;
  std::unique_ptr<Prober> prober_;
  std::unique_ptr<HealthServer> health_;
  bool app_ready_ = false;              // what the probe says
  int told_ = -1;                       // what the sidecar was told last: 1, 0, -1 nothing yet
  int stop_signal_ = 0;                 // first signal that asked us to end
  int signals_seen_ = 0;
  int exit_code_ = 0;
  bool app_ended_ = false;
  Clock::time_point next_try_ = {}, sidecar_started_ = {}, app_started_ = {}, next_sidecar_ = {}, next_app_ = {};
  milliseconds sidecar_backoff_{0}, app_backoff_{0};
  bool sidecar_ready_ = false;
};

void Supervisor::BlockSignals() {
  // Grandchildren that outlive their parent come to us, so that none outlives the instance.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) sigaddset(&set, s);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  signal(SIGPIPE, SIG_IGN);
}

void Supervisor::Claim() {
  StateLock lock(o_.run_dir);
  for (const auto& id : CleanStale(o_.run_dir)) fprintf(stderr, "weft: cleaned up after %s, which was killed\n", id.c_str());
  instance_.id = o_.service + "-" + RandomSuffix();
  instance_.service = o_.service;
  instance_.ns = o_.ns;
  instance_.version = o_.version;
  instance_.supervisor = getpid();
  instance_.supervisor_start = StartTime(getpid());
  if (o_.netns) {
    instance_.network = o_.network.empty() ? kBridge : o_.network;
    instance_.address = o_.address.empty() ? FreeAddress(LoadAll(o_.run_dir), instance_.network) : o_.address;
    BridgeUp(instance_.network);
  } else {
    instance_.address = o_.address.empty() ? OwnAddress() : o_.address;
    if (instance_.address.empty()) throw Failure("this namespace has no address but loopback: name one with --address");
  }
  const uint32_t index = AddressIndex(instance_.address);
  app_user_ = ParseUser(o_.user, index);
  sidecar_uid_ = o_.sidecar_uid >= 0 ? static_cast<uid_t>(o_.sidecar_uid) : kSidecarUidBase + index;
  if (geteuid() == 0 && !o_.command.empty() && app_user_.uid == sidecar_uid_) {
    throw Failure("--user and --sidecar-uid must differ, or the application could read the sidecar's key", cli::kUsage);
  }
  instance_.admin_socket = Dir() + "/sidecar/admin.sock";
  Save(o_.run_dir, instance_);
  claimed_ = true;
}

void Supervisor::PrepareFiles() {
  chmod(Dir().c_str(), 0711);
  const std::string own = Dir() + "/sidecar", identity = own + "/identity";
  for (const auto& d : {own, identity}) {
    if (mkdir(d.c_str(), 0700) != 0 && errno != EEXIST) throw Failure("cannot make " + d + ": " + strerror(errno));
    if (geteuid() == 0 && chown(d.c_str(), sidecar_uid_, sidecar_uid_) != 0) throw Failure("cannot give away " + d);
  }
  std::string token;
  if (!o_.token_file.empty()) {
    std::ifstream in(o_.token_file);
    if (!in || !std::getline(in, token) || token.empty()) throw Failure("cannot read the join token from " + o_.token_file);
  } else {
    const cli::Json request = {{"service", o_.service}, {"namespace", o_.ns}, {"ttl_s", 3600}, {"uses", 1}};
    token = cli::Text(cli::Client(o_.rest).Post("/api/v1/tokens", request.dump(), "application/json"), "token");
    if (token.empty()) throw Failure("the server gave no token");
  }
  WriteFile(own + "/token", token + "\n", 0400, sidecar_uid_);
  BootstrapSpec b;
  b.workload_id = instance_.id;
  b.service = o_.service;
  b.ns = o_.ns;
  b.version = o_.version;
  b.address = instance_.address;
  b.ports = o_.ports;
  if (netns_ >= 0) InNamespace(netns_, [&] { b.ipv6 = HasIpv6(); });
  else b.ipv6 = HasIpv6();
  b.server_address = o_.xds_server;
  b.trust_domain = o_.trust_domain;
  b.token_file = own + "/token";
  b.identity_dir = identity;
  b.admin_socket = instance_.admin_socket;
  WriteFile(own + "/bootstrap.json", RenderBootstrap(b), 0400, sidecar_uid_);
  // Whatever it names, the rules lead to the sidecar.
  if (o_.netns) WriteFile(Dir() + "/resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:3\n", 0644, 0);
}

void Supervisor::PrepareNetwork() {
  if (o_.netns) netns_ = MakeNamespace(instance_.network, instance_.address);
  if (!o_.intercept) return;
  intercept::Options rules;
  rules.sidecar_uid = sidecar_uid_;
  rules.exclude_outbound_ports = o_.exclude_outbound_ports;
  rules.exclude_inbound_ports = o_.exclude_inbound_ports;
  if (o_.prometheus_port != 0) rules.exclude_inbound_ports.push_back(std::to_string(o_.prometheus_port));
  rules.exclude_outbound_cidrs = o_.exclude_outbound_cidrs;
  std::string error = intercept::Check(rules);
  if (!error.empty()) throw Failure(error, cli::kUsage);
  if (netns_ >= 0) {
    InNamespace(netns_, [&] { error = intercept::Apply(intercept::Rules(rules)); });
  } else {
    error = intercept::Apply(intercept::Rules(rules));
  }
  if (!error.empty()) throw Failure("cannot write the redirect rules: " + error);
}

void Supervisor::StartSidecar() {
  unlink(instance_.admin_socket.c_str());
  Child c;
  c.command = {"sidecar", "-c", Dir() + "/sidecar/bootstrap.json", "--concurrency", std::to_string(o_.concurrency),
               "-l", o_.log_level, "--drain-time-s", std::to_string(std::max(1, o_.drain_s))};
  if (o_.prometheus_port != 0) {
    const bool v6 = instance_.address.find(':') != std::string::npos;
    c.command.insert(c.command.end(), {"--prometheus-address", (v6 ? "[" + instance_.address + "]" : instance_.address) + ":" + std::to_string(o_.prometheus_port)});
  }
  c.executable = sidecar_exe_;
  c.environment = {"PATH=/usr/local/bin:/usr/bin:/bin", "WEFT_INSTANCE=" + instance_.id};
  c.uid = c.gid = sidecar_uid_;
  c.change_user = geteuid() == 0;
  c.netns = netns_;
  c.own_session = true;  // however many threads the application keeps busy
  c.may_mark = true;
  c.output = sidecar_log_;
  sidecar_ = Spawn(c);
  sidecar_started_ = Clock::now();
  sidecar_ready_ = false;
  told_ = -1;
  instance_.sidecar = sidecar_;
  Save(o_.run_dir, instance_);
}

void Supervisor::StartApp() {
  Child c;
  c.command = o_.command;
  for (char** e = environ; *e != nullptr; e++) {
    const std::string item = *e;
    if (item.rfind("WEFT_", 0) == 0) continue;
    if (item.rfind("HOME=", 0) == 0 && geteuid() == 0) continue;
    c.environment.push_back(item);
  }
  if (geteuid() == 0) c.environment.push_back("HOME=" + app_user_.home);
  c.environment.push_back("WEFT_INSTANCE=" + instance_.id);
  c.uid = app_user_.uid;
  c.gid = app_user_.gid;
  c.change_user = geteuid() == 0;
  c.netns = netns_;
  if (o_.netns) {
    c.resolv_conf = Dir() + "/resolv.conf";
    c.hidden = {o_.run_dir};
  }
  app_ = Spawn(c);
  app_started_ = Clock::now();
  app_ended_ = false;
  instance_.app = app_;
  Save(o_.run_dir, instance_);
}

void Supervisor::HandleSignals() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof info) == sizeof info) {
    const int s = static_cast<int>(info.ssi_signo);
    if (s == SIGCHLD) continue;
    if (s == SIGTERM || s == SIGINT || s == SIGQUIT) {
      signals_seen_++;
      if (stop_signal_ == 0) stop_signal_ = s;
    } else if (app_ > 0) {
      kill(-app_, s);
    }
  }
  Reap();
}

void Supervisor::Reap() {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    const std::string how = WIFEXITED(status) ? "exited with " + std::to_string(code)
                                              : std::string("was ended by ") + strsignal(WTERMSIG(status));
    if (pid == app_) {
      app_ = 0;
      app_ended_ = true;
      exit_code_ = code;
      app_ready_ = false;
      told_ = told_ == 1 ? -1 : told_;
      if (stop_signal_ == 0 && code != 0) Say("the application " + how);
      app_backoff_ = Clock::now() - app_started_ > std::chrono::seconds(10)
                         ? milliseconds(200)
                         : std::clamp(app_backoff_ * 2, milliseconds(200), milliseconds(5000));
      next_app_ = Clock::now() + app_backoff_;
    } else if (pid == sidecar_) {
      sidecar_ = 0;
      sidecar_ready_ = false;
      sidecar_backoff_ = Clock::now() - sidecar_started_ > std::chrono::seconds(10)
                             ? milliseconds(100)
                             : std::clamp(sidecar_backoff_ * 2, milliseconds(100), milliseconds(5000));
      next_sidecar_ = Clock::now() + sidecar_backoff_;
      if (stop_signal_ == 0 && !(app_ended_ && !o_.restart)) {
        Say("the sidecar " + how + "; starting it again in " + std::to_string(sidecar_backoff_.count()) + " ms, traffic waits");
      }
    }
  }
}

// Brings the sidecar up to date with the application's state, when it can be reached.
void Supervisor::TellSidecar() {
  if (sidecar_ == 0) return;
  if (!sidecar_ready_) {
    if (CallAdmin(instance_.admin_socket, "GET", "/ready", 1000).status != 200) return;
    sidecar_ready_ = true;
  }
  const int want = app_ready_ && (app_ > 0 || o_.command.empty()) ? 1 : 0;
  if (told_ == want) return;
  if (CallAdmin(instance_.admin_socket, "POST", want ? "/healthcheck/ok" : "/healthcheck/fail", 1000).status == 200) told_ = want;
}

// True when the sidecar serves; false when we were told to stop before.
bool Supervisor::WaitSidecarReady() {
  auto next_word = Clock::now() + std::chrono::seconds(3);
  int pause_ms = 10;
  while (stop_signal_ == 0) {
    pollfd p = {signals_, POLLIN, 0};
    poll(&p, 1, pause_ms);
    HandleSignals();
    if (sidecar_ == 0) {
      if (Clock::now() >= next_sidecar_) StartSidecar();
      continue;
    }
    const AdminReply reply = CallAdmin(instance_.admin_socket, "GET", "/ready", 1000);
    if (reply.status == 200) {
      sidecar_ready_ = true;
      return true;
    }
    if (Clock::now() > next_word) {
      std::string why = reply.body;
      while (!why.empty() && why.back() == '\n') why.pop_back();
      Say("waiting for the sidecar (" + why + "): is the server at " + o_.xds_server + " up?");
      next_word = Clock::now() + std::chrono::seconds(10);
    }
    pause_ms = std::min(pause_ms * 3 / 2, 200);
  }
  return false;
}

void Supervisor::WaitFor(pid_t& pid, int signal, milliseconds patience) {
  if (pid == 0) return;
  kill(-pid, signal);
  const auto until = Clock::now() + patience;
  const int seen = signals_seen_;
  while (pid != 0 && Clock::now() < until && signals_seen_ <= seen + 1) {
    pollfd p = {signals_, POLLIN, 0};
    poll(&p, 1, 50);
    HandleSignals();
  }
  if (pid == 0) return;
  kill(-pid, SIGKILL);
  int status;
  if (waitpid(pid, &status, 0) == pid && pid == app_) exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  pid = 0;
}

void Supervisor::Drain() {
  if (stop_signal_ == 0) stop_signal_ = SIGTERM;
  const bool was_ready = told_ == 1;
  if (sidecar_ready_ && sidecar_ != 0) CallAdmin(instance_.admin_socket, "POST", "/healthcheck/fail", 1000);
  // Callers leave while the application still answers; a second signal cuts this short.
  const auto until = Clock::now() + std::chrono::seconds(was_ready && app_ > 0 ? o_.drain_s : 0);
  const int seen = signals_seen_;
  while (app_ > 0 && Clock::now() < until && signals_seen_ == seen) {
    pollfd p = {signals_, POLLIN, 0};
    poll(&p, 1, 50);
    HandleSignals();
  }
  prober_.reset();
  WaitFor(app_, stop_signal_ == SIGQUIT ? SIGTERM : stop_signal_, std::chrono::seconds(10));
  WaitFor(sidecar_, SIGTERM, std::chrono::seconds(o_.drain_s + 3));
}

int Supervisor::Run() {
  if (o_.netns && geteuid() != 0) throw Failure("a network namespace needs root: sudo weft run ..., or --no-netns");
  sidecar_exe_ = open(FindSidecar(o_.sidecar).c_str(), O_RDONLY | O_CLOEXEC);
  if (sidecar_exe_ < 0) throw Failure("cannot open " + FindSidecar(o_.sidecar) + ": " + strerror(errno));
  if (!o_.sidecar_log.empty()) {
    sidecar_log_ = open(o_.sidecar_log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (sidecar_log_ < 0) throw Failure("cannot open " + o_.sidecar_log + ": " + strerror(errno));
  }
  BlockSignals();
  Claim();
  PrepareNetwork();
  PrepareFiles();
  if (o_.health_port != 0) health_ = std::make_unique<HealthServer>(static_cast<uint16_t>(o_.health_port), o_.health_probes, instance_.address);
  StartSidecar();
  if (!WaitSidecarReady()) {
    Drain();
    return 128 + stop_signal_;
  }
  // Spent: the sidecar has its identity.
  unlink((Dir() + "/sidecar/token").c_str());
  if (!o_.command.empty()) StartApp();
  prober_ = std::make_unique<Prober>(o_.ready, netns_, instance_.address);

  while (stop_signal_ == 0) {
    pollfd p[2] = {{signals_, POLLIN, 0}, {prober_->events(), POLLIN, 0}};
    poll(p, 2, 200);
    HandleSignals();
    char verdict;
    while (read(prober_->events(), &verdict, 1) == 1) app_ready_ = verdict == '1';
    const auto now = Clock::now();
    if (sidecar_ == 0 && now >= next_sidecar_) StartSidecar();
    if (app_ended_ && !o_.restart) break;
    if (app_ended_ && now >= next_app_) {
      StartApp();
      prober_->Restart();
    }
    TellSidecar();
  }
  const bool asked = stop_signal_ != 0 && !app_ended_;
  Drain();
  // Asked to end, and the application ended by that very signal: that is what a shell reports, too.
  return asked && o_.command.empty() ? 0 : exit_code_;
}

Supervisor::~Supervisor() {
  prober_.reset();
  for (pid_t* pid : {&app_, &sidecar_}) {
    if (*pid > 0 && kill(-*pid, SIGKILL) == 0) waitpid(*pid, nullptr, 0);
  }
  if (claimed_) {
    // What the application left behind: it must be gone before its namespace can.
    if (KillLeftovers(instance_.id)) while (waitpid(-1, nullptr, WNOHANG) > 0) {}
    StateLock lock(o_.run_dir);
    Remove(o_.run_dir, instance_.id);
  }
  for (int fd : {signals_, netns_, sidecar_exe_, sidecar_log_}) {
    if (fd >= 0) close(fd);
  }
}

}  // namespace

int Run(const RunOptions& options) { return Supervisor(options).Run(); }

}  // namespace weft::run
