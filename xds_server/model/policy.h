// Policies as people write them: YAML (or JSON, which is YAML) in, checked messages out, with every complaint placed.
//
//   ParseOutcome r = ParsePolicies(text, "cart.yaml");
//   if (!r.issues.empty()) refuse(r.issues);            // cart.yaml:7: spec.rules[0].to[1].wieght: unknown field ...
//
// Strict: an unknown field, a value of the wrong kind, or a value that could not be served is an issue; either every
// document is good or nothing is taken. Bounded: 4 MiB of text, 1000 objects, 200,000 nodes (YAML aliases included).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "xds_server/model/world.h"

namespace weft::server {

struct Issue {
  std::string file;
  int line = 0, column = 0;  // 1-based; 0: not known
  std::string object;        // "Route/default/cart", as far as known
  std::string field;         // "spec.rules[0].timeout"
  std::string reason;
  std::string ToString() const;
};

struct ParsedObject {
  std::string kind;
  Name name;
  std::shared_ptr<const policy::v1::Object> object;
  std::map<std::string, std::pair<int, int>> places;  // field path -> line, column
};

struct ParseOutcome {
  std::vector<ParsedObject> objects;
  std::vector<Issue> issues;
};

ParseOutcome ParsePolicies(std::string_view text, std::string_view file);

// Meaning of one object by itself (ParsePolicies has called it).
void ValidateObject(const ParsedObject& object, std::string_view file, std::vector<Issue>& issues);

// What the object names that the mesh does not have (yet): not an error, since services come and go.
std::vector<std::string> ReferenceWarnings(const ParsedObject& object, const World& world);

// The stored form: JSON with stable field order, apiVersion, kind, metadata, spec. ParseStored reads it back (null when
// the text is damaged).
std::string ToStoredJson(const policy::v1::Object& object);
std::shared_ptr<const policy::v1::Object> ParseStored(std::string_view json);

const std::vector<std::string>& PolicyKinds();

}  // namespace weft::server
