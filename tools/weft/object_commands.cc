// apply, get, delete, diff, history, rollback: what operators write, as kubectl users expect it.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>

#include "tools/weft/await.h"
#include "tools/weft/commands.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using cli::Clean;
using cli::Client;
using cli::Failure;
using cli::Json;
using cli::Text;

struct Document {
  std::string name;  // as the user gave it
  std::string text;
};

std::string Slurp(std::istream& in) { return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()}; }

// Files as given; of folders every *.yaml, *.yml and *.json in order of name; "-" is the standard input.
std::vector<Document> Read(const std::vector<std::string>& paths) {
  std::vector<Document> out;
  for (const std::string& path : paths) {
    if (path == "-") {
      out.push_back({"stdin", Slurp(std::cin)});
      continue;
    }
    std::vector<fs::path> files;
    if (fs::is_directory(path)) {
      for (const auto& entry : fs::directory_iterator(path)) {
        const auto ext = entry.path().extension();
        if (entry.is_regular_file() && (ext == ".yaml" || ext == ".yml" || ext == ".json")) files.push_back(entry.path());
      }
      std::sort(files.begin(), files.end());
      if (files.empty()) throw Failure("no .yaml, .yml or .json file in " + path);
    } else {
      files = {path};
    }
    for (const auto& f : files) {
      std::ifstream in(f, std::ios::binary);
      if (!in) throw Failure("the path \"" + f.string() + "\" does not exist or cannot be read");
      out.push_back({f.string(), Slurp(in)});
    }
  }
  return out;
}

std::string ContentType(const Document& d) {
  const size_t first = d.text.find_first_not_of(" \t\r\n");
  const bool json = d.name.ends_with(".json") || (first != std::string::npos && (d.text[first] == '[' || d.text[first] == '{'));
  return json ? "application/json" : "application/yaml";
}

struct Kind {
  const char* kind;
  std::vector<const char*> names;
};
const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {{"Service", {"service", "services", "svc"}},
                                          {"Route", {"route", "routes"}},
                                          {"Traffic", {"traffic", "traffics"}},
                                          {"MeshTls", {"meshtls", "mtls"}},
                                          {"Authorization", {"authorization", "authorizations", "authz"}},
                                          {"Fault", {"fault", "faults"}}};
  return kinds;
}

std::string KindOf(const std::string& word) {
  std::string lower = word;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return tolower(c); });
  std::string known;
  for (const auto& k : Kinds()) {
    if (std::find(k.names.begin(), k.names.end(), lower) != k.names.end()) return k.kind;
    known += std::string(known.empty() ? "" : ", ") + k.names[0];
  }
  throw Failure("the server has no kind \"" + word + "\": " + known + ", workloads");
}

std::string Lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return tolower(c); });
  return s;
}

// "route/cart fault/cart" and "route cart catalog" name two; "route" names a kind.
struct Target {
  std::string kind, name;
};
std::vector<Target> ParseTargets(const std::vector<std::string>& words) {
  std::vector<Target> out;
  const bool pairs = !words.empty() && words[0].find('/') != std::string::npos;
  for (size_t i = pairs ? 0 : 1; i < words.size(); ++i) {
    const size_t slash = words[i].find('/');
    if (pairs != (slash != std::string::npos)) throw Failure("either KIND/NAME... or KIND NAME...", cli::kUsage);
    out.push_back(pairs ? Target{words[i].substr(0, slash), words[i].substr(slash + 1)} : Target{words[0], words[i]});
  }
  if (out.empty()) out.push_back({words.empty() ? "" : words[0], ""});
  return out;
}

void PrintActions(const Json& answer, bool dry_run) {
  for (const Json& o : answer.value("objects", Json::array())) {
    const std::string ns = Text(o, "namespace");
    printf("%s/%s%s %s%s\n", Clean(Lower(Text(o, "kind"))).c_str(), Clean(Text(o, "name")).c_str(),
           ns.empty() || ns == "default" ? "" : (" -n " + Clean(ns)).c_str(), Clean(Text(o, "action")).c_str(),
           dry_run ? " (dry run)" : "");
  }
  for (const Json& w : answer.value("warnings", Json::array())) {
    if (w.is_string()) fprintf(stderr, "warning: %s\n", Clean(w.get<std::string>()).c_str());
  }
}

void AddWaitFlags(CLI::App* sub, WaitFlags& f) {
  sub->add_flag("--wait", f.wait, "until every connected sidecar has acknowledged it; exit code 1, and who has not, otherwise");
  sub->add_option("--timeout", f.timeout_s, "seconds that --wait waits")->check(CLI::Range(1, 3600));
}

// After a write: the wait that was asked for. `answer` is the server's; with -o it gets the result as "wait".
void Await(Context& c, const WaitFlags& f, Json* answer) {
  if (!f.wait) return;
  Json result = AwaitRevision(c.client(), Text(*answer, "revision"), f.timeout_s);
  if (int rc = ReportWait(result, !c.table())) c.exit_code = rc;
  (*answer)["wait"] = std::move(result);
}

struct ApplyFlags {
  std::vector<std::string> files;
  bool dry_run = false;
  std::string message;
  WaitFlags wait;
};

void Apply(Context& c, const ApplyFlags& f) {
  const Client client = c.client();
  Json all = Json::array();
  for (const Document& d : Read(f.files)) {
    Json answer = client.Post("/api/v1/apply", d.text, ContentType(d),
                              {{"file", d.name}, {"dry_run", f.dry_run ? "true" : ""}, {"message", f.message}});
    if (c.table()) PrintActions(answer, f.dry_run);
    all.push_back(std::move(answer));
  }
  // The last revision holds what the files before brought as well.
  if (!f.dry_run && !all.empty()) Await(c, f.wait, &all.back());
  if (!c.table()) fputs(cli::Render(all.size() == 1 ? all[0] : all, c.output).c_str(), stdout);
}

void Diff(Context& c, const std::vector<std::string>& files) {
  const Client client = c.client();
  bool differs = false;
  try {
    Json all = Json::array();
    for (const Document& d : Read(files)) {
      const Json answer = client.Post("/api/v1/diff", d.text, ContentType(d), {{"file", d.name}});
      for (const Json& o : answer.value("objects", Json::array())) {
        all.push_back(o);
        if (Text(o, "action") == "unchanged") continue;
        differs = true;
        if (!c.table()) continue;
        printf("# %s/%s %s\n", Clean(Lower(Text(o, "kind"))).c_str(), Clean(Text(o, "name")).c_str(), Clean(Text(o, "action")).c_str());
        std::istringstream lines(Text(o, "diff"));
        for (std::string line; std::getline(lines, line);) printf("%s\n", Clean(line).c_str());
      }
    }
    if (!c.table()) fputs(cli::Render(all, c.output).c_str(), stdout);
  } catch (const Failure& e) {
    throw Failure(e.what(), 2);  // 1 means "differs", as with kubectl diff
  }
  c.exit_code = differs ? 1 : 0;
}

// In a form that apply takes back: documents, or an array.
void Objects(const Json& list, const std::string& format) {
  if (format != "yaml") return void(fputs(cli::Render(list, format).c_str(), stdout));
  for (const Json& o : list) printf("---\n%s", cli::Render(o, format).c_str());
}

struct GetFlags {
  std::vector<std::string> words;
  std::string ns;
  bool all = false;
};

void GetWorkloads(Context& c, const GetFlags& f, const std::string& name) {
  Json answer = c.client().Get("/api/v1/workloads", {{"service", name}, {"namespace", f.all ? "" : f.ns}});
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  std::vector<std::vector<std::string>> rows;
  for (const Json& w : answer.value("workloads", Json::array())) {
    std::string ports;
    for (const Json& p : w.value("ports", Json::array())) {
      ports += (ports.empty() ? "" : ",") + Text(p, "number") + "/" + Lower(Text(p, "protocol"));
    }
    rows.push_back({Text(w, "id"), Text(w, "service"), Text(w, "namespace"), Text(w, "version"), Text(w, "address"), ports,
                    Text(w, "ready"), Text(w, "active")});
  }
  if (rows.empty()) return void(fprintf(stderr, "No workload is registered%s.\n", name.empty() ? "" : (" for service " + Clean(name)).c_str()));
  fputs(cli::Table({"WORKLOAD", "SERVICE", "NAMESPACE", "VERSION", "ADDRESS", "PORTS", "READY", "ACTIVE"}, rows).c_str(), stdout);
}

void PrintObjects(const Json& list) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& o : list) {
    const Json meta = o.value("metadata", Json::object());
    rows.push_back({Text(o, "kind"), Text(meta, "namespace"), Text(meta, "name"), Text(meta, "revision")});
  }
  fputs(cli::Table({"KIND", "NAMESPACE", "NAME", "REVISION"}, rows).c_str(), stdout);
}

std::string ObjectPath(const std::string& kind, const std::string& ns, const std::string& name) {
  return "/api/v1/objects/" + cli::EncodeSegment(kind) + "/" + cli::EncodeSegment(ns) + "/" + cli::EncodeSegment(name);
}

// Those that are there are shown, whatever is missing.
void GetNamed(Context& c, const std::vector<Target>& targets, const std::string& ns) {
  Json found = Json::array();
  for (const Target& t : targets) {
    const std::string kind = KindOf(t.kind);
    Json o = c.client().GetOrNull(ObjectPath(kind, ns, t.name));
    if (!o.is_null()) {
      found.push_back(std::move(o));
      continue;
    }
    fprintf(stderr, "Error from server (NotFound): %s \"%s\" not found\n", Lower(kind).c_str(), Clean(t.name).c_str());
    c.exit_code = cli::kError;
  }
  if (found.empty()) return;
  if (c.table()) return PrintObjects(found);
  if (targets.size() == 1) return void(fputs(cli::Render(found[0], c.output).c_str(), stdout));
  Objects(found, c.output);
}

void Get(Context& c, const GetFlags& f) {
  const std::vector<Target> targets = ParseTargets(f.words);
  const std::string lower = Lower(targets[0].kind);
  if (lower == "workloads" || lower == "workload") return GetWorkloads(c, f, targets[0].name);
  if (!targets[0].name.empty()) return GetNamed(c, targets, f.ns.empty() ? "default" : f.ns);
  const std::string kind = lower.empty() || lower == "all" ? "" : KindOf(lower);
  Json answer = c.client().Get("/api/v1/objects", {{"kind", kind}, {"namespace", f.all ? "" : f.ns}});
  if (!c.table()) return Objects(answer.value("objects", Json::array()), c.output);
  const Json list = answer.value("objects", Json::array());
  if (!list.empty()) return PrintObjects(list);
  fprintf(stderr, "No resources found%s.\n", f.ns.empty() ? "" : (" in namespace " + Clean(f.ns)).c_str());
  if (kind == "Service") fprintf(stderr, "Service policies, that is. What runs: weft get workloads; who calls whom: weft topology.\n");
}

struct DeleteFlags {
  std::vector<std::string> words, files;
  std::string ns = "default";
  bool ignore_not_found = false;
  WaitFlags wait;
};

void DeleteOne(Context& c, const std::string& kind, const std::string& ns, const std::string& name, bool ignore, Json* last) {
  const std::string path = ObjectPath(kind, ns, name);
  if (c.client().GetOrNull(path).is_null()) {
    if (ignore) return;
    // The others are deleted all the same.
    fprintf(stderr, "Error from server (NotFound): %s \"%s\" not found\n", Lower(kind).c_str(), Clean(name).c_str());
    c.exit_code = cli::kError;
    return;
  }
  *last = c.client().Delete(path);
  PrintActions(*last, false);
}

void Delete(Context& c, const DeleteFlags& f) {
  if (f.files.empty() == f.words.empty()) throw Failure("name what to delete by KIND NAME or by -f FILE", cli::kUsage);
  Json last;
  if (!f.words.empty()) {
    for (const Target& t : ParseTargets(f.words)) {
      if (t.name.empty()) throw Failure("which " + t.kind + "? weft delete KIND NAME", cli::kUsage);
      DeleteOne(c, KindOf(t.kind), f.ns, t.name, f.ignore_not_found, &last);
    }
  }
  // The server reads the documents for us and says what they name.
  for (const Document& d : Read(f.files)) {
    const Json answer = c.client().Post("/api/v1/apply", d.text, ContentType(d), {{"file", d.name}, {"dry_run", "true"}});
    for (const Json& o : answer.value("objects", Json::array())) {
      DeleteOne(c, Text(o, "kind"), Text(o, "namespace"), Text(o, "name"), f.ignore_not_found, &last);
    }
  }
  if (!last.is_null()) Await(c, f.wait, &last);
}

void History(Context& c, int limit, const std::string& revision) {
  if (!revision.empty()) {
    const Json answer = c.client().Get("/api/v1/history/" + cli::EncodeSegment(revision));
    return void(fputs(cli::Render(answer, c.table() ? "yaml" : c.output).c_str(), stdout));
  }
  const Json answer = c.client().Get("/api/v1/history", {{"limit", std::to_string(limit)}});
  if (!c.table()) return void(fputs(cli::Render(answer, c.output).c_str(), stdout));
  std::vector<std::vector<std::string>> rows;
  for (const Json& r : answer.value("revisions", Json::array())) {
    std::string changes;
    for (const Json& ch : r.value("changes", Json::array())) {
      changes += (changes.empty() ? "" : ", ") + Lower(Text(ch, "kind")) + "/" + Text(ch, "name") + " " + Text(ch, "action");
    }
    rows.push_back({Text(r, "revision"), Text(r, "time"), Text(r, "action"), changes, Text(r, "message")});
  }
  fputs(cli::Table({"REVISION", "TIME", "ACTION", "CHANGES", "MESSAGE"}, rows).c_str(), stdout);
}

void Rollback(Context& c, std::string revision, const WaitFlags& wait) {
  const Client client = c.client();
  if (revision.empty()) {
    const Json h = client.Get("/api/v1/history", {{"limit", "2"}});
    const Json list = h.value("revisions", Json::array());
    if (list.empty()) throw Failure("there is nothing to roll back: no revision yet");
    revision = list.size() > 1 ? Text(list[1], "revision") : "0";
  }
  if (revision.find_first_not_of("0123456789") != std::string::npos) throw Failure("\"" + revision + "\" is not a revision", cli::kUsage);
  Json answer = client.Post("/api/v1/rollback", Json({{"revision", std::stoull(revision)}}).dump(), "application/json");
  if (c.table()) {
    PrintActions(answer, false);
    printf("rolled back to revision %s (now revision %s)\n", revision.c_str(), Text(answer, "revision").c_str());
  }
  Await(c, wait, &answer);
  if (!c.table()) fputs(cli::Render(answer, c.output).c_str(), stdout);
}

}  // namespace

void AddObjectCommands(CLI::App& app, Context& c) {
  {
    auto f = std::make_shared<ApplyFlags>();
    auto* sub = app.add_subcommand("apply", "write policies: all of a file or none of it");
    sub->add_option("-f,--filename", f->files, "file, folder, or - for the standard input")->required()->allow_extra_args(false);
    sub->add_flag("--dry-run", f->dry_run, "only check and say what would happen");
    sub->add_option("-m,--message", f->message, "kept in the history");
    AddWaitFlags(sub, f->wait);
    AddOutputFlag(sub, c);
    sub->callback([&c, f] { Apply(c, *f); });
  }
  {
    auto f = std::make_shared<std::vector<std::string>>();
    auto* sub = app.add_subcommand("diff", "what apply would change; exit code 1 when something would");
    sub->add_option("-f,--filename", *f, "file, folder, or -")->required()->allow_extra_args(false);
    AddOutputFlag(sub, c);
    sub->callback([&c, f] { Diff(c, *f); });
  }
  {
    auto f = std::make_shared<GetFlags>();
    auto* sub = app.add_subcommand("get", "policies (KIND [NAME...], KIND/NAME..., all) or workloads");
    sub->add_option("what", f->words, "service, route, traffic, meshtls, authorization, fault, workloads")->expected(0, 1000);
    sub->add_option("-n,--namespace", f->ns, "default: all for lists, \"default\" for one");
    sub->add_flag("-A,--all-namespaces", f->all);
    AddOutputFlag(sub, c);
    sub->callback([&c, f] { Get(c, *f); });
  }
  {
    auto f = std::make_shared<DeleteFlags>();
    auto* sub = app.add_subcommand("delete", "delete policies: KIND NAME..., KIND/NAME..., or what -f names");
    sub->add_option("what", f->words)->expected(0, 1000);
    sub->add_option("-f,--filename", f->files, "file, folder, or -")->allow_extra_args(false);
    sub->add_option("-n,--namespace", f->ns);
    sub->add_flag("--ignore-not-found", f->ignore_not_found);
    AddWaitFlags(sub, f->wait);
    sub->callback([&c, f] { Delete(c, *f); });
  }
  {
    auto limit = std::make_shared<int>(20);
    auto revision = std::make_shared<std::string>();
    auto* sub = app.add_subcommand("history", "revisions, newest first; or one of them with its changes");
    sub->add_option("revision", *revision);
    sub->add_option("--limit", *limit)->check(CLI::Range(1, 1000));
    AddOutputFlag(sub, c);
    sub->callback([&c, limit, revision] { History(c, *limit, *revision); });
  }
  {
    auto revision = std::make_shared<std::string>();
    auto* sub = app.add_subcommand("rollback", "back to a revision (default: the one before the last), as a new one");
    auto wait = std::make_shared<WaitFlags>();
    sub->add_option("revision,--to", *revision);
    AddWaitFlags(sub, *wait);
    AddOutputFlag(sub, c);
    sub->callback([&c, revision, wait] { Rollback(c, *revision, *wait); });
  }
}

}  // namespace weft
