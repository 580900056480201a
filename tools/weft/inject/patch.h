// Changes a YAML text as little as it takes: comments, order, quoting and blank lines of what stays are the author's.
//
//   auto old = base::LoadYaml(text);  auto now = <clones of old, changed>;
//   std::string out = Patch(text, old, now);
//
// Where the text cannot be changed in place (JSON, flow style around the change, anchors that it would touch), the
// documents are written anew: the same content without comments. The result is parsed again and compared before it is
// handed out, so a patch that would mean something else is never used.
// Pure; throws YAML::Exception only when `text` itself is not YAML.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

namespace weft::inject {

// `old` as parsed from `text` (with its marks), `now` the wanted documents, one each.
std::string Patch(const std::string& text, const std::vector<YAML::Node>& old, const std::vector<YAML::Node>& now);

// A document as block-style YAML. Scalars keep their quotes, and so their types.
std::string Emit(const YAML::Node& node, int indent = 0);

}  // namespace weft::inject
