// CEL's tokens (google/cel-spec, the grammar of its language definition).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sidecar/base/result.h"

namespace weft::cel {

struct Token {
  enum Kind : uint8_t { kEnd, kIdent, kQuotedIdent, kInt, kUint, kDouble, kString, kBytes, kOperator } kind = kEnd;
  std::string_view raw;    // as it stands; an operator is known by it
  std::string text;        // of kString and kBytes: what it means; of kQuotedIdent without the quotes
  uint32_t line = 1, column = 1;  // in characters, from 1
  bool Is(std::string_view op) const { return kind == kOperator && raw == op; }
  bool IsWord(std::string_view word) const { return kind == kIdent && raw == word; }
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}
  base::Result<Token> Next();

 private:
  void SkipBlank();
  void Advance(size_t bytes);
  Token Take(Token::Kind kind, size_t bytes);
  size_t NumberLength(Token::Kind* kind) const;
  base::Result<Token> Text(size_t prefix, bool raw, bool bytes);

  std::string_view source_;
  size_t at_ = 0;
  uint32_t line_ = 1, column_ = 1;
};

// "expression 3:14: what"
base::Error ErrorAt(uint32_t line, uint32_t column, const std::string& what);
// Whether text is UTF-8.
bool IsUtf8(std::string_view text);
// Bytes of the character that text begins with; 1 where it is none.
size_t CharacterLength(std::string_view text);

}  // namespace weft::cel
