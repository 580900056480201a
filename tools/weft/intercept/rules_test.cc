#include "tools/weft/intercept/rules.h"

#include <gtest/gtest.h>

namespace weft::intercept {
namespace {

TEST(Rules, OrderIsTheMeaning) {
  Options o;
  o.sidecar_uid = 1337;
  o.exclude_outbound_ports = {"5432", "8000-8010"};
  o.exclude_outbound_cidrs = {"10.0.0.0/8", "fd00::/8"};
  o.exclude_inbound_ports = {"22"};
  EXPECT_EQ(Rules(o),
            R"(add table inet weft
delete table inet weft
table inet weft {
  chain inbound {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "lo" return
    tcp dport { 22 } return
    meta l4proto tcp redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta mark 0x539 oifname "lo" ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15006
    meta mark 0x539 oifname "lo" ip6 daddr != ::1 meta l4proto tcp redirect to :15006
    meta mark 0x539 return
    meta skuid 1337 return
    udp dport 53 redirect to :15053
    tcp dport 53 redirect to :15053
    oifname "lo" return
    ip daddr { 10.0.0.0/8 } return
    ip6 daddr { fd00::/8 } return
    tcp dport { 5432, 8000-8010 } return
    meta l4proto tcp redirect to :15001
  }
}
)");
}

TEST(Check, NamesTheFlagAndTheValue) {
  auto with = [](auto set) {
    Options o;
    set(o);
    return Check(o);
  };
  EXPECT_EQ(Check(Options{}), "");
  EXPECT_NE(with([](Options& o) { o.exclude_outbound_ports = {"0"}; }).find("--exclude-outbound-ports: \"0\""), std::string::npos);
  EXPECT_NE(with([](Options& o) { o.exclude_inbound_ports = {"9-3"}; }).find("9-3"), std::string::npos);
  // What would be text for nftables otherwise.
  EXPECT_NE(with([](Options& o) { o.exclude_outbound_ports = {"80 } accept"}; }), "");
  EXPECT_NE(with([](Options& o) { o.exclude_outbound_cidrs = {"10.0.0.0/33"}; }), "");
  EXPECT_NE(with([](Options& o) { o.exclude_outbound_cidrs = {"example.com"}; }), "");
  EXPECT_EQ(with([](Options& o) { o.exclude_outbound_cidrs = {"192.0.2.1", "2001:db8::/32"}; }), "");
  EXPECT_NE(with([](Options& o) { o.mark = 0; }), "");
}

}  // namespace
}  // namespace weft::intercept
