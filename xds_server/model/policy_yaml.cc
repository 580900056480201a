// YAML nodes are walked against the message's descriptor, so that unknown fields and wrong kinds are found with their
// line, and the path of every field is remembered for the checks of meaning that follow (validate.cc).
#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "api/weft/policy/v1/policy.pb.h"
#include "sidecar/base/yaml.h"
#include "xds_server/model/policy.h"

namespace weft::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxText = 4 << 20, kMaxObjects = 1000, kMaxNodes = 200'000;

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row.back();
}

std::string_view KindOf(const YAML::Node& n) {
  switch (n.Type()) {
    case YAML::NodeType::Map: return "a map";
    case YAML::NodeType::Sequence: return "a list";
    case YAML::NodeType::Scalar: return "a value";
    default: return "nothing";
  }
}

bool ParseDuration(std::string_view text, int64_t& seconds, int32_t& nanos) {
  double unit = 0;
  size_t suffix = 0;
  auto ends = [&](std::string_view s) { return text.size() > s.size() && text.substr(text.size() - s.size()) == s; };
  if (ends("ms")) unit = 1e-3, suffix = 2;
  else if (ends("us")) unit = 1e-6, suffix = 2;
  else if (ends("s")) unit = 1, suffix = 1;
  else if (ends("m")) unit = 60, suffix = 1;
  else if (ends("h")) unit = 3600, suffix = 1;
  else return false;
  text.remove_suffix(suffix);
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return false;
  value *= unit;
  if (std::fabs(value) > 315'576'000'000.0) return false;
  const double whole = std::trunc(value);
  seconds = static_cast<int64_t>(whole);
  nanos = static_cast<int32_t>(std::llround((value - whole) * 1e9));
  if (nanos == 1'000'000'000) ++seconds, nanos = 0;
  return true;
}

class Reader {
 public:
  Reader(std::string_view file, ParseOutcome& out) : file_(file), out_(out) {}

  void Document(const YAML::Node& doc) {
    if (doc.IsNull()) return;
    if (doc.IsSequence()) {  // a JSON array of objects
      for (const YAML::Node& item : doc) Document(item);
      return;
    }
    if (out_.objects.size() >= kMaxObjects) {
      if (!too_many_) Fail(doc, "", "more than 1000 objects");
      too_many_ = true;
      return;
    }
    object_ = {};
    label_.clear();
    const size_t issues_before = out_.issues.size();
    auto message = std::make_shared<policy::v1::Object>();
    if (!doc.IsMap()) return Fail(doc, "", "expected a map with apiVersion, kind, metadata and spec");
    Place("", doc);

    const FieldDescriptor* spec_field = nullptr;
    YAML::Node kind = doc["kind"], api = doc["apiVersion"] ? doc["apiVersion"] : doc["api_version"];
    if (!kind || !kind.IsScalar()) {
      Fail(doc, "kind", "missing; one of " + Kinds());
    } else {
      object_.kind = kind.Scalar();
      message->set_kind(object_.kind);
      label_ = object_.kind;
      for (int i = 0; i < message->GetDescriptor()->oneof_decl(0)->field_count(); ++i) {
        const FieldDescriptor* f = message->GetDescriptor()->oneof_decl(0)->field(i);
        if (f->message_type()->name() == object_.kind) spec_field = f;
      }
      if (!spec_field) Fail(kind, "kind", "unknown kind \"" + object_.kind + "\"; one of " + Kinds());
    }
    if (!api || !api.IsScalar()) Fail(doc, "apiVersion", "missing; must be weft/v1");
    else if (api.Scalar() != "weft/v1") Fail(api, "apiVersion", "is \"" + api.Scalar() + "\"; must be weft/v1");
    message->set_api_version("weft/v1");

    if (YAML::Node metadata = doc["metadata"]) {
      ReadMessage(metadata, "metadata", message->mutable_metadata(), /*is_metadata=*/true);
    }
    if (message->metadata().namespace_().empty()) message->mutable_metadata()->set_namespace_("default");
    object_.name = {message->metadata().namespace_(), message->metadata().name()};
    label_ = object_.kind + "/" + object_.name.ns + "/" + object_.name.name;

    if (spec_field) {
      Message* spec = message->GetReflection()->MutableMessage(message.get(), spec_field);
      if (YAML::Node node = doc["spec"]) {
        if (!node.IsNull()) ReadMessage(node, "spec", spec, false);
      } else {
        Fail(doc, "spec", "missing");
      }
    }
    for (const auto& entry : doc) {
      const std::string& key = entry.first.Scalar();
      if (key != "apiVersion" && key != "api_version" && key != "kind" && key != "metadata" && key != "spec") {
        Fail(entry.first, key, "unknown field; an object has apiVersion, kind, metadata and spec");
      }
    }
    object_.object = message;
    if (out_.issues.size() == issues_before) {
      ValidateObject(object_, file_, out_.issues);
      for (const ParsedObject& other : out_.objects) {
        if (other.kind != object_.kind || other.name != object_.name) continue;
        auto at = other.places.find("");
        Fail(doc, "metadata.name", "the same object is already at line " +
                                       std::to_string(at == other.places.end() ? 0 : at->second.first));
      }
    }
    out_.objects.push_back(std::move(object_));
  }

 private:
  static std::string Kinds() {
    std::string s;
    for (const std::string& k : PolicyKinds()) s += (s.empty() ? "" : ", ") + k;
    return s;
  }

  void Place(const std::string& path, const YAML::Node& n) {
    object_.places[path] = {n.Mark().line + 1, n.Mark().column + 1};
  }

  void Fail(const YAML::Node& at, const std::string& field, std::string reason) {
    if (out_.issues.size() >= 100) return;  // enough to work on
    Issue issue{std::string(file_), at.Mark().line + 1, at.Mark().column + 1, label_, field, std::move(reason)};
    out_.issues.push_back(std::move(issue));
  }

  bool Count(const YAML::Node& n, const std::string& path) {
    if (++nodes_ <= kMaxNodes) return true;
    if (nodes_ == kMaxNodes + 1) Fail(n, path, "the file is too large (more than 200,000 values)");
    return false;
  }

  void ReadMessage(const YAML::Node& n, const std::string& path, Message* m, bool is_metadata) {
    if (!Count(n, path)) return;
    if (!n.IsMap()) return Fail(n, path, "expected a map, found " + std::string(KindOf(n)));
    const Descriptor* d = m->GetDescriptor();
    std::vector<const FieldDescriptor*> seen;
    for (const auto& entry : n) {
      if (!entry.first.IsScalar()) {
        Fail(entry.first, path, "a field name must be a plain word");
        continue;
      }
      const std::string key = entry.first.Scalar();
      if (is_metadata && key == "revision") continue;  // filled by the server; here only when a `get` is applied again
      const std::string field_path = path + "." + key;
      const FieldDescriptor* f = nullptr;
      for (int i = 0; i < d->field_count(); ++i) {
        if (d->field(i)->name() == key || d->field(i)->json_name() == key) f = d->field(i);
      }
      if (!f) {
        std::string best;
        size_t distance = 3;
        for (int i = 0; i < d->field_count(); ++i) {
          size_t e = EditDistance(key, d->field(i)->name());
          if (e < distance) distance = e, best = d->field(i)->name();
        }
        Fail(entry.first, field_path, best.empty() ? "unknown field" : "unknown field; did you mean \"" + best + "\"?");
        continue;
      }
      if (std::find(seen.begin(), seen.end(), f) != seen.end()) {
        Fail(entry.first, field_path, "given twice");
        continue;
      }
      seen.push_back(f);
      ReadField(entry.second, entry.first, field_path, m, f);
    }
  }

  void ReadField(const YAML::Node& n, const YAML::Node& key, const std::string& path, Message* m, const FieldDescriptor* f) {
    if (!Count(n, path)) return;
    object_.places[path] = {key.Mark().line + 1, key.Mark().column + 1};
    if (n.IsNull()) return Fail(key, path, "has no value");
    if (f->is_map()) return ReadMap(n, path, m, f);
    if (f->is_repeated()) {
      if (!n.IsSequence()) return Fail(n, path, "expected a list, found " + std::string(KindOf(n)));
      size_t i = 0;
      for (const YAML::Node& item : n) {
        const std::string item_path = path + "[" + std::to_string(i++) + "]";
        Place(item_path, item);
        if (f->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          ReadMessage(item, item_path, m->GetReflection()->AddMessage(m, f), false);
        } else {
          ReadScalar(item, item_path, m, f, true);
        }
      }
      return;
    }
    if (f->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* child = m->GetReflection()->MutableMessage(m, f);
      if (f->message_type()->full_name() == "google.protobuf.Duration") return ReadDuration(n, path, child);
      return ReadMessage(n, path, child, false);
    }
    ReadScalar(n, path, m, f, false);
  }

  void ReadMap(const YAML::Node& n, const std::string& path, Message* m, const FieldDescriptor* f) {
    if (!n.IsMap()) return Fail(n, path, "expected a map, found " + std::string(KindOf(n)));
    for (const auto& entry : n) {
      if (!Count(n, path)) return;
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
        Fail(entry.first, path, "expected text for text");
        continue;
      }
      Message* item = m->GetReflection()->AddMessage(m, f);
      const Descriptor* d = item->GetDescriptor();
      item->GetReflection()->SetString(item, d->FindFieldByNumber(1), entry.first.Scalar());
      item->GetReflection()->SetString(item, d->FindFieldByNumber(2), entry.second.Scalar());
    }
  }

  void ReadDuration(const YAML::Node& n, const std::string& path, Message* m) {
    int64_t seconds = 0;
    int32_t nanos = 0;
    if (!n.IsScalar() || !ParseDuration(n.Scalar(), seconds, nanos)) {
      return Fail(n, path, "expected a duration such as \"1.5s\"" +
                               (n.IsScalar() ? ", found \"" + n.Scalar() + "\"" : std::string()));
    }
    auto* d = static_cast<google::protobuf::Duration*>(m);
    d->set_seconds(seconds), d->set_nanos(nanos);
  }

  void ReadScalar(const YAML::Node& n, const std::string& path, Message* m, const FieldDescriptor* f, bool add) {
    const auto* r = m->GetReflection();
    if (!n.IsScalar()) return Fail(n, path, "expected one value, found " + std::string(KindOf(n)));
    const std::string& text = n.Scalar();
    switch (f->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        add ? r->AddString(m, f, text) : r->SetString(m, f, text);
        return;
      case FieldDescriptor::CPPTYPE_UINT32: {
        uint32_t v = 0;
        auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
        if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
          return Fail(n, path, "expected a whole number from 0, found \"" + text + "\"");
        }
        add ? r->AddUInt32(m, f, v) : r->SetUInt32(m, f, v);
        return;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double v = 0;
        auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
        if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(v)) {
          return Fail(n, path, "expected a number, found \"" + text + "\"");
        }
        r->SetDouble(m, f, v);
        return;
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (text != "true" && text != "false") return Fail(n, path, "expected true or false, found \"" + text + "\"");
        r->SetBool(m, f, text == "true");
        return;
      default:
        return Fail(n, path, "cannot be set");
    }
  }

  std::string_view file_;
  ParseOutcome& out_;
  ParsedObject object_;
  std::string label_;
  size_t nodes_ = 0;
  bool too_many_ = false;
};

}  // namespace

std::string Issue::ToString() const {
  std::string s = file;
  if (line > 0) s += ":" + std::to_string(line);
  if (!s.empty()) s += ": ";
  if (!object.empty()) s += object + ": ";
  if (!field.empty()) s += field + ": ";
  return s + reason;
}

const std::vector<std::string>& PolicyKinds() {
  static const std::vector<std::string> kinds = [] {
    std::vector<std::string> out;
    const auto* oneof = policy::v1::Object::descriptor()->oneof_decl(0);
    for (int i = 0; i < oneof->field_count(); ++i) out.push_back(oneof->field(i)->message_type()->name());
    return out;
  }();
  return kinds;
}

ParseOutcome ParsePolicies(std::string_view text, std::string_view file) {
  ParseOutcome out;
  if (text.size() > kMaxText) {
    out.issues.push_back({std::string(file), 0, 0, "", "", "larger than 4 MiB"});
    return out;
  }
  try {
    Reader reader(file, out);
    for (const YAML::Node& doc : base::LoadYaml(std::string(text))) reader.Document(doc);
  } catch (const YAML::Exception& e) {
    out.issues.push_back({std::string(file), e.mark.line + 1, e.mark.column + 1, "", "", "not YAML: " + e.msg});
  }
  return out;
}

std::string ToStoredJson(const policy::v1::Object& object) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto* r = object.GetReflection();
  const FieldDescriptor* f = r->GetOneofFieldDescriptor(object, object.GetDescriptor()->oneof_decl(0));
  std::string metadata, spec = "{}";
  (void)google::protobuf::util::MessageToJsonString(object.metadata(), &metadata, options);
  if (f) {
    spec.clear();
    (void)google::protobuf::util::MessageToJsonString(r->GetMessage(object, f), &spec, options);
  }
  return "{\"apiVersion\":\"weft/v1\",\"kind\":\"" + object.kind() + "\",\"metadata\":" + metadata + ",\"spec\":" + spec + "}";
}

std::shared_ptr<const policy::v1::Object> ParseStored(std::string_view json) {
  ParseOutcome out = ParsePolicies(json, "store");
  if (out.objects.size() != 1 || !out.issues.empty()) return nullptr;
  return out.objects[0].object;
}

}  // namespace weft::server
