// Runs every fuzz target over its corpus, and over mutations of it with a fixed seed, so that each run is the same.
// WEFT_FUZZ_ROUNDS=n asks for more mutations of each file than the 300 of the quick suite.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "sidecar/base/random.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Corpus(const std::string& name) {
  std::map<std::string, std::string> files;  // in order of name
  for (const auto& entry : fs::directory_iterator(fs::path("test/fuzz/corpus") / name)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path()] = std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::vector<std::string> out;
  for (auto& [path, bytes] : files) out.push_back(std::move(bytes));
  return out;
}

void Mutate(std::string& s, base::Random& random, const std::vector<std::string>& corpus) {
  switch (random.Below(8)) {
    case 0: if (!s.empty()) s[random.Below(s.size())] = static_cast<char>(random.Next()); break;
    case 1: if (!s.empty()) s[random.Below(s.size())] ^= static_cast<char>(1 << random.Below(8)); break;
    case 2: if (!s.empty()) s.erase(random.Below(s.size()), 1 + random.Below(16)); break;
    case 3: s.insert(random.Below(s.size() + 1), 1 + random.Below(16), static_cast<char>(random.Next())); break;
    case 4: if (!s.empty()) s.resize(random.Below(s.size())); break;
    case 5: {  // a piece of another file
      const std::string& other = corpus[random.Below(corpus.size())];
      if (other.empty()) break;
      size_t at = random.Below(other.size());
      s.insert(random.Below(s.size() + 1), other.substr(at, 1 + random.Below(64)));
      break;
    }
    case 6: {  // a length field going wild
      if (s.size() < 2) break;
      static constexpr char kEdges[] = {0, 1, 0x7f, static_cast<char>(0x80), static_cast<char>(0xff), static_cast<char>(0xc0)};
      size_t at = random.Below(s.size() - 1);
      s[at] = kEdges[random.Below(sizeof kEdges)], s[at + 1] = kEdges[random.Below(sizeof kEdges)];
      break;
    }
    case 7: {  // words that mean something in text protocols
      static constexpr std::string_view kWords[] = {"\r\n", "\r", "\n", " ", "\t", ":", ",", ";", "\r\n\r\n", "0\r\n\r\n", "chunked", "\"", "{", "}", "[",
                                                    "\x80", "\xff\xff", "Content-Length: 3\r\n", "1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "%", "..", "&a *a"};
      s.insert(random.Below(s.size() + 1), kWords[random.Below(std::size(kWords))]);
      break;
    }
  }
}

class Replay : public testing::TestWithParam<size_t> {};

TEST_P(Replay, CorpusAndMutations) {
  const Target& target = Targets()[GetParam()];
  auto corpus = Corpus(target.name);
  ASSERT_FALSE(corpus.empty()) << "no corpus for " << target.name;
  const char* wanted = getenv("WEFT_FUZZ_ROUNDS");
  const int rounds = wanted ? atoi(wanted) : 300;
  base::Random random(2026);
  target.run("");
  for (const std::string& seed : corpus) {
    target.run(seed);
    for (int i = 0; i < rounds; ++i) {
      std::string s = seed;
      for (uint64_t k = 1 + random.Below(4); k > 0; --k) Mutate(s, random, corpus);
      target.run(s);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::Range(size_t{0}, Targets().size()),
                         [](const auto& info) { return std::string(Targets()[info.param].name); });

}  // namespace
}  // namespace weft::fuzz
