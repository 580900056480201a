#include "sidecar/filters/proxy_protocol/proxy_protocol.h"

#include <gtest/gtest.h>

namespace weft::filters {
namespace {

using model::Address;

const std::string kSignature("\r\n\r\n\0\r\nQUIT\n", 12);

Verdict Read(std::string_view bytes, ProxyHeader* h, const model::ProxyProtocolFilter& rules = {}) {
  io::Buffer in;
  in.Append(bytes);
  return ReadProxyHeader(in, rules, h);
}

std::string V2(uint8_t command, uint8_t family, std::string_view body) {
  std::string out = kSignature;
  out += static_cast<char>(command), out += static_cast<char>(family);
  out += static_cast<char>(body.size() >> 8), out += static_cast<char>(body.size());
  return out + std::string(body);
}
const std::string kFour("\x0a\x00\x00\x01\x0a\x00\x00\x02\x04\xd2\x00\x50", 12);  // 10.0.0.1:1234 -> 10.0.0.2:80

TEST(ProxyProtocol, Version1) {
  ProxyHeader h;
  ASSERT_EQ(Read("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\nGET", &h), Verdict::kFound);
  EXPECT_TRUE(h.known);
  EXPECT_EQ(h.version, 1);
  EXPECT_EQ(h.size, 38u);
  EXPECT_EQ(h.source.ToString(), "10.0.0.1:1234");
  EXPECT_EQ(h.destination.ToString(), "10.0.0.2:80");
  ASSERT_EQ(Read("PROXY TCP6 ::1 2001:db8::2 65535 0\r\n", &h), Verdict::kFound);
  EXPECT_EQ(h.source.ToString(), "[::1]:65535");
  ASSERT_EQ(Read("PROXY UNKNOWN\r\n", &h), Verdict::kFound);
  EXPECT_FALSE(h.known);
  ASSERT_EQ(Read("PROXY UNKNOWN ffff:f::1 whatever\r\n", &h), Verdict::kFound);
  EXPECT_FALSE(h.known);
}

TEST(ProxyProtocol, Version1Malformed) {
  for (const char* line : {"PROXY \r\n", "PROXY TCP4\r\n", "PROXY TCP4 10.0.0.1 10.0.0.2 1234\r\n", "PROXY TCP4 10.0.0.1 10.0.0.2 1234 65536\r\n",
                           "PROXY TCP4 10.0.0.1 10.0.0.2 1234 80 \r\n", "PROXY TCP4  10.0.0.1 10.0.0.2 1234 80\r\n",
                           "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n", "PROXY TCP4 10.0.0.1 10.0.0.2 -1 80\r\n",
                           "PROXY TCP4 10.0.0.1 10.0.0.2 01 80\r\n", "PROXY UDP4 10.0.0.1 10.0.0.2 1 80\r\n", "PROXY TCP4 10.0.0 10.0.0.2 1 80\r\n"}) {
    ProxyHeader h;
    EXPECT_EQ(Read(line, &h), Verdict::kReject) << line;
    EXPECT_STRNE(h.error, "");
    EXPECT_EQ(h.version, 1);
  }
  ProxyHeader h;
  EXPECT_EQ(Read("PROXY TCP4 " + std::string(200, '1'), &h), Verdict::kReject);
  EXPECT_STREQ(h.error, "line is too long");
}

TEST(ProxyProtocol, EveryPrefixIsUndecided) {
  for (const std::string& whole : {std::string("PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n"), V2(0x21, 0x11, kFour)}) {
    ProxyHeader h;
    for (size_t n = 0; n < whole.size(); ++n) EXPECT_EQ(Read(whole.substr(0, n), &h), Verdict::kNeedMore) << n;
    EXPECT_EQ(Read(whole, &h), Verdict::kFound);
  }
}

TEST(ProxyProtocol, Version2) {
  ProxyHeader h;
  ASSERT_EQ(Read(V2(0x21, 0x11, kFour) + "hello", &h), Verdict::kFound);
  EXPECT_EQ(h.version, 2);
  EXPECT_EQ(h.size, 28u);
  EXPECT_EQ(h.source.ToString(), "10.0.0.1:1234");
  EXPECT_EQ(h.destination.ToString(), "10.0.0.2:80");
  std::string six(36, 0);
  six[15] = 1, six[31] = 2, six[33] = 7, six[35] = 8;
  ASSERT_EQ(Read(V2(0x21, 0x21, six), &h), Verdict::kFound);
  EXPECT_EQ(h.source.ToString(), "[::1]:7");
  EXPECT_EQ(h.destination.ToString(), "[::2]:8");
  // LOCAL: whatever the family says.
  ASSERT_EQ(Read(V2(0x20, 0x00, ""), &h), Verdict::kFound);
  EXPECT_FALSE(h.known);
  ASSERT_EQ(Read(V2(0x20, 0x77, "abc"), &h), Verdict::kFound);
  EXPECT_EQ(h.size, 19u);
  ASSERT_EQ(Read(V2(0x21, 0x00, "abc"), &h), Verdict::kFound);
  EXPECT_FALSE(h.known);
  ASSERT_EQ(Read(V2(0x21, 0x31, std::string(216, 'p')), &h), Verdict::kFound);
  EXPECT_FALSE(h.known);
}

TEST(ProxyProtocol, Version2Malformed) {
  ProxyHeader h;
  EXPECT_EQ(Read(V2(0x11, 0x11, kFour), &h), Verdict::kReject) << "version";
  EXPECT_EQ(Read(V2(0x22, 0x11, kFour), &h), Verdict::kReject) << "command";
  EXPECT_EQ(Read(V2(0x21, 0x12, kFour), &h), Verdict::kReject) << "UDP on a TCP connection";
  EXPECT_EQ(Read(V2(0x21, 0x41, kFour), &h), Verdict::kReject) << "family";
  EXPECT_EQ(Read(V2(0x21, 0x11, kFour.substr(0, 11)), &h), Verdict::kReject);
  EXPECT_STREQ(h.error, "addresses are cut off");
  EXPECT_EQ(Read(V2(0x21, 0x31, std::string(215, 'p')), &h), Verdict::kReject);
  EXPECT_EQ(Read(V2(0x21, 0x11, kFour + "\x05"), &h), Verdict::kReject);
  EXPECT_EQ(Read(V2(0x21, 0x11, kFour + std::string("\x05\x00\x02z", 4)), &h), Verdict::kReject);
  EXPECT_STREQ(h.error, "malformed TLV");
}

TEST(ProxyProtocol, TlvsThatAreKept) {
  model::ProxyProtocolFilter rules;
  rules.keep.set(5), rules.keep.set(4);
  ProxyHeader h;
  const std::string five("\x05\x00\x02id", 5), six("\x06\x00\x00", 3), noop("\x04\x00\x01x", 4);
  ASSERT_EQ(Read(V2(0x21, 0x11, kFour + six + five + noop), &h, rules), Verdict::kFound);
  EXPECT_EQ(h.tlvs, five);
}

TEST(ProxyProtocol, WhatIsAllowed) {
  model::ProxyProtocolFilter strict, loose, no_v1, loose_no_v1;
  loose.optional = true;
  no_v1.v1 = false;
  loose_no_v1.optional = true, loose_no_v1.v1 = false;
  ProxyHeader h;
  const std::string v1 = "PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n", v2 = V2(0x21, 0x11, kFour);
  EXPECT_EQ(Read("GET / HTTP/1.1\r\n", &h, strict), Verdict::kReject);
  EXPECT_EQ(h.version, 0);
  EXPECT_EQ(Read("GET / HTTP/1.1\r\n", &h, loose), Verdict::kNo);
  EXPECT_EQ(Read("PUT", &h, loose), Verdict::kNo);
  EXPECT_EQ(Read("PR", &h, loose), Verdict::kNeedMore);
  EXPECT_EQ(Read("\r\n", &h, loose), Verdict::kNeedMore);
  EXPECT_EQ(Read(v1, &h, no_v1), Verdict::kReject);
  EXPECT_STREQ(h.error, "version is not allowed");
  EXPECT_EQ(Read(v1, &h, loose_no_v1), Verdict::kNo);
  EXPECT_EQ(Read(v2, &h, no_v1), Verdict::kFound);
  EXPECT_EQ(Read(v2, &h, loose_no_v1), Verdict::kFound);
}

TEST(ProxyProtocol, WrittenIsRead) {
  const Address four = *Address::FromIp("10.0.0.1", 1234), other = *Address::FromIp("10.0.0.2", 80), six = *Address::FromIp("2001:db8::1", 5);
  model::ProxyProtocolHeader v1, v2;
  v2.version = 2;
  v2.added = {{0xE0, "ours"}};
  v2.pass.set(5), v2.pass.set(0xE0);
  EXPECT_EQ(WriteProxyHeader(v1, four, other, ""), "PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n");
  EXPECT_EQ(WriteProxyHeader(v1, Address::Pipe("/x"), other, ""), "PROXY UNKNOWN\r\n");
  EXPECT_EQ(WriteProxyHeader(v2, Address::Pipe("/x"), other, ""), V2(0x20, 0x00, ""));
  const std::string five("\x05\x00\x02id", 5), theirs("\xE0\x00\x01t", 4), six_tlv("\x06\x00\x01t", 4), ours("\xE0\x00\x04ours", 7);
  EXPECT_EQ(WriteProxyHeader(v2, four, other, six_tlv + theirs + five), V2(0x21, 0x11, kFour + ours + five));
  for (const auto* config : {&v1, &v2}) {
    ProxyHeader h;
    ASSERT_EQ(Read(WriteProxyHeader(*config, six, six, ""), &h), Verdict::kFound);
    EXPECT_EQ(h.source, six);
    // Mixed families.
    ASSERT_EQ(Read(WriteProxyHeader(*config, four, six, ""), &h), Verdict::kFound) << h.error;
    EXPECT_EQ(h.source.ip.ToString(), "::ffff:10.0.0.1");
    EXPECT_EQ(h.destination, six);
  }
}

}  // namespace
}  // namespace weft::filters
