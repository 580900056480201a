// Recognises a TLS ClientHello in the first bytes of a connection and takes its SNI and ALPN, without consuming.
//
// Usage:
//   TlsInspector t;
//   switch (t.Inspect(connection_in)) { case Verdict::kFound: match(t.sni(), t.alpn()); ... }
//
// Inspect() may be called again with the same buffer grown at its end; only new bytes are looked at, so 1-byte records
// cost linear time. Bounds: 16 KiB of handshake, 64 KiB on the wire. RFC 8446 4.1.2, RFC 6066 3, RFC 7301.
// Malformed hellos, more than one host name, names with NUL or over 255 bytes are kReject.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/filters/listener/verdict.h"
#include "sidecar/io/buffer.h"

namespace weft::filters {

class TlsInspector {
 public:
  static constexpr size_t kMaxHello = 16 * 1024, kMaxWire = 64 * 1024;

  Verdict Inspect(const io::Buffer& peeked);
  // The same for bytes that follow those fed before.
  Verdict Feed(std::string_view more);

  // After kFound. SNI in lower case, empty when the client named none.
  const std::string& sni() const { return sni_; }
  const std::vector<std::string>& alpn() const { return alpn_; }
  // After kNo and kReject: why, static text for stats and logs ("not_tls", "client_hello_too_large", ...).
  const char* detail() const { return detail_; }
  // Bytes of the wire looked at so far.
  size_t seen() const { return seen_; }

 private:
  Verdict Done(Verdict v, const char* detail);
  Verdict ParseHello();
  Verdict ParseExtension(unsigned type, std::string_view body);

  Verdict verdict_ = Verdict::kNeedMore;
  const char* detail_ = "";
  size_t seen_ = 0;
  unsigned char header_[5];
  size_t header_bytes_ = 0, record_left_ = 0;
  std::string hello_;  // handshake message with its 4-byte header, across records
  std::string sni_;
  bool has_sni_ = false, has_alpn_ = false;
  std::vector<std::string> alpn_;
};

}  // namespace weft::filters
