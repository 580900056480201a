// Writing HTTP/1.1 messages from parsed fields.
#include <algorithm>
#include <charconv>

#include "sidecar/codec/h1_codec.h"

namespace weft::codec {

using http::Token;

void Http1Codec::PutSlowly(std::string_view s) {
  Flush();
  if (s.size() > 4096) return tx_.Append(s);
  room_ = tx_.Reserve(std::max<size_t>(s.size(), 1024));
  Put(s);
}

void Http1Codec::PutNumber(uint64_t v, int base) {
  char text[24];
  const auto r = std::to_chars(text, text + sizeof(text), v, base);
  Put({text, static_cast<size_t>(r.ptr - text)});
}

// Gives what was put to tx_; must follow the last Put of a head.
void Http1Codec::Flush() {
  if (room_used_ > 0) tx_.Commit(room_used_);
  room_ = {}, room_used_ = 0;
}

// As the message was written; else, where wanted, every letter after something else than a letter or digit is a capital, as Envoy.
void Http1Codec::PutStyled(std::string_view lower) {
  if (spellings_) {
    const std::string_view own = spellings_->Find(lower);
    if (!own.empty() || !spellings_->proper) return Put(own.empty() ? lower : own);
  }
  bool capital = true;
  for (char c : lower) {
    const bool letter = c >= 'a' && c <= 'z';
    if (capital && letter) c = static_cast<char>(c - 'a' + 'A');
    capital = !letter && !(c >= '0' && c <= '9');
    Put({&c, 1});
  }
}

void Http1Codec::PutField(const http::HeaderMap::Entry& e) {
  const std::string_view name = e.name(), value = e.value();
  if (styled_ || room_.size() - room_used_ < name.size() + value.size() + 4) {
    PutName(name), Put(": "), Put(value), Put("\r\n");
    return;
  }
  char* at = room_.data() + room_used_;
  memcpy(at, name.data(), name.size()), at += name.size();
  memcpy(at, ": ", 2);
  memcpy(at + 2, value.data(), value.size()), at += 2 + value.size();
  memcpy(at, "\r\n", 2);
  room_used_ += name.size() + value.size() + 4;
}

void Http1Codec::PutFields(const http::HeaderMap& head) {
  for (const auto& e : head) {
    const Token t = e.token();
    const uint8_t policy = http::TokenPolicyBits(t);
    if ((policy & (http::kPseudo | http::kHop)) || t == Token::kContentLength || t == Token::kHost) continue;
    if (t == Token::kCustom && e.name().starts_with("sec-websocket-") && (e.name() == "sec-websocket-key" || e.name() == "sec-websocket-accept")) {
      continue;
    }
    if (Sendable(e)) {
      PutField(e);
    } else {
      ++counters_.dropped_fields;
    }
  }
}

void Http1Codec::Broken(const char* why) {
  error_ = why;
  MarkReset(ResetCode::kInternal, why);
  closing_ = true;
  state_ = State::kDead;
}

void Http1Codec::EndSending() {
  sent_end_ = true;
  SentDone();
}

void Http1Codec::SendBody(StreamId id, io::Buffer& body, size_t n, bool end) {
  n = std::min(n, body.size());
  if (id != id_ || !inbound_ || !sent_head_ || sent_end_ || closing_) return body.Consume(n);
  switch (framing_) {
    case Framing::kNone:  // an answer without content, whatever the other side sent
      body.Consume(n);
      break;
    case Framing::kLength:
      if (n > send_left_) {
        body.Consume(n);
        return Broken("http1.body_longer_than_content_length");
      }
      send_left_ -= n;
      tx_.Move(body, n);
      if (end && send_left_ > 0) return Broken("http1.body_shorter_than_content_length");
      break;
    case Framing::kChunked:
      if (n > 0) {
        PutNumber(n, 16);
        Put("\r\n");
        Flush();
        tx_.Move(body, n);
        tx_.Append("\r\n");
      }
      if (end) tx_.Append("0\r\n\r\n");
      break;
    case Framing::kUntilEof:
    case Framing::kTunnel: tx_.Move(body, n); break;
  }
  if (end) EndSending();
}

void Http1Codec::SendTrailers(StreamId id, const http::HeaderMap& trailers) {
  if (id != id_ || !inbound_ || !sent_head_ || sent_end_ || closing_) return;
  if (framing_ == Framing::kChunked) {
    Put("0\r\n");
    styled_ = false;  // as Envoy
    for (const auto& e : trailers) {
      if (limits_.enable_trailers && SendableTrailer(e)) {
        PutField(e);
      } else {
        ++counters_.dropped_fields;
      }
    }
    Put("\r\n");
    Flush();
  } else {
    counters_.dropped_fields += trailers.size();
    if (framing_ == Framing::kLength && send_left_ > 0) return Broken("http1.body_shorter_than_content_length");
  }
  EndSending();
}

size_t Http1Codec::SendRoom(StreamId id) const {
  if (id != id_ || !inbound_ || sent_end_ || closing_) return 0;
  if (framing_ == Framing::kTunnel && !tunnel_) return 0;  // not granted yet
  return tx_.size() < limits_.max_buffered_per_stream ? limits_.max_buffered_per_stream - tx_.size() : 0;
}

void Http1Codec::Emit(io::Buffer& out) {
  const bool was_full = tx_.size() >= limits_.max_buffered_per_stream / 2;
  out.Move(tx_);
  if (was_full && inbound_ && !sent_end_ && !closing_) writable_.push_back(inbound_);
}

void Http1Codec::List() {
  if (inbound_ && (ready_.empty() || ready_.back() != inbound_)) ready_.push_back(inbound_);
}

void Http1Codec::MarkReset(ResetCode code, const char* detail) {
  if (!inbound_ || (inbound_->bits & Inbound::kReset)) return;
  inbound_->bits |= Inbound::kReset;
  inbound_->reset = code;
  if (*detail) inbound_->error_detail = detail;
  List();
}

// The codec lets go of the stream's Inbound.
void Http1Codec::Forget() {
  std::erase(ready_, inbound_);
  std::erase(writable_, inbound_);
  inbound_ = nullptr;
}

void Http1Codec::Reset(StreamId id, ResetCode) {
  if (id != id_ || !inbound_) return;
  ++counters_.tx_reset;
  Forget();  // what was handed over is still sent: the peer sees where the message broke off
  closing_ = true;
  state_ = State::kDead;
}

}  // namespace weft::codec
