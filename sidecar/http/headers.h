// Header fields: names known to the proxy are one-byte tokens, bytes live in one arena per map.
//
//   HeaderMap h;
//   h.Add(Token::kPath, "/cart");            // pseudo-headers are entries too, first in order
//   h.Add("x-color", "red");                 // names are lower case (HTTP/1 lowers them when parsing)
//   if (auto v = h.Get(Token::kHost)) ...
//   for (const auto& e : h) e.name(), e.value();
//
// Lookups by token test one bit, then scan one byte array; order of fields is kept; removal marks. Clear() keeps the memory, so a reused
// map allocates nothing in the steady state. Views stay valid until the next change of the map.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/http/tokens.h"

namespace weft::http {

class HeaderMap {
 public:
  struct Entry {
    const HeaderMap* map;
    uint32_t index;
    Token token() const { return static_cast<Token>(map->codes_[index]); }
    std::string_view name() const {
      const Token t = token();
      if (t != Token::kCustom) return TokenName(t);
      const Span& s = map->spans_[index];
      return {map->text_.data() + s.name, s.name_len};
    }
    std::string_view value() const {
      const Span& s = map->spans_[index];
      return {map->text_.data() + s.value, s.value_len};
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
    void Skip() { while (e_.index < e_.map->codes_.size() && e_.map->codes_[e_.index] == kRemoved) ++e_.index; }
    Entry e_;
  };

  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, static_cast<uint32_t>(codes_.size())}; }
  size_t size() const { return live_; }   // fields
  size_t bytes() const { return bytes_; } // names + values
  bool empty() const { return live_ == 0; }
  void Clear() { codes_.clear(), spans_.clear(), text_.clear(), live_ = bytes_ = 0, present_ = 0; }

  void Add(Token token, std::string_view value);
  void Add(std::string_view lower_name, std::string_view value);  // finds the token itself
  void Set(Token token, std::string_view value);                  // replaces all, keeps the first's place
  void Set(std::string_view lower_name, std::string_view value);
  void Remove(Token token);
  void Remove(std::string_view lower_name);

  // Appends " more" to the value of the field added last (an HTTP/1 folded line); nothing may have changed since.
  void ExtendLast(std::string_view more);

  // The first value.
  std::optional<std::string_view> Get(Token token) const {
    if (!Has(token)) return std::nullopt;
    for (uint32_t i = 0; i < codes_.size(); ++i) {
      if (codes_[i] == static_cast<uint8_t>(token)) return Entry{this, i}.value();
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
  struct Span { uint32_t name, name_len, value, value_len; };
  void SetAt(uint32_t i, std::string_view value);
  bool IsCustom(uint32_t i, std::string_view lower_name) const;
  void RemoveAt(uint32_t i);

  std::vector<uint8_t> codes_;   // Token, or kRemoved
  std::vector<Span> spans_;      // into text_; name is unused for known tokens
  std::string text_;
  uint64_t present_ = 0;         // a bit for each known token in the map: most look-ups are for what is not there
  uint32_t live_ = 0, bytes_ = 0;
};

}  // namespace weft::http
