#include "sidecar/model/log_format.h"

#include <cctype>
#include <charconv>

namespace weft::model {
namespace {

enum Argument : uint8_t { kNever, kMay, kMust };
struct Known {
  std::string_view name;
  LogOperator code;
  Argument argument;
};
constexpr Known kKnown[] = {
#define X(id, name, argument) {name, LogOperator::id, argument},
    WEFT_LOG_OPERATORS(X)
#undef X
};

std::string Lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string Quoted(std::string_view name) { return "%" + std::string(name) + "%"; }

base::Status Fill(const Known& known, std::string_view argument, LogFormat::Op& op) {
  switch (known.code) {
    case LogOperator::kReq:
    case LogOperator::kResp:
    case LogOperator::kTrailer: {
      const size_t q = argument.find('?');
      op.text = Lower(argument.substr(0, q));
      if (q != std::string_view::npos) op.alternative = Lower(argument.substr(q + 1));
      if (op.alternative.find('?') != std::string::npos) return base::Error(Quoted(known.name) + " takes one alternative only");
      break;
    }
    case LogOperator::kGrpcStatus:
      op.text = Lower(argument);
      if (!op.text.empty() && op.text != "camel_string" && op.text != "snake_string" && op.text != "number") {
        return base::Error("%GRPC_STATUS% is CAMEL_STRING, SNAKE_STRING or NUMBER, not " + std::string(argument));
      }
      break;
    case LogOperator::kPath: {
      const size_t colon = argument.find(':');
      op.text = argument.substr(0, colon);
      op.alternative = colon == std::string_view::npos ? "" : argument.substr(colon + 1);
      const bool query = op.text.empty() || op.text == "WQ" || op.text == "NQ";
      const bool which = op.alternative.empty() || op.alternative == "ORIG" || op.alternative == "PATH" || op.alternative == "ORIG_OR_PATH";
      if (!query || !which) return base::Error("%PATH(" + std::string(argument) + ")% is not a kind of path");
      break;
    }
    case LogOperator::kCommonDuration: {
      const size_t first = argument.find(':'), second = first == std::string_view::npos ? first : argument.find(':', first + 1);
      if (second == std::string_view::npos) return base::Error("%COMMON_DURATION% needs START:END:UNIT");
      op.text = argument.substr(0, first), op.alternative = argument.substr(first + 1, second - first - 1), op.unit = argument.substr(second + 1);
      for (const std::string& moment : {op.text, op.alternative}) {
        if (!KnownMoment(moment)) return base::Error("%COMMON_DURATION% does not know the moment " + moment);
      }
      if (op.unit != "ms" && op.unit != "us" && op.unit != "ns") return base::Error("%COMMON_DURATION% is in ms, us or ns, not " + op.unit);
      break;
    }
    default:
      op.text = argument;
  }
  return base::Ok{};
}

}  // namespace

bool KnownMoment(std::string_view name) {
  for (const std::string_view known : {"DS_RX_BEG", "DS_RX_END", "US_TX_END", "US_RX_BEG", "DS_TX_BEG", "DS_TX_END"}) {
    if (known == name) return true;
  }
  return false;
}

base::Result<LogFormat> LogFormat::Parse(std::string_view text) {
  LogFormat f;
  std::string literal;
  auto flush = [&] {
    if (literal.empty()) return;
    f.ops.emplace_back().text = std::move(literal);
    literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      literal += text[i];
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == '%') {
      literal += '%', ++i;
      continue;
    }
    size_t at = i + 1;
    while (at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_')) ++at;
    const std::string name(text.substr(i + 1, at - i - 1));
    std::string_view argument;
    bool given = false;
    if (at < text.size() && text[at] == '(') {
      const size_t close = text.find(')', at);
      if (close == std::string_view::npos) return base::Error("\"%" + name + "(\" has no closing parenthesis");
      argument = text.substr(at + 1, close - at - 1), given = true;
      at = close + 1;
    }
    Op op;
    if (at < text.size() && text[at] == ':') {
      size_t n = 0;
      const auto [p, ec] = std::from_chars(text.data() + at + 1, text.data() + text.size(), n);
      if (ec != std::errc()) return base::Error("\"%" + name + "\" has a length that is not a number");
      op.max_length = n, at = static_cast<size_t>(p - text.data());
    }
    if (at >= text.size() || text[at] != '%') return base::Error("\"%" + name + "\" is not closed by %");
    const Known* known = nullptr;
    for (const Known& k : kKnown) {
      if (k.name == name) known = &k;
    }
    if (!known) return base::Error("unknown operator " + Quoted(name));
    if (known->argument == kMust && argument.empty()) return base::Error(Quoted(name) + " needs an argument in parentheses");
    if (known->argument == kNever && (given || op.max_length != SIZE_MAX)) return base::Error(Quoted(name) + " takes neither argument nor length");
    op.code = known->code;
    if (auto filled = Fill(*known, argument, op); !filled) return filled.error();
    flush();
    f.ops.push_back(std::move(op));
    i = at;
  }
  flush();
  return f;
}

}  // namespace weft::model
