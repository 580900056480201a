// /config_dump, and JSON of protobuf messages with secrets taken out.
#include <google/protobuf/any.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <re2/re2.h>

#include "envoy/admin/v3/config_dump.pb.h"
#include "envoy/admin/v3/config_dump_shared.pb.h"
#include "envoy/config/bootstrap/v3/bootstrap.pb.h"
#include "sidecar/admin/endpoints.h"
#include "sidecar/admin/proto_json.h"
#include "udpa/annotations/sensitive.pb.h"

namespace weft::admin {

namespace {

namespace pb = google::protobuf;
namespace dump = envoy::admin::v3;
using xds::ResourceView;
using xds::Type;

void RedactIn(pb::Message* m, bool sensitive, int depth);

void RedactAny(pb::Any* any, bool sensitive, int depth) {
  std::string name;
  if (!pb::Any::ParseAnyTypeUrl(any->type_url(), &name)) return;
  const auto* descriptor = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
  if (!descriptor) return;
  std::unique_ptr<pb::Message> m(pb::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
  if (!m->ParseFromString(any->value())) return;
  RedactIn(m.get(), sensitive, depth + 1);
  m->SerializeToString(any->mutable_value());
}

void RedactIn(pb::Message* m, bool sensitive, int depth) {
  if (depth > 64) return m->Clear();
  if (m->GetDescriptor() == pb::Any::descriptor()) return RedactAny(static_cast<pb::Any*>(m), sensitive, depth);
  const auto* r = m->GetReflection();
  std::vector<const pb::FieldDescriptor*> fields;
  r->ListFields(*m, &fields);
  for (const auto* f : fields) {
    bool hide = sensitive || f->options().GetExtension(udpa::annotations::sensitive);
    if (f->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE) {
      if (f->is_repeated()) {
        for (int i = 0; i < r->FieldSize(*m, f); ++i) RedactIn(r->MutableRepeatedMessage(m, f, i), hide, depth + 1);
      } else {
        RedactIn(r->MutableMessage(m, f), hide, depth + 1);
      }
    } else if (hide && f->cpp_type() == pb::FieldDescriptor::CPPTYPE_STRING) {
      // Bytes are shown in base64 by JSON; Envoy redacts both alike.
      if (f->is_repeated()) {
        for (int i = 0; i < r->FieldSize(*m, f); ++i) r->SetRepeatedString(m, f, i, "[redacted]");
      } else {
        r->SetString(m, f, "[redacted]");
      }
    } else if (hide && !f->is_repeated()) {
      r->ClearField(m, f);
    }
  }
}

template <typename T>
void SetTime(T* stamp, uint64_t unix_ns) {
  if (unix_ns) *stamp = pb::util::TimeUtil::NanosecondsToTimestamp(static_cast<int64_t>(unix_ns));
}

void SetAny(pb::Any* any, Type type, const std::shared_ptr<const std::string>& body) {
  any->set_type_url(std::string(xds::TypeUrl(type)));
  if (body) any->set_value(*body);
}

template <typename T>
void SetError(T* to, Type type, const ResourceView& v) {
  if (v.error.empty()) return;
  auto* e = to->mutable_error_state();
  if (v.refused_body) SetAny(e->mutable_failed_configuration(), type, v.refused_body);
  SetTime(e->mutable_last_update_attempt(), v.refused_unix_ns);
  e->set_details(v.error);
  e->set_version_info(v.refused_version);
}

dump::ClientResourceStatus Status(const ResourceView& v) {
  if (!v.error.empty()) return dump::NACKED;
  return v.warming ? dump::REQUESTED : dump::ACKED;
}

}  // namespace

void Redact(pb::Message* message) { RedactIn(message, false, 0); }

Response Json(const pb::Message& message, bool zeros) {
  pb::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = zeros;
  std::string text;
  auto status = pb::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) return {500, "{\"error\":\"cannot be shown as JSON\"}\n", "application/json"};
  return {200, text, "application/json"};
}

Response ConfigDump(const AdminState& state, const Request& request) {
  const std::string only = request.Get("resource");
  std::unique_ptr<re2::RE2> names;
  if (request.Has("name_regex")) {
    names = std::make_unique<re2::RE2>(request.Get("name_regex"), re2::RE2::Quiet);
    if (!names->ok()) return {400, "Error while parsing name_regex from " + request.Get("name_regex") + "\n"};
  }
  auto views = [&](Type type) {
    std::vector<ResourceView> out;
    for (ResourceView& v : state.builder->View(type)) {
      if (!names || re2::RE2::PartialMatch(v.name, *names)) out.push_back(std::move(v));
    }
    return out;
  };

  std::vector<std::unique_ptr<pb::Message>> parts;
  if (state.bootstrap && state.bootstrap->proto && !names) {
    auto b = std::make_unique<dump::BootstrapConfigDump>();
    *b->mutable_bootstrap() = *state.bootstrap->proto;
    if (!state.bootstrap->static_resources.empty()) b->mutable_bootstrap()->mutable_static_resources()->ParseFromString(state.bootstrap->static_resources);
    SetTime(b->mutable_last_updated(), state.started_unix_ns);
    parts.push_back(std::move(b));
  }
  auto snapshot = state.builder->current();
  {
    auto c = std::make_unique<dump::ClustersConfigDump>();
    if (snapshot) c->set_version_info(snapshot->versions.cds);
    for (const ResourceView& v : views(Type::kCluster)) {
      if (v.is_static) {
        auto* s = c->add_static_clusters();
        SetAny(s->mutable_cluster(), Type::kCluster, v.body);
        SetTime(s->mutable_last_updated(), v.updated_unix_ns);
        continue;
      }
      auto* d = v.warming ? c->add_dynamic_warming_clusters() : c->add_dynamic_active_clusters();
      d->set_version_info(v.version);
      SetAny(d->mutable_cluster(), Type::kCluster, v.body);
      SetTime(d->mutable_last_updated(), v.updated_unix_ns);
      SetError(d, Type::kCluster, v);
      d->set_client_status(Status(v));
    }
    parts.push_back(std::move(c));
  }
  if (request.Has("include_eds") || only == "dynamic_endpoint_configs") {
    auto e = std::make_unique<dump::EndpointsConfigDump>();
    for (const ResourceView& v : views(Type::kEndpoint)) {
      auto* d = e->add_dynamic_endpoint_configs();
      d->set_version_info(v.version);
      SetAny(d->mutable_endpoint_config(), Type::kEndpoint, v.body);
      SetTime(d->mutable_last_updated(), v.updated_unix_ns);
      SetError(d, Type::kEndpoint, v);
      d->set_client_status(v.body ? Status(v) : dump::DOES_NOT_EXIST);
    }
    parts.push_back(std::move(e));
  }
  {
    auto l = std::make_unique<dump::ListenersConfigDump>();
    if (snapshot) l->set_version_info(snapshot->versions.lds);
    dump::ListenersConfigDump::DynamicListener* last = nullptr;
    for (const ResourceView& v : views(Type::kListener)) {
      if (v.is_static) {
        auto* s = l->add_static_listeners();
        SetAny(s->mutable_listener(), Type::kListener, v.body);
        SetTime(s->mutable_last_updated(), v.updated_unix_ns);
        continue;
      }
      if (!last || last->name() != v.name) last = l->add_dynamic_listeners();
      last->set_name(v.name);
      auto* d = v.warming ? last->mutable_warming_state() : last->mutable_active_state();
      d->set_version_info(v.version);
      SetAny(d->mutable_listener(), Type::kListener, v.body);
      SetTime(d->mutable_last_updated(), v.updated_unix_ns);
      SetError(last, Type::kListener, v);
      last->set_client_status(Status(v));
    }
    parts.push_back(std::move(l));
  }
  parts.push_back(std::make_unique<dump::ScopedRoutesConfigDump>());
  {
    auto r = std::make_unique<dump::RoutesConfigDump>();
    for (const ResourceView& v : views(Type::kRoute)) {
      auto* d = r->add_dynamic_route_configs();
      d->set_version_info(v.version);
      SetAny(d->mutable_route_config(), Type::kRoute, v.body);
      SetTime(d->mutable_last_updated(), v.updated_unix_ns);
      SetError(d, Type::kRoute, v);
      d->set_client_status(v.body ? Status(v) : dump::DOES_NOT_EXIST);
    }
    parts.push_back(std::move(r));
  }
  {
    auto s = std::make_unique<dump::SecretsConfigDump>();
    for (const ResourceView& v : views(Type::kSecret)) {
      if (v.is_static) {
        auto* d = s->add_static_secrets();
        d->set_name(v.name);
        SetAny(d->mutable_secret(), Type::kSecret, v.body);
        SetTime(d->mutable_last_updated(), v.updated_unix_ns);
        continue;
      }
      auto* d = s->add_dynamic_active_secrets();
      d->set_name(v.name);
      d->set_version_info(v.version);
      SetAny(d->mutable_secret(), Type::kSecret, v.body);
      SetTime(d->mutable_last_updated(), v.updated_unix_ns);
      SetError(d, Type::kSecret, v);
      d->set_client_status(Status(v));
    }
    parts.push_back(std::move(s));
  }

  dump::ConfigDump out;
  bool found = only.empty();
  for (auto& part : parts) {
    Redact(part.get());
    if (only.empty()) {
      out.add_configs()->PackFrom(*part);
      continue;
    }
    const auto* field = part->GetDescriptor()->FindFieldByName(only);
    if (!field || field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    found = true;
    const auto* r = part->GetReflection();
    if (!field->is_repeated()) {
      out.add_configs()->PackFrom(r->GetMessage(*part, field));
      continue;
    }
    for (int i = 0; i < r->FieldSize(*part, field); ++i) out.add_configs()->PackFrom(r->GetRepeatedMessage(*part, field, i));
  }
  if (!found) return {404, only + " not found in config dump\n"};
  return Json(out);
}

}  // namespace weft::admin
