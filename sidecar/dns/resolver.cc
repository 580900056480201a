#include "sidecar/dns/resolver.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "sidecar/base/str.h"
#include "sidecar/dns/server.h"

namespace weft::dns {
namespace {

constexpr uint32_t kHostsTtl = 60, kMaxSearch = 6;

std::string LowerName(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string out(name);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

}  // namespace

struct Resolver::Lookup {
  struct Deliver : io::Timer {
    Deliver() : Timer([](io::Timer* t) {
      Lookup* l = static_cast<Deliver*>(t)->lookup;
      l->owner->Finish(l);
    }) {}
    Lookup* lookup = nullptr;
  };
  Lookup() { deliver.lookup = this; }

  Resolver* owner = nullptr;
  uint64_t ticket = 0;
  Family family = kAuto;
  Done done;
  std::vector<std::string> candidates;  // the name with the search domains, in order
  size_t candidate = 0;
  int waiting = 0;                      // questions on their way
  uint64_t asks[2] = {0, 0};            // tickets of the forwarder: A, AAAA
  std::vector<model::Ip> found[2];
  uint32_t ttl = UINT32_MAX;
  bool unanswered = false;              // a question got no usable answer
  Answer answer;
  Deliver deliver;
};

Resolver::Resolver(io::Loop* loop, ResolverOptions options) : loop_(loop), options_(std::move(options)) {
  std::ifstream file(options_.resolv_conf);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string keyword, word;
    words >> keyword;
    if (keyword == "search" || keyword == "domain") {
      search_.clear();
      while (words >> word && search_.size() < kMaxSearch) search_.push_back(LowerName(word));
    } else if (keyword == "options") {
      while (words >> word) {
        if (word.starts_with("ndots:")) ndots_ = std::clamp(atoi(word.c_str() + 6), 0, 15);
      }
    }
  }
  ForwardOptions f;
  f.servers = options_.servers.empty() ? NameServers(options_.resolv_conf) : options_.servers;
  f.mark = options_.mark;
  f.attempt_timeout_ns = options_.attempt_timeout_ns;
  f.attempts = std::max<int>(2, static_cast<int>(std::min<size_t>(f.servers.size(), 3)));
  f.max_pending = options_.max_pending * 2;
  forwarder_ = std::make_unique<Forwarder>(loop_, std::move(f));
}

Resolver::~Resolver() { forwarder_.reset(); }

void Resolver::ReadHosts() {
  struct stat st;
  int64_t version = stat(options_.hosts.c_str(), &st) == 0
                        ? static_cast<int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec + st.st_size
                        : 0;
  if (version == hosts_version_) return;
  hosts_version_ = version;
  hosts_.clear();
  std::ifstream file(options_.hosts);
  size_t names = 0;
  for (std::string line; std::getline(file, line) && names < 100'000;) {
    line.resize(std::min(line.find('#'), line.size()));
    std::istringstream words(line);
    std::string address, name;
    if (!(words >> address)) continue;
    auto ip = model::Ip::Parse(address);
    if (!ip) continue;
    for (; words >> name; ++names) hosts_[LowerName(name)].push_back(*ip);
  }
}

uint64_t Resolver::Resolve(const std::string& raw, Family family, Done done) {
  uint64_t ticket = ++next_ticket_;
  auto owned = std::make_unique<Lookup>();
  Lookup* l = owned.get();
  l->owner = this, l->ticket = ticket, l->family = family, l->done = std::move(done);
  const bool full = lookups_.size() >= options_.max_pending;
  lookups_.emplace(ticket, std::move(owned));

  auto known = [&](const std::vector<model::Ip>& ips) {
    for (const model::Ip& ip : ips) l->found[ip.family == 6].push_back(ip);
    l->ttl = kHostsTtl;
    loop_->Arm(&l->deliver, 0);
    return ticket;
  };
  std::string name = LowerName(raw);
  if (full) {
    l->answer.error = "too many lookups";
    loop_->Arm(&l->deliver, 0);
    return ticket;
  }
  if (auto ip = model::Ip::Parse(name)) return known({*ip});
  ReadHosts();
  if (auto it = hosts_.find(name); it != hosts_.end()) return known(it->second);
  if (name == "localhost" || name.ends_with(".localhost")) return known({*model::Ip::Parse("127.0.0.1"), *model::Ip::Parse("::1")});

  const bool absolute = raw.ends_with('.');
  const bool dotted = std::count(name.begin(), name.end(), '.') >= ndots_;
  if (absolute || dotted) l->candidates.push_back(name);
  for (const std::string& s : search_) {
    if (!absolute) l->candidates.push_back(s.empty() ? name : name + "." + s);
  }
  if (!absolute && !dotted) l->candidates.push_back(name);
  Start(l);
  return ticket;
}

void Resolver::Cancel(uint64_t ticket) {
  auto it = lookups_.find(ticket);
  if (it == lookups_.end()) return;
  for (uint64_t ask : it->second->asks) {
    if (ask) forwarder_->Cancel(ask);
  }
  lookups_.erase(it);
}

void Resolver::Start(Lookup* l) {
  l->unanswered = false;
  if (l->family != kV6Only) Ask(l, false, false);
  if (l->family != kV4Only) Ask(l, true, false);
  if (l->waiting == 0) loop_->Arm(&l->deliver, 0);
}

void Resolver::Ask(Lookup* l, bool six, bool tcp) {
  uint64_t ticket = l->ticket;
  std::string packet = BuildQuery(0, l->candidates[l->candidate], six ? kAaaa : kA);
  if (packet.empty()) {
    l->answer.error = "not a valid host name";
    return;
  }
  l->asks[six] = forwarder_->Ask(std::move(packet), tcp,
                                 [this, ticket, six, tcp](std::string_view r) { OnAnswer(ticket, six, tcp, r); });
  if (l->asks[six]) {
    ++l->waiting;
  } else {
    l->unanswered = true;
    l->answer.error = "no name server is configured, or too many questions are waiting";
  }
}

void Resolver::OnAnswer(uint64_t ticket, bool six, bool tcp, std::string_view response) {
  auto it = lookups_.find(ticket);
  if (it == lookups_.end()) return;
  Lookup* l = it->second.get();
  l->asks[six] = 0;
  --l->waiting;
  Response r;
  if (response.empty()) {
    l->unanswered = true;
    l->answer.error = "name servers did not answer";
  } else if (!ParseResponse(response, l->candidates[l->candidate], six ? kAaaa : kA, &r)) {
    l->unanswered = true;
    l->answer.error = "malformed answer";
  } else if (r.truncated && !tcp) {
    Ask(l, six, true);
  } else if (r.rcode == Rcode::kNoError) {
    l->found[six] = std::move(r.addresses);
    if (!l->found[six].empty()) l->ttl = std::min(l->ttl, r.ttl_s);
  } else if (r.rcode != Rcode::kNxDomain) {
    l->unanswered = true;
    l->answer.error = base::Cat("name server answered with code ", static_cast<int>(r.rcode));
  }
  if (l->waiting > 0) return;
  const bool any = !l->found[0].empty() || !l->found[1].empty();
  if (!any && !l->unanswered && l->candidate + 1 < l->candidates.size()) {
    ++l->candidate;
    Start(l);
    return;
  }
  Finish(l);
}

void Resolver::Finish(Lookup* l) {
  auto it = lookups_.find(l->ticket);
  std::unique_ptr<Lookup> owned = std::move(it->second);
  lookups_.erase(it);
  owned->deliver.Cancel();
  Answer& a = owned->answer;
  auto &four = owned->found[0], &six = owned->found[1];
  auto take = [&](std::vector<model::Ip>& from) { a.addresses.insert(a.addresses.end(), from.begin(), from.end()); };
  switch (owned->family) {
    case kV4Only: take(four); break;
    case kV6Only: take(six); break;
    case kAll: take(four), take(six); break;
    case kAuto: take(six.empty() ? four : six); break;
    case kV4Preferred: take(four.empty() ? six : four); break;
  }
  if (!a.addresses.empty()) {
    a.error.clear();
    a.ttl_s = owned->ttl;
  } else if (a.error.empty()) {
    a.not_found = true;
    a.error = "no such name, or no address of that family";
  }
  owned->done(a);
}

}  // namespace weft::dns
