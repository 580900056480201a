// What one class of proxies should have: named resources by type, each with the hash of its content as version. Values
// only; resources are shared between snapshots and streams.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace weft::server {

// In make-before-break order.
enum Type : uint8_t { kCds, kEds, kLds, kRds, kSds, kTypeCount };
std::string_view TypeUrl(Type t);    // "type.googleapis.com/envoy.config.cluster.v3.Cluster"
std::string_view TypeName(Type t);   // "cds"
Type TypeOfUrl(std::string_view url);  // kTypeCount when it is none of ours

struct Resource {
  std::string name, version, bytes;  // bytes: the serialised message
};
using ResourcePtr = std::shared_ptr<const Resource>;
using ResourceMap = std::map<std::string, ResourcePtr, std::less<>>;

struct Snapshot {
  uint64_t revision = 0;  // of the policies it was compiled from
  std::array<ResourceMap, kTypeCount> resources;
  std::array<std::string, kTypeCount> versions;  // of all resources of the type together

  const Resource* Find(Type t, std::string_view name) const {
    auto it = resources[t].find(name);
    return it == resources[t].end() ? nullptr : it->second.get();
  }
};

std::string ContentHash(std::string_view bytes);
void Add(Snapshot& s, Type t, std::string name, std::string bytes);
void Add(Snapshot& s, Type t, ResourcePtr resource);
// Fills `versions`; call once after the last Add.
void Seal(Snapshot& s);

}  // namespace weft::server
