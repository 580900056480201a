#include "sidecar/dns/wire.h"

#include <gtest/gtest.h>

#include "sidecar/base/random.h"
#include "sidecar/dns/test_peer.h"

namespace weft::dns {
namespace {

using std::string_literals::operator""s;

std::string Plain(std::string_view name, uint16_t type) {  // without EDNS
  std::string p = BuildQuery(7, name, type);
  p.resize(p.size() - 11);
  p[11] = 0;
  return p;
}

TEST(Wire, QueryRoundTrip) {
  std::string p = BuildQuery(0xabcd, "Cart.Default.mesh.", kAaaa);
  Query q;
  ASSERT_EQ(ParseQuery(p, &q), QueryVerdict::kOk);
  EXPECT_EQ(q.id, 0xabcd);
  EXPECT_TRUE(q.recursion_desired);
  EXPECT_TRUE(q.edns);
  EXPECT_EQ(q.udp_size, kMaxEdns);
  EXPECT_EQ(q.name, "cart.default.mesh");
  EXPECT_EQ(q.type, kAaaa);
}

TEST(Wire, NamesThatCannotBeAsked) {
  for (std::string bad : {""s, "."s, "a..b"s, ".a"s, std::string(64, 'a'), "a b"s, "a\0b"s, "ä"s, "a.."s}) {
    EXPECT_TRUE(BuildQuery(1, bad, kA).empty()) << bad;
  }
  std::string longest;
  while (longest.size() < 250) longest += "a.";
  EXPECT_FALSE(BuildQuery(1, longest, kA).empty());
  EXPECT_TRUE(BuildQuery(1, longest + longest, kA).empty());
}

TEST(Wire, RefusesBrokenQueries) {
  Query q;
  std::string good = Plain("cart", kA);
  EXPECT_EQ(ParseQuery(good, &q), QueryVerdict::kOk);
  EXPECT_FALSE(q.edns);
  EXPECT_EQ(q.udp_size, kMaxUdp);
  for (size_t n = 0; n < good.size(); ++n) EXPECT_NE(ParseQuery(good.substr(0, n), &q), QueryVerdict::kOk) << n;
  EXPECT_EQ(ParseQuery(good + "x", &q), QueryVerdict::kFormErr);
  auto with = [&](size_t at, char c) {
    std::string p = good;
    p[at] = c;
    Query fresh;
    return ParseQuery(p, &fresh);
  };
  EXPECT_EQ(with(2, static_cast<char>(0x81)), QueryVerdict::kDrop);     // a response
  EXPECT_EQ(with(2, 0x28), QueryVerdict::kNotImp);                       // UPDATE
  EXPECT_EQ(with(5, 2), QueryVerdict::kFormErr);                         // two questions
  EXPECT_EQ(with(7, 1), QueryVerdict::kFormErr);                         // an answer in a query
  EXPECT_EQ(with(12, static_cast<char>(0xc0)), QueryVerdict::kFormErr);  // a pointer in the question
  EXPECT_EQ(with(12, 0x41), QueryVerdict::kFormErr);                     // reserved label type
  EXPECT_EQ(with(good.size() - 1, 3), QueryVerdict::kRefused);           // class CHAOS
  std::string odd = good;
  odd[13] = '.';
  ASSERT_EQ(ParseQuery(odd, &q), QueryVerdict::kOk);
  EXPECT_EQ(q.name, "\\046art");  // a dot inside a label is no separator
}

TEST(Wire, AnswersByTypeWithinTheLimit) {
  std::string p = BuildQuery(9, "CART", kA);
  Query q;
  ParseQuery(p, &q);
  std::vector<model::Ip> ips = {MakeIp("240.64.0.1"), MakeIp("fd00::1"), MakeIp("240.64.0.2")};
  std::string a = BuildAnswer(q, p, Rcode::kNoError, ips, 30, kMaxUdp);
  Response r;
  ASSERT_TRUE(ParseResponse(a, "cart", kA, &r));
  EXPECT_EQ(r.addresses, (std::vector<model::Ip>{ips[0], ips[2]}));
  EXPECT_EQ(r.ttl_s, 30u);
  EXPECT_FALSE(ParseResponse(a, "cart", kAaaa, &r));
  EXPECT_FALSE(ParseResponse(a, "carts", kA, &r));
  EXPECT_TRUE(IsResponseTo(a, p));

  p = BuildQuery(9, "cart", kAaaa), ParseQuery(p, &q);
  ASSERT_TRUE(ParseResponse(BuildAnswer(q, p, Rcode::kNoError, {ips[0]}, 30, kMaxUdp), "cart", kAaaa, &r));
  EXPECT_EQ(r.rcode, Rcode::kNoError);
  EXPECT_TRUE(r.addresses.empty());

  std::vector<model::Ip> many(100, ips[1]);
  a = BuildAnswer(q, p, Rcode::kNoError, many, 30, kMaxUdp);
  EXPECT_LE(a.size(), kMaxUdp);
  ASSERT_TRUE(ParseResponse(a, "cart", kAaaa, &r));
  EXPECT_TRUE(r.truncated);
  EXPECT_FALSE(r.addresses.empty());
}

TEST(Wire, ErrorsEchoTheId) {
  std::string e = BuildError("\x12\x34\x29\x00\x00\x01"s + std::string(6, 0), Rcode::kNotImp);
  EXPECT_EQ(e.substr(0, 4), "\x12\x34\xa9\x84"s);
  EXPECT_EQ(e.size(), kHeader);
}

// header, question "a.", then records
std::string ResponseOf(uint16_t answers, const std::string& records) {
  std::string s = "\0\1\x81\x80\0\1"s;
  s.push_back(static_cast<char>(answers >> 8)), s.push_back(static_cast<char>(answers));
  return s + "\0\0\0\0"s + "\1a\0\0\1\0\1"s + records;
}
const std::string kToB = "\xc0\x0c\0\5\0\1\0\0\0\x3c\0\3\1b\0"s;      // a CNAME b, TTL 60
const std::string kB = "\1b\0\0\1\0\1\0\0\0\x0a\0\4\x0a\0\0\1"s;      // b A 10.0.0.1, TTL 10
const std::string kOther = "\1x\0\0\1\0\1\0\0\0\x0a\0\4\x0a\0\0\2"s;  // x A 10.0.0.2

TEST(Wire, FollowsAliasesInAnyOrder) {
  for (const auto& records : {kToB + kB + kOther, kOther + kB + kToB}) {
    Response r;
    ASSERT_TRUE(ParseResponse(ResponseOf(3, records), "a", kA, &r));
    ASSERT_EQ(r.addresses.size(), 1u);
    EXPECT_EQ(r.addresses[0].ToString(), "10.0.0.1");
    EXPECT_EQ(r.ttl_s, 10u);
  }
}

TEST(Wire, LoopsAndLiesTerminate) {
  Response r;
  std::string self = "\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c"s;  // a CNAME a
  EXPECT_TRUE(ParseResponse(ResponseOf(1, self), "a", kA, &r));
  EXPECT_TRUE(r.addresses.empty());
  EXPECT_FALSE(ParseResponse(ResponseOf(1, "\xc0\x13\0\1\0\1\0\0\0\1\0\4\1\2\3\4"s), "a", kA, &r));  // points at itself
  EXPECT_FALSE(ParseResponse(ResponseOf(1, "\xc0\x20\0\1\0\1\0\0\0\1\0\4\1\2\3\4"s), "a", kA, &r));  // points forward
  EXPECT_FALSE(ParseResponse(ResponseOf(1, "\xc0\x0c\0\1\0\1\0\0\0\1\0\5\1\2\3\4"s), "a", kA, &r));  // cut
  EXPECT_FALSE(ParseResponse(ResponseOf(1, "\xc0\x0c\0\1\0\1\0\0\0\1\0\3\1\2\3"s), "a", kA, &r));    // short address
  EXPECT_FALSE(ParseResponse(ResponseOf(5, kToB), "a", kA, &r));                                      // fewer than said
  EXPECT_FALSE(ParseResponse(ResponseOf(60000, kToB), "a", kA, &r));
  std::string negative = "\xc0\x0c\0\1\0\1\xff\xff\xff\xff\0\4\1\2\3\4"s;
  ASSERT_TRUE(ParseResponse(ResponseOf(1, negative), "a", kA, &r));
  EXPECT_EQ(r.ttl_s, 0u);
}

TEST(Wire, MutatedMessagesAreHarmless) {
  base::Random random(9);
  std::string query = BuildQuery(1, "cart.default.mesh", kA);
  Query good;
  ParseQuery(query, &good);
  const std::string seeds[] = {query, ResponseOf(3, kToB + kB + kOther),
                               BuildAnswer(good, query, Rcode::kNoError, {MakeIp("1.2.3.4")}, 5, 512)};
  for (int i = 0; i < 30'000; ++i) {
    std::string p = seeds[random.Below(3)];
    for (uint64_t k = 1 + random.Below(4); k > 0 && !p.empty(); --k) {
      size_t at = random.Below(p.size());
      if (random.Below(4)) {
        p[at] = static_cast<char>(random.Below(3) ? random.Next() : 0xc0 | random.Below(2));
      } else {
        p.erase(at, 1 + random.Below(5));
      }
    }
    Query q;
    Response r;
    if (ParseQuery(p, &q) == QueryVerdict::kOk) {
      EXPECT_LE(BuildAnswer(q, p, Rcode::kNoError, {MakeIp("1.2.3.4")}, 5, 512).size(), 512u);
    }
    ParseResponse(p, "a", kA, &r);
    IsResponseTo(p, query);
    IsResponseTo(query, p);
  }
}

}  // namespace
}  // namespace weft::dns
