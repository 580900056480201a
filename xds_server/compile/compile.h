// World -> Envoy resources. Pure: a result depends on nothing but the arguments, so equal inputs give equal bytes.
//
//   Compiler c(world, &previous);             // one per World; keeps what classes share (clusters, endpoints, routes)
//   auto snapshot = c.For({{"default", "cart"}, ports});
//
// Endpoints are a fast lane: when a World differs from the previous one only in which instances are there and ready, all
// but the endpoints is taken over from the previous compiler.
//
// What each resource looks like is the "Mesh conventions" section of docs/architecture.md. One file per concern:
// cluster.cc (clusters, endpoints), route.cc, listener.cc, authorization.cc.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "xds_server/model/world.h"
#include "xds_server/snapshot/snapshot.h"

namespace weft::server {

// Proxies for which the same resources are right.
struct ProxyClass {
  Name service;
  std::vector<Port> ports;  // of the application beside it: the inbound side
  std::string sds_dir;      // foreign Envoy: secrets are files below this directory
  bool ipv6 = false;        // listeners on ::1 and :: too
  auto operator<=>(const ProxyClass&) const = default;
};

class Compiler {
 public:
  explicit Compiler(std::shared_ptr<const World> world, Compiler* previous = nullptr);
  std::shared_ptr<const Snapshot> For(const ProxyClass& c);

 private:
  std::shared_ptr<const World> world_;
  std::string shape_;                                                // everything the other resources are made from
  bool shared_done_ = false, routes_done_ = false;
  std::vector<ResourcePtr> endpoints_, routes_;                      // the same for everyone
  std::map<std::string, std::vector<ResourcePtr>> clusters_;         // by sds_dir
  std::map<std::pair<std::string, bool>, ResourcePtr> outbound_;     // by sds_dir, ipv6
  std::map<std::pair<std::string, bool>, ResourcePtr> dns_;          // by namespace of the caller, ipv6
  std::map<ProxyClass, std::vector<std::pair<Type, ResourcePtr>>> inbound_;
};

// "outbound|80|v2|cart.default"
std::string ClusterName(const Name& service, uint16_t port, const std::string& version);
// "outbound|80|cart.default"
std::string RouteName(const Name& service, uint16_t port);

constexpr uint16_t kOutboundPort = 15001, kInboundPort = 15006, kDnsPort = 15053;

}  // namespace weft::server
