// One request to a sidecar's admin over its unix socket. Blocking, bounded by the timeout.
#pragma once

#include <string>

namespace weft::run {

struct AdminReply {
  int status = 0;  // 0: not reached, `body` says why
  std::string body;
};

AdminReply CallAdmin(const std::string& socket_path, const std::string& method, const std::string& path,
                     int timeout_ms = 2000);

}  // namespace weft::run
