// --wait: until what was written is in force in every connected sidecar.
#pragma once

#include <string>

#include "tools/weft/cli/client.h"

namespace weft {

struct WaitFlags {
  bool wait = false;
  int timeout_s = 30;
};

// Asks the server's status until every connected sidecar has acknowledged `revision`, at most timeout_s; a sidecar that
// refused it ends the wait. Returns {"revision","connected","served","waiting":[{"node","reason"}],"disconnected":n}.
cli::Json AwaitRevision(const cli::Client& client, const std::string& revision, int timeout_s);

// What it came to, in words; exit code 0, or 1 when a sidecar is left waiting (each is named on stderr).
int ReportWait(const cli::Json& result, bool quiet);

}  // namespace weft
