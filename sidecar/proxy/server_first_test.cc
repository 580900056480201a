#include "sidecar/proxy/server_first.h"

#include <gtest/gtest.h>

namespace weft::proxy {
namespace {

TEST(ServerFirst, KnowsWhereTheServerSpokeUnlessTlsIsUsedThere) {
  ServerFirst table;
  const auto mysql = *model::Address::FromIp("10.0.0.1", 3306), other = *model::Address::FromIp("10.0.0.1", 3307), six = *model::Address::FromIp("fd00::1", 3306);
  EXPECT_FALSE(table.Known(mysql));
  table.Spoke(mysql);
  table.Spoke(six);
  EXPECT_TRUE(table.Known(mysql));
  EXPECT_TRUE(table.Known(six));
  EXPECT_FALSE(table.Known(other));
  table.UsesTls(mysql);
  EXPECT_FALSE(table.Known(mysql));
  table.Spoke(mysql);
  EXPECT_FALSE(table.Known(mysql)) << "TLS may come again";
}

TEST(ServerFirst, IsBounded) {
  ServerFirst table;
  for (int i = 1; i < 60000; ++i) table.Spoke(*model::Address::FromIp("10.0.0.1", static_cast<uint16_t>(i)));
  int known = 0;
  for (int i = 1; i < 60000; ++i) known += table.Known(*model::Address::FromIp("10.0.0.1", static_cast<uint16_t>(i)));
  EXPECT_GT(known, 900);
  EXPECT_LE(known, 1024);
}

}  // namespace
}  // namespace weft::proxy
