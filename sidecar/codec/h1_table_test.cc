// The strictness table for HTTP/1 (request and response), row by row: bytes in, outcome out. Every row runs whole and
// byte by byte, with the same outcome.
#include <gtest/gtest.h>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"

namespace weft::codec {
namespace {

using http::Token;
using testing::Head;
using namespace std::string_literals;

struct Outcome {
  std::string text;  // "400", "GET a /x|fields|body|trailers", "incomplete", "closed"
  uint64_t dropped = 0;
};

// Plain fields of a head, "name=value" joined by ';'.
std::string Fields(const http::HeaderMap& h) {
  std::string s;
  for (const auto& e : h) {
    if (http::TokenPolicyBits(e.token()) & http::kPseudo) continue;
    if (!s.empty()) s += ';';
    s.append(e.name()).append("=").append(e.value());
  }
  return s;
}

std::string Describe(const Inbound& q) {
  if (q.bits & Inbound::kMalformed) return std::to_string(q.error_status);
  if (q.bits & Inbound::kReset) return "reset";
  if (!(q.bits & Inbound::kHead)) return "incomplete";
  std::string s(q.head.Value(Token::kMethod));
  s.append(" ").append(q.head.Value(Token::kAuthority)).append(" ").append(q.head.Value(Token::kPath));
  if (const auto f = Fields(q.head); !f.empty()) s.append(" [").append(f).append("]");
  if (q.body_bytes > 0) s.append(" ").append(q.body.ToString());
  if (!q.trailers.empty()) s.append(" {").append(Fields(q.trailers)).append("}");
  return s + (q.bits & Inbound::kEnd ? "" : " ...");
}

Outcome Request(std::string_view bytes, size_t step, const Limits& limits) {
  testing::Host host;
  auto s = NewHttp1Server(limits, &host);
  io::Buffer in;
  testing::FeedText(*s, bytes, step, in);
  if (host.last == 0) return {s->closed() ? "closed" : "nothing", 0};
  return {Describe(host.at(1)), s->counters().dropped_fields};
}

struct Row {
  const char* name;
  std::string bytes;
  const char* outcome;
};

// What most rows vary: one request with these extra lines.
std::string Get(const std::string& lines) { return "GET / HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n"; }
std::string Chunked(const std::string& body, const std::string& lines = "") {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + lines + "Transfer-Encoding: chunked\r\n\r\n" + body;
}

TEST(Http1Table, Requests) {
  std::string many;
  const std::string large = "GET a / [a=" + std::string(189, 'x');
  for (int i = 0; i < 101; ++i) many += "x-" + std::to_string(i) + ": v\r\n";
  const Row rows[] = {
      {"1 two empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /"},
      {"1 three empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"2 LF ends request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"},
      {"2 LF ends a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", "400"},
      {"2 LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", "400"},
      {"2 bare CR between fields", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "400"},
      {"2 CR in value", Get("x: a\rb\r\n"), "400"},
      {"3 NUL", Get("x: a\0b\r\n"s), "400"},
      {"3 CTL", Get("x: a\x01\r\n"), "400"},
      {"3 DEL in a long value", Get("x: aaaaaaaaaaaaaaaaaaaaa\x7f\r\n"), "400"},
      {"3 tab and high bytes pass", Get("x: a\tb\xc3\xa4 0123456789abcdef\r\n"), "GET a / [x=a\tb\xc3\xa4 0123456789abcdef]"},
      {"4 fold", Get("x: a\r\n b\r\n"), "400"},
      {"4 fold hides chunked", Get("transfer-encoding:\r\n chunked\r\n"), "400"},
      {"5 SP before colon", Get("x : a\r\n"), "400"},
      {"5 TAB before colon", Get("x\t: a\r\n"), "400"},
      {"5 leading SP on first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"},
      {"5 empty name", Get(": a\r\n"), "400"},
      {"5 no colon", Get("abc\r\n"), "400"},
      {"5 SP in name", Get("a b: c\r\n"), "400"},
      {"5 paren in name", Get("a(b: c\r\n"), "400"},
      {"5 high byte in name", Get("a\x80: c\r\n"), "400"},
      {"5 64 KiB name", Get(std::string(65536, 'n') + ": v\r\n"), "431"},
      {"6 x_forwarded_for", Get("x_forwarded_for: 1\r\ncontent_length: 5\r\ntransfer_encoding: chunked\r\nmy_own: 1\r\n"), "GET a / [my_own=1]"},
      {"7 no Host", "GET / HTTP/1.1\r\n\r\n", "400"},
      {"7 two Host equal", Get("Host: a\r\n"), "400"},
      {"7 two Host different", Get("Host: b\r\n"), "400"},
      {"8 Host empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "400"},
      {"8 Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "400"},
      {"8 Host SP", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
      {"8 Host path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
      {"8 Host user", "GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", "400"},
      {"8 Host port", "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "400"},
      {"9 absolute wins", "GET http://t/x HTTP/1.1\r\nHost: u\r\n\r\n", "GET t /x"},
      {"9 https form", "GET https://t?q HTTP/1.1\r\nHost: t\r\n\r\n", "GET t /?q"},
      {"9 absolute without path", "GET http://t HTTP/1.1\r\nHost: t\r\n\r\n", "GET t /"},
      {"9 ftp", "GET ftp://t/x HTTP/1.1\r\nHost: t\r\n\r\n", "400"},
      {"9 absolute with bad Host", "GET http://t/x HTTP/1.1\r\nHost: a b\r\n\r\n", "400"},
      {"10 0.9", "GET /\r\n", "400"},
      {"10 HTTP/0.9", "GET / HTTP/0.9\r\n\r\n", "400"},
      {"10 lower case", "GET / http/1.1\r\nHost: a\r\n\r\n", "400"},
      {"10 1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", "400"},
      {"10 01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n", "400"},
      {"10 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET a /"},
      {"10 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
      {"10 1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "426"},
      {"11 two SP", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"11 TAB", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"11 trailing SP", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "400"},
      {"11 leading SP", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"12 hash", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"12 high byte", "GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"12 NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"s, "400"},
      {"12 no slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"15 star with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"15 OPTIONS star", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS a *"},
      {"16 lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "get a /"},
      {"16 unknown method", "BREW /x HTTP/1.1\r\nHost: a\r\n\r\n", "BREW a /x"},
      {"16 no token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"17 TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"},
      {"17 CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:80  ..."},
      {"17 CONNECT with path", "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
      {"18 CL then TE", Chunked("0\r\n\r\n", "Content-Length: 5\r\n"), "400"},
      {"18 TE then CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400"},
      {"19 CL twice equal", Get("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello", "400"},
      {"19 CL list", Get("Content-Length: 5, 5\r\n") + "hello", "400"},
      {"19 CL 005", Get("Content-Length: 005\r\n") + "hello", "GET a / [content-length=5] hello"},
      {"19 CL 000", Get("Content-Length: 000\r\n"), "GET a / [content-length=0]"},
      {"20 CL +5", Get("Content-Length: +5\r\n"), "400"},
      {"20 CL -0", Get("Content-Length: -0\r\n"), "400"},
      {"20 CL hex", Get("Content-Length: 0x5\r\n"), "400"},
      {"20 CL empty", Get("Content-Length:\r\n"), "400"},
      {"20 CL 5 5", Get("Content-Length: 5 5\r\n"), "400"},
      {"20 CL 5a", Get("Content-Length: 5a\r\n"), "400"},
      {"20 CL 5.0", Get("Content-Length: 5.0\r\n"), "400"},
      {"20 CL quoted", Get("Content-Length: \"5\"\r\n"), "400"},
      {"20 CL 2^63", Get("Content-Length: 9223372036854775808\r\n"), "400"},
      {"20 CL 2^64+5", Get("Content-Length: 18446744073709551621\r\n"), "400"},
      {"21 xchunked", Get("Transfer-Encoding: xchunked\r\n"), "501"},
      {"21 identity", Get("Transfer-Encoding: identity\r\n"), "501"},
      {"21 gzip, chunked", Get("Transfer-Encoding: gzip, chunked\r\n"), "501"},
      {"21 chunked, gzip", Get("Transfer-Encoding: chunked, gzip\r\n"), "501"},
      {"21 chunked, chunked", Get("Transfer-Encoding: chunked, chunked\r\n"), "501"},
      {"21 parameter", Get("Transfer-Encoding: chunked;a=b\r\n"), "501"},
      {"21 empty", Get("Transfer-Encoding:\r\n"), "400"},
      {"21 stray comma", Get("Transfer-Encoding: chunked,\r\n"), "400"},
      {"21 VT", Get("Transfer-Encoding: \vchunked\r\n"), "400"},
      {"21 two lines", Get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "400"},
      {"21 upper case", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "POST a /"},
      {"22 good", Chunked("5\r\nhello\r\n0\r\n\r\n"), "POST a / hello"},
      {"22 padded size, upper case", Chunked("000A\r\n0123456789\r\n00\r\n\r\n"), "POST a / 0123456789"},
      {"22 0x5", Chunked("0x5\r\nhello\r\n"), "400"},
      {"22 +5", Chunked("+5\r\nhello\r\n"), "400"},
      {"22 0_5", Chunked("0_5\r\nhello\r\n"), "400"},
      {"22 SP before", Chunked(" 5\r\nhello\r\n"), "400"},
      {"22 SP after", Chunked("5 \r\nhello\r\n"), "400"},
      {"22 empty", Chunked("\r\nhello\r\n"), "400"},
      {"22 17 digits", Chunked("00000000000000005\r\nhello\r\n"), "400"},
      {"22 too large", Chunked("ffffffffffffffff\r\nhello\r\n"), "400"},
      {"23 extension", Chunked("5;a=b;c=\"d;\\\"e\";f\r\nhello\r\n0;x\r\n\r\n"), "POST a / hello"},
      {"23 bare semicolon", Chunked("5;\r\nhello\r\n0\r\n\r\n"), "400"},
      {"23 NUL", Chunked("5;a\0b\r\nhello\r\n"s), "400"},
      {"23 open quote", Chunked("5;a=\"b\r\nhello\r\n"), "400"},
      {"23 bare CR", Chunked("5;a\rb\r\nhello\r\n"), "400"},
      {"23 bare LF", Chunked("5;a\nhello\r\n"), "400"},
      {"23 64 KiB", Chunked("5;" + std::string(65536, 'a') + "\r\nhello\r\n"), "400"},
      {"24 LF after size", Chunked("5\nhello\r\n0\r\n\r\n"), "400"},
      {"24 LF after data", Chunked("5\r\nhello\n0\r\n\r\n"), "400"},
      {"24 LF after last chunk", Chunked("5\r\nhello\r\n0\n\r\n"), "400"},
      {"24 LF ends trailers", Chunked("5\r\nhello\r\n0\r\n\n"), "400"},
      {"24 data longer than size", Chunked("5\r\nhelloXX\r\n0\r\n\r\n"), "400"},
      {"24 no CRLF after data", Chunked("5\r\nhello0\r\n\r\n"), "400"},
      {"25 trailers", Chunked("0\r\nX-Sum: 1\r\nContent-Length: 9\r\nHost: h\r\nCookie: c\r\nAuthorization: a\r\nTransfer-Encoding: x\r\n\r\n"), "POST a / {x-sum=1}"},
      {"25 bad trailer", Chunked("0\r\nX Sum: 1\r\n\r\n"), "400"},
      {"26 GET with CL", Get("Content-Length: 2\r\n") + "ab", "GET a / [content-length=2] ab"},
      {"26 DELETE chunked", "DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n", "DELETE a / z"},
      {"27 other expectation", Get("Expect: 200-ok\r\n"), "417"},
      {"27 obfuscated", Get("Expect: 100-continue, x\r\n"), "417"},
      {"28 Connection: host", Get("Connection: host\r\n"), "400"},
      {"28 Connection: x-forwarded-for", Get("Connection: close, X-Forwarded-For\r\nX-Forwarded-For: 1\r\n"), "400"},
      {"28 Connection: authorization", Get("Connection: Authorization\r\n"), "400"},
      {"28 Connection: content-length", Get("Connection: Content-Length\r\nContent-Length: 0\r\n"), "400"},
      {"28 custom named field", Get("X-Hop: 1\r\nConnection: x-hop, keep-alive\r\nX-Stay: 2\r\n"), "GET a / [x-stay=2]"},
      {"28 hop-by-hop", Get("Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: foo\r\n"), "GET a /"},
      {"28 te trailers", Get("TE: gzip, trailers\r\n"), "GET a / [te=trailers]"},
      {"29 h2c", Get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"), "GET a /"},
      {"29 websocket", Get("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n") + "early", "CONNECT a / ..."},
      {"29 websocket without key", Get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "400"},
      {"29 websocket with body", Get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n"), "400"},
      {"29 websocket without Connection", Get("Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "GET a /"},
      {"30 101 fields", "GET / HTTP/1.1\r\n" + many + "\r\n", "431"},
      {"30 60 KiB section", Get("a: " + std::string(30000, 'x') + "\r\nb: " + std::string(32000, 'x') + "\r\n"), "431"},
      {"30 large but allowed", Get("a: " + std::string(20000, 'x') + "\r\nb: 1\r\n"), large.c_str()},
      {"30 target", "GET /" + std::string(16384, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
      {"30 endless target", "GET /" + std::string(70000, 'x'), "414"},
      {"h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
      {"cut head", "GET / HTTP/1.1\r\nHost: a\r\n", "incomplete"},
      {"cut body", Get("Content-Length: 10\r\n") + "abc", "GET a / [content-length=10] abc ..."},
  };
  for (const auto& row : rows) {
    for (const size_t step : {size_t{1 << 20}, size_t{1}, size_t{5}}) {
      const Outcome o = Request(row.bytes, step, {});
      EXPECT_EQ(o.text.substr(0, 200), row.outcome) << row.name << " step " << step;
    }
  }
  EXPECT_EQ(Request(rows[22].bytes, 1000, {}).dropped, 3u) << rows[22].name;
  Limits ten;
  ten.accept_http_10 = true;
  EXPECT_EQ(Request("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 100, ten).text, "GET a /");
  EXPECT_EQ(Request("GET / HTTP/1.0\r\n\r\n", 100, ten).text, "GET localhost /");
  EXPECT_EQ(Request("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 100, ten).text, "400");
}

// After a malformed request the answer goes out, the rest of the input is thrown away and the connection closes.
TEST(Http1Table, MalformedIsAnsweredAndClosed) {
  testing::Host host;
  auto s = NewHttp1Server({}, &host);
  io::Buffer in, out;
  in.Append("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(s->Feed(in));
  EXPECT_TRUE(in.empty());
  ASSERT_EQ(host.at(1).bits, Inbound::kMalformed);
  EXPECT_STREQ(host.at(1).error_detail, "http.invalid_target");
  EXPECT_FALSE(s->closed());
  s->SendHead(1, Head({{":status", "400"}, {"content-length", "3"}}), false);
  io::Buffer b;
  b.Append("bad");
  s->SendBody(1, b, 3, true);
  s->Release(1);
  s->Emit(out);
  EXPECT_EQ(out.ToString(), "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad");
  EXPECT_TRUE(s->closed());
  EXPECT_EQ(host.last, 1);
}

TEST(Http1Table, BodyBrokenLater) {
  testing::Host host;
  auto s = NewHttp1Server({}, &host);
  io::Buffer in;
  in.Append(Chunked("5\r\nhello\r\nzz"));
  s->Feed(in);
  in.Append("\r\n");
  s->Feed(in);
  EXPECT_EQ(host.at(1).bits, Inbound::kHead | Inbound::kMalformed);
  s->Reset(1, ResetCode::kProtocol);
  EXPECT_TRUE(s->closed());
}

TEST(Http1Table, TruncatedRequest) {
  testing::Host host;
  auto s = NewHttp1Server({}, &host);
  io::Buffer in;
  in.Append(Get("Content-Length: 9\r\n") + "abc");
  s->Feed(in);
  EXPECT_FALSE(s->FeedEof());
  EXPECT_EQ(host.at(1).reset, ResetCode::kTruncated);
}

// ---------------------------------------------------------------- responses

struct Answer {
  const char* name;
  const char* method;
  std::string bytes;
  bool eof;             // the upstream closes afterwards
  const char* outcome;  // "bad", "truncated", or "status [fields] body {trailers}", "..." when not ended
  bool reusable;
};

TEST(Http1Table, Responses) {
  const Answer rows[] = {
      {"plain", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, "200 [content-length=2] hi", true},
      {"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\nx-t: 1\r\n\r\n", false, "200 hi {x-t=1}", true},
      {"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nhi", true, "200 hi", false},
      {"until close, open", "GET", "HTTP/1.1 200 OK\r\n\r\nhi", false, "200 hi ...", false},
      {"connection close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, "200 [content-length=0]", false},
      {"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, "200 [content-length=0]", false},
      {"1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false, "200 [content-length=0]", true},
      {"32 CL and TE", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", false, "bad", false},
      {"32 CL twice equal", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", false, "bad", false},
      {"32 CL twice differing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", false, "bad", false},
      {"32 CL +2", "GET", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", false, "bad", false},
      {"32 gzip, chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false, "bad", false},
      {"32 TE on 1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, "bad", false},
      {"33 NUL", "GET", "HTTP/1.1 200 OK\r\nx: \0\r\n\r\n"s, false, "bad", false},
      {"33 SP before colon", "GET", "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", false, "bad", false},
      {"33 LF only", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, "bad", false},
      {"33 fold joined", "GET", "HTTP/1.1 200 OK\r\nX-A: one\r\n  two\r\n\tthree\r\nContent-Length: 0\r\n\r\n", false, "200 [x-a=one two three;content-length=0]", true},
      {"33 fold on framing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 0\r\n\r\n", false, "bad", false},
      {"34 status 99", "GET", "HTTP/1.1 99 X\r\n\r\n", false, "bad", false},
      {"34 status 1000", "GET", "HTTP/1.1 1000 X\r\n\r\n", false, "bad", false},
      {"34 HTTP/2.0", "GET", "HTTP/2.0 200 OK\r\n\r\n", false, "bad", false},
      {"34 status 799", "GET", "HTTP/1.1 799 X\r\nContent-Length: 0\r\n\r\n", false, "799 [content-length=0]", true},
      {"34 no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, "200 [content-length=0]", true},
      {"35 204 with CL and body", "GET", "HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\nhi", false, "204", false},
      {"35 304 with TE", "GET", "HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, "304", false},
      {"35 HEAD with body", "HEAD", "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nhi", false, "200 [content-length=2]", false},
      {"HEAD", "HEAD", "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n", false, "200 [content-length=2]", true},
      {"36 unasked 101", "GET", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", false, "bad", false},
      {"36 interim", "GET", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 204 X\r\n\r\n", false, "204", true},
      {"36 nine interim", "GET", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n"
       "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\n", false, "bad", false},
      {"37 bytes after the answer", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", false, "200 [content-length=2] hi", false},
      {"37 cut before CL", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", true, "truncated", false},
      {"37 cut before last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", true, "truncated", false},
      {"cut head", "GET", "HTTP/1.1 200 OK\r\n", true, "truncated", false},
      {"nothing", "GET", "", true, "lost", false},
      {"hop-by-hop", "GET", "HTTP/1.1 200 OK\r\nKeep-Alive: x\r\nConnection: x-h\r\nX-H: 1\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", false, "200 [content-length=0]", true},
      {"garbage", "GET", "SSH-2.0-OpenSSH\r\n", false, "bad", false},
      {"too many fields", "GET", [] { std::string s = "HTTP/1.1 200 OK\r\n"; for (int i = 0; i < 101; ++i) s += "a: b\r\n"; return s; }(), false, "bad", false},
  };
  for (const auto& row : rows) {
    for (const size_t step : {size_t{1 << 20}, size_t{1}}) {
      auto c = NewHttp1Client({});
      Inbound r;
      io::Buffer in, out;
      const StreamId id = c->Open(&r);
      c->SendHead(id, Head({{":method", row.method}, {":authority", "a"}, {":path", "/"}}), true);
      c->Emit(out);
      testing::FeedText(*c, row.bytes, step, in);
      const bool alive = row.eof ? c->FeedEof() : false;
      EXPECT_FALSE(alive);
      std::string o;
      if (r.bits & Inbound::kReset) {
        o = r.reset == ResetCode::kTruncated ? "truncated" : r.reset == ResetCode::kConnectionLost ? "lost" : "bad";
        EXPECT_EQ(r.error_status, o == "bad" ? 502 : 0);
      } else {
        o = r.head.Value(Token::kStatus);
        if (const auto f = Fields(r.head); !f.empty()) o += " [" + f + "]";
        if (r.body_bytes > 0) o += " " + r.body.ToString();
        if (!r.trailers.empty()) o += " {" + Fields(r.trailers) + "}";
        if (!(r.bits & Inbound::kEnd)) o += " ...";
      }
      EXPECT_EQ(o, row.outcome) << row.name << " step " << step;
      c->Release(id);
      EXPECT_EQ(c->OpenRoom(), row.reusable ? 1u : 0u) << row.name;
      EXPECT_EQ(c->closed(), !row.reusable) << row.name;
    }
  }
}

TEST(Http1Table, BytesOnAnIdleConnectionAreNobodysAnswer) {
  auto c = NewHttp1Client({});
  io::Buffer in;
  in.Append("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  c->Feed(in);
  EXPECT_TRUE(c->closed());
  Inbound r;
  EXPECT_EQ(c->Open(&r), -1);
}

TEST(Http1Table, WebSocketHandshakeIsVerified) {
  const char* const answers[] = {
      "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
      "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
  };
  for (const char* a : answers) {
    auto c = NewHttp1Client({});
    Inbound r;
    io::Buffer in;
    const StreamId id = c->Open(&r);
    c->SendHead(id, Head({{":method", "CONNECT"}, {":protocol", "websocket"}, {":authority", "a"}, {":path", "/"}}), false);
    in.Append(a);
    c->Feed(in);
    EXPECT_EQ(r.bits, Inbound::kReset) << a;
  }
}

}  // namespace
}  // namespace weft::codec
