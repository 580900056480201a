// Status codes as text.
#pragma once

#include <string_view>

namespace weft::http {

// "Not Found"; "" for codes without a registered phrase. Static text.
std::string_view ReasonPhrase(int status);
// The value of :status (three digits); 0 when it is not one.
int ParseStatus(std::string_view value);
// Three digits, static text for 100..999.
std::string_view StatusText(int status);

}  // namespace weft::http
