#include "sidecar/base/yaml.h"

#include <gtest/gtest.h>

namespace weft::base {
namespace {

TEST(Yaml, TextsThatWouldNeverEndAreErrors) {
  for (const char* text : {",", "[a],", "{\"a\":1},", "a: b\n---\n,", "{},{}"}) EXPECT_THROW(LoadYaml(text), YAML::Exception) << text;
}

TEST(Yaml, DocumentsAreAsEver) {
  EXPECT_EQ(LoadYaml("").size(), 0u);
  EXPECT_EQ(LoadYaml("---\n---\n---\n").size(), YAML::LoadAll("---\n---\n---\n").size());
  auto two = LoadYaml("a: 1\n---\n[x, y]\n");
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0]["a"].as<int>(), 1);
  EXPECT_EQ(two[1][1].as<std::string>(), "y");
  EXPECT_THROW(LoadYaml("a: ["), YAML::Exception);
}

}  // namespace
}  // namespace weft::base
