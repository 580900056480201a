// Writes the redirect rules into the current network namespace, through libnftables (no program is started).
// Needs CAP_NET_ADMIN there. Atomic: either all rules of `text` are in force, or the old ones still are.
#pragma once

#include <string>

namespace weft::intercept {

// Empty on success, otherwise nftables' own message.
std::string Apply(const std::string& text);

// The rules in force in table "inet weft", in nft syntax; empty when there is none.
std::string List();

}  // namespace weft::intercept
