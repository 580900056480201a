#include "sidecar/filters/listener/http_inspector.h"

#include <cstring>

namespace weft::filters {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

bool IsToken(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != nullptr;
}

}  // namespace

Verdict HttpInspector::Found(std::string_view protocol) {
  protocol_ = protocol;
  return Verdict::kFound;
}

Verdict HttpInspector::Inspect(const io::Buffer& peeked) {
  char chunk[1024];
  while (verdict_ == Verdict::kNeedMore && seen_ < peeked.size()) {
    Feed({chunk, peeked.CopyOut(seen_, chunk, sizeof chunk)});
  }
  return verdict_;
}

Verdict HttpInspector::Feed(std::string_view more) {
  for (size_t i = 0; i < more.size() && verdict_ == Verdict::kNeedMore; ++i) {
    ++seen_;
    verdict_ = Step(more[i]);
  }
  return verdict_;
}

Verdict HttpInspector::Step(char c) {
  switch (phase_) {
    case Phase::kStart:
      if ((c == '\r' || c == '\n') && blank_ < 4) {  // a client may send an empty line or two first
        ++blank_;
        return Verdict::kNeedMore;
      }
      if (c == 'P' && blank_ == 0) {  // PRI, POST, PUT, PATCH: undecided until they differ
        phase_ = Phase::kPreface, in_phase_ = 1, line_ = 1;
        return Verdict::kNeedMore;
      }
      phase_ = Phase::kMethod, in_phase_ = 0;
      [[fallthrough]];
    case Phase::kMethod:
      ++line_;
      if (c == ' ') {
        if (in_phase_ == 0) return Verdict::kNo;
        phase_ = Phase::kTarget, in_phase_ = 0;
        return Verdict::kNeedMore;
      }
      return IsToken(c) && ++in_phase_ <= kMaxMethod ? Verdict::kNeedMore : Verdict::kNo;
    case Phase::kPreface:
      if (c == kPreface[in_phase_]) {
        ++line_;
        return ++in_phase_ == kPreface.size() ? Found("h2c") : Verdict::kNeedMore;
      }
      if (in_phase_ > 3) return Verdict::kNo;  // "PRI " is reserved for HTTP/2
      phase_ = Phase::kMethod;
      return Step(c);
    case Phase::kTarget:
      if (c == ' ') {
        if (in_phase_ == 0) return Verdict::kNo;
        phase_ = Phase::kVersion, in_phase_ = 0;
        return Verdict::kNeedMore;
      }
      if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return Verdict::kNo;
      ++in_phase_;
      return ++line_ > kMaxLine ? Found("http/1.1") : Verdict::kNeedMore;
    case Phase::kVersion:
      if (in_phase_ < 8) {
        static constexpr char kVersion[] = "HTTP/1.";
        if (in_phase_ < 7 ? c != kVersion[in_phase_] : (c < '0' || c > '9')) return Verdict::kNo;
        version_[in_phase_++] = c;
        return Verdict::kNeedMore;
      }
      // The line must end here; a bare LF is the codec's to refuse.
      if (c != '\r' && c != '\n') return Verdict::kNo;
      return Found(version_[7] == '0' ? "http/1.0" : "http/1.1");
  }
  return Verdict::kNo;
}

}  // namespace weft::filters
