// Tells HTTP/1.x and HTTP/2 (prior knowledge) from anything else by the first bytes of a connection.
//
// Usage: as TlsInspector. After kFound, protocol() is one of Envoy's names: "http/1.0", "http/1.1", "h2c".
// A request line is "token SP target SP HTTP/1.x CRLF"; a bare inline command of another protocol ("GET key\r\n") is
// not. A line longer than kMaxLine that began like a request is taken for HTTP/1.1, and the codec will judge it.
// Never kReject: what is not HTTP is somebody else's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "sidecar/filters/listener/verdict.h"
#include "sidecar/io/buffer.h"

namespace weft::filters {

class HttpInspector {
 public:
  static constexpr size_t kMaxLine = 8 * 1024, kMaxMethod = 32;

  Verdict Inspect(const io::Buffer& peeked);
  Verdict Feed(std::string_view more);
  std::string_view protocol() const { return protocol_; }
  size_t seen() const { return seen_; }

 private:
  enum class Phase : unsigned char { kStart, kPreface, kMethod, kTarget, kVersion };
  Verdict Step(char c);
  Verdict Found(std::string_view protocol);

  Verdict verdict_ = Verdict::kNeedMore;
  Phase phase_ = Phase::kStart;
  std::string_view protocol_;
  size_t seen_ = 0, line_ = 0, blank_ = 0, in_phase_ = 0;
  char version_[9] = {};
};

}  // namespace weft::filters
