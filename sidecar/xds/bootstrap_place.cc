// Where in a text its fault is. Protobuf's reader names neither lines nor what lies around an Any, so on an error the tree is
// walked along the message's fields, down to the smallest part that does not parse.
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include <memory>

#include "sidecar/base/yaml.h"
#include "sidecar/xds/bootstrap_text.h"

namespace weft::xds {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::MessageFactory;

constexpr std::string_view kWellKnown = "google.protobuf.";

const FieldDescriptor* FindField(const Descriptor* type, const std::string& key) {
  if (const FieldDescriptor* f = type->FindFieldByName(key)) return f;
  for (int i = 0; i < type->field_count(); ++i)
    if (type->field(i)->json_name() == key) return type->field(i);
  return nullptr;
}

std::string LineOf(const YAML::Node& n) { return "line " + std::to_string(n.Mark().line + 1) + ": "; }

class Finder {
 public:
  // "" when every part of the map parses by itself.
  std::string InMap(const YAML::Node& map, const Descriptor* type, const std::string& path) {
    if (type->full_name() == "google.protobuf.Any") {
      const YAML::Node name = map["@type"];
      const std::string url = name && name.IsScalar() ? name.Scalar() : "";
      type = DescriptorPool::generated_pool()->FindMessageTypeByName(url.substr(url.rfind('/') + 1));
      if (!type) return LineOf(map) + path + ": " + (url.empty() ? "no \"@type\"" : "unknown type " + url);
    }
    for (const auto& kv : map) {
      const std::string& key = kv.first.Scalar();
      if (key == "@type") continue;
      const std::string here = path.empty() ? key : path + "." + key;
      const FieldDescriptor* field = FindField(type, key);
      if (!field) return LineOf(kv.first) + here + ": unknown field";
      const std::string problem = Problem(type, key, kv.second);
      if (problem.empty()) continue;
      if (std::string deeper = InField(kv.second, field, here); !deeper.empty()) return deeper;
      return LineOf(kv.second) + here + ": " + problem;
    }
    return "";
  }

 private:
  std::string InField(const YAML::Node& value, const FieldDescriptor* field, const std::string& path) {
    const Descriptor* type = field->message_type();
    if (field->is_map()) type = type->map_value()->message_type();
    if (!type || (type->full_name().starts_with(kWellKnown) && type->full_name() != "google.protobuf.Any")) return "";
    if (field->is_map()) {
      if (!value.IsMap()) return "";
      for (const auto& kv : value) {
        if (!kv.second.IsMap()) continue;
        if (auto found = InMap(kv.second, type, path + "." + kv.first.Scalar()); !found.empty()) return found;
      }
    } else if (value.IsSequence() && field->is_repeated()) {
      for (size_t i = 0; i < value.size(); ++i) {
        if (!value[i].IsMap()) continue;
        if (auto found = InMap(value[i], type, path + "[" + std::to_string(i) + "]"); !found.empty()) return found;
      }
    } else if (value.IsMap() && !field->is_repeated()) {
      return InMap(value, type, path);
    }
    return "";
  }

  // What protobuf says of a message with this field only.
  static std::string Problem(const Descriptor* type, const std::string& key, const YAML::Node& value) {
    YAML::Node alone;
    alone[key] = value;
    std::string json;
    if (std::string e = YamlToJson(alone, &json); !e.empty()) return e;
    std::unique_ptr<google::protobuf::Message> message(MessageFactory::generated_factory()->GetPrototype(type)->New());
    auto status = google::protobuf::util::JsonStringToMessage(json, message.get());
    std::string text(status.message());
    // "(path): what", "key: what" or ": what": where is ours to say.
    if (size_t end = text.find("): "); text.starts_with('(') && end != std::string::npos) text.erase(0, end + 3);
    if (text.starts_with(key + ": ")) text.erase(0, key.size());
    if (text.starts_with(": ")) text.erase(0, 2);
    return text;
  }
};

}  // namespace

std::string PlaceOfFault(const std::string& text, const Descriptor* type) {
  try {
    const auto documents = base::LoadYaml(text);
    return documents.size() == 1 && documents[0].IsMap() ? Finder().InMap(documents[0], type, "") : "";
  } catch (const YAML::Exception&) {
    return "";
  }
}

}  // namespace weft::xds
