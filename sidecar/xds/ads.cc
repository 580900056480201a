#include "sidecar/xds/ads.h"

#include <algorithm>

#include "envoy/service/discovery/v3/discovery.pb.h"

namespace weft::xds {

namespace {

namespace disco = envoy::service::discovery::v3;

struct TypeName {
  std::string_view url, short_name;
};
constexpr TypeName kNames[kTypes] = {
    {"type.googleapis.com/envoy.config.cluster.v3.Cluster", "CDS"},
    {"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "EDS"},
    {"type.googleapis.com/envoy.config.listener.v3.Listener", "LDS"},
    {"type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "RDS"},
    {"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "SDS"},
};
constexpr int kInvalidArgument = 3;  // google.rpc.Code
constexpr size_t kMaxErrorText = 4096;

// A state-of-the-world resource has no name beside it: it is field 1 (CDS: name, EDS: cluster_name ...) in all our types.
std::string NameOf(std::string_view body) {
  // Decodes just enough protobuf to find the last field 1 of wire type 2.
  std::string name;
  size_t i = 0;
  auto varint = [&](uint64_t* v) {
    *v = 0;
    for (int shift = 0; i < body.size() && shift < 64; shift += 7) {
      uint8_t b = static_cast<uint8_t>(body[i++]);
      *v |= static_cast<uint64_t>(b & 0x7f) << shift;
      if (!(b & 0x80)) return true;
    }
    return false;
  };
  while (i < body.size()) {
    uint64_t tag, n;
    if (!varint(&tag)) break;
    switch (tag & 7) {
      case 0:
        if (!varint(&n)) return name;
        break;
      case 1: i += 8; break;
      case 5: i += 4; break;
      case 2:
        if (!varint(&n) || n > body.size() - i) return name;
        if (tag >> 3 == 1) name.assign(body.substr(i, n));
        i += n;
        break;
      default: return name;
    }
  }
  return name;
}

}  // namespace

std::string_view TypeUrl(Type type) { return kNames[static_cast<int>(type)].url; }
std::string_view TypeShort(Type type) { return kNames[static_cast<int>(type)].short_name; }
bool TypeFromUrl(std::string_view url, Type* type) {
  for (int i = 0; i < kTypes; ++i) {
    if (kNames[i].url == url) return *type = static_cast<Type>(i), true;
  }
  return false;
}

Ads::Ads(Mode mode, std::string node, AdsSink* sink) : mode_(mode), node_(std::move(node)), sink_(sink) {}

void Ads::WatchAll(Type type) {
  TypeState& t = types_[static_cast<int>(type)];
  if (!t.all) t.all = t.dirty = true;
}

void Ads::SetNames(Type type, const std::set<std::string>& names) {
  TypeState& t = types_[static_cast<int>(type)];
  if (t.names == names) return;
  t.names = names;
  t.dirty = true;
  for (auto it = t.versions.begin(); it != t.versions.end();) {
    if (!t.all && !names.count(it->first)) it = t.versions.erase(it);
    else ++it;
  }
}

void Ads::OnOpen() {
  open_ = true, node_sent_ = false;
  for (TypeState& t : types_) {
    t.sent.clear();
    t.subscribed = t.ack = false;
    t.nonce.clear();
    t.dirty = t.all || !t.names.empty();
  }
}

void Ads::OnClosed() { open_ = false; }

void Ads::OnMessage(std::string_view bytes) {
  if (mode_ == kDelta) OnDelta(bytes);
  else OnSotw(bytes);
}

void Ads::Answer(TypeState& t, Type type, const std::string& nonce, const std::vector<Refused>& refused) {
  t.nonce = nonce, t.ack = true, t.ack_nonce = nonce, t.ack_error.clear(), t.answered = true;
  if (refused.empty()) {
    ++t.updates;
    t.last_error.clear();
    return;
  }
  ++t.rejected;
  for (const Refused& r : refused) {
    if (!t.ack_error.empty()) t.ack_error += "; ";
    t.ack_error += std::string(TypeShort(type)) + " \"" + r.name + "\": " + r.reason;
    if (t.ack_error.size() > kMaxErrorText) {
      t.ack_error.resize(kMaxErrorText);
      t.ack_error += "... (" + std::to_string(refused.size()) + " resources refused)";
      break;
    }
  }
  t.last_error = t.ack_error;
}

void Ads::OnDelta(std::string_view bytes) {
  disco::DeltaDiscoveryResponse response;
  Type type;
  if (!response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !TypeFromUrl(response.type_url(), &type)) {
    ++bad_messages_;
    return;
  }
  TypeState& t = types_[static_cast<int>(type)];
  std::vector<AdsResource> updated;
  std::vector<Refused> refused;
  for (auto& r : *response.mutable_resources()) {
    if (!r.has_resource()) continue;  // a TTL heartbeat
    if (!t.all && !t.names.count(r.name())) continue;  // unsubscribed meanwhile
    if (r.resource().type_url() != response.type_url()) {
      refused.push_back({r.name(), "is a " + r.resource().type_url()});
      continue;
    }
    updated.push_back({r.name(), r.version(), std::move(*r.mutable_resource()->mutable_value())});
  }
  std::vector<std::string> removed(response.removed_resources().begin(), response.removed_resources().end());
  auto more = sink_->OnResources(type, updated, removed, false);
  refused.insert(refused.end(), more.begin(), more.end());
  for (const std::string& name : removed) t.versions.erase(name);
  for (const AdsResource& r : updated) {
    bool bad = std::any_of(refused.begin(), refused.end(), [&](const Refused& x) { return x.name == r.name; });
    if (!bad && (t.all || t.names.count(r.name))) t.versions[r.name] = r.version;
  }
  if (refused.empty()) t.version = response.system_version_info();
  Answer(t, type, response.nonce(), refused);
}

void Ads::OnSotw(std::string_view bytes) {
  disco::DiscoveryResponse response;
  Type type;
  if (!response.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !TypeFromUrl(response.type_url(), &type)) {
    ++bad_messages_;
    return;
  }
  TypeState& t = types_[static_cast<int>(type)];
  std::vector<AdsResource> updated;
  std::vector<Refused> refused;
  for (auto& any : *response.mutable_resources()) {
    disco::Resource wrapper;
    std::string* body = any.mutable_value();
    std::string name;
    if (any.type_url() == "type.googleapis.com/envoy.service.discovery.v3.Resource" && wrapper.ParseFromString(any.value())) {
      name = wrapper.name();
      body = wrapper.mutable_resource()->mutable_value();
    } else if (any.type_url() != response.type_url()) {
      refused.push_back({"?", "is a " + any.type_url()});
      continue;
    }
    if (name.empty()) name = NameOf(*body);
    if (!t.all && !t.names.count(name)) continue;  // servers may send more than was asked for
    updated.push_back({name, response.version_info(), std::move(*body)});
  }
  bool full = type == Type::kCluster || type == Type::kListener;
  auto more = sink_->OnResources(type, updated, {}, full);
  refused.insert(refused.end(), more.begin(), more.end());
  if (full) t.versions.clear();
  for (const AdsResource& r : updated) {
    bool bad = std::any_of(refused.begin(), refused.end(), [&](const Refused& x) { return x.name == r.name; });
    if (!bad) t.versions[r.name] = r.version;
  }
  if (refused.empty()) t.version = response.version_info();
  Answer(t, type, response.nonce(), refused);
}

bool Ads::Next(std::string* out) {
  if (!open_) return false;
  for (int i = 0; i < kTypes; ++i) {
    TypeState& t = types_[i];
    if (!t.dirty && !t.ack) continue;
    Type type = static_cast<Type>(i);
    if (mode_ == kDelta ? NextDelta(type, t, out) : NextSotw(type, t, out)) return true;
  }
  return false;
}

bool Ads::NextDelta(Type type, TypeState& t, std::string* out) {
  disco::DeltaDiscoveryRequest request;
  request.set_type_url(std::string(TypeUrl(type)));
  bool say = t.ack;
  if (t.ack) {
    request.set_response_nonce(t.ack_nonce);
    if (!t.ack_error.empty()) {
      request.mutable_error_detail()->set_code(kInvalidArgument);
      request.mutable_error_detail()->set_message(t.ack_error);
    }
  }
  if (t.dirty) {
    for (const std::string& name : t.names) {
      if (!t.sent.count(name)) request.add_resource_names_subscribe(name), say = true;
    }
    for (const std::string& name : t.sent) {
      if (!t.names.count(name)) request.add_resource_names_unsubscribe(name), say = true;
    }
    t.sent = t.names;
    if (!t.subscribed && t.all) say = true;  // a first request without names asks for everything
    if (!t.subscribed && say) {
      for (const auto& [name, version] : t.versions) (*request.mutable_initial_resource_versions())[name] = version;
    }
  }
  t.dirty = t.ack = false;
  if (!say) return false;
  t.subscribed = true;
  if (!node_sent_) node_sent_ = true, request.mutable_node()->ParseFromString(node_);
  request.SerializeToString(out);
  return true;
}

bool Ads::NextSotw(Type type, TypeState& t, std::string* out) {
  if (!t.subscribed && !t.all && t.names.empty()) return t.dirty = t.ack = false;
  disco::DiscoveryRequest request;
  request.set_type_url(std::string(TypeUrl(type)));
  request.set_version_info(t.version);
  request.set_response_nonce(t.nonce);
  if (!t.all) {
    for (const std::string& name : t.names) request.add_resource_names(name);
  }
  if (t.ack && !t.ack_error.empty()) {
    request.mutable_error_detail()->set_code(kInvalidArgument);
    request.mutable_error_detail()->set_message(t.ack_error);
  }
  t.dirty = t.ack = false;
  t.subscribed = true;
  if (!node_sent_) node_sent_ = true, request.mutable_node()->ParseFromString(node_);
  request.SerializeToString(out);
  return true;
}

}  // namespace weft::xds
