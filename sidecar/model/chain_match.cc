#include "sidecar/model/chain_match.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace weft::model {
namespace {

// The steps of a match, in order; a node of the tree at depth d branches by step d.
enum Step { kPort, kDestination, kServerName, kTransport, kApplication, kDirectSource, kSourceType, kSource, kSourcePort, kSteps };

// Keys of children are text; "" stands for "any". A prefix is family, length and the masked address.
std::string PrefixKey(const Cidr& c) {
  std::string k;
  k += static_cast<char>(c.ip.family);
  k += static_cast<char>(c.bits);
  k.append(reinterpret_cast<const char*>(c.ip.bytes.data()), c.ip.family == 4 ? 4 : 16);
  return k;
}

std::vector<std::string> Prefixes(const std::vector<Cidr>& list) {
  std::vector<std::string> keys;
  for (const Cidr& c : list) keys.push_back(PrefixKey(c));
  return keys;
}

std::vector<std::string> Keys(const ChainMatch& m, int step) {
  std::vector<std::string> keys;
  switch (step) {
    case kPort:
      if (m.destination_port) keys.push_back(std::to_string(*m.destination_port));
      break;
    case kDestination: keys = Prefixes(m.prefix_ranges); break;
    case kServerName:
      for (const auto& n : m.server_names) keys.push_back(n);
      break;
    case kTransport:
      if (!m.transport_protocol.empty()) keys.push_back(m.transport_protocol);
      break;
    case kApplication: keys = m.application_protocols; break;
    case kDirectSource: keys = Prefixes(m.direct_source_prefix_ranges); break;
    case kSourceType:
      if (m.source_type != ChainMatch::kAny) keys.push_back(m.source_type == ChainMatch::kExternal ? "external" : "local");
      break;
    case kSource: keys = Prefixes(m.source_prefix_ranges); break;
    case kSourcePort:
      for (uint32_t p : m.source_ports) keys.push_back(std::to_string(p));
      break;
  }
  if (keys.empty()) keys.emplace_back();
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

}  // namespace

struct ChainIndex::Node {
  std::unordered_map<std::string, std::unique_ptr<Node>> children;
  std::vector<std::pair<uint8_t, uint8_t>> prefixes;  // (length, family) present, longest first
  const FilterChain* chain = nullptr;                 // at the leaves

  const Node* Child(const std::string& key) const {
    auto it = children.find(key);
    return it == children.end() ? nullptr : it->second.get();
  }
  const Node* Longest(const Address& address) const {
    if (address.kind == Address::kIp) {
      for (auto [bits, family] : prefixes) {
        if (family != address.ip.family) continue;
        if (const Node* n = Child(PrefixKey(Cidr::Of(address.ip, bits)))) return n;
      }
    }
    return Child("");
  }
  const Node* Name(std::string_view name) const {
    if (!name.empty()) {
      if (const Node* n = Child(std::string(name))) return n;
      for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1))
        if (const Node* n = Child("*" + std::string(name.substr(dot)))) return n;
    }
    return Child("");
  }

  // The chain that was there already when criteria repeat.
  const FilterChain* Insert(const FilterChain* c, int step) {
    if (step == kSteps) {
      if (chain) return chain;
      chain = c;
      return nullptr;
    }
    for (const std::string& key : Keys(c->match, step)) {
      auto& child = children[key];
      if (!child) child = std::make_unique<Node>();
      if (!key.empty() && (step == kDestination || step == kDirectSource || step == kSource)) {
        std::pair<uint8_t, uint8_t> p(static_cast<uint8_t>(key[1]), static_cast<uint8_t>(key[0]));
        if (std::find(prefixes.begin(), prefixes.end(), p) == prefixes.end()) {
          prefixes.push_back(p);
          std::sort(prefixes.rbegin(), prefixes.rend());
        }
      }
      if (const FilterChain* other = child->Insert(c, step + 1)) return other;
    }
    return nullptr;
  }
};

ChainIndex::ChainIndex() : root_(std::make_unique<Node>()) {}
ChainIndex::~ChainIndex() = default;

base::Result<std::shared_ptr<const ChainIndex>> ChainIndex::Build(const std::vector<std::shared_ptr<const FilterChain>>& chains) {
  std::shared_ptr<ChainIndex> index(new ChainIndex());
  for (size_t i = 0; i < chains.size(); ++i) {
    if (const FilterChain* other = index->root_->Insert(chains[i].get(), 0))
      return base::Error("has the same matching rules as filter_chains[" + std::to_string(other->index) + "]" +
                         (other->name.empty() ? "" : " \"" + other->name + "\""))
          .In("filter_chains[" + std::to_string(i) + "]");
  }
  return std::shared_ptr<const ChainIndex>(std::move(index));
}

const FilterChain* ChainIndex::Find(const ConnInfo& info) const {
  const Node* n = root_.get();
  const Address& direct = info.direct_source.kind == Address::kNone ? info.source : info.direct_source;
  for (int step = 0; n && step < kSteps; ++step) {
    const Node* next = nullptr;
    switch (step) {
      case kPort:
        if (info.destination.kind == Address::kIp) next = n->Child(std::to_string(info.destination.port));
        if (!next) next = n->Child("");
        break;
      case kDestination: next = n->Longest(info.destination); break;
      case kServerName: next = n->Name(info.server_name); break;
      case kTransport:
        next = n->Child(std::string(info.transport_protocol));
        if (!next) next = n->Child("");
        break;
      case kApplication:
        for (std::string_view p : info.application_protocols)
          if ((next = n->Child(std::string(p)))) break;
        if (!next) next = n->Child("");
        break;
      case kDirectSource: next = n->Longest(direct); break;
      case kSourceType: {
        bool local = info.source.kind != Address::kIp || info.source.ip.is_loopback() || info.source.ip == info.destination.ip;
        next = n->Child(local ? "local" : "external");
        if (!next) next = n->Child("");
        break;
      }
      case kSource: next = n->Longest(info.source); break;
      case kSourcePort:
        if (info.source.kind == Address::kIp) next = n->Child(std::to_string(info.source.port));
        if (!next) next = n->Child("");
        break;
    }
    n = next;
  }
  return n ? n->chain : nullptr;
}

const FilterChain* Match(const Listener& listener, const ConnInfo& info) {
  const FilterChain* c = listener.index ? listener.index->Find(info) : nullptr;
  return c ? c : listener.default_chain.get();
}

}  // namespace weft::model
