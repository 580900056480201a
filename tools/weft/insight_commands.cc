// status, topology, traces, trace, why: what the mesh says about itself.
#include <time.h>

#include <cstdio>
#include <memory>

#include "tools/weft/cli/waterfall.h"
#include "tools/weft/commands.h"

namespace weft {
namespace {

using cli::Clean;
using cli::Json;
using cli::Text;

void Status(Context& c) {
  const Json answer = c.client().Get("/api/v1/status");
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  const long now = time(nullptr);
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> nacks;
  for (const Json& s : answer.value("sidecars", Json::array())) {
    std::vector<std::string> row = {Text(s, "node"), Text(s, "service") + "." + Text(s, "namespace"), Text(s, "version"),
                                    Text(s, "connected") == "true" ? "yes" : "NO (" + cli::Age(Text(s, "last_seen"), now) + ")",
                                    Text(s, "active") == "true" ? "yes" : Text(s, "ready") == "true" ? "ready" : "no"};
    const Json types = s.value("types", Json::object());
    for (const char* t : {"cds", "eds", "lds", "rds"}) {
      const Json type = types.contains(t) ? types[t] : Json();
      if (!type.is_object()) {
        row.push_back("");
        continue;
      }
      const bool nack = type.contains("nack") && type["nack"].is_object();
      row.push_back(nack ? "NACK" : (Text(type, "pending") == "true" ? "pending " : "") + Text(type, "acked").substr(0, 8));
      if (nack) nacks.push_back(Text(s, "node") + " " + t + ": " + Text(type["nack"], "reason"));
    }
    row.push_back(Text(s, "revision"));
    rows.push_back(std::move(row));
  }
  fputs(cli::Table({"SIDECAR", "SERVICE", "VERSION", "CONNECTED", "SERVING", "CDS", "EDS", "LDS", "RDS", "REVISION"}, rows).c_str(),
        stdout);
  for (const auto& n : nacks) printf("\nrefused: %s\n", Clean(n).c_str());
  printf("\nrevision %s, trust domain %s\n", Text(answer, "revision").c_str(), Clean(Text(answer, "trust_domain")).c_str());
}

}  // namespace

void AddInsightCommands(CLI::App& app, Context& c) {
  auto* status = app.add_subcommand("status", "every sidecar: connected, last acknowledged per type, refusals");
  AddOutputFlag(status, c);
  status->callback([&c] { Status(c); });
}

}  // namespace weft
