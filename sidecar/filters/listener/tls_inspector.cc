#include "sidecar/filters/listener/tls_inspector.h"

#include <algorithm>

namespace weft::filters {
namespace {

// Big-endian reader over a view; every read is checked.
class Reader {
 public:
  explicit Reader(std::string_view s) : s_(s) {}
  bool Number(int bytes, size_t* out) {
    if (s_.size() < static_cast<size_t>(bytes)) return false;
    *out = 0;
    for (int i = 0; i < bytes; ++i) *out = *out << 8 | static_cast<unsigned char>(s_[static_cast<size_t>(i)]);
    s_.remove_prefix(static_cast<size_t>(bytes));
    return true;
  }
  bool Bytes(size_t n, std::string_view* out) {
    if (s_.size() < n) return false;
    *out = s_.substr(0, n);
    s_.remove_prefix(n);
    return true;
  }
  // A vector with a length prefix of that many bytes.
  bool Vector(int length_bytes, std::string_view* out) {
    size_t n;
    return Number(length_bytes, &n) && Bytes(n, out);
  }
  bool empty() const { return s_.empty(); }

 private:
  std::string_view s_;
};

constexpr unsigned kServerName = 0, kAlpn = 16;
constexpr size_t kMaxAlpn = 64;

}  // namespace

Verdict TlsInspector::Done(Verdict v, const char* detail) {
  detail_ = detail;
  return verdict_ = v;
}

Verdict TlsInspector::Inspect(const io::Buffer& peeked) {
  char chunk[4096];
  while (verdict_ == Verdict::kNeedMore && seen_ < peeked.size()) {
    Feed({chunk, peeked.CopyOut(seen_, chunk, sizeof chunk)});
  }
  return verdict_;
}

Verdict TlsInspector::Feed(std::string_view more) {
  while (verdict_ == Verdict::kNeedMore && !more.empty()) {
    if (record_left_ == 0) {
      unsigned char c = static_cast<unsigned char>(more[0]);
      more.remove_prefix(1);
      if (++seen_ > kMaxWire) return Done(Verdict::kReject, "client_hello_too_large");
      header_[header_bytes_++] = c;
      // Decide as early as each byte allows: a server-first or plaintext protocol must not wait.
      if (hello_.empty() && header_bytes_ == 1 && c != 22) return Done(Verdict::kNo, "not_tls");
      if (hello_.empty() && header_bytes_ == 2 && c != 3) return Done(Verdict::kNo, "not_tls");
      if (header_bytes_ < 5) continue;
      header_bytes_ = 0;
      if (header_[0] != 22 || header_[1] != 3) return Done(Verdict::kReject, "client_hello_interrupted");
      record_left_ = static_cast<size_t>(header_[3]) << 8 | header_[4];
      if (record_left_ == 0 || record_left_ > 16384) {
        return hello_.empty() ? Done(Verdict::kNo, "not_tls") : Done(Verdict::kReject, "record_length");
      }
      continue;
    }
    size_t n = std::min(more.size(), record_left_);
    hello_.append(more.substr(0, n));
    more.remove_prefix(n), seen_ += n, record_left_ -= n;
    if (hello_[0] != 1) return Done(Verdict::kNo, "not_client_hello");
    if (hello_.size() >= 4) {
      size_t length = static_cast<size_t>(static_cast<unsigned char>(hello_[1])) << 16 |
                      static_cast<size_t>(static_cast<unsigned char>(hello_[2])) << 8 |
                      static_cast<unsigned char>(hello_[3]);
      if (length > kMaxHello) return Done(Verdict::kReject, "client_hello_too_large");
      if (hello_.size() >= 4 + length) {
        hello_.resize(4 + length);
        Verdict v = ParseHello();
        hello_ = std::string();
        return v;
      }
    }
  }
  return verdict_;
}

Verdict TlsInspector::ParseHello() {
  constexpr const char* kBad = "client_hello_malformed";
  Reader r(std::string_view(hello_).substr(4));
  std::string_view skip, extensions;
  size_t version;
  if (!r.Number(2, &version) || !r.Bytes(32, &skip)) return Done(Verdict::kReject, kBad);
  if (!r.Vector(1, &skip) || skip.size() > 32) return Done(Verdict::kReject, kBad);                 // session id
  if (!r.Vector(2, &skip) || skip.empty() || skip.size() % 2) return Done(Verdict::kReject, kBad);  // cipher suites
  if (!r.Vector(1, &skip) || skip.empty()) return Done(Verdict::kReject, kBad);                     // compression
  if (!r.empty()) {  // TLS 1.2 allows a hello without extensions
    if (!r.Vector(2, &extensions) || !r.empty()) return Done(Verdict::kReject, kBad);
    Reader e(extensions);
    while (!e.empty()) {
      size_t type;
      std::string_view body;
      if (!e.Number(2, &type) || !e.Vector(2, &body)) return Done(Verdict::kReject, kBad);
      if (ParseExtension(static_cast<unsigned>(type), body) == Verdict::kReject) return verdict_;
    }
  }
  return Done(Verdict::kFound, "");
}

Verdict TlsInspector::ParseExtension(unsigned type, std::string_view body) {
  if (type == kServerName) {
    if (has_sni_) return Done(Verdict::kReject, "sni_repeated");
    has_sni_ = true;
    Reader r(body);
    std::string_view list, name;
    size_t kind;
    if (!r.Vector(2, &list) || !r.empty() || list.empty()) return Done(Verdict::kReject, "sni_malformed");
    Reader l(list);
    if (!l.Number(1, &kind) || !l.Vector(2, &name) || kind != 0) return Done(Verdict::kReject, "sni_malformed");
    if (!l.empty()) return Done(Verdict::kReject, "sni_repeated");
    if (name.empty() || name.size() > 255) return Done(Verdict::kReject, "sni_malformed");
    for (char c : name) {
      if (c <= ' ' || c == 0x7f) return Done(Verdict::kReject, "sni_malformed");  // also bytes above ASCII
      sni_.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
    }
  } else if (type == kAlpn) {
    if (has_alpn_) return Done(Verdict::kReject, "alpn_malformed");
    has_alpn_ = true;
    Reader r(body);
    std::string_view list, name;
    if (!r.Vector(2, &list) || !r.empty() || list.empty()) return Done(Verdict::kReject, "alpn_malformed");
    for (Reader l(list); !l.empty();) {
      if (!l.Vector(1, &name) || name.empty() || alpn_.size() == kMaxAlpn) return Done(Verdict::kReject, "alpn_malformed");
      alpn_.emplace_back(name);
    }
  }
  return verdict_;
}

}  // namespace weft::filters
