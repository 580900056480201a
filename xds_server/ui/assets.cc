#include "xds_server/ui/assets.h"

// Made by data.S from the bundle.
#define WEFT_ASSET(name)                      \
  extern "C" {                                \
  extern const char weft_ui_##name[];         \
  extern const char weft_ui_##name##_end[];   \
  }
WEFT_ASSET(index_html)
WEFT_ASSET(app_js)
WEFT_ASSET(app_css)
WEFT_ASSET(icon_svg)
#undef WEFT_ASSET

namespace weft::ui {

const std::vector<Asset>& Assets() {
#define WEFT_ASSET(name) std::string_view(weft_ui_##name, static_cast<size_t>(weft_ui_##name##_end - weft_ui_##name))
  static const std::vector<Asset> assets = {
      {"/", "text/html; charset=utf-8", WEFT_ASSET(index_html)},
      {"/app.js", "text/javascript; charset=utf-8", WEFT_ASSET(app_js)},
      {"/app.css", "text/css; charset=utf-8", WEFT_ASSET(app_css)},
      {"/icon.svg", "image/svg+xml", WEFT_ASSET(icon_svg)},
  };
#undef WEFT_ASSET
  return assets;
}

}  // namespace weft::ui
