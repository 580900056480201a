// The aggregated discovery protocol as a state machine: encoded requests out, encoded responses in, no I/O, no clock.
// Delta and state-of-the-world; subscriptions per type; nonces; ACK and NACK; reconnecting with initial versions.
//
//   Ads ads(Ads::kDelta, node_bytes, &sink);
//   ads.WatchAll(Type::kCluster); ads.Watch(Type::kEndpoint, "cart");
//   ads.OnOpen();                                  // the stream is up: every subscription is sent again
//   std::string out; while (ads.Next(&out)) stream->Send(out);
//   ads.OnMessage(bytes);                          // a DiscoveryResponse / DeltaDiscoveryResponse -> sink, ACK or NACK
//
// Only the refused resources of a response are left out; the others are applied, and the NACK names each refused one.
// Requests leave in the order CDS, EDS, LDS, RDS, SDS (make before break). Node goes with a stream's first request.
// Errors: a message that is no discovery response, or of a type unknown here, is counted (bad_messages) and dropped.
// Threads: one. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace weft::xds {

enum class Type : uint8_t { kCluster, kEndpoint, kListener, kRoute, kSecret, kCount };
constexpr int kTypes = static_cast<int>(Type::kCount);
std::string_view TypeUrl(Type type);    // "type.googleapis.com/envoy.config.cluster.v3.Cluster"
std::string_view TypeShort(Type type);  // "CDS"
bool TypeFromUrl(std::string_view url, Type* type);

struct AdsResource {
  std::string name, version;
  std::string body;  // the encoded message of the type
};
struct Refused {
  std::string name, reason;  // reason: "field: what is wrong"
};

class AdsSink {
 public:
  // updated and removed came in one response. full: updated is everything there is of this type (state of the world,
  // CDS and LDS). Returns what it would not take.
  virtual std::vector<Refused> OnResources(Type type, const std::vector<AdsResource>& updated,
                                           const std::vector<std::string>& removed, bool full) = 0;

 protected:
  ~AdsSink() = default;
};

class Ads {
 public:
  enum Mode { kDelta, kStateOfTheWorld };
  // node: an encoded envoy.config.core.v3.Node. The sink is not owned.
  Ads(Mode mode, std::string node, AdsSink* sink);

  void WatchAll(Type type);
  // Replaces the names watched of a type that is not watched as a whole. Names that stay are not asked for again.
  void SetNames(Type type, const std::set<std::string>& names);

  void OnOpen();
  void OnClosed();
  bool open() const { return open_; }
  void OnMessage(std::string_view bytes);
  // The next request to send, encoded. False: nothing to say.
  bool Next(std::string* out);

  struct TypeState {  // for /config_dump, status and tests
    bool all = false;
    std::set<std::string> names;
    std::map<std::string, std::string> versions;  // of the resources in force
    std::string version;                          // last accepted version_info / system_version_info
    std::string nonce;
    std::string last_error;                       // the last NACK's text; cleared by the next ACK
    uint64_t updates = 0, rejected = 0;
    bool answered = false;                        // at least one response since the start

   private:
    friend class Ads;
    std::set<std::string> sent;    // names the server knows of on this stream
    bool subscribed = false;       // a request for this type went out on this stream
    bool dirty = false;            // names changed, or the first request is due
    bool ack = false;              // an answer to the last response is due
    std::string ack_nonce, ack_error;
  };
  const TypeState& state(Type type) const { return types_[static_cast<int>(type)]; }
  uint64_t bad_messages() const { return bad_messages_; }

 private:
  void OnDelta(std::string_view bytes);
  void OnSotw(std::string_view bytes);
  void Answer(TypeState& t, Type type, const std::string& nonce, const std::vector<Refused>& refused);
  bool NextDelta(Type type, TypeState& t, std::string* out);
  bool NextSotw(Type type, TypeState& t, std::string* out);

  const Mode mode_;
  const std::string node_;
  AdsSink* const sink_;
  std::array<TypeState, kTypes> types_;
  bool open_ = false, node_sent_ = false;
  uint64_t bad_messages_ = 0;
};

}  // namespace weft::xds
