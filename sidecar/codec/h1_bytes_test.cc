// Every byte at every place of a field's name and value: names and values are looked at sixteen bytes at a time, so what is
// allowed must not hang on where it stands.
#include <gtest/gtest.h>

#include <cctype>
#include <memory>
#include <string>

#include "sidecar/codec/codec.h"

namespace weft::codec {
namespace {

struct Host : StreamHost {
  Inbound* OnNewStream(StreamId) override { return &inbound; }
  Inbound inbound;
};

// 0: the request was taken.
int Refused(const std::string& name, const std::string& value, std::string* kept) {
  Host host;
  auto codec = NewHttp1Server({}, &host);
  io::Buffer in;
  in.Append("GET / HTTP/1.1\r\nHost: a\r\n" + name + ": " + value + "\r\n\r\n");
  codec->Feed(in);
  if (host.inbound.bits & Inbound::kMalformed) return host.inbound.error_status;
  for (const auto& e : host.inbound.head) {
    if (e.token() == http::Token::kCustom) *kept = std::string(e.name()) + "=" + std::string(e.value());
  }
  return 0;
}

TEST(Http1Bytes, OfNames) {
  for (size_t length : {1, 7, 15, 16, 17, 33}) {
    for (size_t at = 0; at < length; at += length > 17 ? 4 : 1) {
      for (int c = 0; c < 256; ++c) {
        if (c == ':' || c == '\n' || (at == 0 && (c == ' ' || c == '\t'))) continue;  // another name, line, or a folded line
        std::string name(length, 'Q'), kept;
        name[at] = static_cast<char>(c);
        const bool token = isalnum(c) || (c != 0 && c < 128 && std::string("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string::npos);
        ASSERT_EQ(Refused(name, "v", &kept), token ? 0 : 400) << "byte " << c << " at " << at << " of " << length;
        for (char& lower : name) lower = static_cast<char>(c < 128 ? tolower(static_cast<unsigned char>(lower)) : lower);
        if (token) {
          ASSERT_EQ(kept, name + "=v");
        }
      }
    }
  }
}

TEST(Http1Bytes, OfValues) {
  for (size_t length : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33}) {
    for (size_t at = 0; at < length; ++at) {
      for (int c = 0; c < 256; ++c) {
        if (c == '\n') continue;  // another line
        std::string value(length, 'Q'), kept;
        value[at] = static_cast<char>(c);
        const bool good = (c >= 0x20 && c != 0x7f) || c == '\t';
        ASSERT_EQ(Refused("q", value, &kept), good ? 0 : 400) << "byte " << c << " at " << at << " of " << length;
        const bool blank_at_an_end = (c == ' ' || c == '\t') && (at == 0 || at + 1 == length);
        if (good && !blank_at_an_end) {
          ASSERT_EQ(kept, "q=" + value);
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft::codec
