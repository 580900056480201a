#include "tools/weft/run/state.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tools/weft/cli/client.h"
#include "tools/weft/cli/error.h"

namespace weft::run {

namespace fs = std::filesystem;
using cli::Failure;
using cli::Json;

uint64_t StartTime(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (pid <= 0 || !std::getline(in, line)) return 0;
  // The command name is in parentheses and may hold anything; fields count from after the last one.
  const size_t close = line.rfind(')');
  if (close == std::string::npos) return 0;
  std::istringstream fields(line.substr(close + 1));
  std::string field;
  for (int i = 3; i <= 22 && fields >> field; i++) {
    if (i == 3 && (field == "Z" || field == "X")) return 0;
    if (i == 22) return strtoull(field.c_str(), nullptr, 10);
  }
  return 0;
}

StateLock::StateLock(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  // Others may pass through (applications run there) but not look around.
  chmod(dir.c_str(), 0711);
  fd_ = open((dir + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd_ < 0 || flock(fd_, LOCK_EX) != 0) throw Failure("cannot lock " + dir + "/lock: " + strerror(errno));
}

StateLock::~StateLock() { close(fd_); }

void Save(const std::string& dir, const Instance& i) {
  Json j = {{"id", i.id},
            {"service", i.service},
            {"namespace", i.ns},
            {"version", i.version},
            {"address", i.address},
            {"network", i.network},
            {"admin_socket", i.admin_socket},
            {"supervisor", i.supervisor},
            {"supervisor_start", i.supervisor_start},
            {"sidecar", i.sidecar},
            {"app", i.app}};
  const std::string path = dir + "/" + i.id + "/instance.json";
  std::error_code error;
  fs::create_directories(dir + "/" + i.id, error);
  {
    std::ofstream out(path + ".new");
    out << j.dump(2) << "\n";
    if (!out.flush()) throw Failure("cannot write " + path);
  }
  fs::rename(path + ".new", path);
}

std::vector<Instance> LoadAll(const std::string& dir) {
  std::vector<Instance> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    std::ifstream in(entry.path() / "instance.json");
    if (!in) continue;
    Json j = Json::parse(in, nullptr, false);
    Instance i;
    // A folder name is the id whatever the file says: it is what gets removed.
    i.id = entry.path().filename();
    if (j.is_object()) {
      i.service = j.value("service", "");
      i.ns = j.value("namespace", "");
      i.version = j.value("version", "");
      i.address = j.value("address", "");
      i.network = j.value("network", "");
      i.admin_socket = j.value("admin_socket", "");
      i.supervisor = j.value("supervisor", 0);
      i.supervisor_start = j.value("supervisor_start", uint64_t{0});
      i.sidecar = j.value("sidecar", 0);
      i.app = j.value("app", 0);
    }
    out.push_back(std::move(i));
  }
  return out;
}

bool KillLeftovers(const std::string& id) {
  bool found = false;
  const std::string want = "WEFT_INSTANCE=" + id;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const pid_t pid = atoi(entry.path().filename().c_str());
    if (pid <= 1 || pid == getpid()) continue;
    std::ifstream in(entry.path() / "environ", std::ios::binary);
    std::string item;
    while (std::getline(in, item, '\0')) {
      if (item != want) continue;
      kill(pid, SIGKILL);
      found = true;
      break;
    }
  }
  return found;
}

void Remove(const std::string& dir, const std::string& id) {
  std::error_code error;
  if (!id.empty()) fs::remove_all(dir + "/" + id, error);
}

std::vector<std::string> CleanStale(const std::string& dir) {
  std::vector<std::string> out;
  for (const Instance& i : LoadAll(dir)) {
    const uint64_t start = StartTime(i.supervisor);
    if (start != 0 && start == i.supervisor_start) continue;
    KillLeftovers(i.id);
    Remove(dir, i.id);
    out.push_back(i.id);
  }
  return out;
}

std::string FreeAddress(const std::vector<Instance>& instances, const std::string& network) {
  std::set<std::string> used;
  for (const Instance& i : instances) {
    if (i.network == network) used.insert(i.address);
  }
  for (int n = 2; n < 65535; n++) {
    if (n % 256 == 255 || n % 256 == 0) continue;
    std::string a = "10.77." + std::to_string(n / 256) + "." + std::to_string(n % 256);
    if (used.count(a) == 0) return a;
  }
  throw Failure("no free address in 10.77.0.0/16");
}

uint32_t AddressIndex(const std::string& address) {
  in_addr a = {};
  if (inet_pton(AF_INET, address.c_str(), &a) == 1) return ntohl(a.s_addr) & 0xffff;
  in6_addr a6 = {};
  if (inet_pton(AF_INET6, address.c_str(), &a6) != 1) return 1;
  return 0x10000 + (a6.s6_addr[14] << 8 | a6.s6_addr[15]) % 30000;  // beside those of IPv4, below 100000
}

}  // namespace weft::run
