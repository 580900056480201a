// weft: the mesh's command line.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tools/weft/commands.h"

namespace weft {

void AddOutputFlag(CLI::App* sub, Context& context) {
  sub->add_option("-o,--output", context.output, "table, json or yaml")->check(CLI::IsMember({"table", "json", "yaml"}));
}

int Main(int argc, char** argv) {
  Context context;
  CLI::App app("Weft, a service mesh: write policy, look at traffic, run workloads with a sidecar.", "weft");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", context.connection.server, "xDS server's API (default http://127.0.0.1:8080)")
      ->envname("WEFT_SERVER");
  app.add_option("--token-file", context.connection.token_file, "the server's API token, <data-dir>/api-token; for writes")
      ->envname("WEFT_TOKEN_FILE");
  app.add_option("--request-timeout", context.connection.timeout_s, "seconds to wait for an answer")->check(CLI::Range(1, 3600));
  AddObjectCommands(app, context);
  AddInsightCommands(app, context);
  AddNodeCommands(app, context);
  AddMeshCommands(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      fprintf(stderr, "error: unknown command \"%s\" for \"weft\"\nRun 'weft --help' for usage.\n", cli::Clean(app.remaining()[0]).c_str());
      return cli::kUsage;
    }
    const int code = app.exit(e);
    return code == 0 ? 0 : cli::kUsage;
  } catch (const cli::Failure& e) {
    // What the server said stands as it is, as kubectl has it.
    const bool from_server = std::string_view(e.what()).starts_with("Error from server");
    fprintf(stderr, "%s%s\n", from_server ? "" : "error: ", e.what());
    return e.code();
  } catch (const std::exception& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return cli::kError;
  }
  if (fflush(stdout) != 0) return cli::kError;
  return context.exit_code;
}

}  // namespace weft

int main(int argc, char** argv) { return weft::Main(argc, argv); }
