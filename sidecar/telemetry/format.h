// Envoy's format strings compiled once, evaluated against finished records.
//
//   Format f = *Format::Compile("%REQ(:METHOD)% %RESPONSE_CODE%\n");
//   std::string line; f.Append(record, false, &line);
//
// Operators: Envoy's, see model/log_format.h, which refuses unknown ones by name. A missing value is "-" in text and null
// in JSON. Threads: one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sidecar/base/result.h"
#include "sidecar/model/log_format.h"
#include "sidecar/proxy/record.h"
#include "sidecar/telemetry/time_text.h"

namespace weft::telemetry {

extern const char kDefaultFormat[];

class Format {
 public:
  static base::Result<Format> Compile(std::string_view text);
  // omit_empty: a missing value is nothing at all instead of "-".
  void Append(const proxy::Record& record, bool omit_empty, std::string* out) const;
  // As a JSON value: a number or string when the format is one operator, a string otherwise, null when missing.
  void AppendJson(const proxy::Record& record, bool omit_empty, std::string* out) const;
  // True when the value of a single-operator format is missing.
  bool Missing(const proxy::Record& record) const;

 private:
  struct Step {
    model::LogFormat::Op op;
    std::unique_ptr<TimeText> time;  // of operators that print one
  };
  std::vector<Step> steps_;
};

// Appends text as a quoted JSON string; bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);

// What a header operator finds: the kept headers first, then what the record holds of every request. "" when absent.
std::string_view RequestHeader(const proxy::Record& record, std::string_view name);
// Why the last connection to the upstream failed, in words; "" when none did.
std::string_view UpstreamFailure(const proxy::Record& record);

}  // namespace weft::telemetry
