#include "sidecar/http/headers.h"

#include <cstring>

namespace weft::http {

void HeaderMap::Add(Token token, std::string_view value) {
  const auto at = static_cast<uint32_t>(text_.size());
  text_.append(value);
  codes_.push_back(static_cast<uint8_t>(token));
  spans_.push_back({0, 0, at, static_cast<uint32_t>(value.size())});
  present_ |= uint64_t{1} << static_cast<int>(token);
  ++live_, bytes_ += static_cast<uint32_t>(TokenName(token).size() + value.size());
}

void HeaderMap::Add(std::string_view lower_name, std::string_view value) {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Add(token, value);
  const auto at = static_cast<uint32_t>(text_.size());
  const auto name_len = static_cast<uint32_t>(lower_name.size()), value_len = static_cast<uint32_t>(value.size());
  // One growth for both, before the first copy: either view may point into this map's own text.
  if (text_.capacity() - text_.size() < name_len + value_len) {
    std::string grown;
    grown.reserve((text_.size() + name_len + value_len) * 2);
    grown.append(text_).append(lower_name).append(value);
    text_.swap(grown);
  } else {
    text_.append(lower_name).append(value);
  }
  codes_.push_back(static_cast<uint8_t>(Token::kCustom));
  spans_.push_back({at, name_len, at + name_len, value_len});
  ++live_, bytes_ += name_len + value_len;
}

void HeaderMap::SetAt(uint32_t i, std::string_view value) {
  Span& s = spans_[i];
  bytes_ += static_cast<uint32_t>(value.size()) - s.value_len;
  if (value.size() <= s.value_len) {
    memmove(text_.data() + s.value, value.data(), value.size());
  } else {
    s.value = static_cast<uint32_t>(text_.size());
    text_.append(value);
  }
  s.value_len = static_cast<uint32_t>(value.size());
}

void HeaderMap::ExtendLast(std::string_view more) {
  if (spans_.empty() || more.empty()) return;
  Span& s = spans_.back();
  const uint32_t before = s.value_len;
  if (s.value_len > 0) text_.push_back(' '), ++s.value_len;
  text_.append(more);
  s.value_len += static_cast<uint32_t>(more.size());
  bytes_ += s.value_len - before;
}

void HeaderMap::RemoveAt(uint32_t i) {
  const Entry e{this, i};
  --live_, bytes_ -= static_cast<uint32_t>(e.name().size() + e.value().size());
  codes_[i] = kRemoved;
}

void HeaderMap::Set(Token token, std::string_view value) {
  if (!Has(token)) return Add(token, value);
  bool found = false;
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    if (codes_[i] != static_cast<uint8_t>(token)) continue;
    if (found) {
      RemoveAt(i);
    } else {
      SetAt(i, value), found = true;
    }
  }
}

void HeaderMap::Set(std::string_view lower_name, std::string_view value) {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Set(token, value);
  bool found = false;
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    if (!IsCustom(i, lower_name)) continue;
    if (found) {
      RemoveAt(i);
    } else {
      SetAt(i, value), found = true;
    }
  }
  if (!found) Add(lower_name, value);
}

void HeaderMap::Remove(Token token) {
  if (!Has(token)) return;
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    if (codes_[i] == static_cast<uint8_t>(token)) RemoveAt(i);
  }
  present_ &= ~(uint64_t{1} << static_cast<int>(token));
}

void HeaderMap::Remove(std::string_view lower_name) {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Remove(token);
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    if (IsCustom(i, lower_name)) RemoveAt(i);
  }
}

bool HeaderMap::IsCustom(uint32_t i, std::string_view lower_name) const {
  if (codes_[i] != static_cast<uint8_t>(Token::kCustom)) return false;
  const Span& s = spans_[i];
  return s.name_len == lower_name.size() && memcmp(text_.data() + s.name, lower_name.data(), s.name_len) == 0;
}

std::optional<std::string_view> HeaderMap::Get(std::string_view lower_name) const {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Get(token);
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    if (IsCustom(i, lower_name)) return Entry{this, i}.value();
  }
  return std::nullopt;
}

std::optional<std::string_view> HeaderMap::Joined(std::string_view lower_name, std::string& scratch) const {
  const Token token = FindToken(lower_name);
  std::optional<std::string_view> first;
  bool joined = false;
  for (uint32_t i = 0; i < codes_.size(); ++i) {
    const bool match = token != Token::kCustom ? codes_[i] == static_cast<uint8_t>(token) : IsCustom(i, lower_name);
    if (!match) continue;
    const std::string_view v = Entry{this, i}.value();
    if (!first) {
      first = v;
      continue;
    }
    if (!joined) scratch.assign(*first), joined = true;
    scratch.append(token == Token::kCookie ? "; " : ",").append(v);
  }
  if (joined) return std::string_view(scratch);
  return first;
}

void HeaderMap::CopyTo(HeaderMap& to) const {
  if (&to == this) return;
  to.codes_.assign(codes_.begin(), codes_.end());
  to.spans_.assign(spans_.begin(), spans_.end());
  to.text_.assign(text_);
  to.live_ = live_, to.bytes_ = bytes_, to.present_ = present_;
}

std::string HeaderMap::ToString() const {
  std::string s;
  for (const auto& e : *this) s.append(e.name()).append(": ").append(e.value()).push_back('\n');
  return s;
}

}  // namespace weft::http
