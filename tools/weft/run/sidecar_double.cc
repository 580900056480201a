// Stands in for the sidecar in supervisor_test: answers the admin of its bootstrap file, redirects to nothing.
// Appends each admin request to <admin socket>.log. Exits at SIGTERM.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

int main(int argc, char** argv) {
  std::string config, metrics;
  for (int i = 1; i + 1 < argc; i++) {
    if (strcmp(argv[i], "-c") == 0) config = argv[i + 1];
    if (strcmp(argv[i], "--prometheus-address") == 0) metrics = argv[i + 1];
  }
  std::ifstream in(config);
  const auto bootstrap = nlohmann::json::parse(in);
  const std::string path = bootstrap["admin"]["address"]["pipe"]["path"];
  const std::string token_file = bootstrap["bootstrap_extensions"][0]["typed_config"]["token_file"];
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  strncpy(a.sun_path, path.c_str(), sizeof a.sun_path - 1);
  umask(0177);
  if (bind(listener, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0 || listen(listener, 16) != 0) return 3;
  std::ofstream log(path + ".log", std::ios::app);
  log << "started uid " << getuid() << " token " << std::ifstream(token_file).good() << std::endl;
  if (!metrics.empty()) log << "metrics " << metrics << std::endl;
  const unsigned mark = 0x539;
  const int s = socket(AF_INET, SOCK_STREAM, 0);
  log << "mark " << setsockopt(s, SOL_SOCKET, SO_MARK, &mark, sizeof mark) << std::endl;
  while (true) {
    const int fd = accept(listener, nullptr, nullptr);
    char buf[2048];
    const ssize_t n = read(fd, buf, sizeof buf);
    if (n > 0) {
      const std::string line(buf, n);
      if (line.rfind("GET /ready", 0) != 0) log << line.substr(0, line.find(" HTTP")) << std::endl;
      const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nOK\n";
      if (write(fd, answer, sizeof answer - 1) < 0) log << "cannot answer" << std::endl;
    }
    close(fd);
  }
}
