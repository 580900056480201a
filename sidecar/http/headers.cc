#include "sidecar/http/headers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sidecar/http/authority.h"

namespace weft::http {

void HeaderMap::Grow(size_t n) {
  const size_t need = text_ + count_ * sizeof(Field) + n + sizeof(Field);
  HeaderMap larger;
  larger.capacity_ = static_cast<uint32_t>((std::max<size_t>(2 * need, 512) + 15) / 16 * 16);
  larger.memory_.reset(new char[larger.capacity_]);
  CopyTo(larger);
  Swap(larger);
}

void HeaderMap::GrowAndAdd(Token token, std::string_view value) {
  const std::string kept(value);  // it may point into this map
  Grow(value.size());
  Add(token, kept);
}

void HeaderMap::GrowAndAdd(std::string_view lower_name, std::string_view value) {
  const std::string kept_name(lower_name), kept(value);
  Grow(lower_name.size() + value.size());
  Add(kept_name, kept);
}

void HeaderMap::Add(Token token, std::string_view value) {
  if (!Fits(value.size())) [[unlikely]] return GrowAndAdd(token, value);
  const auto n = static_cast<uint32_t>(value.size());
  field(count_++) = {Append(value), n, 0, 0, static_cast<uint8_t>(token)};
  present_ |= uint64_t{1} << static_cast<int>(token);
  ++live_, bytes_ += static_cast<uint32_t>(TokenName(token).size()) + n;
}

void HeaderMap::Add(std::string_view lower_name, std::string_view value) {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Add(token, value);
  if (!Fits(lower_name.size() + value.size())) [[unlikely]] return GrowAndAdd(lower_name, value);
  const auto name_len = static_cast<uint32_t>(lower_name.size()), value_len = static_cast<uint32_t>(value.size());
  const uint32_t name = Append(lower_name);
  field(count_++) = {Append(value), value_len, name, name_len, static_cast<uint8_t>(Token::kCustom)};
  ++live_, bytes_ += name_len + value_len;
}

void HeaderMap::GrowAndSet(uint32_t i, std::string_view value) {
  const std::string kept(value);
  Grow(value.size());
  SetAt(i, kept);
}

void HeaderMap::SetAt(uint32_t i, std::string_view value) {
  if (value.size() > field(i).value_len && !Fits(value.size())) [[unlikely]] return GrowAndSet(i, value);
  Field& f = field(i);
  bytes_ += static_cast<uint32_t>(value.size()) - f.value_len;
  if (value.size() <= f.value_len) {
    memmove(memory_.get() + f.value, value.data(), value.size());
  } else {
    f.value = Append(value);
  }
  f.value_len = static_cast<uint32_t>(value.size());
}

void HeaderMap::ExtendLast(std::string_view more) {
  if (count_ == 0 || more.empty()) return;
  if (!Fits(more.size() + 1)) Grow(more.size() + 1);
  Field& f = field(count_ - 1);
  const uint32_t before = f.value_len;
  if (f.value_len > 0) Append(" "), ++f.value_len;
  Append(more);
  f.value_len += static_cast<uint32_t>(more.size());
  bytes_ += f.value_len - before;
}

void HeaderMap::RemoveAt(uint32_t i) {
  const Entry e{this, i};
  --live_, bytes_ -= static_cast<uint32_t>(e.name().size() + e.value().size());
  field(i).code = kRemoved;
}

void HeaderMap::Set(Token token, std::string_view value) {
  if (!Has(token)) return Add(token, value);
  bool found = false;
  for (uint32_t i = 0; i < count_; ++i) {
    if (field(i).code != static_cast<uint8_t>(token)) continue;
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
  for (uint32_t i = 0; i < count_; ++i) {
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
  for (uint32_t i = 0; i < count_; ++i) {
    if (field(i).code == static_cast<uint8_t>(token)) RemoveAt(i);
  }
  present_ &= ~(uint64_t{1} << static_cast<int>(token));
}

void HeaderMap::Remove(std::string_view lower_name) {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Remove(token);
  for (uint32_t i = 0; i < count_; ++i) {
    if (IsCustom(i, lower_name)) RemoveAt(i);
  }
}

bool HeaderMap::IsCustom(uint32_t i, std::string_view lower_name) const {
  if (field(i).code != static_cast<uint8_t>(Token::kCustom)) return false;
  const Field& f = field(i);
  return f.name_len == lower_name.size() && memcmp(memory_.get() + f.name, lower_name.data(), f.name_len) == 0;
}

std::optional<std::string_view> HeaderMap::Get(std::string_view lower_name) const {
  const Token token = FindToken(lower_name);
  if (token != Token::kCustom) return Get(token);
  for (uint32_t i = 0; i < count_; ++i) {
    if (IsCustom(i, lower_name)) return Entry{this, i}.value();
  }
  return std::nullopt;
}

std::optional<std::string_view> HeaderMap::Joined(std::string_view lower_name, std::string& scratch) const {
  const Token token = FindToken(lower_name);
  std::optional<std::string_view> first;
  bool joined = false;
  for (uint32_t i = 0; i < count_; ++i) {
    const bool match = token != Token::kCustom ? field(i).code == static_cast<uint8_t>(token) : IsCustom(i, lower_name);
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
  to.Clear();
  if (count_ == 0) return;
  const size_t fields = count_ * sizeof(Field);
  if (to.capacity_ < text_ + fields) to.Grow(text_ + fields);
  memcpy(to.memory_.get(), memory_.get(), text_);
  memcpy(to.memory_.get() + to.capacity_ - fields, memory_.get() + capacity_ - fields, fields);
  to.text_ = text_, to.count_ = count_;
  to.live_ = live_, to.bytes_ = bytes_, to.present_ = present_;
  if (spellings_) to.spellings_ = std::make_unique<Spellings>(*spellings_);
}

void HeaderMap::Swap(HeaderMap& o) noexcept {
  std::swap(memory_, o.memory_), std::swap(capacity_, o.capacity_), std::swap(text_, o.text_), std::swap(count_, o.count_);
  std::swap(live_, o.live_), std::swap(bytes_, o.bytes_), std::swap(present_, o.present_), std::swap(spellings_, o.spellings_);
}

std::string_view Spellings::Find(std::string_view lower_name) const {
  for (std::string_view rest = names; !rest.empty();) {
    const std::string_view name = rest.substr(0, rest.find('\n'));
    if (EqualsIgnoreCase(name, lower_name)) return name;
    rest.remove_prefix(name.size() + 1);
  }
  return {};
}

void HeaderMap::Spell(std::string_view name, bool proper_otherwise) {
  if (!spellings_) spellings_ = std::make_unique<Spellings>();
  spellings_->proper = proper_otherwise;
  spellings_->Add(name);
}

std::string HeaderMap::ToString() const {
  std::string s;
  for (const auto& e : *this) s.append(e.name()).append(": ").append(e.value()).push_back('\n');
  return s;
}

}  // namespace weft::http
