#include "xds_server/ui/assets.h"

// Made by data.S from the bundle.
#define WEFT_ASSET(name)                      \
  extern "C" {                                \
  extern const char weft_ui_##name[];         \
  extern const char weft_ui_##name##_end[];   \
  extern const char weft_ui_##name##_gz[];    \
  extern const char weft_ui_##name##_gz_end[]; \
  }
WEFT_ASSET(index_html)
WEFT_ASSET(app_js)
WEFT_ASSET(app_css)
WEFT_ASSET(icon_svg)
#undef WEFT_ASSET

namespace weft::ui {

const std::vector<Asset>& Assets() {
#define WEFT_BYTES(name) std::string_view(weft_ui_##name, static_cast<size_t>(weft_ui_##name##_end - weft_ui_##name))
#define WEFT_ASSET(name) WEFT_BYTES(name), WEFT_BYTES(name##_gz)
  static const std::vector<Asset> assets = {
      {"/", "text/html; charset=utf-8", WEFT_ASSET(index_html)},
      {"/app.js", "text/javascript; charset=utf-8", WEFT_ASSET(app_js)},
      {"/app.css", "text/css; charset=utf-8", WEFT_ASSET(app_css)},
      {"/icon.svg", "image/svg+xml", WEFT_ASSET(icon_svg)},
  };
#undef WEFT_ASSET
#undef WEFT_BYTES
  return assets;
}

}  // namespace weft::ui
