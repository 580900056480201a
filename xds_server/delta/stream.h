// The xDS protocol's state machine for one ADS stream, delta or state of the world. Pure: no gRPC, no clock of its own.
//
//   Stream s(Stream::kDelta);
//   s.SetSnapshot(snapshot);                 // at the start and whenever there is a new one
//   s.OnRequest(request);                    // as requests arrive
//   for (Reply& r : s.Take(now_ns)) send(r); // after either, and at s.WakeAt()
//
// Rules it keeps
// - At most one unanswered reply a type; what changes meanwhile is coalesced into the next (diff of what the client has
//   against the newest snapshot).
// - Make before break: listeners and routes wait until the client has acknowledged new clusters and asked for and
//   acknowledged their endpoints (at most 5 s); clusters and endpoints are removed after listeners and routes were
//   acknowledged (at most 5 s).
// - A rejected resource is not sent again until its content changes. Rejections are kept for status.
// - A name that is asked for and does not exist is answered with a removal (delta), never with silence.
// Not thread-safe: the control thread owns it.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "xds_server/snapshot/snapshot.h"

namespace weft::server {

struct StreamRequest {
  Type type = kTypeCount;
  std::string nonce;                  // of the reply it answers; empty: none
  bool nack = false;
  std::string error;                  // reason of the nack
  std::vector<std::string> subscribe, unsubscribe;     // delta
  std::map<std::string, std::string> initial_versions;  // delta, first request of a type
  std::vector<std::string> names;                      // state of the world: the whole list; empty: everything (cds, lds)
};

struct Reply {
  Type type = kTypeCount;
  std::string nonce, version;          // version: of the type in the snapshot
  std::vector<ResourcePtr> resources;
  std::vector<std::string> removed;    // delta only
};

// What status shows of one type.
struct TypeStatus {
  bool subscribed = false, pending = false;
  std::string acked_version, sent_version;
  uint64_t acked_revision = 0;         // of the policies
  size_t resources = 0;                // the client has
  struct Nack {
    std::string reason;
    std::vector<std::string> names;    // sent in the rejected reply
    uint64_t at_ns = 0;
  };
  std::optional<Nack> nack;            // until the type is acknowledged again
};

class Stream {
 public:
  enum Variant { kDelta, kSotw };
  explicit Stream(Variant variant) : variant_(variant) {}

  void SetSnapshot(std::shared_ptr<const Snapshot> snapshot) { snapshot_ = std::move(snapshot); }
  void OnRequest(const StreamRequest& request, uint64_t now_ns);
  std::vector<Reply> Take(uint64_t now_ns);
  // When Take() should be called again although nothing arrived; 0: no need.
  uint64_t WakeAt() const { return wake_at_ns_; }

  TypeStatus Status(Type t) const;
  // Everything the client asked for is sent and acknowledged.
  bool Synced() const;
  Variant variant() const { return variant_; }
  uint64_t rejected() const { return rejected_; }

 private:
  struct PerType {
    bool seen = false;                 // a request of this type has come
    bool wildcard = false;
    std::set<std::string, std::less<>> names;  // subscribed by name
    std::map<std::string, std::string, std::less<>> have;  // name -> version sent; "" told that it does not exist
    std::map<std::string, ResourcePtr, std::less<>> kept;  // state of the world: what the client has, for lists that must repeat it
    std::string outstanding;           // nonce of the unanswered reply
    std::string sent_version;
    uint64_t sent_revision = 0;
    std::vector<std::string> sent_names;
    bool answer_due = false;           // the first request gets an answer even when it is empty
    uint64_t blocked_since_ns = 0;     // make-before-break wait
    TypeStatus status;
  };
  bool Wants(const PerType& p, std::string_view name) const;
  bool HasUpdates(Type t) const;       // additions or changes, not removals
  bool HasRemovals(Type t) const;
  bool EndpointsAskedFor() const;      // every endpoint-discovered cluster sent has been subscribed
  bool Blocked(Type t, bool& removals_blocked, uint64_t now_ns);
  Reply Make(Type t, bool with_removals);

  Variant variant_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::array<PerType, kTypeCount> types_;
  uint64_t next_nonce_ = 0, wake_at_ns_ = 0, rejected_ = 0;
};

}  // namespace weft::server
