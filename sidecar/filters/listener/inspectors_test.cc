#include <gtest/gtest.h>

#include "sidecar/base/random.h"
#include "sidecar/filters/listener/http_inspector.h"
#include "sidecar/filters/listener/tls_inspector.h"

namespace weft::filters {
namespace {

std::string U8(size_t n) { return std::string(1, static_cast<char>(n)); }
std::string U16(size_t n) { return U8(n >> 8) + U8(n & 255); }
std::string U24(size_t n) { return U8(n >> 16) + U16(n & 0xffff); }
std::string V1(const std::string& s) { return U8(s.size()) + s; }
std::string V2(const std::string& s) { return U16(s.size()) + s; }
std::string Ext(unsigned type, const std::string& body) { return U16(type) + V2(body); }
std::string Sni(const std::string& name) { return Ext(0, V2(U8(0) + V2(name))); }
std::string Alpn(const std::vector<std::string>& names) {
  std::string list;
  for (auto& n : names) list += V1(n);
  return Ext(16, V2(list));
}
std::string Hello(const std::string& extensions) {
  std::string body = "\x03\x03" + std::string(32, 'r') + V1(std::string(32, 's')) + V2("\x13\x01\x13\x02") + V1(std::string(1, 0)) +
                     V2(extensions);
  return U8(1) + U24(body.size()) + body;
}
std::string Records(const std::string& handshake, size_t record = 16384) {
  std::string out;
  for (size_t i = 0; i < handshake.size(); i += record) out += "\x16\x03\x01" + V2(handshake.substr(i, record));
  return out;
}
const std::string kGood = Ext(10, V2("\x00\x1d")) + Sni("Cart.Shop.Mesh") + Alpn({"h2", "http/1.1"});

Verdict Whole(const std::string& s) { return TlsInspector().Feed(s); }

TEST(TlsInspector, FindsNameAndProtocols) {
  TlsInspector t;
  ASSERT_EQ(t.Feed(Records(Hello(kGood)) + "more"), Verdict::kFound);
  EXPECT_EQ(t.sni(), "cart.shop.mesh");
  EXPECT_EQ(t.alpn(), (std::vector<std::string>{"h2", "http/1.1"}));
}

TEST(TlsInspector, OneByteAtATimeAndOneByteRecords) {
  std::string wire = Records(Hello(kGood), 1);
  TlsInspector t;
  io::Buffer b;
  for (size_t i = 0; i + 1 < wire.size(); ++i) {
    b.Append(wire.substr(i, 1));
    ASSERT_EQ(t.Inspect(b), Verdict::kNeedMore) << i;
  }
  b.Append(wire.substr(wire.size() - 1));
  EXPECT_EQ(t.Inspect(b), Verdict::kFound);
  EXPECT_EQ(t.sni(), "cart.shop.mesh");
  EXPECT_EQ(b.size(), wire.size());
  EXPECT_EQ(TlsInspector().Inspect(b), Verdict::kFound);
}

TEST(TlsInspector, OtherProtocolsAreDecidedAtOnce) {
  EXPECT_EQ(Whole("G"), Verdict::kNo);
  EXPECT_EQ(Whole("*1\r\n"), Verdict::kNo);
  EXPECT_EQ(Whole("\x16\x02"), Verdict::kNo);
  EXPECT_EQ(Whole(std::string("\x16\x03\x01\x00\x00", 5)), Verdict::kNo);
  EXPECT_EQ(Whole(Records("\x02 not a client hello")), Verdict::kNo);
  EXPECT_EQ(Whole(""), Verdict::kNeedMore);
}

TEST(TlsInspector, RefusesMalformedAndOversized) {
  struct {
    const char* detail;
    std::string wire;
  } cases[] = {
      {"sni_repeated", Records(Hello(Sni("a") + Sni("b")))},
      {"sni_repeated", Records(Hello(Ext(0, V2(U8(0) + V2("a") + U8(0) + V2("b")))))},
      {"sni_malformed", Records(Hello(Sni(std::string("a\0b", 3))))},
      {"sni_malformed", Records(Hello(Sni("")))},
      {"sni_malformed", Records(Hello(Sni(std::string(256, 'a'))))},
      {"sni_malformed", Records(Hello(Sni("a b")))},
      {"sni_malformed", Records(Hello(Ext(0, "")))},
      {"alpn_malformed", Records(Hello(Alpn({""})))},
      {"alpn_malformed", Records(Hello(Alpn({"a"}) + Alpn({"b"})))},
      {"alpn_malformed", Records(Hello(Alpn(std::vector<std::string>(65, "x"))))},
      {"client_hello_malformed", Records(U8(1) + U24(3) + "abc")},
      {"client_hello_malformed", Records(Hello(kGood + "x"))},
      {"client_hello_too_large", Records(Hello(Ext(21, std::string(17000, 'p'))))},
      {"client_hello_interrupted", Records(Hello(kGood).substr(0, 20)) + std::string("\x15\x03\x03\x00\x02", 5)},
  };
  for (const auto& c : cases) {
    TlsInspector t;
    EXPECT_EQ(t.Feed(c.wire), Verdict::kReject) << c.detail;
    EXPECT_STREQ(t.detail(), c.detail);
  }
  // A hello that trickles in one-byte records stays under the wire bound for its size, and is refused above it.
  TlsInspector t;
  EXPECT_EQ(t.Feed(Records(Hello(Ext(21, std::string(16000, 'p'))), 1)), Verdict::kReject);
  EXPECT_STREQ(t.detail(), "client_hello_too_large");
  EXPECT_EQ(t.seen(), TlsInspector::kMaxWire + 1);
}

// Mutations of good hellos: any split gives the same verdict, nothing reads out of bounds (run under ASan).
TEST(TlsInspector, MutationsAndSplitsAgree) {
  base::Random random(11);
  const std::string good = Records(Hello(kGood), 50);
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string wire = good;
    for (uint64_t k = random.Below(3); k > 0; --k) {
      size_t at = random.Below(wire.size());
      switch (random.Below(3)) {
        case 0: wire[at] = static_cast<char>(random.Next()); break;
        case 1: wire.erase(at, 1 + random.Below(8)); break;
        case 2: wire.insert(at, 1 + random.Below(8), static_cast<char>(random.Next())); break;
      }
      if (wire.empty()) wire = "x";
    }
    TlsInspector whole, split;
    Verdict v = whole.Feed(wire);
    for (size_t i = 0; i < wire.size();) {
      size_t n = std::min(wire.size() - i, 1 + random.Below(20));
      split.Feed(std::string_view(wire).substr(i, n));
      i += n;
    }
    ASSERT_EQ(split.Feed(""), v);
    ASSERT_EQ(split.sni(), whole.sni());
    found += v == Verdict::kFound;
  }
  EXPECT_GT(found, 500);
}

struct Http {
  Verdict verdict;
  std::string_view protocol;
};
Http Inspect(std::string_view s) {
  HttpInspector h;
  Verdict v = h.Feed(s);
  HttpInspector bytes;
  io::Buffer b;
  for (char c : s) b.Append(std::string_view(&c, 1)), bytes.Inspect(b);
  EXPECT_EQ(bytes.Feed(""), v) << s;
  EXPECT_EQ(bytes.protocol(), h.protocol());
  return {v, h.protocol()};
}

TEST(HttpInspector, FindsVersions) {
  EXPECT_EQ(Inspect("GET / HTTP/1.1\r\n").protocol, "http/1.1");
  EXPECT_EQ(Inspect("\r\nGET / HTTP/1.1\r\n").protocol, "http/1.1");
  EXPECT_EQ(Inspect("POST /x HTTP/1.0\r\nHost: a\r\n").protocol, "http/1.0");
  EXPECT_EQ(Inspect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0").protocol, "h2c");
  EXPECT_EQ(Inspect("PROPFIND /x HTTP/1.1\r\n").protocol, "http/1.1");
  EXPECT_EQ(Inspect("PR /x HTTP/1.1\n").protocol, "http/1.1");
  EXPECT_EQ(Inspect("GET /" + std::string(9000, 'a')).protocol, "http/1.1");
}

TEST(HttpInspector, NeedsMoreOnlyWhileItMayBecomeHttp) {
  for (std::string_view s : {"", "G", "GET", "GET ", "GET /", "GET / ", "GET / HTTP/1.1", "P", "PRI", "PRI * HTTP/2.0\r\n", "\r\n"}) {
    EXPECT_EQ(Inspect(s).verdict, Verdict::kNeedMore) << s;
  }
}

TEST(HttpInspector, OtherProtocols) {
  std::string long_method(40, 'A');
  for (std::string_view s : std::initializer_list<std::string_view>{
           "*1\r\n$4\r\nPING\r\n", "PING\r\n", "GET key\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01", "GET / HTTP/2", "GET  / ", " GET",
           "PRI * HTTP/1.1", long_method, "\r\n\r\n\r\n", "GET /\x01"}) {
    EXPECT_EQ(Inspect(s).verdict, Verdict::kNo) << s;
  }
  EXPECT_EQ(Inspect(std::string_view("\0\0\0\x08\x04", 5)).verdict, Verdict::kNo);
}

TEST(HttpInspector, RandomBytesTerminate) {
  base::Random random(5);
  static constexpr char kAlphabet[] = "GETPRI */HTP1.0\r\nSM \x16\x03";
  for (int round = 0; round < 5000; ++round) {
    std::string s;
    for (uint64_t n = random.Below(60); n > 0; --n) s.push_back(kAlphabet[random.Below(sizeof kAlphabet)]);
    Inspect(s);
  }
}

}  // namespace
}  // namespace weft::filters
