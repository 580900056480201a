// The families of commands. Each adds its subcommands to the app; a subcommand's callback does the work, puts an exit
// code other than 0 into Context::exit_code, and throws cli::Failure when it gives up.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/weft/cli/client.h"
#include "tools/weft/cli/error.h"
#include "tools/weft/cli/output.h"

namespace weft {

constexpr const char* kVersion = "0.1.0";

struct Context {
  cli::Connection connection;
  std::string output = "table";
  int exit_code = 0;

  cli::Client client() const { return cli::Client(connection); }
  bool table() const { return output == "table" || output.empty(); }
};

// -o on a subcommand.
void AddOutputFlag(CLI::App* sub, Context& context);

void AddObjectCommands(CLI::App& app, Context& context);   // apply get delete diff history rollback
void AddInsightCommands(CLI::App& app, Context& context);  // status topology traces trace why
void AddMeshCommands(CLI::App& app, Context& context);     // token bootstrap version
void AddNodeCommands(CLI::App& app, Context& context);     // run network intercept inject

}  // namespace weft
