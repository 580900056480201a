// Envoy configuration: the bootstrap in YAML, resources on the wire, the discovery protocol itself.
#include <string>

#include "sidecar/base/check.h"
#include "sidecar/base/log.h"
#include "sidecar/model/chain_match.h"
#include "sidecar/xds/ads.h"
#include "sidecar/xds/bootstrap.h"
#include "sidecar/xds/parse.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

// Errors must name what is wrong; reading must not depend on files of this machine, so resources that name one are left out.
template <typename Result>
void Good(Result&& r) {
  if (!r) WEFT_CHECK(!r.error().ToString().empty(), "an error without a reason");
}
bool NamesFiles(std::string_view bytes) { return bytes.find("filename") != std::string_view::npos || bytes.find("path") != std::string_view::npos; }

void Quiet() {
  static const bool once = [] { return base::SetAllLevels(base::Level::kOff), true; }();
  (void)once;
}

void BootstrapYaml(std::string_view bytes) {
  Quiet();
  if (NamesFiles(bytes)) return;
  xds::BootstrapSource source;
  source.config_yaml = std::string(bytes);
  if (source.config_yaml.empty()) return;
  Good(xds::LoadBootstrap(source));
}

void Listener(std::string_view bytes) {
  Quiet();
  auto l = xds::ParseListener(std::string(bytes));
  Good(l);
  if (!l) return;
  model::ConnInfo info;
  model::Match(**l, info);
}
void Cluster(std::string_view bytes) { Quiet(), Good(xds::ParseCluster(std::string(bytes))); }
void Endpoints(std::string_view bytes) { Quiet(), Good(xds::ParseEndpoints(std::string(bytes))); }
void Secret(std::string_view bytes) {
  Quiet();
  Good(xds::ParseSecret(std::string(bytes)));
  xds::RedactSecret(std::string(bytes));
}

// The table is then asked, as a request would.
void Routes(std::string_view bytes) {
  Quiet();
  auto table = xds::ParseRoutes(std::string(bytes));
  Good(table);
  if (!table) return;
  http::HeaderMap head;
  head.Add(http::Token::kMethod, "GET"), head.Add(http::Token::kAuthority, "cart.default"), head.Add(http::Token::kPath, "/a/b?c=d"), head.Add("x-user", "ann");
  for (uint64_t random : {0ull, 1ull << 63, ~0ull}) {
    route::Found f = (*table)->Find(head, random, false);
    if (!f.route) continue;
    http::HeaderMap copy;
    head.CopyTo(copy);
    if (f.route->action == model::Route::kForward) route::RewriteRequest(f, copy);
    if (f.route->action == model::Route::kRedirect) route::RedirectLocation(f.route->redirect, f.route->match, copy, false);
  }
}

struct TakesAll final : xds::AdsSink {
  std::vector<xds::Refused> OnResources(xds::Type type, const std::vector<xds::AdsResource>& updated, const std::vector<std::string>&, bool) override {
    std::vector<xds::Refused> refused;
    for (const auto& r : updated) {
      base::Status s = base::Ok{};
      if (type == xds::Type::kEndpoint) {
        if (auto e = xds::ParseEndpoints(r.body); !e) s = e.error();
      }
      if (!s) refused.push_back({r.name, s.error().ToString()});
    }
    return refused;
  }
};

template <xds::Ads::Mode kMode>
void Discovery(std::string_view bytes) {
  Quiet();
  TakesAll sink;
  xds::Ads ads(kMode, "", &sink);
  ads.WatchAll(xds::Type::kCluster), ads.WatchAll(xds::Type::kListener);
  ads.SetNames(xds::Type::kEndpoint, {"cart", "web"});
  ads.OnOpen();
  std::string out;
  auto drain = [&] {
    int n = 0;
    while (ads.Next(&out)) WEFT_CHECK(++n <= 2 * xds::kTypes, "it never stops asking");
  };
  drain();
  // Twice: the second time everything is known already.
  for (int i = 0; i < 2; ++i) {
    ads.OnMessage(bytes);
    drain();
  }
  ads.OnClosed();
  ads.OnOpen();
  drain();
}

}  // namespace

std::vector<Target> ConfigTargets() {
  return {{"bootstrap", BootstrapYaml}, {"xds_listener", Listener}, {"xds_cluster", Cluster},
          {"xds_endpoints", Endpoints}, {"xds_routes", Routes},     {"xds_secret", Secret},
          {"ads_delta", Discovery<xds::Ads::kDelta>},               {"ads_sotw", Discovery<xds::Ads::kStateOfTheWorld>}};
}

}  // namespace weft::fuzz
