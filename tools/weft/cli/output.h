// What commands print: tables for people, JSON and YAML for programs. Text that came from elsewhere never reaches the
// terminal with control characters in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/weft/cli/client.h"

namespace weft::cli {

// Columns as wide as their widest cell, two spaces between; no trailing spaces. Cells are cleaned.
std::string Table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);

// Control characters (and bytes that are not UTF-8) become '?', a tab or a line break a space.
std::string Clean(std::string_view s);

// Block style; strings are quoted whenever a YAML reader would take them for something else. Ends in a newline.
std::string ToYaml(const Json& value);

// "json" or "yaml" text of the value; anything else throws a usage Failure.
std::string Render(const Json& value, const std::string& format);

// The field as text: "" when missing or null, numbers and booleans as JSON writes them.
std::string Text(const Json& object, std::string_view key);

// 1234 µs -> "1.23ms"
std::string HumanDuration(double microseconds);
// "2026-11-23T05:10:11.123Z" -> "3m" before `now_unix_s`; "" when it does not parse.
std::string Age(const std::string& rfc3339, long now_unix_s);

}  // namespace weft::cli
