// token, bootstrap, ready, version: joining, and what speaks about the mesh itself.
#include <sys/stat.h>
#include <time.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "tools/weft/commands.h"
#include "tools/weft/join/foreign.h"
#include "tools/weft/join/identity.h"
#include "tools/weft/run/admin.h"
#include "tools/weft/run/spec.h"
#include "tools/weft/run/state.h"

namespace weft {
namespace {

using cli::Failure;
using cli::Json;
using cli::Text;

struct TokenFlags {
  std::string service, ns = "default";
  int ttl_s = 3600, uses = 1;
};

std::string Mint(const cli::Client& client, const TokenFlags& f, Json* whole) {
  const Json request = {{"service", f.service}, {"namespace", f.ns}, {"ttl_s", f.ttl_s}, {"uses", f.uses}};
  Json answer = client.Post("/api/v1/tokens", request.dump(), "application/json");
  const std::string token = Text(answer, "token");
  if (token.empty()) throw Failure("the server gave no token");
  if (whole != nullptr) *whole = std::move(answer);
  return token;
}

void AddToken(CLI::App& app, Context& c) {
  auto* token = app.add_subcommand("token", "join tokens");
  token->require_subcommand(1);
  auto f = std::make_shared<TokenFlags>();
  auto* create = token->add_subcommand("create", "print a token with which SERVICE may join");
  create->add_option("service", f->service)->required();
  create->add_option("-n,--namespace", f->ns);
  create->add_option("--ttl", f->ttl_s, "seconds")->check(CLI::Range(1, 365 * 86400));
  create->add_option("--uses", f->uses)->check(CLI::Range(1, 1'000'000));
  AddOutputFlag(create, c);
  create->callback([&c, f] {
    Json whole;
    const std::string text = Mint(c.client(), *f, &whole);
    fputs((c.table() ? text + "\n" : cli::Render(whole, c.output)).c_str(), stdout);
  });
  auto id = std::make_shared<std::string>();
  auto* revoke = token->add_subcommand("revoke", "make a token useless");
  revoke->add_option("id", *id, "its first part")->required();
  revoke->callback([&c, id] {
    c.client().Delete("/api/v1/tokens/" + cli::EncodeSegment(id->substr(0, id->find('.'))));
    printf("token %s revoked\n", cli::Clean(id->substr(0, id->find('.'))).c_str());
  });
}

struct BootstrapFlags {
  join::Foreign envoy;
  std::string join_token_file, trust_bundle;
  bool renew = false;
};

void BootstrapEnvoy(Context& c, BootstrapFlags& f) {
  auto& e = f.envoy;
  if (!run::IsLabel(e.service)) throw Failure("--service " + e.service + ": a DNS label is wanted", cli::kUsage);
  std::filesystem::create_directories(e.dir);
  e.dir = std::filesystem::canonical(e.dir);
  chmod(e.dir.c_str(), 0700);
  const cli::Client client = c.client();
  std::string text;
  if (f.join_token_file.empty()) {
    text = Mint(client, {e.service, e.ns, 600, 1}, nullptr);
  } else {
    std::ifstream in(f.join_token_file);
    if (!in || !std::getline(in, text)) throw Failure("cannot read the join token from " + f.join_token_file);
  }
  const join::Token token = join::ParseToken(text);
  std::string bundle;
  if (f.trust_bundle.empty()) {
    const Json trust = client.Get("/api/v1/trust-bundle");
    bundle = Text(trust, "pem");
    if (!Text(trust, "trust_domain").empty()) e.trust_domain = Text(trust, "trust_domain");
  } else {
    std::ifstream in(f.trust_bundle);
    bundle.assign(std::istreambuf_iterator<char>(in), {});
    if (bundle.empty()) throw Failure("cannot read the trust bundle from " + f.trust_bundle);
  }
  if (!join::BundleHasKey(bundle, token.root_hash)) throw Failure("the server's root key is not the one that the join token names");
  if (e.workload_id.empty()) e.workload_id = e.service + "-envoy-" + std::to_string(time(nullptr));
  const join::KeyPair key = join::MakeKeyPair();
  join::Identity identity = join::Join({e.xds_server, e.server_name, bundle}, token.id_and_secret, key.csr_der, e.workload_id);
  join::WriteIdentity(e.dir, key.key_pem, identity);
  std::ofstream out(e.dir + "/envoy.json");
  out << join::RenderEnvoyBootstrap(e);
  if (!out.flush()) throw Failure("cannot write " + e.dir + "/envoy.json");
  fprintf(stderr, "%s\nenvoy -c %s/envoy.json\n", identity.spiffe_id.c_str(), e.dir.c_str());
  if (f.renew) join::KeepRenewed(e, identity, key.key_pem);
}

void AddBootstrap(CLI::App& app, Context& c) {
  auto* sub = app.add_subcommand("bootstrap", "what other proxies need to join");
  sub->require_subcommand(1);
  auto f = std::make_shared<BootstrapFlags>();
  auto& e = f->envoy;
  auto* envoy = sub->add_subcommand("envoy", "identity (key made here) and bootstrap file for a stock Envoy");
  envoy->add_option("--dir", e.dir, "where to write them")->required();
  envoy->add_option("--service", e.service)->required();
  envoy->add_option("-n,--namespace", e.ns);
  envoy->add_option("--version", e.version);
  envoy->add_option("--id", e.workload_id);
  envoy->add_option("--xds-server", e.xds_server)->envname("WEFT_XDS_SERVER");
  envoy->add_option("--admin-port", e.admin_port, "on the loopback (default: a unix socket in the folder)");
  envoy->add_option("--join-token-file", f->join_token_file, "default: minted through --server");
  envoy->add_option("--trust-bundle", f->trust_bundle, "PEM file; default: asked of --server. Either is checked against the token");
  envoy->add_option("--trust-domain", e.trust_domain);
  envoy->add_flag("--renew", f->renew, "stay, and renew the certificate at half its life");
  envoy->callback([&c, f] { BootstrapEnvoy(c, *f); });
}

void AddReady(CLI::App& app, Context& c) {
  auto dir = std::make_shared<std::string>("/run/weft");
  auto* sub = app.add_subcommand("ready", "exit code 0 when every sidecar of weft run here serves (a startup probe)");
  sub->add_option("--run-dir", *dir)->envname("WEFT_RUN_DIR");
  sub->callback([&c, dir] {
    const auto instances = run::LoadAll(*dir);
    if (instances.empty()) {
      fprintf(stderr, "no sidecar in %s\n", dir->c_str());
      c.exit_code = cli::kError;
    }
    for (const auto& i : instances) {
      const run::AdminReply reply = run::CallAdmin(i.admin_socket, "GET", "/ready");
      if (reply.status == 200) continue;
      fprintf(stderr, "%s: %s\n", i.id.c_str(), cli::Clean(reply.body).c_str());
      c.exit_code = cli::kError;
    }
  });
}

}  // namespace

void AddMeshCommands(CLI::App& app, Context& c) {
  AddToken(app, c);
  AddBootstrap(app, c);
  AddReady(app, c);
  auto* version = app.add_subcommand("version", "of this program and of the server");
  auto client_only = std::make_shared<bool>(false);
  version->add_flag("--client", *client_only, "do not ask the server");
  AddOutputFlag(version, c);
  version->callback([&c, client_only] {
    Json v = {{"client", kVersion}};
    if (!*client_only) {
      try {
        v["server"] = c.client().Get("/api/v1/version");
      } catch (const Failure& e) {
        fprintf(stderr, "%s\n", e.what());
        c.exit_code = cli::kError;
      }
    }
    if (!c.table()) return void(fputs(cli::Render(v, c.output).c_str(), stdout));
    printf("weft %s\n", kVersion);
    if (v.contains("server")) printf("server %s (trust domain %s)\n", Text(v["server"], "version").c_str(), Text(v["server"], "trust_domain").c_str());
  });
}

}  // namespace weft
