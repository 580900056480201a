#include "sidecar/dns/wire.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace weft::dns {
namespace {

constexpr int kMaxLabels = 128, kMaxAnswers = 256, kMaxCnames = 16;
constexpr uint32_t kWeek = 7 * 86400;

uint8_t At(std::string_view p, size_t i) { return static_cast<uint8_t>(p[i]); }
uint16_t Get16(std::string_view p, size_t i) { return static_cast<uint16_t>(At(p, i) << 8 | At(p, i + 1)); }
uint32_t Get32(std::string_view p, size_t i) { return static_cast<uint32_t>(Get16(p, i)) << 16 | Get16(p, i + 2); }
void Put16(std::string& s, unsigned v) { s.push_back(static_cast<char>(v >> 8)), s.push_back(static_cast<char>(v)); }
void Put32(std::string& s, uint32_t v) { Put16(s, v >> 16), Put16(s, v & 0xffff); }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

void AppendLabel(std::string& out, std::string_view label) {
  if (!out.empty()) out.push_back('.');
  for (char c : label) {
    unsigned char u = static_cast<unsigned char>(c);
    if (u > 0x20 && u < 0x7f && c != '.' && c != '\\') {
      out.push_back(Lower(c));
    } else {
      out.push_back('\\');
      out.push_back(static_cast<char>('0' + u / 100)), out.push_back(static_cast<char>('0' + u / 10 % 10));
      out.push_back(static_cast<char>('0' + u % 10));
    }
  }
}

// Reads the name at *at and moves *at behind it. out may be null. pointers: whether compression is allowed.
bool ReadName(std::string_view p, size_t* at, std::string* out, bool pointers) {
  size_t i = *at, wire = 0, lowest = *at;
  bool jumped = false;
  if (out) out->clear();
  for (int labels = 0; labels < kMaxLabels; ++labels) {
    if (i >= p.size()) return false;
    uint8_t n = At(p, i);
    if (n == 0) {
      if (!jumped) *at = i + 1;
      return true;
    }
    if ((n & 0xc0) == 0xc0) {
      if (!pointers || i + 1 >= p.size()) return false;
      size_t to = static_cast<size_t>(n & 0x3f) << 8 | At(p, i + 1);
      if (!jumped) *at = i + 2;
      jumped = true;
      if (to >= lowest || to < kHeader) return false;  // strictly backwards: no loops
      i = lowest = to;
      continue;
    }
    if (n > 63 || i + 1 + n > p.size() || (wire += n + 1u) > 254) return false;
    if (out) AppendLabel(*out, p.substr(i + 1, n));
    i += n + 1u;
  }
  return false;
}

bool SkipRecord(std::string_view p, size_t* at, uint16_t* type, size_t* rdata, size_t* rdlength) {
  if (!ReadName(p, at, nullptr, true) || *at + 10 > p.size()) return false;
  *type = Get16(p, *at), *rdlength = Get16(p, *at + 8), *rdata = *at + 10;
  if (*rdata + *rdlength > p.size()) return false;
  *at = *rdata + *rdlength;
  return true;
}

}  // namespace

QueryVerdict ParseQuery(std::string_view p, Query* q) {
  if (p.size() < kHeader || (At(p, 2) & 0x80)) return QueryVerdict::kDrop;
  q->id = Get16(p, 0);
  q->recursion_desired = At(p, 2) & 1;
  if ((At(p, 2) >> 3 & 15) != 0) return QueryVerdict::kNotImp;
  if (p.size() > kMaxQuery || Get16(p, 4) != 1 || Get16(p, 6) != 0 || Get16(p, 8) != 0 || Get16(p, 10) > 4) {
    return QueryVerdict::kFormErr;
  }
  size_t at = kHeader;
  if (!ReadName(p, &at, &q->name, false) || at + 4 > p.size()) return QueryVerdict::kFormErr;
  q->type = Get16(p, at);
  uint16_t klass = Get16(p, at + 2);
  at += 4;
  q->question_end = at;
  for (int i = Get16(p, 10); i > 0; --i) {
    uint16_t type;
    size_t rdata, rdlength, record = at;
    if (!SkipRecord(p, &at, &type, &rdata, &rdlength)) return QueryVerdict::kFormErr;
    if (type == kOpt) {
      if (q->edns || At(p, record) != 0) return QueryVerdict::kFormErr;  // one, with the root name
      q->edns = true;
      q->udp_size = std::clamp<size_t>(Get16(p, rdata - 8), kMaxUdp, kMaxEdns);
    }
  }
  if (at != p.size()) return QueryVerdict::kFormErr;
  return klass == 1 || klass == 255 ? QueryVerdict::kOk : QueryVerdict::kRefused;
}

std::string BuildAnswer(const Query& q, std::string_view packet, Rcode rcode, const std::vector<model::Ip>& addresses,
                        uint32_t ttl_s, size_t limit, bool authoritative) {
  std::string out;
  out.reserve(512);
  Put16(out, q.id);
  out.push_back(static_cast<char>(0x80 | (authoritative ? 4 : 0) | (q.recursion_desired ? 1 : 0)));
  out.push_back(static_cast<char>(0x80 | static_cast<uint8_t>(rcode)));
  Put16(out, 1), Put16(out, 0), Put16(out, 0), Put16(out, q.edns ? 1 : 0);
  out.append(packet.substr(kHeader, q.question_end - kHeader));
  const size_t tail = q.edns ? 11 : 0;
  unsigned count = 0;
  for (const model::Ip& ip : addresses) {
    bool four = ip.family == 4;
    if (q.type != kAny && q.type != (four ? kA : kAaaa)) continue;
    size_t bytes = four ? 4 : 16;
    if (out.size() + 12 + bytes + tail > limit) {
      out[2] = static_cast<char>(out[2] | 2);  // TC
      break;
    }
    Put16(out, 0xc000 | kHeader), Put16(out, four ? kA : kAaaa), Put16(out, 1), Put32(out, ttl_s);
    Put16(out, static_cast<unsigned>(bytes));
    out.append(reinterpret_cast<const char*>(ip.bytes.data()), bytes);
    ++count;
  }
  out[6] = static_cast<char>(count >> 8), out[7] = static_cast<char>(count);
  if (q.edns) {
    out.push_back(0);
    Put16(out, kOpt), Put16(out, kMaxEdns), Put32(out, 0), Put16(out, 0);
  }
  return out;
}

std::string BuildError(std::string_view packet, Rcode rcode) {
  std::string out(packet.substr(0, 2));
  out.push_back(static_cast<char>(0x80 | (At(packet, 2) & 0x79)));  // opcode and RD are echoed
  out.push_back(static_cast<char>(0x80 | static_cast<uint8_t>(rcode)));
  out.append(8, '\0');
  return out;
}

std::string BuildQuery(uint16_t id, std::string_view name, uint16_t type) {
  if (!name.empty() && name.back() == '.') name.remove_suffix(1);
  if (name.empty() || name.size() > 253) return {};
  std::string out;
  Put16(out, id);
  Put16(out, 0x0100), Put16(out, 1), Put16(out, 0), Put16(out, 0), Put16(out, 1);
  while (!name.empty()) {
    size_t dot = name.find('.');
    std::string_view label = name.substr(0, dot);
    if (label.empty() || label.size() > 63) return {};
    out.push_back(static_cast<char>(label.size()));
    for (char c : label) {
      bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      if (!ok) return {};
      out.push_back(Lower(c));
    }
    name = dot == std::string_view::npos ? std::string_view() : name.substr(dot + 1);
    if (dot != std::string_view::npos && name.empty()) return {};
  }
  out.push_back(0);
  Put16(out, type), Put16(out, 1);
  out.push_back(0);
  Put16(out, kOpt), Put16(out, kMaxEdns), Put32(out, 0), Put16(out, 0);
  return out;
}

bool ParseResponse(std::string_view p, std::string_view name, uint16_t type, Response* out) {
  *out = {};
  if (p.size() < kHeader || !(At(p, 2) & 0x80) || (At(p, 2) >> 3 & 15) != 0 || Get16(p, 4) != 1) return false;
  out->rcode = static_cast<Rcode>(At(p, 3) & 15);
  out->truncated = At(p, 2) & 2;
  size_t at = kHeader;
  std::string owner;
  if (!ReadName(p, &at, &owner, false) || owner != name || at + 4 > p.size()) return false;
  if (Get16(p, at) != type || Get16(p, at + 2) != 1) return false;
  at += 4;
  int answers = Get16(p, 6);
  if (answers > kMaxAnswers) return false;
  struct Alias {
    std::string from, to;
    uint32_t ttl;
  };
  struct Found {
    std::string owner;
    model::Ip ip;
    uint32_t ttl;
  };
  std::vector<Alias> aliases;
  std::vector<Found> found;
  for (int i = 0; i < answers; ++i) {
    if (!ReadName(p, &at, &owner, true) || at + 10 > p.size()) return out->truncated && !found.empty();
    uint16_t rtype = Get16(p, at), klass = Get16(p, at + 2);
    uint32_t ttl = Get32(p, at + 4);
    if (ttl & 0x80000000u) ttl = 0;  // RFC 2181 section 8
    size_t length = Get16(p, at + 8), data = at + 10;
    if (data + length > p.size()) return false;
    at = data + length;
    if (klass != 1) continue;
    if (rtype == kCname && aliases.size() < kMaxCnames) {
      std::string target;
      if (!ReadName(p, &data, &target, true) || data != at) return false;
      aliases.push_back({owner, std::move(target), ttl});
    } else if (rtype == type && (type == kA || type == kAaaa)) {
      if (length != (type == kA ? 4u : 16u)) return false;
      Found f{owner, {}, ttl};
      f.ip.family = type == kA ? 4 : 6;
      memcpy(f.ip.bytes.data(), p.data() + data, length);
      found.push_back(std::move(f));
    }
  }
  std::string current(name);
  uint32_t ttl = kWeek;
  for (int hops = 0; hops <= kMaxCnames; ++hops) {
    auto alias = std::find_if(aliases.begin(), aliases.end(), [&](const Alias& a) { return a.from == current; });
    if (alias == aliases.end()) break;
    current = alias->to;
    ttl = std::min(ttl, alias->ttl);
  }
  for (Found& f : found) {
    if (f.owner != current) continue;
    ttl = std::min(ttl, f.ttl);
    out->addresses.push_back(f.ip);
  }
  if (!out->addresses.empty()) out->ttl_s = ttl;
  return true;
}

uint16_t MessageId(std::string_view packet) { return Get16(packet, 0); }
void SetMessageId(std::string& packet, uint16_t id) {
  packet[0] = static_cast<char>(id >> 8), packet[1] = static_cast<char>(id);
}

bool IsResponseTo(std::string_view response, std::string_view query) {
  if (response.size() < kHeader || query.size() < kHeader || !(At(response, 2) & 0x80)) return false;
  if (MessageId(response) != MessageId(query)) return false;
  size_t end = kHeader;
  if (!ReadName(query, &end, nullptr, false) || end + 4 > query.size()) return false;
  end += 4;
  // Servers may leave the question out of an error.
  if (Get16(response, 4) == 0) return (At(response, 3) & 15) != 0;
  if (Get16(response, 4) != 1 || response.size() < end) return false;
  for (size_t i = kHeader; i < end; ++i) {
    if (Lower(response[i]) != Lower(query[i])) return false;
  }
  return true;
}

}  // namespace weft::dns
