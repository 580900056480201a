// Envoy's format strings, evaluated: compiled ones against finished records, parsed ones against a request under way.
//
//   Format f = *Format::Compile("%REQ(:METHOD)% %RESPONSE_CODE%\n");
//   std::string line; f.Append(record, false, &line);
//   AppendLive(*option.format, *record_, {.request = &head}, &value);
//
// Operators: Envoy's, see model/log_format.h, which refuses unknown ones by name. A missing value is "-" in text and null
// in JSON. Threads: a Format one, the functions any.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/model/log_format.h"
#include "sidecar/proxy/record.h"
#include "sidecar/proxy/time_text.h"

namespace weft::proxy {

extern const char kDefaultFormat[];

class Format {
 public:
  static base::Result<Format> Compile(std::string_view text);
  // omit_empty: a missing value is nothing at all instead of "-".
  void Append(const Record& record, bool omit_empty, std::string* out) const;
  // As a JSON value: a number or string when the format is one operator, a string otherwise, null when missing.
  void AppendJson(const Record& record, bool omit_empty, std::string* out) const;
  // True when the value of a single-operator format is missing.
  bool Missing(const Record& record) const;

 private:
  struct Step {
    model::LogFormat::Op op;
    std::unique_ptr<TimeText> time;  // of operators that print one
  };
  std::vector<Step> steps_;
};

// The heads of a request under way.
struct LiveHeads {
  const http::HeaderMap* request = nullptr;
  const http::HeaderMap* response = nullptr;  // null: not there yet
  bool from_upstream = false;                 // the response, rather than an answer of our own
};
// For headers that routes add: what is known by now, nothing at all where a value is missing. The record's texts must be filled.
void AppendLive(const model::LogFormat& format, const Record& record, const LiveHeads& heads, std::string* out);

// Appends text as a quoted JSON string; bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);

// What a header operator finds: the kept headers first, then what the record holds of every request. "" when absent.
std::string_view RequestHeader(const Record& record, std::string_view name);
// Why the last connection to the upstream failed, in words; "" when none did.
std::string_view UpstreamFailure(const Record& record);

}  // namespace weft::proxy
