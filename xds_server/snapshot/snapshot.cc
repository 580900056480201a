#include "xds_server/snapshot/snapshot.h"

#include <cstdio>

namespace weft::server {

std::string_view TypeUrl(Type t) {
  switch (t) {
    case kCds: return "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    case kEds: return "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    case kLds: return "type.googleapis.com/envoy.config.listener.v3.Listener";
    case kRds: return "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    case kSds: return "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    case kTypeCount: break;
  }
  return "";
}

std::string_view TypeName(Type t) {
  static constexpr std::string_view kNames[] = {"cds", "eds", "lds", "rds", "sds", ""};
  return kNames[t];
}

Type TypeOfUrl(std::string_view url) {
  for (int t = 0; t < kTypeCount; ++t) {
    if (TypeUrl(static_cast<Type>(t)) == url) return static_cast<Type>(t);
  }
  return kTypeCount;
}

// Two independent 64-bit FNV-1a sums: content is our own compiler's, so chance, not malice, is what must not collide.
std::string ContentHash(std::string_view bytes) {
  uint64_t a = 14695981039346656037ull, b = 0x9e3779b97f4a7c15ull;
  for (unsigned char c : bytes) {
    a = (a ^ c) * 1099511628211ull;
    b = (b ^ (c + 0x5bu)) * 0x100000001b3ull;
    b ^= b >> 29;
  }
  char text[33];
  snprintf(text, sizeof text, "%016llx%08x", static_cast<unsigned long long>(a), static_cast<unsigned>(b ^ (b >> 32)));
  return text;
}

void Add(Snapshot& s, Type t, std::string name, std::string bytes) {
  std::string version = ContentHash(bytes);
  Add(s, t, std::make_shared<const Resource>(Resource{std::move(name), std::move(version), std::move(bytes)}));
}

void Add(Snapshot& s, Type t, ResourcePtr resource) {
  std::string name = resource->name;
  s.resources[t].insert_or_assign(std::move(name), std::move(resource));
}

void Seal(Snapshot& s) {
  for (int t = 0; t < kTypeCount; ++t) {
    std::string all;
    for (const auto& [name, r] : s.resources[t]) all += name + '\0' + r->version + '\n';
    s.versions[t] = ContentHash(all);
  }
}

}  // namespace weft::server
