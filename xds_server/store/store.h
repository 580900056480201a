// What the server must not forget, in one SQLite file (WAL): policies with every revision, virtual IPs, registered
// workloads, join tokens.
//
// A revision is one accepted change of policies; numbers only go up, and a rollback is a new revision with old content.
// Commits of policies, VIPs and tokens are on disk (fsync) before they return; workloads survive a kill of the server
// but the last ones may be lost with the machine's power (their sidecars register again).
// Thread-safe: one mutex; calls take milliseconds (fsync). Reads that fail throw std::runtime_error (a damaged file).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sidecar/base/result.h"
#include "xds_server/model/world.h"

struct sqlite3;

namespace weft::server {

struct StoredObject {
  std::string kind;
  Name name;
  uint64_t revision = 0;
  std::string content;  // JSON as ToStoredJson makes it
};

struct Change {
  std::string kind;
  Name name;
  std::optional<std::string> old_content, new_content;  // none: did not / does not exist
  // "created" "configured" "deleted" "unchanged"
  const char* action() const {
    if (!new_content) return old_content ? "deleted" : "unchanged";
    if (!old_content) return "created";
    return *old_content == *new_content ? "unchanged" : "configured";
  }
};

struct Revision {
  uint64_t number = 0;
  int64_t time_unix_ms = 0;
  std::string action, message;  // action: apply | delete | rollback
  std::vector<Change> changes;
};

struct TokenRecord {
  std::string id;
  std::string secret_sha256_hex;
  Name service;
  int64_t expires_unix_s = 0;
  int64_t uses_left = 0;
};

class Store {
 public:
  // path ":memory:" for tests. The file is made 0600.
  static base::Result<std::unique_ptr<Store>> Open(const std::string& path);
  ~Store();

  uint64_t revision();
  std::vector<StoredObject> Objects();
  std::vector<StoredObject> ObjectsAt(uint64_t revision);

  struct Write {
    std::string kind;
    Name name;
    std::optional<std::string> content;  // none: delete
  };
  // All writes as one new revision; writes that change nothing are kept in the answer as "unchanged". When nothing
  // changes at all no revision is made and `number` is the current one. dry_run only compares.
  base::Result<Revision> Commit(const std::string& action, const std::string& message, const std::vector<Write>& writes,
                                int64_t now_unix_ms, bool dry_run);
  // Restores the objects as they were after `target`; an Error when there is no such revision.
  base::Result<Revision> Rollback(uint64_t target, int64_t now_unix_ms);
  std::vector<Revision> History(size_t limit);  // newest first
  std::optional<Revision> GetRevision(uint64_t number);

  // Stable for the life of the store; "" when the range is used up.
  std::string Vip(const Name& service);

  void PutWorkload(const Workload& workload, int64_t now_unix_ms);
  void RemoveWorkload(const std::string& id);
  std::vector<Workload> Workloads();

  // The ports a service was last seen with, and when; for services whose instances are all gone.
  struct KnownService {
    Name name;
    std::vector<Port> ports;
    int64_t seen_unix_ms = 0;
  };
  void PutService(const KnownService& service);
  void RemoveService(const Name& name);
  std::vector<KnownService> Services();

  base::Status PutToken(const TokenRecord& token);
  std::optional<TokenRecord> FindToken(const std::string& id);
  // Takes one use; false when none is left (two callers cannot take the last one both).
  bool UseToken(const std::string& id);
  bool RemoveToken(const std::string& id);
  void RemoveExpiredTokens(int64_t now_unix_s);

  // Small facts by key ("" when absent).
  std::string Meta(const std::string& key);
  base::Status SetMeta(const std::string& key, const std::string& value);

 private:
  Store() = default;
  uint64_t RevisionLocked();
  std::vector<Revision> Read(const char* sql, int64_t argument);
  std::vector<StoredObject> ObjectsAtLocked(uint64_t revision);
  base::Result<Revision> CommitLocked(const std::string& action, const std::string& message, const std::vector<Write>& writes,
                                      int64_t now_unix_ms, bool dry_run);

  std::mutex mutex_;
  sqlite3* db_ = nullptr;
};

}  // namespace weft::server
