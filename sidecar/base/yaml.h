// The documents of a YAML text (or JSON, which is YAML), as YAML::LoadAll, for texts from outside.
//
//   try { for (const YAML::Node& doc : base::LoadYaml(text)) ... } catch (const YAML::Exception& e) { e.mark, e.msg }
//
// yaml-cpp never comes to an end on some texts (a "," where a document should begin: it makes empty documents until memory
// is gone); these are errors here. Threads: any.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

namespace weft::base {

std::vector<YAML::Node> LoadYaml(const std::string& text);  // throws YAML::Exception

}  // namespace weft::base
