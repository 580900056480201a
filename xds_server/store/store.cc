#include "xds_server/store/store.h"

#include <arpa/inet.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace weft::server {
namespace {

using base::Error;
using base::Ok;

constexpr uint32_t kVipBase = (240u << 24) | (64u << 16), kVipFirst = 1, kVipLast = 65534;

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS revisions(number INTEGER PRIMARY KEY, time_unix_ms INTEGER NOT NULL, action TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS changes(revision INTEGER NOT NULL REFERENCES revisions(number), kind TEXT NOT NULL, ns TEXT NOT NULL,
  name TEXT NOT NULL, old_content TEXT, new_content TEXT, PRIMARY KEY(kind, ns, name, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS changes_by_revision ON changes(revision);
CREATE TABLE IF NOT EXISTS objects(kind TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  content TEXT NOT NULL, PRIMARY KEY(kind, ns, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vips(ns TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL UNIQUE, PRIMARY KEY(ns, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workloads(id TEXT PRIMARY KEY, body TEXT NOT NULL, updated_unix_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS services(ns TEXT NOT NULL, name TEXT NOT NULL, ports TEXT NOT NULL, seen_unix_ms INTEGER NOT NULL, PRIMARY KEY(ns, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens(id TEXT PRIMARY KEY, secret_sha256 TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL,
  expires_unix_s INTEGER NOT NULL, uses_left INTEGER NOT NULL) WITHOUT ROWID;
)";

// One prepared statement, bound in order; throws SqlError so that callers read as straight lines.
struct SqlError : std::runtime_error {
  explicit SqlError(const std::string& m) : std::runtime_error("store: " + m), message(m) {}
  std::string message;
};

class Statement {
 public:
  Statement(sqlite3* db, const char* sql) : db_(db) {
    if (sqlite3_prepare_v2(db, sql, -1, &s_, nullptr) != SQLITE_OK) throw SqlError(sqlite3_errmsg(db));
  }
  ~Statement() { sqlite3_finalize(s_); }
  Statement(const Statement&) = delete;
  Statement& Bind(const std::string& v) {
    sqlite3_bind_text(s_, ++n_, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& Bind(const std::optional<std::string>& v) {
    if (v) return Bind(*v);
    sqlite3_bind_null(s_, ++n_);
    return *this;
  }
  Statement& Bind(int64_t v) {
    sqlite3_bind_int64(s_, ++n_, v);
    return *this;
  }
  bool Step() {
    int rc = sqlite3_step(s_);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) throw SqlError(sqlite3_errmsg(db_));
    return rc == SQLITE_ROW;
  }
  std::string Text(int i) const {
    const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(s_, i));
    return p ? std::string(p, static_cast<size_t>(sqlite3_column_bytes(s_, i))) : std::string();
  }
  std::optional<std::string> OptionalText(int i) const {
    if (sqlite3_column_type(s_, i) == SQLITE_NULL) return std::nullopt;
    return Text(i);
  }
  int64_t Int(int i) const { return sqlite3_column_int64(s_, i); }

 private:
  sqlite3* db_;
  sqlite3_stmt* s_ = nullptr;
  int n_ = 0;
};

void Exec(sqlite3* db, const char* sql) {
  char* message = nullptr;
  if (sqlite3_exec(db, sql, nullptr, nullptr, &message) == SQLITE_OK) return;
  const std::string text = message ? message : "unknown";
  sqlite3_free(message);
  throw SqlError(text);
}

class Transaction {
 public:
  explicit Transaction(sqlite3* db) : db_(db) { Exec(db, "BEGIN IMMEDIATE"); }
  ~Transaction() {
    if (!done_) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  void Commit() {
    Exec(db_, "COMMIT");
    done_ = true;
  }

 private:
  sqlite3* db_;
  bool done_ = false;
};

std::string VipText(int64_t number) {
  in_addr a{htonl(kVipBase + static_cast<uint32_t>(number))};
  char buf[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &a, buf, sizeof buf);
}

nlohmann::json EncodePorts(const std::vector<Port>& ports) {
  nlohmann::json j = nlohmann::json::array();
  for (const Port& p : ports) j.push_back({p.service_port, p.target_port, ProtocolName(p.protocol)});
  return j;
}

bool DecodePorts(const nlohmann::json& j, std::vector<Port>& out) {
  for (const auto& p : j) {
    if (!p.is_array() || p.size() != 3 || !p[0].is_number_unsigned() || !p[1].is_number_unsigned() || !p[2].is_string()) return false;
    Port port{p[0].get<uint16_t>(), p[1].get<uint16_t>()};
    if (!ParseProtocol(p[2].get<std::string>(), port.protocol)) return false;
    out.push_back(port);
  }
  return true;
}

std::string EncodeWorkload(const Workload& w) {
  nlohmann::json j{{"service", w.service.name}, {"namespace", w.service.ns}, {"version", w.version}, {"address", w.address},
                   {"labels", w.labels}, {"sidecar_version", w.sidecar_version}, {"ready", w.ready}, {"draining", w.draining}};
  j["ports"] = EncodePorts(w.ports);
  return j.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool DecodeWorkload(const std::string& id, const std::string& body, Workload& w) {
  nlohmann::json j = nlohmann::json::parse(body, nullptr, false);
  if (!j.is_object()) return false;
  w.id = id;
  w.service = {j.value("namespace", ""), j.value("service", "")};
  w.version = j.value("version", ""), w.address = j.value("address", "");
  w.labels = j.value("labels", std::map<std::string, std::string>());
  w.sidecar_version = j.value("sidecar_version", "");
  w.ready = j.value("ready", false), w.draining = j.value("draining", false);
  if (!DecodePorts(j.value("ports", nlohmann::json::array()), w.ports)) return false;
  return !w.service.name.empty();
}

}  // namespace

base::Result<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  std::unique_ptr<Store> store(new Store);
  const mode_t old = umask(0077);
  int rc = sqlite3_open_v2(path.c_str(), &store->db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  umask(old);
  if (rc != SQLITE_OK) {
    return Error(std::string("cannot open the store ") + path + ": " + (store->db_ ? sqlite3_errmsg(store->db_) : "out of memory"));
  }
  try {
    sqlite3_busy_timeout(store->db_, 5000);
    Exec(store->db_, "PRAGMA journal_mode=WAL");
    Exec(store->db_, "PRAGMA synchronous=FULL");
    Exec(store->db_, "PRAGMA foreign_keys=ON");
    {
      Statement check(store->db_, "PRAGMA quick_check(1)");
      if (!check.Step() || check.Text(0) != "ok") return Error("the store " + path + " is damaged: " + check.Text(0));
    }
    Exec(store->db_, kSchema);
  } catch (const SqlError& e) {
    return Error("cannot prepare the store " + path + ": " + e.message);
  }
  return store;
}

Store::~Store() { sqlite3_close(db_); }

uint64_t Store::RevisionLocked() {
  Statement s(db_, "SELECT coalesce(max(number), 0) FROM revisions");
  s.Step();
  return static_cast<uint64_t>(s.Int(0));
}

uint64_t Store::revision() {
  std::lock_guard lock(mutex_);
  return RevisionLocked();
}

std::vector<StoredObject> Store::Objects() {
  std::lock_guard lock(mutex_);
  std::vector<StoredObject> out;
  Statement s(db_, "SELECT kind, ns, name, revision, content FROM objects ORDER BY kind, ns, name");
  while (s.Step()) out.push_back({s.Text(0), {s.Text(1), s.Text(2)}, static_cast<uint64_t>(s.Int(3)), s.Text(4)});
  return out;
}

std::vector<StoredObject> Store::ObjectsAtLocked(uint64_t revision) {
  std::vector<StoredObject> out;
  Statement s(db_,
              "SELECT kind, ns, name, revision, new_content FROM changes c WHERE revision = (SELECT max(revision) FROM changes d "
              "WHERE d.kind = c.kind AND d.ns = c.ns AND d.name = c.name AND d.revision <= ?1) AND new_content IS NOT NULL "
              "ORDER BY kind, ns, name");
  s.Bind(static_cast<int64_t>(revision));
  while (s.Step()) out.push_back({s.Text(0), {s.Text(1), s.Text(2)}, static_cast<uint64_t>(s.Int(3)), s.Text(4)});
  return out;
}

std::vector<StoredObject> Store::ObjectsAt(uint64_t revision) {
  std::lock_guard lock(mutex_);
  return ObjectsAtLocked(revision);
}

base::Result<Revision> Store::CommitLocked(const std::string& action, const std::string& message,
                                           const std::vector<Write>& writes, int64_t now_unix_ms, bool dry_run) {
  try {
    Transaction t(db_);
    Revision r;
    r.number = RevisionLocked(), r.time_unix_ms = now_unix_ms, r.action = action, r.message = message;
    bool any = false;
    for (const Write& w : writes) {
      Statement s(db_, "SELECT content FROM objects WHERE kind = ? AND ns = ? AND name = ?");
      s.Bind(w.kind).Bind(w.name.ns).Bind(w.name.name);
      Change c{w.kind, w.name, std::nullopt, w.content};
      if (s.Step()) c.old_content = s.Text(0);
      any = any || c.old_content != c.new_content;
      r.changes.push_back(std::move(c));
    }
    if (!any) return r;
    ++r.number;
    if (dry_run) return r;
    Statement(db_, "INSERT INTO revisions VALUES(?, ?, ?, ?)").Bind(static_cast<int64_t>(r.number)).Bind(now_unix_ms).Bind(action).Bind(message).Step();
    for (const Change& c : r.changes) {
      if (c.old_content == c.new_content) continue;
      Statement(db_, "INSERT INTO changes(revision, kind, ns, name, old_content, new_content) VALUES(?, ?, ?, ?, ?, ?)")
          .Bind(static_cast<int64_t>(r.number)).Bind(c.kind).Bind(c.name.ns).Bind(c.name.name).Bind(c.old_content).Bind(c.new_content).Step();
      if (c.new_content) {
        Statement(db_, "INSERT OR REPLACE INTO objects(kind, ns, name, revision, content) VALUES(?, ?, ?, ?, ?)")
            .Bind(c.kind).Bind(c.name.ns).Bind(c.name.name).Bind(static_cast<int64_t>(r.number)).Bind(*c.new_content).Step();
      } else {
        Statement(db_, "DELETE FROM objects WHERE kind = ? AND ns = ? AND name = ?").Bind(c.kind).Bind(c.name.ns).Bind(c.name.name).Step();
      }
    }
    t.Commit();
    return r;
  } catch (const SqlError& e) {
    return Error("the store refused the change: " + e.message);
  }
}

base::Result<Revision> Store::Commit(const std::string& action, const std::string& message, const std::vector<Write>& writes,
                                     int64_t now_unix_ms, bool dry_run) {
  std::lock_guard lock(mutex_);
  return CommitLocked(action, message, writes, now_unix_ms, dry_run);
}

base::Result<Revision> Store::Rollback(uint64_t target, int64_t now_unix_ms) {
  std::lock_guard lock(mutex_);
  try {
    if (target > RevisionLocked()) return Error("there is no revision " + std::to_string(target));
    std::map<std::pair<std::string, Name>, Write> writes;
    Statement s(db_, "SELECT kind, ns, name FROM objects");
    while (s.Step()) {
      Write w{s.Text(0), {s.Text(1), s.Text(2)}, std::nullopt};
      writes[{w.kind, w.name}] = w;
    }
    for (const StoredObject& o : ObjectsAtLocked(target)) writes[{o.kind, o.name}] = {o.kind, o.name, o.content};
    std::vector<Write> list;
    for (auto& [key, w] : writes) list.push_back(std::move(w));
    return CommitLocked("rollback", "to revision " + std::to_string(target), list, now_unix_ms, false);
  } catch (const SqlError& e) {
    return Error("the store failed: " + e.message);
  }
}

std::vector<Revision> Store::Read(const char* sql, int64_t argument) {
  std::lock_guard lock(mutex_);
  std::vector<Revision> out;
  Statement s(db_, sql);
  s.Bind(argument);
  while (s.Step()) out.push_back({static_cast<uint64_t>(s.Int(0)), s.Int(1), s.Text(2), s.Text(3), {}});
  for (Revision& r : out) {
    Statement c(db_, "SELECT kind, ns, name, old_content, new_content FROM changes WHERE revision = ? ORDER BY kind, ns, name");
    c.Bind(static_cast<int64_t>(r.number));
    while (c.Step()) r.changes.push_back({c.Text(0), {c.Text(1), c.Text(2)}, c.OptionalText(3), c.OptionalText(4)});
  }
  return out;
}

std::vector<Revision> Store::History(size_t limit) {
  return Read("SELECT number, time_unix_ms, action, message FROM revisions ORDER BY number DESC LIMIT ?", static_cast<int64_t>(limit));
}

std::optional<Revision> Store::GetRevision(uint64_t number) {
  auto found = Read("SELECT number, time_unix_ms, action, message FROM revisions WHERE number = ?", static_cast<int64_t>(number));
  if (found.empty()) return std::nullopt;
  return std::move(found[0]);
}

std::string Store::Vip(const Name& service) {
  std::lock_guard lock(mutex_);
  try {
    Statement find(db_, "SELECT number FROM vips WHERE ns = ? AND name = ?");
    find.Bind(service.ns).Bind(service.name);
    if (find.Step()) return VipText(find.Int(0));
    Statement next(db_, "SELECT coalesce(max(number), 0) + 1 FROM vips");
    next.Step();
    const int64_t number = next.Int(0);
    if (number < kVipFirst || number > kVipLast) return "";
    Statement(db_, "INSERT INTO vips(ns, name, number) VALUES(?, ?, ?)").Bind(service.ns).Bind(service.name).Bind(number).Step();
    return VipText(number);
  } catch (const SqlError&) {
    return "";  // the service has no address until the store works again
  }
}

void Store::PutWorkload(const Workload& w, int64_t now_unix_ms) {
  std::lock_guard lock(mutex_);
  try {
    Exec(db_, "PRAGMA synchronous=NORMAL");
    Statement(db_, "INSERT OR REPLACE INTO workloads(id, body, updated_unix_ms) VALUES(?, ?, ?)").Bind(w.id).Bind(EncodeWorkload(w)).Bind(now_unix_ms).Step();
    Exec(db_, "PRAGMA synchronous=FULL");
  } catch (const SqlError&) {
    sqlite3_exec(db_, "PRAGMA synchronous=FULL", nullptr, nullptr, nullptr);
  }
}

void Store::RemoveWorkload(const std::string& id) {
  std::lock_guard lock(mutex_);
  try {
    Exec(db_, "PRAGMA synchronous=NORMAL");
    Statement(db_, "DELETE FROM workloads WHERE id = ?").Bind(id).Step();
    Exec(db_, "PRAGMA synchronous=FULL");
  } catch (const SqlError&) {
    sqlite3_exec(db_, "PRAGMA synchronous=FULL", nullptr, nullptr, nullptr);
  }
}

std::vector<Workload> Store::Workloads() {
  std::lock_guard lock(mutex_);
  std::vector<Workload> out;
  Statement s(db_, "SELECT id, body FROM workloads ORDER BY id");
  while (s.Step()) {
    Workload w;
    if (DecodeWorkload(s.Text(0), s.Text(1), w)) out.push_back(std::move(w));
  }
  return out;
}

void Store::PutService(const KnownService& k) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "INSERT OR REPLACE INTO services(ns, name, ports, seen_unix_ms) VALUES(?, ?, ?, ?)")
        .Bind(k.name.ns).Bind(k.name.name).Bind(EncodePorts(k.ports).dump()).Bind(k.seen_unix_ms).Step();
  } catch (const SqlError&) {
    // Known again when its next instance registers.
  }
}

void Store::RemoveService(const Name& name) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "DELETE FROM services WHERE ns = ? AND name = ?").Bind(name.ns).Bind(name.name).Step();
  } catch (const SqlError&) {
    // Tried again at the next start.
  }
}

std::vector<Store::KnownService> Store::Services() {
  std::lock_guard lock(mutex_);
  std::vector<KnownService> out;
  Statement s(db_, "SELECT ns, name, ports, seen_unix_ms FROM services ORDER BY ns, name");
  while (s.Step()) {
    KnownService k{{s.Text(0), s.Text(1)}, {}, s.Int(3)};
    nlohmann::json j = nlohmann::json::parse(s.Text(2), nullptr, false);
    if (j.is_array() && DecodePorts(j, k.ports)) out.push_back(std::move(k));
  }
  return out;
}

base::Status Store::PutToken(const TokenRecord& t) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "INSERT INTO tokens(id, secret_sha256, ns, name, expires_unix_s, uses_left) VALUES(?, ?, ?, ?, ?, ?)")
        .Bind(t.id).Bind(t.secret_sha256_hex).Bind(t.service.ns).Bind(t.service.name).Bind(t.expires_unix_s).Bind(t.uses_left).Step();
    return Ok{};
  } catch (const SqlError& e) {
    return Error("the store refused the token: " + e.message);
  }
}

std::optional<TokenRecord> Store::FindToken(const std::string& id) {
  std::lock_guard lock(mutex_);
  Statement s(db_, "SELECT id, secret_sha256, ns, name, expires_unix_s, uses_left FROM tokens WHERE id = ?");
  s.Bind(id);
  if (!s.Step()) return std::nullopt;
  return TokenRecord{s.Text(0), s.Text(1), {s.Text(2), s.Text(3)}, s.Int(4), s.Int(5)};
}

bool Store::UseToken(const std::string& id) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ? AND uses_left > 0").Bind(id).Step();
    return sqlite3_changes(db_) == 1;
  } catch (const SqlError&) {
    return false;
  }
}

bool Store::RemoveToken(const std::string& id) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "DELETE FROM tokens WHERE id = ?").Bind(id).Step();
    return sqlite3_changes(db_) == 1;
  } catch (const SqlError&) {
    return false;
  }
}

void Store::RemoveExpiredTokens(int64_t now_unix_s) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "DELETE FROM tokens WHERE expires_unix_s < ?").Bind(now_unix_s).Step();
  } catch (const SqlError&) {
    // They are refused by their date anyway.
  }
}

std::string Store::Meta(const std::string& key) {
  std::lock_guard lock(mutex_);
  Statement s(db_, "SELECT value FROM meta WHERE key = ?");
  s.Bind(key);
  return s.Step() ? s.Text(0) : "";
}

base::Status Store::SetMeta(const std::string& key, const std::string& value) {
  std::lock_guard lock(mutex_);
  try {
    Statement(db_, "INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)").Bind(key).Bind(value).Step();
    return Ok{};
  } catch (const SqlError& e) {
    return Error("the store refused " + key + ": " + e.message);
  }
}

}  // namespace weft::server
