// The web page, bundled at build time and linked into the program: nothing is read from disk when it runs.
#pragma once

#include <string_view>
#include <vector>

namespace weft::ui {

struct Asset {
  std::string_view path;          // "/", "/app.js"
  std::string_view content_type;
  std::string_view body, gzip;    // plain and compressed, for the life of the program
};
const std::vector<Asset>& Assets();

// What the page needs and nothing more: own scripts, styles and JSON; no inline code, no frames, no plugins.
inline constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

}  // namespace weft::ui
