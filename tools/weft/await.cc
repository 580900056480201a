#include "tools/weft/await.h"

#include <chrono>
#include <cstdio>
#include <thread>

#include "tools/weft/cli/error.h"
#include "tools/weft/cli/output.h"

namespace weft {
namespace {

using cli::Clean;
using cli::Json;
using cli::Text;

uint64_t Number(const Json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}

// "" when the sidecar has the revision; why not otherwise. *refused: it said no, waiting will not help.
std::string WhyNot(const Json& sidecar, uint64_t revision, bool* refused) {
  std::string nacks;
  const Json types = sidecar.value("types", Json::object());
  for (const auto& [type, state] : types.items()) {
    if (!state.is_object() || !state.contains("nack") || !state["nack"].is_object()) continue;
    nacks += (nacks.empty() ? "refused " : "; ") + type + ": " + Text(state["nack"], "reason");
  }
  *refused = !nacks.empty();
  if (!nacks.empty()) return nacks;
  if (Text(sidecar, "synced") == "true" && Number(sidecar, "revision") >= revision) return "";
  return "has acknowledged revision " + Text(sidecar, "revision");
}

}  // namespace

Json AwaitRevision(const cli::Client& client, const std::string& revision, int timeout_s) {
  const uint64_t wanted = std::stoull(revision);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(timeout_s);
  while (true) {
    const Json status = client.Get("/api/v1/status");
    Json out = {{"revision", wanted}, {"connected", 0}, {"served", 0}, {"waiting", Json::array()}, {"disconnected", 0}};
    bool hope = false;
    int connected = 0, served = 0, disconnected = 0;
    for (const Json& s : status.value("sidecars", Json::array())) {
      if (Text(s, "connected") != "true") {
        ++disconnected;
        continue;
      }
      ++connected;
      bool refused = false;
      const std::string why = WhyNot(s, wanted, &refused);
      if (why.empty()) ++served;
      else out["waiting"].push_back({{"node", Text(s, "node")}, {"reason", why}});
      hope = hope || (!why.empty() && !refused);
    }
    out["connected"] = connected, out["served"] = served, out["disconnected"] = disconnected;
    if (!hope || std::chrono::steady_clock::now() >= end) return out;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

int ReportWait(const Json& result, bool quiet) {
  if (!quiet) {
    printf("revision %s is in force in %s of %s connected sidecars\n", Text(result, "revision").c_str(), Text(result, "served").c_str(),
           Text(result, "connected").c_str());
  }
  if (Number(result, "disconnected") > 0) {
    fprintf(stderr, "note: %s sidecars are not connected; they get it when they come back\n", Text(result, "disconnected").c_str());
  }
  for (const Json& w : result.value("waiting", Json::array())) {
    fprintf(stderr, "error: %s %s\n", Clean(Text(w, "node")).c_str(), Clean(Text(w, "reason")).c_str());
  }
  return result.value("waiting", Json::array()).empty() ? cli::kOk : cli::kError;
}

}  // namespace weft
