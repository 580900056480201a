// Reading HTTP/1.1 messages: lines, fields, bodies. Every rule is one of reliability table 2a.
#include <algorithm>
#include <bit>
#include <cstring>

#include "sidecar/codec/h1_codec.h"
#include "sidecar/http/authority.h"

namespace weft::codec {

using http::EqualsIgnoreCase;
using http::Token;

namespace {

constexpr size_t kMaxName = 256;
constexpr size_t kMaxChunkLine = 1024, kMaxExtensions = 16 * 1024;
constexpr uint64_t kMaxDiscard = 64 * 1024;
constexpr size_t kKeepLine = 512;  // an idle connection keeps no larger scratch

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// ";name[=token|"quoted"]" repeated, blanks around; everything is thrown away, but it must be what it claims to be.
bool ValidChunkExtensions(std::string_view s) {
  size_t i = 0;
  const auto blanks = [&] { while (i < s.size() && (s[i] == ' ' || s[i] == '\t')) ++i; };
  const auto token = [&] {
    const size_t from = i;
    while (i < s.size() && kNameChar[static_cast<uint8_t>(s[i])] != 0) ++i;
    return i > from;
  };
  while (i < s.size()) {
    blanks();
    if (i == s.size()) return true;
    if (s[i++] != ';') return false;
    blanks();
    if (!token()) return false;
    blanks();
    if (i == s.size() || s[i] != '=') continue;
    ++i;
    blanks();
    if (i < s.size() && s[i] == '"') {
      for (++i; i < s.size() && s[i] != '"'; ++i) {
        if (s[i] == '\\' && ++i == s.size()) return false;
        const auto c = static_cast<uint8_t>(s[i]);
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
      }
      if (i == s.size()) return false;
      ++i;
    } else if (!token()) {
      return false;
    }
  }
  return true;
}

// Sixteen bytes in lower case, and how many of them at the front are letters, digits or dashes: most names are.
size_t LowerPlain(const char* from, char* to) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  Bytes b;
  memcpy(&b, from, sizeof b);
  const Bytes upper = reinterpret_cast<Bytes>(b - 'A' < 26);
  const Bytes lowered = b + (upper & 0x20);
  const Bytes plain = reinterpret_cast<Bytes>(lowered - 'a' < 26) | reinterpret_cast<Bytes>(b - '0' < 10) | reinterpret_cast<Bytes>(b == '-');
  memcpy(to, &lowered, sizeof lowered);
  uint64_t words[2];
  memcpy(words, &plain, sizeof words);
  if (~words[0] != 0) return static_cast<size_t>(std::countr_zero(~words[0])) / 8;
  return ~words[1] != 0 ? 8 + static_cast<size_t>(std::countr_zero(~words[1])) / 8 : 16;
}

}  // namespace

bool Http1Codec::Bad(uint16_t status, const char* detail) {
  ++counters_.protocol_errors;
  BadMessage(status, detail);
  return false;
}

// 1: a line without its CRLF; 0: more input is needed; -1: longer than most; -2: not ended by CRLF.
int Http1Codec::Line(Cursor& c, size_t most, std::string_view& line) {
  if (line_done_) line_.clear(), line_done_ = false;
  while (c.More()) {
    const char* from = c.front.data() + c.pos;
    const size_t n = c.front.size() - c.pos;
    const char* lf = static_cast<const char*>(memchr(from, '\n', n));
    const size_t take = lf ? static_cast<size_t>(lf - from) + 1 : n;
    if (line_.size() + take > most + 2) return -1;
    c.pos += take;
    if (lf && line_.empty()) {
      line = {from, take};
    } else {
      line_.append(from, take);
      if (!lf) continue;
      line = line_, line_done_ = true;
    }
    if (line.size() < 2 || line[line.size() - 2] != '\r') return -2;
    line.remove_suffix(2);
    return 1;
  }
  return 0;
}

void Http1Codec::StartHead() {
  info_ = {};
  fields_ = 0, head_bytes_ = 0, extension_bytes_ = 0, discarded_ = 0;
  authority_.clear(), strip_.clear(), websocket_.clear();
  last_stored_ = last_framing_ = false;
  received_end_ = false, discard_ = false;
}

// name is lower case, in line_-independent scratch that lives until the next call.
bool Http1Codec::SplitField(std::string_view line, std::string_view& name, std::string_view& value) {
  static thread_local char lower[kMaxName];
  const size_t most = std::min(line.size(), kMaxName);
  size_t i = 0;
  while (i + 16 <= most) {
    const size_t plain = LowerPlain(line.data() + i, lower + i);
    i += plain;
    if (plain < 16) break;
  }
  bool underscore = false;
  for (; i < most; ++i) {
    const uint8_t ch = kNameChar[static_cast<uint8_t>(line[i])];
    if (ch == 0) break;
    underscore |= ch == '_';
    lower[i] = static_cast<char>(ch);
  }
  if (i == kMaxName && line.size() > kMaxName && line[i] != ':') return Bad(431, "http1.field_name_too_long");
  if (i == 0 || i == line.size() || line[i] != ':') return Bad(400, "http1.invalid_field_name");
  name = {lower, i};
  value = TrimBlanks(line.substr(i + 1));
  if (!ValidFieldValue(value)) return Bad(400, "http1.invalid_field_value");
  if (underscore && ShadowsKnownName(name)) {
    ++counters_.dropped_fields;
    name = {};  // dropped
  }
  return true;
}

bool Http1Codec::TransferEncoding(std::string_view value) {
  if (info_.has_te) return Bad(400, "http1.invalid_transfer_encoding");
  info_.has_te = true;
  if (info_.http10) return Bad(400, "http1.transfer_encoding_in_http10");
  if (EqualsIgnoreCase(value, "chunked")) {
    info_.chunked = true;
    return true;
  }
  bool well_formed = true;
  ForEachListItem(value, [&](std::string_view item) {
    const size_t semicolon = item.find(';');
    well_formed = ValidToken(TrimBlanks(item.substr(0, semicolon))) && item.find('"') == std::string_view::npos;
    return well_formed;
  });
  return Bad(well_formed ? 501 : 400, "http1.invalid_transfer_encoding");
}

bool Http1Codec::Connection(std::string_view value) {
  bool ok = true;
  ForEachListItem(value, [&](std::string_view item) {
    if (EqualsIgnoreCase(item, "close")) {
      info_.connection_close = true;
    } else if (EqualsIgnoreCase(item, "keep-alive")) {
      info_.connection_keep_alive = true;
    } else if (EqualsIgnoreCase(item, "upgrade")) {
      info_.connection_upgrade = true;
    } else if (!item.empty()) {
      char lower[kMaxName];
      if (item.size() > sizeof(lower) || !ValidToken(item)) return ok = Bad(400, "http1.invalid_connection");
      for (size_t i = 0; i < item.size(); ++i) lower[i] = static_cast<char>(kNameChar[static_cast<uint8_t>(item[i])]);
      const std::string_view name(lower, item.size());
      const Token t = http::FindToken(name);
      if (t == Token::kCustom) {
        strip_.append(name).push_back(',');
      } else if (server_ && !(http::TokenPolicyBits(t) & http::kHop)) {
        return ok = Bad(400, "http1.connection_names_protected_field");
      }
    }
    return true;
  });
  return ok;
}

bool Http1Codec::Field(std::string_view line) {
  if (line[0] == ' ' || line[0] == '\t') {  // obs-fold
    if (server_ || fields_ == 0 || last_framing_) return Bad(400, "http1.folded_field");
    const std::string_view more = TrimBlanks(line);
    if (!ValidFieldValue(more)) return Bad(400, "http1.invalid_field_value");
    if (last_stored_) inbound_->head.ExtendLast(more);
    return true;
  }
  if (++fields_ > limits_.max_header_count) return Bad(431, "http1.too_many_headers");
  std::string_view name, value;
  if (!SplitField(line, name, value)) return false;
  last_stored_ = last_framing_ = false;
  if (name.empty()) return true;
  http::HeaderMap& head = inbound_->head;
  if (limits_.header_case >= Limits::kKeep) [[unlikely]] head.Spell(line.substr(0, name.size()), limits_.header_case == Limits::kKeepProper);
  const Token t = http::FindToken(name);
  switch (t) {
    case Token::kCustom:
      if (name.size() > 16 && name.starts_with("sec-websocket-")) {
        const std::string_view part = name.substr(14);
        if (part == (server_ ? "key" : "accept")) {
          websocket_.assign(value);
          return true;
        }
      }
      head.Add(name, value);
      break;
    case Token::kContentLength: {
      last_framing_ = true;
      if (info_.has_length || !ParseContentLength(value, info_.length)) return Bad(400, "http1.invalid_content_length");
      info_.has_length = true;
      while (value.size() > 1 && value[0] == '0') value.remove_prefix(1);
      head.Add(t, value);
      return true;
    }
    case Token::kTransferEncoding: last_framing_ = true; return TransferEncoding(value);
    case Token::kConnection: last_framing_ = true; return Connection(value);
    case Token::kHost:
      if (!server_) {
        head.Add(t, value);
        break;
      }
      if (info_.has_host) return Bad(400, "http1.duplicate_host");
      info_.has_host = true;
      authority_.assign(value);
      return true;
    case Token::kUpgrade:
      ForEachListItem(value, [&](std::string_view item) {
        info_.upgrade_websocket |= EqualsIgnoreCase(item, "websocket");
        return true;
      });
      return true;
    case Token::kTe:
      ForEachListItem(value, [&](std::string_view item) {
        if (EqualsIgnoreCase(item, "trailers") && !head.Has(Token::kTe)) head.Add(Token::kTe, "trailers");
        return true;
      });
      return true;
    case Token::kKeepAlive: KeepAlive(value); return true;
    default:
      if (http::TokenPolicyBits(t) & http::kHop) return true;
      head.Add(t, value);
      break;
  }
  last_stored_ = true;
  return true;
}

// Fields that Connection declared to be for this hop only.
void Http1Codec::StripNamedFields() {
  if (strip_.empty()) return;
  ForEachListItem(strip_, [&](std::string_view name) {
    if (!name.empty()) inbound_->head.Remove(name);
    return true;
  });
}

bool Http1Codec::Trailer(std::string_view line) {
  if (line[0] == ' ' || line[0] == '\t') return Bad(400, "http1.folded_field");
  if (++fields_ > limits_.max_header_count) return Bad(431, "http1.too_many_headers");
  std::string_view name, value;
  if (!SplitField(line, name, value)) return false;
  if (name.empty()) return true;
  const Token t = http::FindToken(name);
  if (t == Token::kHost || (http::TokenPolicyBits(t) & (http::kNoTrailer | http::kHop))) {
    ++counters_.dropped_fields;
  } else if (limits_.enable_trailers && !discard_) {
    inbound_->trailers.Add(name, value);
  }
  return true;
}

bool Http1Codec::ChunkSize(std::string_view line) {
  uint64_t size = 0;
  size_t i = 0;
  for (int v; i < line.size() && (v = HexValue(line[i])) >= 0; ++i) {
    if (i == 16) return Bad(400, "http1.invalid_chunk_size");
    size = size << 4 | static_cast<uint64_t>(v);
  }
  if (i == 0 || size > INT64_MAX) return Bad(400, "http1.invalid_chunk_size");
  std::string_view rest = line.substr(i);
  if (!server_) rest = TrimBlanks(rest);
  if (!rest.empty()) {
    extension_bytes_ += rest.size();
    if (rest[0] != ';' || extension_bytes_ > kMaxExtensions || !ValidChunkExtensions(rest)) {
      return Bad(400, "http1.invalid_chunk_extension");
    }
  }
  left_ = size;
  state_ = size > 0 ? State::kChunkData : State::kTrailers;
  return true;
}

void Http1Codec::EndMessage() {
  state_ = State::kDone;
  received_end_ = true;
  if (line_.capacity() > kKeepLine) std::string().swap(line_), line_done_ = false;
  if (inbound_ && !discard_) inbound_->bits |= Inbound::kEnd, List();
  MessageDone();
}

// One line of a head. False: no line could be taken.
bool Http1Codec::StepHead(Cursor& c) {
  std::string_view line;
  const bool first = state_ == State::kFirstLine;
  const size_t room = limits_.max_header_bytes > head_bytes_ ? limits_.max_header_bytes - head_bytes_ : 0;
  const int r = Line(c, first ? std::min<size_t>(room, limits_.max_target_bytes + 64) : room, line);
  if (r == 0) return false;
  if (r == -1) return Bad(first ? 414 : 431, first ? "http1.target_too_long" : "http1.headers_too_large");
  if (r == -2) return Bad(400, "http1.line_not_ended_by_crlf");
  head_bytes_ += line.size() + 2;
  if (first) {
    if (!FirstLine(line)) return false;
    state_ = State::kFields;
    return true;
  }
  if (!line.empty()) return Field(line);
  inbound_->head_bytes = head_bytes_;
  if (info_.chunked && info_.has_length) return Bad(400, "http1.content_length_with_transfer_encoding");
  StripNamedFields();
  return HeadDone();
}

// Moves body bytes to the owner. False: nothing more can be done now.
bool Http1Codec::TakeBody(Cursor& c, uint64_t most, bool& blocked) {
  c.Sync();
  uint64_t n = std::min<uint64_t>(most, c.in.size());
  if (discard_) {
    discarded_ += n;
    c.in.Consume(n);
    if (discarded_ > kMaxDiscard) closing_ = true, state_ = State::kDead;
  } else {
    const size_t held = inbound_->body.size();
    const uint64_t room = held < limits_.max_buffered_per_stream ? limits_.max_buffered_per_stream - held : 0;
    if (room < n) n = room, blocked = true;
    if (n > 0) {
      inbound_->body.Move(c.in, n);
      inbound_->body_bytes += n;
      List();
    }
  }
  left_ -= std::min(left_, n);
  c.Sync();
  return n > 0 && state_ != State::kDead;
}

bool Http1Codec::StepBody(Cursor& c) {
  bool blocked = false;
  std::string_view line;
  switch (state_) {
    case State::kLength:
      if (!TakeBody(c, left_, blocked)) return false;
      if (left_ == 0) EndMessage();
      return !blocked;
    case State::kUntilEof:
    case State::kTunnel:
      return TakeBody(c, UINT64_MAX, blocked) && !blocked;
    case State::kChunkData:
      if (!TakeBody(c, left_, blocked)) return false;
      if (left_ == 0) state_ = State::kChunkEnd;
      return !blocked;
    case State::kChunkEnd: {
      const int r = Line(c, 0, line);
      if (r == 0) return line_.empty() || line_ == "\r" ? false : Bad(400, "http1.invalid_chunk_end");
      if (r < 0) return Bad(400, "http1.invalid_chunk_end");
      state_ = State::kChunkSize;
      return true;
    }
    case State::kChunkSize: {
      const int r = Line(c, kMaxChunkLine, line);
      if (r == 0) return false;
      if (r < 0) return Bad(400, "http1.invalid_chunk_size");
      if (discard_ && (discarded_ += line.size() + 2) > kMaxDiscard) {
        closing_ = true, state_ = State::kDead;
        return false;
      }
      fields_ = 0, head_bytes_ = 0;
      return ChunkSize(line);
    }
    case State::kTrailers: {
      const size_t room = limits_.max_header_bytes > head_bytes_ ? limits_.max_header_bytes - head_bytes_ : 0;
      const int r = Line(c, room, line);
      if (r == 0) return false;
      if (r < 0) return Bad(r == -1 ? 431 : 400, "http1.invalid_trailers");
      head_bytes_ += line.size() + 2;
      if (!line.empty()) return Trailer(line);
      if (inbound_ && !discard_ && !inbound_->trailers.empty()) inbound_->bits |= Inbound::kTrailers;
      EndMessage();
      return true;
    }
    default: return false;
  }
}

bool Http1Codec::Feed(io::Buffer& in) {
  Cursor c(in);
  for (bool go = true; go;) {
    switch (state_) {
      case State::kIdle:
        if (!c.More()) {
          go = false;
        } else if (closing_ || !IdleByte()) {
          state_ = State::kDead, closing_ = true;
        } else if (server_ && c.front[c.pos] == '\r') {
          ++c.pos;
          state_ = State::kIdleCr;
        } else {
          empty_lines_ = 0;
          StartHead();
          state_ = State::kFirstLine;
          go = BeginMessage();
        }
        break;
      case State::kIdleCr:
        if (!c.More()) {
          go = false;
        } else if (c.front[c.pos] != '\n' || ++empty_lines_ > 2) {
          StartHead();
          state_ = State::kFirstLine;
          if (BeginMessage()) Bad(400, "http1.invalid_request_line");
        } else {
          ++c.pos;
          state_ = State::kIdle;
        }
        break;
      case State::kFirstLine:
      case State::kFields: go = StepHead(c); break;
      case State::kDone:
        // A client's peer has nothing more to say; a server's next request waits for its turn.
        if (!server_ && c.More()) {
          ++counters_.glitches;
          state_ = State::kDead, closing_ = true;
        } else {
          go = false;
        }
        break;
      case State::kHold: go = false; break;
      case State::kDead:
        c.Sync();
        in.Clear();
        c.Sync();
        go = false;
        break;
      default: go = c.More() ? StepBody(c) : false; break;
    }
    if (!go && state_ == State::kDead && !in.empty()) go = true;
  }
  c.Sync();
  input_left_ = in.size();
  return !eof_ || !in.empty() || AtEof();
}

bool Http1Codec::FeedEof() {
  eof_ = true;
  // What was not taken yet (a body above the buffer limit, pipelined requests) still counts.
  return input_left_ > 0 && state_ != State::kDead ? true : AtEof();
}

}  // namespace weft::codec
