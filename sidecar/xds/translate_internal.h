// Shared by the translate_*.cc files only: the place a message is at, and translations of messages that appear in many.
//
// Errors do not unwind: the first one is kept in the run's Errors, translation goes on with whatever value, and the entry
// point returns the error instead of the result. So the code below reads like the messages it reads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "google/protobuf/any.pb.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/wrappers.pb.h"
#include "envoy/config/accesslog/v3/accesslog.pb.h"
#include "envoy/config/core/v3/address.pb.h"
#include "envoy/config/core/v3/base.pb.h"
#include "envoy/config/core/v3/config_source.pb.h"
#include "envoy/config/core/v3/protocol.pb.h"
#include "envoy/config/core/v3/proxy_protocol.pb.h"
#include "envoy/config/core/v3/socket_option.pb.h"
#include "envoy/config/route/v3/route_components.pb.h"
#include "envoy/extensions/transport_sockets/tls/v3/tls.pb.h"
#include "envoy/type/matcher/v3/string.pb.h"
#include "envoy/type/v3/percent.pb.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

namespace core = envoy::config::core::v3;

// Where we are, and where complaints go. A value; cheap enough for configuration.
struct Ctx {
  Warnings* warnings = nullptr;
  std::optional<base::Error>* error = nullptr;
  std::string where;

  Ctx operator/(const std::string& field) const { return {warnings, error, where.empty() ? field : where + "." + field}; }
  Ctx operator[](int i) const { return {warnings, error, where + "[" + std::to_string(i) + "]"}; }
  Ctx Key(const std::string& key) const { return {warnings, error, where + "[\"" + key + "\"]"}; }
  void Fail(const std::string& message) const {
    if (!*error) *error = base::Error(message).In(where);
  }
  void Fail(const base::Error& e) const { Fail(e.where().empty() ? e.message() : e.where() + ": " + e.message()); }
  void Warn(const std::string& message) const {
    if (warnings) warnings->Add(where, message);
  }
  bool failed() const { return error->has_value(); }
  // Warns of every set field below m that is not in the table of supported ones. Does not look into Any.
  void CheckFields(const google::protobuf::Message& m) const;
};

// The message inside; fails when it cannot be decoded. CheckFields is done.
template <typename T>
T Unpack(const Ctx& c, const google::protobuf::Any& any) {
  T t;
  if (!any.UnpackTo(&t)) c.Fail("cannot decode " + any.type_url());
  else c.CheckFields(t);
  return t;
}
// "type.googleapis.com/a.b.C" -> "a.b.C"
std::string TypeOf(const google::protobuf::Any& any);

std::string LowerCase(std::string s);
uint64_t Ns(const Ctx& c, const google::protobuf::Duration& d);  // fails below zero
model::Percent Fraction(const envoy::type::v3::FractionalPercent& p);
model::Address ToAddress(const Ctx& c, const core::Address& a, bool names_allowed);
model::Cidr ToCidr(const Ctx& c, const core::CidrRange& r);
model::Regex ToRegex(const Ctx& c, const envoy::type::matcher::v3::RegexMatcher& m);
model::StringMatcher ToString(const Ctx& c, const envoy::type::matcher::v3::StringMatcher& m);
model::HeaderMatcher ToHeader(const Ctx& c, const envoy::config::route::v3::HeaderMatcher& m);
template <typename List>
std::vector<model::HeaderMatcher> ToHeaders(const Ctx& c, const List& list) {
  std::vector<model::HeaderMatcher> out;
  for (int i = 0; i < list.size(); ++i) out.push_back(ToHeader(c[i], list[i]));
  return out;
}
model::HeaderOption ToHeaderOption(const Ctx& c, const core::HeaderValueOption& o);
template <typename M>
model::HeaderMutations ToMutations(const Ctx& c, const M& m) {
  model::HeaderMutations out;
  for (int i = 0; i < m.request_headers_to_add_size(); ++i)
    out.request_add.push_back(ToHeaderOption((c / "request_headers_to_add")[i], m.request_headers_to_add(i)));
  for (int i = 0; i < m.response_headers_to_add_size(); ++i)
    out.response_add.push_back(ToHeaderOption((c / "response_headers_to_add")[i], m.response_headers_to_add(i)));
  auto remove = [](const Ctx& rc, const std::string& name, std::vector<std::string>& to) {
    if (name.empty() || name[0] == ':' || LowerCase(name) == "host") rc.Fail("\"" + name + "\" must not be removed");
    to.push_back(LowerCase(name));
  };
  for (int i = 0; i < m.request_headers_to_remove_size(); ++i)
    remove((c / "request_headers_to_remove")[i], m.request_headers_to_remove(i), out.request_remove);
  for (int i = 0; i < m.response_headers_to_remove_size(); ++i)
    remove((c / "response_headers_to_remove")[i], m.response_headers_to_remove(i), out.response_remove);
  return out;
}
model::DataSource ToSource(const Ctx& c, const core::DataSource& d);
// Fails for sources other than ADS (files and streams of their own are not supported for this kind).
void RequireAds(const Ctx& c, const core::ConfigSource& s);
model::Cluster::SocketOption ToSocketOption(const Ctx& c, const core::SocketOption& o);
// tracing: whether the place traces its requests, which one kind of filter asks for.
std::shared_ptr<const model::AccessLogs> ToAccessLogs(const Ctx& c,
                                                      const google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>& logs,
                                                      bool tracing = false);
// Loggers that send to a server (translate_grpc_log.cc); null with a warning: not in a way that we can.
bool IsGrpcLog(const std::string& type);
std::shared_ptr<const model::GrpcLog> ToGrpcLog(const Ctx& c, const google::protobuf::Any& config);
// Scalar values as text, sorted by key; of one filter's metadata.
std::vector<std::pair<std::string, std::string>> StructStrings(const google::protobuf::Struct& s);
std::vector<std::pair<std::string, std::string>> MetadataStrings(const core::Metadata& m, const std::string& filter);
model::Provenance ToProvenance(const core::Metadata& m);

model::TlvTypes ToTlvTypes(const Ctx& c, const core::ProxyProtocolPassThroughTLVs& p);

// transport_socket; null for raw_buffer.
std::shared_ptr<const model::TlsConfig> ToTls(const Ctx& c, const core::TransportSocket& s, bool upstream);
void FillValidation(const Ctx& c, const envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext& v, model::TlsConfig& to);
void FillCertificate(const Ctx& c, const envoy::extensions::transport_sockets::tls::v3::TlsCertificate& t, model::DataSource& chain,
                     model::DataSource& key);

model::HttpCommonOptions ToCommonHttp(const Ctx& c, const core::HttpProtocolOptions& p);
model::Http1Options ToHttp1(const Ctx& c, const core::Http1ProtocolOptions& p);
model::Http2Options ToHttp2(const Ctx& c, const core::Http2ProtocolOptions& p);

// Filters (translate_filters.cc). nullopt: skipped because it is optional.
std::optional<model::HttpFilter> ToHttpFilter(const Ctx& c, const std::string& name, const google::protobuf::Any& config, bool optional);
using PerFilterMap = google::protobuf::Map<std::string, google::protobuf::Any>;
std::vector<model::PerFilterConfig> ToPerFilter(const Ctx& c, const PerFilterMap& map);
std::shared_ptr<const model::RbacConfig> ToNetworkRbac(const Ctx& c, const google::protobuf::Any& config);

// Istio's metrics (translate_istio.cc).
bool IsIstioStats(const std::string& name, const google::protobuf::Any& config);
std::shared_ptr<const model::IstioStats> ToIstioStats(const Ctx& c, const google::protobuf::Any& config);
std::string IstioWorkload(const core::Metadata& endpoint);
void SetIstioService(const core::Metadata& cluster, model::Cluster& to);

std::shared_ptr<const route::RouteTable> ToRouteTable(const Ctx& c, const envoy::config::route::v3::RouteConfiguration& p);
std::shared_ptr<const model::Endpoints> ToEndpoints(const Ctx& c, const envoy::config::endpoint::v3::ClusterLoadAssignment& p, bool names_allowed);

// A deterministic fingerprint of a message.
std::string Fingerprint(const google::protobuf::Message& m);

}  // namespace weft::xds
