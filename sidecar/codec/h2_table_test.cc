// The HTTP/2 abuse and translation tables, from raw frames: bytes in, outcome out.
#include <gtest/gtest.h>

#include <functional>

#include "sidecar/codec/codec.h"
#include "sidecar/codec/pair_testing.h"

namespace weft::codec {
namespace {

using http::Token;
using testing::Head;
using namespace std::string_literals;
using Fields = std::vector<std::pair<std::string, std::string>>;

enum : uint8_t { kData, kHeaders, kPriority, kRst, kSettings, kPush, kPing, kGoaway, kWindow, kContinuation };
constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4, kPadded = 8;

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string f;
  for (int s = 16; s >= 0; s -= 8) f.push_back(static_cast<char>(payload.size() >> s));
  f.push_back(static_cast<char>(type)), f.push_back(static_cast<char>(flags));
  for (int s = 24; s >= 0; s -= 8) f.push_back(static_cast<char>(stream >> s));
  return f.append(payload);
}
std::string U32(uint32_t v) { return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)}; }

void Length(std::string& out, size_t n) {  // 7-bit prefix integer
  if (n < 127) return out.push_back(static_cast<char>(n));
  out.push_back(127);
  for (n -= 127; n >= 128; n >>= 7) out.push_back(static_cast<char>(n % 128 + 128));
  out.push_back(static_cast<char>(n));
}
std::string Block(const Fields& fields) {  // literals, never indexed
  std::string b;
  for (const auto& [n, v] : fields) b.push_back(0x10), Length(b, n.size()), b += n, Length(b, v.size()), b += v;
  return b;
}
Fields Base(const char* method = "GET", const char* path = "/") {
  return {{":method", method}, {":scheme", "http"}, {":authority", "a"}, {":path", path}};
}
Fields With(Fields f, const Fields& more) {
  f.insert(f.end(), more.begin(), more.end());
  return f;
}
std::string Request(uint32_t id, const Fields& f, bool end = true) {
  return Frame(kHeaders, kEndHeaders | (end ? kEndStream : 0), id, Block(f));
}

struct Wire {
  base::ManualClock clock;
  testing::Host host;
  std::unique_ptr<Codec> server;
  io::Buffer in;
  std::string sent;  // all the server has written

  explicit Wire(Limits limits = {}) {
    server = NewHttp2Server(limits, &host, &clock);
    Feed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, ""));
  }
  bool Feed(std::string_view bytes) {
    in.Append(bytes);
    bool ok = FeedOnce();
    while (ok && !in.empty()) ok = FeedOnce();
    return ok;
  }
  bool FeedOnce() {
    const bool ok = server->Feed(in);
    io::Buffer out;
    server->Emit(out);
    sent += out.ToString();
    return ok;
  }
  // "goaway 11", "rst 1" for each frame of the kind the server sent.
  std::string Said() const {
    std::string s;
    for (size_t i = 0; i + 9 <= sent.size();) {
      const auto at = [&](size_t k) { return static_cast<uint8_t>(sent[i + k]); };
      const size_t n = static_cast<size_t>(at(0)) << 16 | at(1) << 8 | at(2);
      if (at(3) == kRst) s += "rst " + std::to_string(at(12)) + ";";
      if (at(3) == kGoaway) s += "goaway " + std::to_string(at(16)) + ";";
      i += 9 + n;
    }
    return s;
  }
};

TEST(Http2Table, RequestHeads) {
  const struct {
    const char* name;
    Fields fields;
    const char* outcome;  // "rst" (stream error), a status, or the fields that arrive
  } rows[] = {
      {"plain", With(Base(), {{"x-a", "1"}}), "x-a=1"},
      {"1 CR in value", With(Base(), {{"x", "a\rb"}}), "rst"},
      {"1 LF in value", With(Base(), {{"x", "a\nb"}}), "rst"},
      {"1 NUL in value", With(Base(), {{"x", "a\0b"s}}), "rst"},
      {"1 CTL in value", With(Base(), {{"x", "a\x01"}}), "rst"},
      {"1 colon in name", With(Base(), {{"x:y", "a"}}), "rst"},
      {"1 SP in name", With(Base(), {{"x y", "a"}}), "rst"},
      {"1 upper case", With(Base(), {{"X", "a"}}), "rst"},
      {"1 empty name", With(Base(), {{"", "a"}}), "rst"},
      {"2 blanks trimmed", With(Base(), {{"x", " a\t"}}), "x=a"},
      {"3 transfer-encoding", With(Base(), {{"transfer-encoding", "chunked"}}), "rst"},
      {"3 connection", With(Base(), {{"connection", "close"}}), "rst"},
      {"3 keep-alive", With(Base(), {{"keep-alive", "1"}}), "rst"},
      {"3 upgrade", With(Base(), {{"upgrade", "x"}}), "rst"},
      {"3 proxy-connection", With(Base(), {{"proxy-connection", "x"}}), "rst"},
      {"3 te gzip", With(Base(), {{"te", "gzip"}}), "rst"},
      {"3 te trailers", With(Base(), {{"te", "trailers"}}), "te=trailers"},
      {"3 http2-settings", With(Base(), {{"http2-settings", "x"}}), ""},
      {"3 underscore", With(Base(), {{"content_length", "5"}, {"x_y", "1"}}), "x_y=1"},
      {"3 cookies", With(Base(), {{"cookie", "a=1"}, {"x", "y"}, {"cookie", "b=2"}}), "x=y;cookie=a=1; b=2"},
      {"4 method with SP", Base("G T"), "rst"},
      {"4 path with SP", Base("GET", "/a b"), "rst"},
      {"4 method with CRLF", Base("GET\r\n"), "rst"},
      {"4 path with CRLF", Base("GET", "/a\r\nb"), "rst"},
      {"4 path without slash", Base("GET", "a"), "rst"},
      {"4 path absolute", Base("GET", "http://x/"), "rst"},
      {"4 path empty", Base("GET", ""), "rst"},
      {"4 hash", Base("GET", "/a#b"), "400"},
      {"4 high byte", Base("GET", "/\x80"), "400"},
      {"4 star", Base("GET", "*"), "400"},
      {"4 OPTIONS star", Base("OPTIONS", "*"), ""},
      {"TRACE", Base("TRACE"), "405"},
      {"5 scheme junk", {{":method", "GET"}, {":scheme", "h ttp"}, {":authority", "a"}, {":path", "/"}}, "400"},
      {"5 ftp", {{":method", "GET"}, {":scheme", "ftp"}, {":authority", "a"}, {":path", "/"}}, "400"},
      {"5 https", {{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}}, ""},
      {"6 authority SP", {{":method", "GET"}, {":scheme", "http"}, {":authority", "a b"}, {":path", "/"}}, "400"},
      {"6 authority slash", {{":method", "GET"}, {":scheme", "http"}, {":authority", "a/b"}, {":path", "/"}}, "400"},
      {"6 authority user", {{":method", "GET"}, {":scheme", "http"}, {":authority", "u@b"}, {":path", "/"}}, "400"},
      {"6 authority comma", {{":method", "GET"}, {":scheme", "http"}, {":authority", "a,b"}, {":path", "/"}}, "400"},
      {"6 authority empty", {{":method", "GET"}, {":scheme", "http"}, {":authority", ""}, {":path", "/"}}, "400"},
      {"7 host equal", With(Base(), {{"host", "a"}}), ""},
      {"7 host differs", With(Base(), {{"host", "b"}}), "400"},
      {"7 two host", With(Base(), {{"host", "a"}, {"host", "a"}}), "400"},
      {"7 host only", {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", "a"}}, ""},
      {"7 neither", {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}}, "400"},
      {"8 pseudo late", {{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {"x", "y"}, {":path", "/"}}, "rst"},
      {"8 pseudo twice", With(Base(), {{":path", "/"}}), "rst"},
      {"8 pseudo unknown", With(Base(), {{":foo", "/"}}), "rst"},
      {"8 status in request", With(Base(), {{":status", "200"}}), "rst"},
      {"8 no method", {{":scheme", "http"}, {":authority", "a"}, {":path", "/"}}, "rst"},
      {"8 no scheme", {{":method", "GET"}, {":authority", "a"}, {":path", "/"}}, "rst"},
      {"8 no path", {{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}}, "rst"},
      {"9 CL padded", With(Base("POST"), {{"content-length", "000"}}), "content-length=0"},
      {"9 CL with END_STREAM", With(Base("POST"), {{"content-length", "5"}}), "rst"},
      {"9 CL twice", With(Base("POST"), {{"content-length", "0"}, {"content-length", "0"}}), "rst"},
      {"9 CL bad", With(Base("POST"), {{"content-length", "x"}}), "rst"},
      {"12 CONNECT with path", Base("CONNECT"), "400"},
      {"12 extended CONNECT off", With(Base("CONNECT"), {{":protocol", "websocket"}}), "rst"},
      {"417", With(Base("POST"), {{"expect", "x"}}), "417"},
      {"431 fields", [] { Fields f = Base(); for (int i = 0; i < 101; ++i) f.emplace_back("x", "y"); return f; }(), "431"},
      {"414", Base("GET", ("/" + std::string(16400, 'p')).c_str()), "414"},
  };
  for (const auto& row : rows) {
    Wire w;
    const std::string block = Block(row.fields);
    if (block.size() > 16000) {
      w.Feed(Frame(kHeaders, kEndStream, 1, std::string_view(block).substr(0, 10000)) + Frame(kContinuation, kEndHeaders, 1, std::string_view(block).substr(10000)));
    } else {
      w.Feed(Request(1, row.fields));
    }
    std::string o = "nothing";
    if (w.host.last == 1) {
      const Inbound& q = w.host.at(1);
      if (q.bits & Inbound::kMalformed) {
        o = std::to_string(q.error_status);
      } else if (q.bits & Inbound::kReset) {
        o = w.Said() == "rst 1;" ? "rst" : w.Said();
      } else if (q.bits & Inbound::kHead) {
        o.clear();
        EXPECT_EQ(q.head.Value(Token::kAuthority), "a");
        for (const auto& e : q.head) {
          if (e.name()[0] != ':') o.append(o.empty() ? "" : ";").append(e.name()).append("=").append(e.value());
        }
      }
    } else {
      o = w.Said();
    }
    EXPECT_EQ(o, row.outcome) << row.name;
    // A neighbour on the same connection is served all the same.
    EXPECT_TRUE(w.Feed(Request(3, Base()))) << row.name;
    ASSERT_EQ(w.host.last, 3) << row.name;
    EXPECT_EQ(w.host.at(3).bits, Inbound::kHead | Inbound::kEnd) << row.name;
  }
}

TEST(Http2Table, BodiesAndTrailers) {
  const struct {
    const char* name;
    std::string bytes;  // after POST with these fields, not ended
    Fields more;
    const char* said;
    const char* body;
  } rows[] = {
      {"9 exact", Frame(kData, kEndStream, 1, "hello"), {{"content-length", "5"}}, "", "hello"},
      {"9 shorter", Frame(kData, kEndStream, 1, "hell"), {{"content-length", "5"}}, "rst 1;", "hell"},
      {"9 longer", Frame(kData, kEndStream, 1, "hello!"), {{"content-length", "5"}}, "rst 1;", ""},
      {"9 zero with body", Frame(kData, kEndStream, 1, "x"), {{"content-length", "0"}}, "rst 1;", ""},
      {"padded", Frame(kData, kEndStream | kPadded, 1, "\3hello\0\0\0"s), {}, "", "hello"},
      {"trailers", Frame(kData, 0, 1, "x") + Request(1, {{"x-t", "1"}, {"cookie", "c"}}), {}, "", "x"},
      {"11 pseudo in trailers", Request(1, {{":path", "/"}}), {}, "rst 1;", ""},
      {"11 CL in trailers", Request(1, {{"content-length", "1"}}), {}, "rst 1;", ""},
      {"11 host in trailers", Request(1, {{"host", "a"}}), {}, "rst 1;", ""},
      {"11 TE in trailers", Request(1, {{"te", "trailers"}, {"transfer-encoding", "chunked"}}), {}, "rst 1;", ""},
      {"9 trailers before the length", Frame(kData, 0, 1, "x") + Request(1, {{"x-t", "1"}}), {{"content-length", "2"}}, "rst 1;", "x"},
      {"15 trailers without END_STREAM", Request(1, {{"x-t", "1"}}, false), {}, "rst 1;", ""},
      {"8 WINDOW_UPDATE 0", Frame(kWindow, 0, 1, U32(0)), {}, "rst 1;", ""},
      {"8 WINDOW_UPDATE 0, reserved bit", Frame(kWindow, 0, 1, U32(0x80000000)), {}, "rst 1;", ""},
      {"13 PRIORITY on itself", Frame(kPriority, 0, 1, U32(0x80000001) + "\x10"), {}, "rst 1;", ""},
  };
  for (const size_t step : {size_t{1 << 20}, size_t{1}, size_t{7}})
  for (const auto& row : rows) {
    Wire w;
    w.Feed(Request(1, With(Base("POST"), row.more), false));
    for (size_t i = 0; i < row.bytes.size(); i += step) EXPECT_TRUE(w.Feed(std::string_view(row.bytes).substr(i, step))) << row.name;
    const Inbound& q = w.host.at(1);
    EXPECT_EQ(w.Said(), row.said) << row.name;
    // In pieces, what was promised arrives before the excess.
    EXPECT_EQ(q.body.ToString(), row.name == "9 longer"s && step < 100 ? "hello" : row.body) << row.name;
    EXPECT_EQ((q.bits & Inbound::kReset) != 0, *row.said != 0) << row.name;
    EXPECT_EQ((q.bits & Inbound::kEnd) != 0, *row.said == 0) << row.name;
    if (row.name == "trailers"s) {
      EXPECT_EQ(q.trailers.ToString(), "x-t: 1\n");
    }
    EXPECT_TRUE(w.Feed(Request(3, Base()))) << row.name;
    EXPECT_EQ(w.host.at(3).bits, Inbound::kHead | Inbound::kEnd) << row.name;
  }
}

TEST(Http2Table, ConnectionErrors) {
  const struct {
    const char* name;
    std::string bytes;
    const char* said;
  } rows[] = {
      {"5 HPACK bad index", Frame(kHeaders, kEndHeaders | kEndStream, 1, "\xff\x70"), "goaway 9;"},
      {"5 HPACK index 0", Frame(kHeaders, kEndHeaders | kEndStream, 1, "\x80"), "goaway 9;"},
      {"5 HPACK truncated", Frame(kHeaders, kEndHeaders | kEndStream, 1, "\x10\x05x"), "goaway 9;"},
      {"8 WINDOW_UPDATE 0 on connection", Frame(kWindow, 0, 0, U32(0)), "goaway 1;"},
      {"8 overflow on connection", Frame(kWindow, 0, 0, U32(0x7fffffff)), "goaway 3;"},
      {"10 HEADERS on stream 0", Request(0, Base()), "goaway 1;"},
      {"10 even id", Request(2, Base()), "goaway 1;"},
      {"10 passed over", Request(5, Base()) + Request(3, Base()), "goaway 1;"},
      {"10 passed over, the first", Request(3, Base()) + Request(1, Base()), "goaway 1;"},
      {"10 HEADERS after END_STREAM", Request(1, Base()) + Request(1, Base()), "goaway 5;"},
      {"10 HEADERS after RST_STREAM", Request(1, Base(), false) + Frame(kRst, 0, 1, U32(8)) + Request(1, Base()), "goaway 5;"},
      {"10 WINDOW_UPDATE on idle", Frame(kWindow, 0, 1, U32(1)), "goaway 1;"},
      {"11 WINDOW_UPDATE length", Frame(kWindow, 0, 0, "123"), "goaway 6;"},
      {"11 RST length", Request(1, Base(), false) + Frame(kRst, 0, 1, "123"), "goaway 6;"},
      {"12 GOAWAY on a stream", Frame(kGoaway, 0, 1, U32(0) + U32(0)), "goaway 1;"},
      {"8 WINDOW_UPDATE 0 on idle", Frame(kWindow, 0, 1, U32(0)), "goaway 1;"},
      {"13 PRIORITY on itself, idle", Frame(kPriority, 0, 1, U32(1) + "\x10"), "goaway 1;"},
      {"13 PRIORITY on stream 0", Frame(kPriority, 0, 0, U32(3) + "\x10"), "goaway 1;"},
      {"10 DATA on idle", Frame(kData, 0, 1, "x"), "goaway 1;"},
      {"10 RST on idle", Frame(kRst, 0, 1, U32(8)), "goaway 1;"},
      {"11 PING length", Frame(kPing, 0, 0, "1234567"), "goaway 6;"},
      {"11 SETTINGS length", Frame(kSettings, 0, 0, "12345"), "goaway 6;"},
      {"11 SETTINGS ack with payload", Frame(kSettings, kAck, 0, "123456"), "goaway 6;"},
      {"11 too large", Frame(kData, 0, 1, std::string(16385, 'x')), "goaway 6;"},
      {"12 SETTINGS on a stream", Frame(kSettings, 0, 1, ""), "goaway 1;"},
      {"12 PING on a stream", Frame(kPing, 0, 1, "12345678"), "goaway 1;"},
      {"12 PUSH 2", Frame(kSettings, 0, 0, "\0\2\0\0\0\2"s), "goaway 1;"},
      {"12 window 2^31", Frame(kSettings, 0, 0, "\0\4\x80\0\0\0"s), "goaway 3;"},
      {"12 frame size", Frame(kSettings, 0, 0, "\0\5\0\0\0\1"s), "goaway 1;"},
      {"13 PUSH_PROMISE", Request(1, Base("POST"), false) + Frame(kPush, kEndHeaders, 1, U32(2)), "goaway 1;"},
      {"13 CONTINUATION alone", Frame(kContinuation, kEndHeaders, 1, ""), "goaway 1;"},
      {"13 frame inside a block", Frame(kHeaders, 0, 1, Block(Base())) + Frame(kPing, 0, 0, "12345678"), "goaway 1;"},
      {"13 padding", Frame(kHeaders, kEndHeaders | kPadded, 1, "\x20xx"), "goaway 1;"},
      {"14 unknown type", Frame(0x42, 0xff, 0, "anything"), ""},
      {"14 unknown setting", Frame(kSettings, 0, 0, "\x66\x66\0\0\0\1"s), ""},
  };
  for (const auto& row : rows) {
    Wire w;
    const bool ok = w.Feed(row.bytes);
    EXPECT_EQ(ok, *row.said == 0) << row.name;
    std::string said = w.Said();
    EXPECT_EQ(said, row.said) << row.name << ": " << w.server->error();
    if (!ok) {
      EXPECT_TRUE(w.server->closed()) << row.name;
      EXPECT_NE(w.server->error()[0], 0) << row.name;
    }
  }
}

TEST(Http2Table, Floods) {
  const auto times = [](int n, const std::function<std::string(int)>& f) {
    std::string s;
    for (int i = 0; i < n; ++i) s += f(i);
    return s;
  };
  const struct {
    const char* name;
    std::string bytes;
    const char* error;
  } rows[] = {
      {"1 rapid reset", times(2000, [](int i) { return Request(static_cast<uint32_t>(i * 2 + 1), Base()) + Frame(kRst, 0, static_cast<uint32_t>(i * 2 + 1), U32(8)); }), "http2.reset_flood"},
      {"6 PING", times(200, [](int) { return Frame(kPing, 0, 0, "12345678"); }), "http2.ping_flood"},
      {"6 SETTINGS", times(30, [](int) { return Frame(kSettings, 0, 0, ""); }), "http2.settings_flood"},
      {"6 PRIORITY", times(300, [](int) { return Frame(kPriority, 0, 1, U32(3) + "\x10"); }), "http2.priority_flood"},
      {"7 empty DATA", Request(1, Base("POST"), false) + times(60, [](int) { return Frame(kData, 0, 1, ""); }), "http2.empty_data_flood"},
      {"14 unknown frames", times(300, [](int) { return Frame(0x42, 0, 0, "x"); }), "http2.unknown_frame_flood"},
      {"8 WINDOW_UPDATE", times(300, [](int) { return Frame(kWindow, 0, 0, U32(1)); }), "http2.window_update_flood"},
      {"malformed", times(120, [](int i) { return Request(static_cast<uint32_t>(i * 2 + 1), With(Base(), {{"connection", "x"}})); }), "http2.too_many_glitches"},
  };
  for (const auto& row : rows) {
    Wire w;
    EXPECT_FALSE(w.Feed(row.bytes)) << row.name;
    EXPECT_STREQ(w.server->error(), row.error);
    EXPECT_TRUE(w.Said().ends_with("goaway 11;")) << row.name << " " << w.Said().substr(0, 100);
    EXPECT_GE(w.server->counters().flood_errors, 1u) << row.name;
    // Exchanges that were under way hear of it.
    for (const auto& [id, q] : w.host.streams) EXPECT_TRUE(q->bits & Inbound::kReset) << row.name;
  }
  // CONTINUATION frames end the connection long before anything piles up.
  Wire w;
  EXPECT_FALSE(w.Feed(Frame(kHeaders, 0, 1, Block(Base())) + times(5000, [](int) { return Frame(kContinuation, 0, 1, ""); })));
  EXPECT_EQ(w.Said(), "goaway 11;");
  // What is slow enough is no flood.
  Wire slow;
  for (int i = 0; i < 500; ++i) {
    slow.clock.Advance(20 * base::kMs);
    EXPECT_TRUE(slow.Feed(Frame(kPing, 0, 0, "12345678")));
    const auto id = static_cast<uint32_t>(i * 2 + 1);
    EXPECT_TRUE(slow.Feed(Request(id, Base()) + Frame(kRst, 0, id, U32(8))));
    slow.server->Release(static_cast<StreamId>(id));
  }
}

// Callers that give up now and then, and owners that reset, are no attack: resets are earned by completed streams.
TEST(Http2Table, ResetsAmongHonestWork) {
  Wire w;
  for (uint32_t i = 0; i < 2000; ++i) {
    const uint32_t id = i * 4 + 1;
    ASSERT_TRUE(w.Feed(Request(id, Base()))) << i;
    w.server->SendHead(static_cast<StreamId>(id), Head({{":status", "200"}}), true);
    w.server->Release(static_cast<StreamId>(id));
    ASSERT_TRUE(w.Feed(Request(id + 2, Base()) + Frame(kRst, 0, id + 2, U32(8)))) << i;
    w.server->Release(static_cast<StreamId>(id + 2));
  }
  Wire own;
  for (uint32_t i = 0; i < 500; ++i) {
    ASSERT_TRUE(own.Feed(Request(i * 2 + 1, Base()))) << i;
    own.server->Reset(static_cast<StreamId>(i * 2 + 1), ResetCode::kInternal);
  }
  EXPECT_TRUE(own.Feed(""));
  EXPECT_EQ(own.server->counters().tx_reset, 500u);
}

// A stream keeps its slot until its owner has let go, whatever the peer resets.
TEST(Http2Table, ResetStreamsKeepTheirSlot) {
  Limits l;
  l.max_concurrent_streams = 10;
  Wire w(l);
  std::string bytes;
  for (uint32_t i = 0; i < 20; ++i) bytes += Request(i * 2 + 1, Base()) + Frame(kRst, 0, i * 2 + 1, U32(8));
  EXPECT_TRUE(w.Feed(bytes));
  EXPECT_EQ(w.host.streams.size(), 10u);
  EXPECT_EQ(w.server->active_streams(), 10u);
}

TEST(Http2Table, StreamErrors) {
  Wire w;
  EXPECT_TRUE(w.Feed(Request(3, Base("POST"), false) + Frame(kWindow, 0, 3, U32(0x7fffffff))));
  EXPECT_TRUE(w.host.at(3).bits & Inbound::kReset);
  EXPECT_EQ(w.Said(), "rst 3;");
  // The same in pieces; as much as a window can hold is allowed.
  for (size_t piece : {1, 5, 12}) {
    Wire cut;
    const std::string bytes = Request(3, Base("POST"), false) + Frame(kWindow, 0, 3, U32(0x7fffffff - 65535)) + Frame(kWindow, 0, 3, U32(1));
    for (size_t i = 0; i < bytes.size(); i += piece) EXPECT_TRUE(cut.Feed(bytes.substr(i, piece))) << piece << " at " << i;
    EXPECT_EQ(cut.Said(), "rst 3;") << piece;
  }
  // DATA after END_STREAM, and after the peer's own reset.
  Wire closed;
  closed.Feed(Request(1, Base()));
  closed.server->SendHead(1, Head({{":status", "200"}}), true);
  closed.server->Release(1);
  EXPECT_TRUE(closed.Feed(Request(3, Base("POST"), false) + Frame(kRst, 0, 3, U32(8))));
  EXPECT_TRUE(closed.Feed(Frame(kData, 0, 1, "x") + Frame(kData, 0, 3, "x")));
  EXPECT_EQ(closed.Said(), "rst 5;rst 5;");
  // All of it in a connection's first bytes: our SETTINGS still come first.
  base::ManualClock clock;
  testing::Host host;
  auto server = NewHttp2Server({}, &host, &clock);
  io::Buffer in, out;
  in.Append("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "") + Request(1, Base("POST"), false) + Frame(kRst, 0, 1, U32(8)) +
            Frame(kData, 0, 1, "x"));
  EXPECT_TRUE(server->Feed(in));
  server->Emit(out);
  const std::string sent = out.ToString();
  ASSERT_GT(sent.size(), 9u);
  EXPECT_EQ(sent[3], kSettings);
  EXPECT_NE(sent.find(Frame(kRst, 0, 1, U32(5))), std::string::npos);
}

// What was on its way when we reset the stream is nobody's fault.
TEST(Http2Table, LateFramesAfterOurReset) {
  Wire w;
  EXPECT_TRUE(w.Feed(Request(1, Base("POST"), false) + Request(3, Base())));
  w.server->Reset(1, ResetCode::kCancel);
  EXPECT_TRUE(w.Feed(""));
  const uint64_t glitches = w.server->counters().glitches;
  EXPECT_TRUE(w.Feed(Frame(kData, 0, 1, "late") + Request(1, {{"x-t", "1"}}) + Frame(kWindow, 0, 1, U32(0))));
  EXPECT_EQ(w.Said(), "rst 8;");
  EXPECT_EQ(w.server->counters().glitches, glitches + 1);  // the zero is a fault on any stream
}

// One stream too many is refused; the others and the connection live on.
TEST(Http2Table, MoreStreamsThanAdvertised) {
  Limits l;
  l.max_concurrent_streams = 3;
  Wire w(l);
  EXPECT_NE(w.sent.find("\0\3\0\0\0\3"s), std::string::npos);  // SETTINGS_MAX_CONCURRENT_STREAMS
  EXPECT_TRUE(w.Feed(Frame(kSettings, kAck, 0, "")));
  std::string bytes;
  for (uint32_t i = 0; i < 5; ++i) bytes += Request(i * 2 + 1, Base());
  EXPECT_TRUE(w.Feed(bytes));
  EXPECT_EQ(w.Said(), "rst 7;rst 7;");
  EXPECT_EQ(w.host.streams.size(), 3u);
  EXPECT_EQ(w.server->counters().glitches, 2u);
}

// A read full of requests is served in portions.
TEST(Http2Table, ThirtyTwoStreamsAtOnce) {
  Wire w;
  std::string bytes;
  for (uint32_t i = 0; i < 100; ++i) bytes += Request(i * 2 + 1, With(Base(), {{"x-n", std::to_string(i)}}));
  size_t rounds = 0;
  w.in.Append(bytes);
  for (size_t served = 0; !w.in.empty(); served = w.host.streams.size(), ++rounds) {
    EXPECT_TRUE(w.FeedOnce());
    EXPECT_LE(w.host.streams.size() - served, 32u);
  }
  EXPECT_EQ(rounds, 4u);
  ASSERT_EQ(w.host.streams.size(), 100u);
  for (uint32_t i = 0; i < 100; ++i) EXPECT_EQ(w.host.at(static_cast<StreamId>(i * 2 + 1)).head.Get("x-n"), std::to_string(i));
}

// 4000 references to one large field cost the attacker's bytes, not our memory.
TEST(Http2Table, HpackBomb) {
  Wire w;
  std::string block = Block(Base());
  block.push_back(0x40), Length(block, 1), block += "x";  // literal with incremental indexing
  Length(block, 3900), block += std::string(3900, 'b');
  block += std::string(4000, '\xbe');  // index 62
  EXPECT_TRUE(w.Feed(Frame(kHeaders, kEndHeaders | kEndStream, 1, block)));
  const Inbound& q = w.host.at(1);
  EXPECT_EQ(q.error_status, 431);
  EXPECT_LE(q.head.bytes(), 64u * 1024);
}

TEST(Http2Table, Upstream) {
  const struct {
    const char* name;
    std::string frames;
    uint16_t bits;
    ResetCode reset;
  } rows[] = {
      {"answer", Request(1, {{":status", "200"}}), Inbound::kHead | Inbound::kEnd, ResetCode::kNoError},
      {"15 1xx with END_STREAM", Request(1, {{":status", "103"}}), Inbound::kReset, ResetCode::kProtocol},
      {"101", Request(1, {{":status", "101"}}, false), Inbound::kReset, ResetCode::kProtocol},
      {"no status", Request(1, {{"x", "200"}}), Inbound::kReset, ResetCode::kProtocol},
      {"bad value", Request(1, {{":status", "200"}, {"x", "a\nb"}}), Inbound::kReset, ResetCode::kProtocol},
      {"CL longer", Request(1, {{":status", "200"}, {"content-length", "9"}}, false) + Frame(kData, kEndStream, 1, "x"), Inbound::kHead | Inbound::kReset, ResetCode::kProtocol},
      {"CL without body", Request(1, {{":status", "200"}, {"content-length", "9"}}), Inbound::kReset, ResetCode::kProtocol},
      {"304 names the length", Request(1, {{":status", "304"}, {"content-length", "9"}}), Inbound::kHead | Inbound::kEnd, ResetCode::kNoError},
      {"204 with CL", Request(1, {{":status", "204"}, {"content-length", "9"}}), Inbound::kHead | Inbound::kEnd, ResetCode::kNoError},
      {"204 with body", Request(1, {{":status", "204"}}, false) + Frame(kData, kEndStream, 1, "x"), Inbound::kHead | Inbound::kReset, ResetCode::kProtocol},
      {"status twice", Request(1, {{":status", "200"}, {":status", "200"}}), Inbound::kReset, ResetCode::kProtocol},
      {"status late", Request(1, {{"x", "y"}, {":status", "200"}}), Inbound::kReset, ResetCode::kProtocol},
      {"hop-by-hop", Request(1, {{":status", "200"}, {"transfer-encoding", "chunked"}}), Inbound::kReset, ResetCode::kProtocol},
      {"15 trailers without END_STREAM", Request(1, {{":status", "200"}}, false) + Request(1, {{"x", "y"}}, false), Inbound::kHead | Inbound::kReset, ResetCode::kProtocol},
      {"refused", Frame(kRst, 0, 1, U32(7)), Inbound::kReset, ResetCode::kRefused},
      {"reset after head", Request(1, {{":status", "200"}}, false) + Frame(kRst, 0, 1, U32(2)), Inbound::kHead | Inbound::kReset, ResetCode::kInternal},
      {"NO_ERROR after the answer", Request(1, {{":status", "200"}}) + Frame(kRst, 0, 1, U32(0)), Inbound::kHead | Inbound::kEnd, ResetCode::kNoError},
      {"goaway 0", Frame(kGoaway, 0, 0, U32(0) + U32(0)), Inbound::kReset | Inbound::kGoaway, ResetCode::kRefused},
      {"goaway 1", Frame(kGoaway, 0, 0, U32(1) + U32(0)) + Request(1, {{":status", "200"}}), Inbound::kHead | Inbound::kEnd, ResetCode::kNoError},
      {"goaway with an error", Frame(kGoaway, 0, 0, U32(1) + U32(2)), 0, ResetCode::kNoError},
  };
  for (const auto& row : rows) {
    base::ManualClock clock;
    auto c = NewHttp2Client({}, &clock);
    Inbound r;
    const StreamId id = c->Open(&r);
    c->SendHead(id, Head({{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}}), false);
    io::Buffer out, in;
    c->Emit(out);
    in.Append(Frame(kSettings, 0, 0, "") + row.frames);
    EXPECT_TRUE(c->Feed(in)) << row.name;
    EXPECT_EQ(r.bits, row.bits) << row.name;
    EXPECT_EQ(r.reset, row.reset) << row.name;
    c->Release(id);
    c->Emit(out);
  }
}

}  // namespace
}  // namespace weft::codec
