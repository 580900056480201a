// Replays the corpus, and mutations of it, through the fuzz entry points. Deterministic: the seed is fixed.
#include "sidecar/codec/fuzz.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "sidecar/base/random.h"

namespace weft::codec {
namespace {

using Entry = int (*)(const uint8_t*, size_t);

std::vector<std::string> Corpus(const std::string& prefix) {
  std::vector<std::string> files;
  std::vector<std::filesystem::path> paths;
  for (const auto& f : std::filesystem::directory_iterator("sidecar/codec/testdata")) {
    if (f.path().filename().string().starts_with(prefix)) paths.push_back(f.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& p : paths) {
    std::ifstream in(p, std::ios::binary);
    std::stringstream s;
    s << in.rdbuf();
    files.push_back(s.str());
  }
  return files;
}

void Replay(const std::string& prefix, Entry entry, int mutations) {
  const auto corpus = Corpus(prefix);
  ASSERT_FALSE(corpus.empty()) << prefix;
  // WEFT_FUZZ_ROUNDS=n: n times as many, from another seed each n.
  const char* rounds = getenv("WEFT_FUZZ_ROUNDS");
  const int scale = rounds ? std::max(1, atoi(rounds)) : 1;
  base::Random random(20260100 + static_cast<uint64_t>(scale));
  mutations *= scale;
  static const std::string_view kPieces[] = {"\r\n", "\r", "\n", " ", "\t", ":", ",", ";", "\r\n\r\n", "0\r\n\r\n", "chunked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                                             std::string_view("\0", 1), "\x80", "\xff\xff", "Content-Length: 3\r\n", "\"", "1\r\n"};
  for (const auto& seed : corpus) {
    entry(reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
    for (int i = 0; i < mutations; ++i) {
      std::string s = seed;
      for (uint64_t k = 0, n = 1 + random.Below(4); k < n && !s.empty(); ++k) {
        const size_t at = random.Below(s.size());
        switch (random.Below(5)) {
          case 0: s[at] = static_cast<char>(random.Below(256)); break;
          case 1: s.erase(at, 1 + random.Below(4)); break;
          case 2: s.insert(at, kPieces[random.Below(std::size(kPieces))]); break;
          case 3: s.insert(at, s.substr(random.Below(s.size()), random.Below(40))); break;
          case 4: s[at] = static_cast<char>(s[at] ^ (1 << random.Below(8))); break;
        }
      }
      entry(reinterpret_cast<const uint8_t*>(s.data()), s.size());
    }
  }
}

TEST(Fuzz, Http1Server) { Replay("h1_request", &FuzzHttp1Server, 3000); }
TEST(Fuzz, Http1Client) { Replay("h1_response", &FuzzHttp1Client, 3000); }
TEST(Fuzz, Http2Server) { Replay("h2_request", &FuzzHttp2Server, 2000); }
TEST(Fuzz, Http2Client) { Replay("h2_response", &FuzzHttp2Client, 2000); }
TEST(Fuzz, Grpc) { Replay("grpc", &FuzzGrpcReader, 2000); }

}  // namespace
}  // namespace weft::codec
