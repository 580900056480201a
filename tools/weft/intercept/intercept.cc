#include "tools/weft/intercept/intercept.h"

#include <nftables/libnftables.h>

#include <memory>

namespace weft::intercept {
namespace {

std::string Run(const std::string& text, std::string* output) {
  std::unique_ptr<nft_ctx, decltype(&nft_ctx_free)> ctx(nft_ctx_new(NFT_CTX_DEFAULT), nft_ctx_free);
  if (ctx == nullptr) return "nftables: out of memory";
  nft_ctx_buffer_error(ctx.get());
  nft_ctx_buffer_output(ctx.get());
  const int rc = nft_run_cmd_from_buffer(ctx.get(), text.c_str());
  if (output != nullptr) *output = nft_ctx_get_output_buffer(ctx.get());
  if (rc == 0) return "";
  std::string error = nft_ctx_get_error_buffer(ctx.get());
  while (!error.empty() && error.back() == '\n') error.pop_back();
  return error.empty() ? "nftables refused the rules" : error;
}

}  // namespace

std::string Apply(const std::string& text) { return Run(text, nullptr); }

std::string List() {
  std::string output;
  return Run("list table inet weft", &output).empty() ? output : "";
}

}  // namespace weft::intercept
