#include "xds_server/delta/stream.h"

#include <algorithm>

namespace weft::server {
namespace {
constexpr uint64_t kPatienceNs = 5'000'000'000;
bool FullState(Type t) { return t == kCds || t == kLds; }  // state of the world: a reply lists everything
}  // namespace

bool Stream::Wants(const PerType& p, std::string_view name) const { return p.wildcard || p.names.find(name) != p.names.end(); }

void Stream::OnRequest(const StreamRequest& q, uint64_t now_ns) {
  if (q.type >= kTypeCount) return;
  PerType& p = types_[q.type];
  const bool first = !p.seen;
  p.seen = p.status.subscribed = true;

  if (!q.nonce.empty()) {
    if (q.nonce == p.outstanding) {
      p.outstanding.clear();
      if (q.nack) {
        ++rejected_;
        p.status.nack = TypeStatus::Nack{q.error, p.sent_names, now_ns};
      } else {
        p.status.acked_version = p.sent_version;
        p.status.acked_revision = p.sent_revision;
        p.status.nack.reset();
      }
    } else if (variant_ == kSotw) {
      return;  // an answer to something older: its list of names is older too
    }
  }

  if (variant_ == kDelta) {
    if (first) {
      for (const auto& [name, version] : q.initial_versions) p.have[name] = version;
      // An empty first subscription is the wildcard, for the types that have one.
      if (q.subscribe.empty() && FullState(q.type)) p.wildcard = true;
    }
    for (const std::string& name : q.subscribe) {
      if (name == "*") {
        p.wildcard = true;
        continue;
      }
      p.names.insert(name);
      // Subscribing again asks for it again; what a reconnecting client already has is not sent twice.
      if (!first || !q.initial_versions.count(name)) p.have.erase(name);
    }
    for (const std::string& name : q.unsubscribe) {
      if (name == "*") {
        p.wildcard = false;
        std::erase_if(p.have, [&](const auto& e) { return !p.names.count(e.first); });
        continue;
      }
      p.names.erase(name);
      if (!p.wildcard) p.have.erase(name);
    }
    if (first && p.wildcard) p.answer_due = true;
    return;
  }

  std::set<std::string, std::less<>> names;
  bool wildcard = q.names.empty() && FullState(q.type) && (first || p.wildcard);
  for (const std::string& name : q.names) {
    if (name == "*") wildcard = true;
    else names.insert(name);
  }
  std::erase_if(p.have, [&](const auto& e) { return !wildcard && !names.count(e.first); });
  if (first) p.answer_due = wildcard || !names.empty();
  p.names = std::move(names), p.wildcard = wildcard;
}

bool Stream::HasUpdates(Type t) const {
  const PerType& p = types_[t];
  if (!p.seen || !snapshot_) return false;
  auto differs = [&](const std::string& name, const Resource* r) {
    auto it = p.have.find(name);
    if (!r) return variant_ == kDelta && it == p.have.end();  // told that it does not exist
    return it == p.have.end() || it->second != r->version;
  };
  if (p.wildcard) {
    for (const auto& [name, r] : snapshot_->resources[t]) {
      if (differs(name, r.get())) return true;
    }
  }
  for (const std::string& name : p.names) {
    if (differs(name, snapshot_->Find(t, name))) return true;
  }
  return false;
}

bool Stream::HasRemovals(Type t) const {
  const PerType& p = types_[t];
  if (!p.seen || !snapshot_ || (variant_ == kSotw && !FullState(t))) return false;
  for (const auto& [name, version] : p.have) {
    if (!version.empty() && !snapshot_->Find(t, name)) return true;
  }
  return false;
}

bool Stream::EndpointsAskedFor() const {
  const PerType& cds = types_[kCds];
  const PerType& eds = types_[kEds];
  if (!cds.seen || cds.status.nack) return true;  // a client that refused a cluster may never ask for its endpoints
  for (const auto& [name, r] : snapshot_->resources[kEds]) {
    if (cds.have.count(name) && !Wants(eds, name)) return false;
  }
  return true;
}

bool Stream::Blocked(Type t, bool& removals_blocked, uint64_t now_ns) {
  PerType& p = types_[t];
  auto settled = [&](Type other) { return types_[other].outstanding.empty() && !HasUpdates(other); };
  bool blocked = false;
  removals_blocked = false;
  if (t == kLds || t == kRds) {
    blocked = !settled(kCds) || !settled(kEds) || !EndpointsAskedFor();
  } else if (t == kCds || t == kEds) {
    removals_blocked = !settled(kLds) || !settled(kRds);
  }
  if (!blocked && !removals_blocked) {
    p.blocked_since_ns = 0;
    return false;
  }
  const bool matters = blocked ? HasUpdates(t) || HasRemovals(t) || p.answer_due : HasRemovals(t);
  if (!matters) {
    p.blocked_since_ns = 0;
    return blocked;
  }
  if (p.blocked_since_ns == 0) p.blocked_since_ns = now_ns;
  if (now_ns - p.blocked_since_ns >= kPatienceNs) {
    removals_blocked = false;
    return false;
  }
  const uint64_t at = p.blocked_since_ns + kPatienceNs;
  if (wake_at_ns_ == 0 || at < wake_at_ns_) wake_at_ns_ = at;
  return blocked;
}

Reply Stream::Make(Type t, bool with_removals) {
  PerType& p = types_[t];
  Reply reply;
  reply.type = t;
  reply.nonce = std::to_string(++next_nonce_);
  reply.version = snapshot_->versions[t];
  const bool full = variant_ == kSotw && FullState(t);
  auto consider = [&](const std::string& name, const ResourcePtr& r) {
    auto it = p.have.find(name);
    if (!r) {
      if (it == p.have.end()) {
        p.have[name] = "";
        if (variant_ == kDelta) reply.removed.push_back(name);
      }
      return;
    }
    const bool same = it != p.have.end() && it->second == r->version;
    if (same && !full) return;
    if (!same) p.have[name] = r->version, p.sent_names.push_back(name);
    if (full) p.kept[name] = r;
    reply.resources.push_back(r);
  };
  p.sent_names.clear();
  if (p.wildcard) {
    for (const auto& [name, r] : snapshot_->resources[t]) consider(name, r);
  }
  for (const std::string& name : p.names) {
    auto it = snapshot_->resources[t].find(name);
    const ResourcePtr found = it == snapshot_->resources[t].end() ? nullptr : it->second;
    if (found && p.wildcard) continue;
    consider(name, found);
  }
  if (with_removals) {
    for (auto it = p.have.begin(); it != p.have.end();) {
      if (it->second.empty() || snapshot_->Find(t, it->first)) {
        ++it;
        continue;
      }
      if (variant_ == kDelta) reply.removed.push_back(it->first);
      p.kept.erase(it->first);
      // Still subscribed by name: remember that the client knows it is gone.
      if (p.names.count(it->first)) {
        it->second.clear();
        ++it;
      } else {
        it = p.have.erase(it);
      }
    }
  } else if (full) {
    // What may not be taken away yet has to stay in the list.
    for (const auto& [name, r] : p.kept) {
      if (!snapshot_->Find(t, name)) reply.resources.push_back(r);
    }
  }
  p.outstanding = reply.nonce;
  p.sent_version = reply.version;
  p.sent_revision = snapshot_->revision;
  p.answer_due = false;
  p.blocked_since_ns = 0;
  return reply;
}

std::vector<Reply> Stream::Take(uint64_t now_ns) {
  std::vector<Reply> out;
  wake_at_ns_ = 0;
  if (!snapshot_) return out;
  for (int i = 0; i < kTypeCount; ++i) {
    const Type t = static_cast<Type>(i);
    PerType& p = types_[t];
    if (!p.seen || !p.outstanding.empty()) continue;
    bool removals_blocked = false;
    if (Blocked(t, removals_blocked, now_ns)) continue;
    const bool updates = HasUpdates(t), removals = HasRemovals(t);
    if (!updates && !p.answer_due && (!removals || removals_blocked)) continue;
    out.push_back(Make(t, removals && !removals_blocked));
  }
  return out;
}

TypeStatus Stream::Status(Type t) const {
  const PerType& p = types_[t];
  TypeStatus s = p.status;
  s.pending = !p.outstanding.empty() || HasUpdates(t) || HasRemovals(t);
  s.sent_version = p.sent_version;
  s.resources = static_cast<size_t>(std::count_if(p.have.begin(), p.have.end(), [](const auto& e) { return !e.second.empty(); }));
  return s;
}

bool Stream::Synced() const {
  for (int t = 0; t < kTypeCount; ++t) {
    const TypeStatus s = Status(static_cast<Type>(t));
    if (s.subscribed && (s.pending || s.nack)) return false;
  }
  return types_[kCds].seen && types_[kLds].seen;
}

}  // namespace weft::server
