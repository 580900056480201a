#include "tools/weft/cli/output.h"

#include <gtest/gtest.h>

#include "tools/weft/cli/error.h"
#include "tools/weft/cli/waterfall.h"

namespace weft::cli {
namespace {

TEST(Table, AlignsAndNamesEmptyCells) {
  EXPECT_EQ(Table({"NAME", "REVISION"}, {{"cart", "12"}, {"a-long-name", ""}}),
            "NAME         REVISION\n"
            "cart         12\n"
            "a-long-name  -\n");
}

TEST(Table, WidthCountsCharactersNotBytes) {
  EXPECT_EQ(Table({"A", "B"}, {{"12µs", "x"}, {"12ms", "y"}}), "A     B\n12µs  x\n12ms  y\n");
}

TEST(Clean, NoEscapeReachesTheTerminal) {
  EXPECT_EQ(Clean("a\x1b[31mb\x7f\xc2\x9b"
                  "c\nd"),
            "a?[31mb??c d");
  EXPECT_EQ(Clean("ok \xff bad"), "ok ? bad");
  EXPECT_EQ(Clean("grün"), "grün");
}

TEST(Yaml, NestsAndQuotesWhatWouldChangeItsType) {
  Json j = Json::parse(R"({"kind":"Route","count":1,"s":"12","t":"true","empty":[],"note":"a: b",
    "spec":{"rules":[{"name":"x","to":[{"weight":90},{"weight":10}]},"plain"]}})");
  EXPECT_EQ(ToYaml(j),
            "kind: Route\ncount: 1\ns: \"12\"\nt: \"true\"\nempty: []\nnote: \"a: b\"\n"
            "spec:\n  rules:\n  - name: x\n    to:\n    - weight: 90\n    - weight: 10\n  - plain\n");
}

TEST(Render, UnknownFormatIsAUsageError) {
  try {
    Render(Json::object(), "xml");
    FAIL();
  } catch (const Failure& f) {
    EXPECT_EQ(f.code(), kUsage);
  }
}

TEST(Durations, ReadLikeAPersonWritesThem) {
  EXPECT_EQ(HumanDuration(640), "640µs");
  EXPECT_EQ(HumanDuration(1234), "1.23ms");
  EXPECT_EQ(HumanDuration(45678), "45.7ms");
  EXPECT_EQ(HumanDuration(2'500'000), "2.50s");
  EXPECT_EQ(Age("1970-01-01T00:00:10.5Z", 100), "90s");
  EXPECT_EQ(Age("1970-01-01T00:00:00Z", 7200), "2h");
  EXPECT_EQ(Age("yesterday", 100), "");
}

TEST(Waterfall, IndentsByParentAndScalesToTheTrace) {
  std::vector<WaterfallRow> rows = {
      {.label = "frontend GET /", .start_us = 0, .duration_us = 1000, .depth = 0},
      {.label = "cart GET /cart", .start_us = 500, .duration_us = 500, .depth = 1, .error = true, .note = "503 UO"},
  };
  EXPECT_EQ(Waterfall(rows, 20),
            "frontend GET /    |====================|  1.00ms\n"
            "  cart GET /cart  |          !!!!!!!!!!|   500µs  503 UO\n");
}

}  // namespace
}  // namespace weft::cli
