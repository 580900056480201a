// Header fields: names known to the proxy are one-byte tokens; text and fields share one piece of memory per map.
//
//   HeaderMap h;
//   h.Add(Token::kPath, "/cart");            // pseudo-headers are entries too, first in order
//   h.Add("x-color", "red");                 // names are lower case (HTTP/1 lowers them when parsing)
//   if (auto v = h.Get(Token::kHost)) ...
//   for (const auto& e : h) e.name(), e.value();
//
// Lookups by token test one bit, then scan the fields; their order is kept; removal marks. Clear() keeps the memory, so a reused
// map allocates nothing in the steady state. Views stay valid until the next change of the map.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "sidecar/http/tokens.h"

namespace weft::http {

// How the names of a message's fields were written before they were lowered; kept only where the configuration asks for it.
struct Spellings {
  std::string names;    // "Host\nX-Color\n"
  bool proper = false;  // names that the message did not have are written as "Proper-Case", not in lower case
  void Add(std::string_view name) { names.append(name).push_back('\n'); }
  std::string_view Find(std::string_view lower_name) const;  // the first spelling; "" when there is none
};

class HeaderMap {
 public:
  struct Entry {
    const HeaderMap* map;
    uint32_t index;
    Token token() const { return static_cast<Token>(map->field(index).code); }
    std::string_view name() const {
      const Field& f = map->field(index);
      if (f.code != 0) return TokenName(static_cast<Token>(f.code));
      return {map->memory_.get() + f.name, f.name_len};
    }
    std::string_view value() const {
      const Field& f = map->field(index);
      return {map->memory_.get() + f.value, f.value_len};
    }
  };
  class Iterator {
   public:
    Iterator(const HeaderMap* m, uint32_t i) : e_{m, i} { Skip(); }
    const Entry& operator*() const { return e_; }
    const Entry* operator->() const { return &e_; }
    Iterator& operator++() { ++e_.index, Skip(); return *this; }
    bool operator!=(const Iterator& o) const { return e_.index != o.e_.index; }

   private:
    void Skip() { while (e_.index < e_.map->count_ && e_.map->field(e_.index).code == kRemoved) ++e_.index; }
    Entry e_;
  };

  HeaderMap() = default;
  HeaderMap(const HeaderMap& o) { o.CopyTo(*this); }
  HeaderMap(HeaderMap&& o) noexcept { Swap(o); }
  HeaderMap& operator=(HeaderMap o) noexcept { Swap(o); return *this; }

  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, count_}; }
  size_t size() const { return live_; }   // fields
  size_t bytes() const { return bytes_; } // names + values
  size_t memory() const { return capacity_; }
  bool empty() const { return live_ == 0; }
  void Clear() {
    text_ = count_ = live_ = bytes_ = 0, present_ = 0;
    if (spellings_) [[unlikely]] spellings_->names.clear();
  }

  void Add(Token token, std::string_view value);
  void Add(std::string_view lower_name, std::string_view value);  // finds the token itself
  void Set(Token token, std::string_view value);                  // replaces all, keeps the first's place
  void Set(std::string_view lower_name, std::string_view value);
  void Remove(Token token);
  void Remove(std::string_view lower_name);

  // Notes how a name of this message was written.
  void Spell(std::string_view name, bool proper_otherwise);
  const Spellings* spellings() const { return spellings_ && !spellings_->names.empty() ? spellings_.get() : nullptr; }

  // Appends " more" to the value of the field added last (an HTTP/1 folded line); nothing may have changed since.
  void ExtendLast(std::string_view more);

  // The first value.
  std::optional<std::string_view> Get(Token token) const {
    if (!Has(token)) return std::nullopt;
    for (uint32_t i = 0; i < count_; ++i) {
      if (field(i).code == static_cast<uint8_t>(token)) return Entry{this, i}.value();
    }
    return std::nullopt;
  }
  std::optional<std::string_view> Get(std::string_view lower_name) const;
  // Like Get, "" when absent.
  std::string_view Value(Token token) const { auto v = Get(token); return v ? *v : std::string_view(); }
  bool Has(Token token) const { return present_ >> static_cast<int>(token) & 1; }  // known tokens only
  // All values joined by ","; the single one without a copy otherwise into scratch (RFC 9110 5.2).
  std::optional<std::string_view> Joined(std::string_view lower_name, std::string& scratch) const;
  void CopyTo(HeaderMap& to) const;  // replaces to's content
  std::string ToString() const;      // "name: value\n" lines, for tests and logs

 private:
  friend struct Entry;
  static constexpr uint8_t kRemoved = 255;
  struct Field {
    uint32_t value, value_len, name;   // into the text
    uint32_t name_len : 24, code : 8;  // Token, or kRemoved; known names are not in the text
  };
  const Field& field(uint32_t i) const { return *(reinterpret_cast<const Field*>(memory_.get() + capacity_) - 1 - i); }
  Field& field(uint32_t i) { return *(reinterpret_cast<Field*>(memory_.get() + capacity_) - 1 - i); }
  // Whether n bytes of text and one field more fit.
  bool Fits(size_t n) const { return capacity_ - text_ - count_ * sizeof(Field) >= n + sizeof(Field); }
  void Grow(size_t n);
  // Apart, so that the usual way needs no stack of its own.
  [[gnu::noinline]] void GrowAndAdd(Token token, std::string_view value);
  [[gnu::noinline]] void GrowAndAdd(std::string_view lower_name, std::string_view value);
  [[gnu::noinline]] void GrowAndSet(uint32_t i, std::string_view value);
  uint32_t Append(std::string_view text) {  // there is room for it
    const uint32_t at = text_;
    text.copy(memory_.get() + at, text.size());
    text_ += static_cast<uint32_t>(text.size());
    return at;
  }
  void SetAt(uint32_t i, std::string_view value);
  bool IsCustom(uint32_t i, std::string_view lower_name) const;
  void RemoveAt(uint32_t i);
  void Swap(HeaderMap& o) noexcept;

  std::unique_ptr<char[]> memory_;  // text from the front, fields from the back
  uint32_t capacity_ = 0, text_ = 0, count_ = 0;
  uint32_t live_ = 0, bytes_ = 0;
  std::unique_ptr<Spellings> spellings_;  // null: nobody asked
  uint64_t present_ = 0;         // a bit for each known token in the map: most look-ups are for what is not there
};

}  // namespace weft::http
