// Between the two halves of ParseYaml (bootstrap.h): the reading, and the naming of what could not be read.
#pragma once

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <string>

namespace weft::xds {

// Appends the node as JSON; "" or what is wrong with it, with its line.
std::string YamlToJson(const YAML::Node& node, std::string* json);

// "line 12: static_resources.listeners[0].stat_prefx: unknown field": the smallest part of the text that is no `type`.
// "" when it cannot be told. For errors only: it parses parts again and again.
std::string PlaceOfFault(const std::string& text, const google::protobuf::Descriptor* type);

}  // namespace weft::xds
